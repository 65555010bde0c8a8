//! The three topics of the demonstration, and the module on each.

use millstream_client::v1;

use super::generate::Shape;

/// A topic, its pipeline and what is produced to it.
#[derive(Debug)]
pub struct DemoTopic {
    /// Its name.
    pub name: &'static str,
    /// How many partitions it has.
    pub partitions: u32,
    /// How long its segments are kept.
    pub retention_hours: u64,
    /// How its segments are compressed.
    pub compression: v1::Compression,
    /// How many records are produced at full scale.
    pub records: u64,
    /// What they look like.
    pub shape: Shape,
    /// The one stage of its pipeline.
    pub stage: DemoStage,
}

/// A module with its parameters, on one side of a topic.
#[derive(Debug)]
pub struct DemoStage {
    /// The module.
    pub module: &'static str,
    /// Where it runs.
    pub side: v1::PipelineSide,
    /// Names and values.
    pub params: &'static [(&'static str, &'static str)],
}

/// The modules that the topics use.
pub const MODULES: [&str; 2] = ["redact", "json-filter"];

/// What `redact` puts in the place of what it masks.
pub const MASK: &str = "***";

/// The topics in the order in which they are filled.
pub static TOPICS: [DemoTopic; 3] = [
    DemoTopic {
        name: "orders",
        partitions: 3,
        retention_hours: 168,
        compression: v1::Compression::Lz4,
        records: 80_000,
        shape: Shape::Order,
        stage: DemoStage {
            module: "redact",
            side: v1::PipelineSide::Produce,
            params: &[("fields", "$.customer.email,$.payment.card.number"), ("with", MASK)],
        },
    },
    DemoTopic {
        name: "user-events",
        partitions: 2,
        retention_hours: 72,
        compression: v1::Compression::Lz4,
        records: 130_000,
        shape: Shape::UserEvent,
        stage: DemoStage {
            module: "json-filter",
            side: v1::PipelineSide::Fetch,
            params: &[("where", "$.event != \"heartbeat\"")],
        },
    },
    DemoTopic {
        name: "metrics",
        partitions: 4,
        retention_hours: 24,
        compression: v1::Compression::None,
        records: 350_000,
        shape: Shape::Metric,
        stage: DemoStage {
            module: "json-filter",
            side: v1::PipelineSide::Produce,
            params: &[("where", "$.env == \"prod\"")],
        },
    },
];

impl DemoTopic {
    /// How many records are produced at a scale in percent; at least one.
    pub fn records_at(&self, percent: u64) -> u64 {
        (self.records * percent / 100).max(1)
    }

    /// Its configuration as the agent takes it.
    pub fn config(&self) -> v1::TopicConfig {
        v1::TopicConfig {
            retention_ms: Some(self.retention_hours * 3_600_000),
            compression: self.compression.into(),
            ..v1::TopicConfig::default()
        }
    }
}

impl DemoStage {
    /// The stage as the agent takes it, at the module's latest version.
    pub fn request(&self) -> v1::Stage {
        v1::Stage {
            module: self.module.to_owned(),
            params: self
                .params
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..v1::Stage::default()
        }
    }

    /// The side of the log, as the command line names it.
    pub fn side_name(&self) -> &'static str {
        match self.side {
            v1::PipelineSide::Fetch => "fetch",
            v1::PipelineSide::Produce | v1::PipelineSide::Unspecified => "produce",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_full_scale_there_are_560_000_records() {
        assert_eq!(TOPICS.iter().map(|topic| topic.records_at(100)).sum::<u64>(), 560_000);
        assert_eq!(TOPICS[0].records_at(1), 800);
    }

    #[test]
    fn every_stage_uses_a_module_that_is_deployed() {
        assert!(TOPICS.iter().all(|topic| MODULES.contains(&topic.stage.module)));
    }
}
