//! `millstream pipeline history`: which versions a pipeline has had, and which of them wrote what.

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
        server,
    } = args;
    let admin = server.admin().await?;
    let history = admin.pipeline_history(&topic, partition, offset).await?;
    let ranges = history.ranges.into_iter().map(|range| RangeView {
        base_offset: range.base_offset,
        end_offset: range.end_offset,
        pipeline_version: range.pipeline_version,
    });
    let view = HistoryView {
        topic,
        activations: history.activations.into_iter().map(ActivationView::from).collect(),
        ranges: partition.map(|_| ranges.collect()),
    };
    print(output, &view, || view.text())
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
        let versions = self.versions();
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
