//! `millstream pipeline history`: which versions a pipeline has had, and which of them wrote what.

use std::collections::BTreeMap;

use clap::Args;
use millstream_client::v1;
use serde::Serialize;

use crate::cli::{
    Server,
    output::{Column, OutputFormat, print, table},
    topic::show_time,
};

/// Arguments of `pipeline history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// The topic
    topic: String,
    /// Show which versions wrote which offsets of this partition
    #[arg(long)]
    partition: Option<u32>,
    /// Only what wrote this offset
    #[arg(long, requires = "partition")]
    offset: Option<u64>,
    /// Only so many versions, the newest; with --partition so many ranges, those of the lowest offsets [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max: Option<u64>,
    #[command(flatten)]
    server: Server,
}

/// The history as `--output json` shows it.
#[derive(Serialize)]
struct HistoryView {
    topic: String,
    activations: Vec<ActivationView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ranges: Option<Vec<RangeView>>,
    /// Whether `--max` left some out.
    more: bool,
}

#[derive(Serialize)]
struct ActivationView {
    version: u64,
    activated_at_ms: i64,
    reason: String,
    produce: Vec<String>,
    fetch: Vec<String>,
}

#[derive(Serialize)]
struct RangeView {
    base_offset: u64,
    end_offset: u64,
    pipeline_version: u64,
}

/// Runs `pipeline history`.
pub async fn run(args: HistoryArgs, output: OutputFormat) -> anyhow::Result<()> {
    let HistoryArgs {
        topic,
        partition,
        offset,
        max,
        server,
    } = args;
    let admin = server.admin().await?;
    let mut request = v1::GetPipelineHistoryRequest {
        topic: topic.clone(),
        partition,
        offset,
        ..v1::GetPipelineHistoryRequest::default()
    };
    let (mut pages, max) = (Pages::default(), max.unwrap_or(u64::MAX));
    let more = loop {
        let left = max.saturating_sub(pages.count(partition.is_some()));
        if left == 0 {
            break true;
        }
        request.limit = u32::try_from(left).unwrap_or(u32::MAX);
        let page = admin.pipeline_history(request.clone()).await?;
        (request.before_version, request.from_offset) = (page.next_before_version, page.next_from_offset);
        pages.add(page);
        if request.before_version.or(request.from_offset).is_none() {
            break false;
        }
    };
    let view = HistoryView {
        topic,
        activations: pages.activations.into_values().rev().collect(),
        ranges: partition.map(|_| pages.ranges),
        more,
    };
    print(output, &view, || view.text())
}

/// What was read so far.
#[derive(Default)]
struct Pages {
    /// By version.
    activations: BTreeMap<u64, ActivationView>,
    ranges: Vec<RangeView>,
}

impl Pages {
    fn count(&self, by_range: bool) -> u64 {
        match by_range {
            true => self.ranges.len() as u64,
            false => self.activations.len() as u64,
        }
    }

    fn add(&mut self, page: v1::GetPipelineHistoryResponse) {
        let activations = page.activations.into_iter().map(ActivationView::from);
        self.activations.extend(activations.map(|view| (view.version, view)));
        for range in page.ranges {
            let v1::WrittenRange {
                base_offset,
                end_offset,
                pipeline_version,
            } = range;
            match self.ranges.last_mut() {
                // A page may end within a range.
                Some(last) if last.pipeline_version == pipeline_version => last.end_offset = end_offset,
                _ => self.ranges.push(RangeView {
                    base_offset,
                    end_offset,
                    pipeline_version,
                }),
            }
        }
    }
}

impl From<v1::PipelineActivation> for ActivationView {
    fn from(activation: v1::PipelineActivation) -> ActivationView {
        let pipeline = activation.pipeline.unwrap_or_default();
        let names = |stages: Vec<v1::Stage>| stages.iter().map(stage_name).collect();
        ActivationView {
            version: pipeline.version,
            activated_at_ms: activation.activated_at_ms,
            reason: activation.reason,
            produce: names(pipeline.produce),
            fetch: names(pipeline.fetch),
        }
    }
}

/// `redact@3`, and what is being tried.
fn stage_name(stage: &v1::Stage) -> String {
    let v1::Stage {
        module,
        version,
        trial_version,
        canary_partitions,
        shadow,
        ..
    } = stage;
    match (trial_version, shadow) {
        (0, _) => format!("{module}@{version}"),
        (trial, true) => format!("{module}@{version} (@{trial} shadow)"),
        (trial, false) => {
            let partitions: Vec<String> = canary_partitions.iter().map(u32::to_string).collect();
            format!("{module}@{version} (@{trial} canary on {})", partitions.join(","))
        }
    }
}

impl HistoryView {
    fn text(&self) -> String {
        let mut versions = self.versions();
        if self.more {
            versions.push_str("\nThere are more: --max left them out.");
        }
        let Some(ranges) = &self.ranges else {
            return versions;
        };
        let columns = [
            Column::Right("from"),
            Column::Right("to before"),
            Column::Right("pipeline version"),
        ];
        let rows = ranges.iter().map(|range| {
            vec![
                range.base_offset.to_string(),
                range.end_offset.to_string(),
                match range.pipeline_version {
                    0 => "none".to_owned(),
                    version => version.to_string(),
                },
            ]
        });
        format!("{}\n{versions}", table(&columns, rows))
    }

    fn versions(&self) -> String {
        let columns = [
            Column::Right("version"),
            Column::Left("since"),
            Column::Left("produce"),
            Column::Left("fetch"),
            Column::Text("why"),
        ];
        let rows = self.activations.iter().map(|activation| {
            vec![
                activation.version.to_string(),
                show_time(activation.activated_at_ms),
                activation.produce.join("\n"),
                activation.fetch.join("\n"),
                activation.reason.clone(),
            ]
        });
        table(&columns, rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_become_one_history() {
        let page = |ranges: &[(u64, u64, u64)]| v1::GetPipelineHistoryResponse {
            ranges: ranges
                .iter()
                .map(|&(base_offset, end_offset, pipeline_version)| v1::WrittenRange {
                    base_offset,
                    end_offset,
                    pipeline_version,
                })
                .collect(),
            activations: ranges
                .iter()
                .map(|(_, _, version)| v1::PipelineActivation {
                    pipeline: Some(v1::Pipeline {
                        version: *version,
                        ..v1::Pipeline::default()
                    }),
                    ..v1::PipelineActivation::default()
                })
                .collect(),
            ..v1::GetPipelineHistoryResponse::default()
        };
        let mut pages = Pages::default();
        pages.add(page(&[(0, 5, 1), (5, 7, 2)]));
        pages.add(page(&[(7, 9, 2), (9, 12, 1)]));
        assert_eq!((pages.count(true), pages.count(false)), (3, 2));
        let ends: Vec<u64> = pages.ranges.iter().map(|range| range.end_offset).collect();
        assert_eq!(ends, [5, 9, 12]);
    }

    #[test]
    fn a_stage_is_shown_with_what_is_tried_in_it() {
        let mut stage = v1::Stage {
            module: "m".to_owned(),
            version: 3,
            ..v1::Stage::default()
        };
        assert_eq!(stage_name(&stage), "m@3");
        stage.trial_version = 4;
        stage.canary_partitions = vec![0, 2];
        assert_eq!(stage_name(&stage), "m@3 (@4 canary on 0,2)");
        stage.shadow = true;
        assert_eq!(stage_name(&stage), "m@3 (@4 shadow)");
    }
}
