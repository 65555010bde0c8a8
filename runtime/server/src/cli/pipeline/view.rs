//! A pipeline as it is printed.

use std::collections::BTreeMap;

use millstream_client::v1;
use serde::Serialize;

use crate::cli::{
    others::{OthersView, with_others},
    output::{Column, table},
};

/// A pipeline as `--output json` shows it.
#[derive(Serialize)]
pub(super) struct PipelineView {
    topic: String,
    version: u64,
    paused: Vec<&'static str>,
    produce: Vec<StageView>,
    fetch: Vec<StageView>,
    /// How stages have fared on the agent that was asked; a stage that did not run yet is missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    status: Vec<StatusView>,
    /// After a change: how far other agents are.
    #[serde(flatten)]
    others: OthersView,
}

#[derive(Serialize)]
struct StageView {
    /// What it is known by in metrics, wherever it is moved to.
    id: u32,
    module: String,
    version: u32,
    follows_latest: bool,
    params: BTreeMap<String, String>,
    on_error: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter_topic: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    limits: BTreeMap<&'static str, u64>,
    breaker_failures: u32,
    breaker_cooldown_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    trial: Option<TrialView>,
}

#[derive(Serialize)]
struct TrialView {
    version: u32,
    shadow: bool,
    canary_partitions: Vec<u32>,
}

#[derive(Serialize)]
struct StatusView {
    side: &'static str,
    position: u32,
    version: u32,
    batches: u64,
    records_in: u64,
    records_out: u64,
    rejected: u64,
    failed: u64,
    skipped: u64,
    dead_lettered: u64,
    passed: u64,
    shadow_differences: u64,
    cpu_seconds: f64,
    open_breakers: Vec<BreakerView>,
    halts: Vec<HaltView>,
    counters: BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct BreakerView {
    partition: u32,
    retry_in_ms: u64,
    cause: String,
}

#[derive(Serialize)]
struct HaltView {
    partition: u32,
    cause: String,
}

impl PipelineView {
    pub(super) fn new(topic: String, pipeline: v1::Pipeline, status: Vec<v1::StageStatus>) -> PipelineView {
        let paused = pipeline.paused().map(side_name).collect();
        let stages = |stages: Vec<v1::Stage>| stages.into_iter().map(|stage| stage_view(stage, &topic)).collect();
        PipelineView {
            version: pipeline.version,
            paused,
            produce: stages(pipeline.produce),
            fetch: stages(pipeline.fetch),
            status: status.into_iter().map(StatusView::from).collect(),
            others: OthersView::new(pipeline.not_switched, pipeline.others_unknown),
            topic,
        }
    }

    pub(super) fn text(&self) -> String {
        with_others(self.pipeline(), [(&*self.topic, &self.others)].into_iter())
    }

    fn pipeline(&self) -> String {
        let paused = match self.paused.is_empty() {
            true => String::new(),
            false => format!(", paused on {}", self.paused.join(" and ")),
        };
        let title = format!("pipeline of {}, version {}{paused}", self.topic, self.version);
        if self.produce.is_empty() && self.fetch.is_empty() {
            return format!("{title}: no modules");
        }
        let mut text = format!("{title}\n{}", self.stages());
        if !self.status.is_empty() {
            text = format!("{text}\non this agent since it started\n{}", self.figures());
        }
        for status in &self.status {
            text.extend(status.lines().iter().map(|line| format!("\n{line}")));
        }
        text
    }

    fn stages(&self) -> String {
        let columns = [
            Column::Left("on"),
            Column::Right("position"),
            Column::Right("stage"),
            Column::Left("module"),
            Column::Left("parameters"),
            Column::Left("on error"),
            Column::Left("limits"),
            Column::Left("trial"),
        ];
        let sides = [("produce", &self.produce), ("fetch", &self.fetch)].into_iter();
        let rows = sides.flat_map(|(side, stages)| (0..).zip(stages).map(move |(at, stage)| stage.row(side, at)));
        table(&columns, rows)
    }

    fn figures(&self) -> String {
        let columns = [
            Column::Left("on"),
            Column::Right("position"),
            Column::Right("version"),
            Column::Right("batches"),
            Column::Right("records in"),
            Column::Right("out"),
            Column::Right("rejected"),
            Column::Right("failed"),
            Column::Right("skipped"),
            Column::Right("dead letters"),
            Column::Right("passed"),
            Column::Right("different"),
            Column::Right("CPU s"),
        ];
        table(&columns, self.status.iter().map(StatusView::row))
    }
}

impl StageView {
    fn row(&self, side: &str, position: u32) -> Vec<String> {
        let params: Vec<_> = self
            .params
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let limits: Vec<_> = self
            .limits
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let follows = if self.follows_latest { " (latest)" } else { "" };
        let on_error = match &self.dead_letter_topic {
            None => self.on_error.to_owned(),
            Some(topic) => format!("{} {topic}", self.on_error),
        };
        let trial = self.trial.as_ref().map(|trial| match trial.shadow {
            true => format!("@{} shadow", trial.version),
            false => {
                let partitions: Vec<_> = trial.canary_partitions.iter().map(u32::to_string).collect();
                format!("@{} canary on {}", trial.version, partitions.join(","))
            }
        });
        vec![
            side.to_owned(),
            position.to_string(),
            self.id.to_string(),
            format!("{}@{}{follows}", self.module, self.version),
            params.join("\n"),
            on_error,
            limits.join("\n"),
            trial.unwrap_or_default(),
        ]
    }
}

impl StatusView {
    fn row(&self) -> Vec<String> {
        let figures = [
            self.batches,
            self.records_in,
            self.records_out,
            self.rejected,
            self.failed,
            self.skipped,
            self.dead_lettered,
            self.passed,
            self.shadow_differences,
        ];
        let mut row = vec![
            self.side.to_owned(),
            self.position.to_string(),
            self.version.to_string(),
        ];
        row.extend(figures.map(|figure| figure.to_string()));
        row.push(format!("{:.1}", self.cpu_seconds));
        row
    }

    /// What does not fit into a table.
    fn lines(&self) -> Vec<String> {
        let place = format!("{} {}", self.side, self.position);
        let halts = self
            .halts
            .iter()
            .map(|halt| format!("{place}: partition {} halted: {}", halt.partition, halt.cause));
        let breakers = self.open_breakers.iter().map(|breaker| {
            let BreakerView {
                partition,
                retry_in_ms,
                cause,
            } = breaker;
            format!("{place}: breaker open on partition {partition}, tried again in {retry_in_ms} ms: {cause}")
        });
        let counters = self
            .counters
            .iter()
            .map(|(name, count)| format!("{place}: counter {name} is {count}"));
        halts.chain(breakers).chain(counters).collect()
    }
}

fn stage_view(stage: v1::Stage, topic: &str) -> StageView {
    let on_error = match stage.on_error() {
        v1::OnError::Unspecified => "default",
        v1::OnError::Reject => "reject",
        v1::OnError::Skip => "skip",
        v1::OnError::DeadLetter => "dead-letter",
        v1::OnError::Pass => "pass",
        v1::OnError::Halt => "halt",
    };
    let dead_letter = (on_error == "dead-letter").then(|| match stage.dead_letter_topic.is_empty() {
        true => format!("{topic}.dead-letter"),
        false => stage.dead_letter_topic.clone(),
    });
    let limits = stage.limits.unwrap_or_default();
    let limits = [
        ("cpu_ms", limits.cpu_ms),
        ("memory", limits.memory_bytes),
        ("output_bytes", limits.output_bytes),
        ("output_records", limits.output_records),
        ("output_growth", limits.output_growth),
        ("log_lines", limits.log_lines_per_second.map(u64::from)),
    ];
    let breaker = stage.breaker.unwrap_or_default();
    StageView {
        id: stage.id,
        module: stage.module,
        version: stage.version,
        follows_latest: stage.follows_latest,
        params: stage.params.into_iter().collect(),
        on_error,
        dead_letter_topic: dead_letter,
        limits: limits
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect(),
        breaker_failures: breaker.failures,
        breaker_cooldown_ms: breaker.cooldown_ms,
        trial: (stage.trial_version > 0).then_some(TrialView {
            version: stage.trial_version,
            shadow: stage.shadow,
            canary_partitions: stage.canary_partitions,
        }),
    }
}

impl From<v1::StageStatus> for StatusView {
    fn from(status: v1::StageStatus) -> StatusView {
        let side = side_name(status.side());
        let breakers = status.breakers.into_iter().map(|breaker| BreakerView {
            partition: breaker.partition,
            retry_in_ms: breaker.retry_in_ms,
            cause: breaker.cause,
        });
        let halts = status.halts.into_iter().map(|halt| HaltView {
            partition: halt.partition,
            cause: halt.cause,
        });
        StatusView {
            side,
            position: status.position,
            version: status.version,
            batches: status.batches,
            records_in: status.records_in,
            records_out: status.records_out,
            rejected: status.rejected,
            failed: status.failed,
            skipped: status.skipped,
            dead_lettered: status.dead_lettered,
            passed: status.passed,
            shadow_differences: status.shadow_differences,
            cpu_seconds: status.cpu_seconds,
            open_breakers: breakers.collect(),
            halts: halts.collect(),
            counters: status.counters.into_iter().collect(),
        }
    }
}

fn side_name(side: v1::PipelineSide) -> &'static str {
    match side {
        v1::PipelineSide::Unspecified => "unknown",
        v1::PipelineSide::Produce => "produce",
        v1::PipelineSide::Fetch => "fetch",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_is_shown_stage_by_stage() {
        let stage = v1::Stage {
            id: 7,
            module: "redact".to_owned(),
            version: 2,
            params: [
                ("with".to_owned(), "*".to_owned()),
                ("fields".to_owned(), "$.a".to_owned()),
            ]
            .into(),
            on_error: v1::OnError::DeadLetter.into(),
            ..v1::Stage::default()
        };
        let pipeline = v1::Pipeline {
            version: 4,
            produce: vec![stage],
            fetch: Vec::new(),
            paused: vec![v1::PipelineSide::Fetch.into()],
            ..v1::Pipeline::default()
        };
        let status = v1::StageStatus {
            side: v1::PipelineSide::Produce.into(),
            version: 2,
            records_in: 77,
            halts: vec![v1::PartitionHalt {
                partition: 3,
                cause: "it broke".to_owned(),
            }],
            ..v1::StageStatus::default()
        };
        let text = PipelineView::new("orders".to_owned(), pipeline, vec![status]).text();
        assert!(
            text.starts_with("pipeline of orders, version 4, paused on fetch\n"),
            "{text}"
        );
        assert!(
            text.contains("│ produce ┆        0 ┆     7 ┆ redact@2 ┆ fields=$.a"),
            "{text}"
        );
        assert!(text.contains("dead-letter orders.dead-letter"), "{text}");
        assert!(
            text.contains("77") && text.ends_with("produce 0: partition 3 halted: it broke"),
            "{text}"
        );

        let empty = PipelineView::new("orders".to_owned(), v1::Pipeline::default(), Vec::new()).text();
        assert_eq!(empty, "pipeline of orders, version 0: no modules");
    }
}
