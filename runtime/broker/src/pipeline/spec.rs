//! A pipeline as the metadata keeps it: which modules run on which side, with what parameters, under which limits, and what
//! happens to a record that one of them fails on. What is not said in the stored form is at its default.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// The side of the log on which a stage runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Between the client and the write-ahead log.
    Produce,
    /// Between the stored log and every reader.
    Fetch,
}

impl Side {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Side::Produce => "produce",
            Side::Fetch => "fetch",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether a stage's version moves when the module's current version does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Follows {
    /// It stays (`@3`).
    #[default]
    Pinned,
    /// It moves (`@latest`).
    Latest,
}

/// What happens to a record that a stage fails on or refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnError {
    /// The whole request fails; nothing of it is stored. On produce only, and the default there.
    Reject,
    /// The record is dropped, and counted.
    Skip,
    /// The record goes to the dead-letter topic. On produce only.
    DeadLetter,
    /// The record goes on as it came into the stage.
    Pass,
    /// On produce the partition takes no more until somebody acts; on fetch, where it is the default, the reader gets an
    /// error at this record.
    Halt,
}

impl OnError {
    /// What holds where a stage does not say.
    pub fn default_on(side: Side) -> OnError {
        match side {
            Side::Produce => OnError::Reject,
            Side::Fetch => OnError::Halt,
        }
    }

    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            OnError::Reject => "reject",
            OnError::Skip => "skip",
            OnError::DeadLetter => "dead-letter",
            OnError::Pass => "pass",
            OnError::Halt => "halt",
        }
    }
}

/// Limits that a stage sets; what it does not set is the agent's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageLimits {
    /// CPU time of one call, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// Memory of one instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// What one batch may become.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
    /// Records that one batch may become.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_records: Option<u64>,
    /// How many times its input the output may be, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_growth: Option<u64>,
    /// Log lines a second; more are dropped and counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_lines_per_second: Option<u32>,
}

/// When a stage that keeps failing is left alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerSpec {
    /// Failed batches in a row that open it; 0 for never.
    pub failures: u32,
    /// How long it stays open before a batch is tried, in milliseconds. Doubles while trials fail.
    pub cooldown_ms: u64,
}

impl Default for BreakerSpec {
    fn default() -> BreakerSpec {
        BreakerSpec {
            failures: 5,
            cooldown_ms: 5_000,
        }
    }
}

/// Another version of a stage's module that is being tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// The version.
    pub version: u32,
    /// How.
    pub mode: TrialMode,
}

/// How a version is tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrialMode {
    /// It runs on these partitions, and on no others.
    Canary(Vec<u32>),
    /// It runs beside the version in force; differences are counted, nothing of it is written.
    Shadow,
}

/// One stage as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageSpec {
    /// What it is known by as long as it is in the pipeline, wherever it is moved to; from 1 on, and never given again to
    /// another stage of the topic. 0 for one that has none yet: see [`PipelineSpec::number_stages`].
    #[serde(default)]
    pub id: u32,
    /// Name of the module.
    pub module: String,
    /// The version in force.
    pub version: u32,
    /// Whether that moves.
    #[serde(default)]
    pub follows: Follows,
    /// What the module is configured with.
    #[serde(default)]
    pub params: BTreeMap<String, String>,
    /// What happens to a record it fails on; `None` is the side's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_error: Option<OnError>,
    /// Where dead letters go; `None` is `TOPIC.dead-letter`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<String>,
    /// Its limits.
    #[serde(default)]
    pub limits: StageLimits,
    /// Its breaker.
    #[serde(default)]
    pub breaker: BreakerSpec,
    /// What is being tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
}

impl StageSpec {
    /// A stage with everything at its default.
    pub fn new(module: impl Into<String>, version: u32) -> StageSpec {
        StageSpec {
            id: 0,
            module: module.into(),
            version,
            follows: Follows::Pinned,
            params: BTreeMap::new(),
            on_error: None,
            dead_letter: None,
            limits: StageLimits::default(),
            breaker: BreakerSpec::default(),
            trial: None,
        }
    }

    /// What happens to a record it fails on.
    pub fn on_error(&self, side: Side) -> OnError {
        self.on_error.unwrap_or(OnError::default_on(side))
    }

    /// The version that decides on a partition.
    pub fn version_on(&self, partition: u32) -> u32 {
        match &self.trial {
            Some(Trial {
                version,
                mode: TrialMode::Canary(partitions),
            }) if partitions.contains(&partition) => *version,
            _ => self.version,
        }
    }

    /// The version that runs beside and decides nothing.
    pub fn shadow(&self) -> Option<u32> {
        match &self.trial {
            Some(Trial {
                version,
                mode: TrialMode::Shadow,
            }) => Some(*version),
            _ => None,
        }
    }

    /// The topic of its dead letters, where it has any.
    pub fn dead_letter_topic(&self, topic: &str) -> Option<String> {
        (self.on_error == Some(OnError::DeadLetter)).then(|| match &self.dead_letter {
            Some(named) => named.clone(),
            None => format!("{topic}.dead-letter"),
        })
    }
}

/// One version of a topic's pipeline as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineSpec {
    /// Stages between the client and the write-ahead log, in order.
    pub produce: Vec<StageSpec>,
    /// Stages between the stored log and every reader, in order.
    pub fetch: Vec<StageSpec>,
    /// Sides that take no requests until they are resumed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paused: Vec<Side>,
    /// The greatest id that a stage ever had.
    #[serde(default)]
    pub last_stage_id: u32,
}

impl PipelineSpec {
    /// The stages of one side.
    pub fn side(&self, side: Side) -> &[StageSpec] {
        match side {
            Side::Produce => &self.produce,
            Side::Fetch => &self.fetch,
        }
    }

    pub(crate) fn side_mut(&mut self, side: Side) -> &mut Vec<StageSpec> {
        match side {
            Side::Produce => &mut self.produce,
            Side::Fetch => &mut self.fetch,
        }
    }

    /// Gives ids to stages that have none: new ones, and those that were stored before there were ids, which are numbered
    /// in one way only, so that every agent that reads them knows them by the same.
    pub(crate) fn number_stages(&mut self) {
        let mut last = self.last_stage_id;
        for stage in self.produce.iter_mut().chain(&mut self.fetch) {
            if stage.id == 0 {
                last = last.saturating_add(1);
                stage.id = last;
            }
        }
        self.last_stage_id = last;
    }

    /// Whether a side takes no requests.
    pub fn is_paused(&self, side: Side) -> bool {
        self.paused.contains(&side)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_before_there_were_policies_reads_as_the_defaults() {
        let stored = r#"{"produce":[{"module":"redact","version":3,"params":{"fields":"$.a"}}],"fetch":[]}"#;
        let spec: PipelineSpec = serde_json::from_str(stored).unwrap();
        let mut expected = StageSpec::new("redact", 3);
        expected.params.insert("fields".into(), "$.a".into());
        assert_eq!(spec.produce, [expected]);
        assert_eq!(spec.produce[0].on_error(Side::Produce), OnError::Reject);
        assert_eq!(spec.produce[0].on_error(Side::Fetch), OnError::Halt);
    }

    #[test]
    fn a_stage_keeps_its_id_and_none_is_given_twice() {
        let stored = r#"{"produce":[{"module":"a","version":1},{"module":"b","version":1}],"fetch":[{"module":"a","version":1}]}"#;
        let mut spec: PipelineSpec = serde_json::from_str(stored).unwrap();
        let ids = |spec: &PipelineSpec| -> Vec<u32> {
            let stages = spec.produce.iter().chain(&spec.fetch);
            stages.map(|stage| stage.id).collect()
        };
        assert_eq!(ids(&spec), [0, 0, 0], "as it was stored before there were ids");
        spec.number_stages();
        assert_eq!(ids(&spec), [1, 2, 3]);
        spec.fetch.clear();
        spec.produce.insert(0, StageSpec::new("c", 1));
        spec.number_stages();
        assert_eq!(ids(&spec), [4, 1, 2]);
        let stored = serde_json::to_string(&spec).unwrap();
        let mut read: PipelineSpec = serde_json::from_str(&stored).unwrap();
        read.number_stages();
        assert_eq!(read, spec);
    }

    #[test]
    fn a_canary_decides_on_its_partitions_only() {
        let mut stage = StageSpec::new("redact", 3);
        stage.trial = Some(Trial {
            version: 4,
            mode: TrialMode::Canary(vec![1]),
        });
        assert_eq!((stage.version_on(0), stage.version_on(1), stage.shadow()), (3, 4, None));
        stage.trial = Some(Trial {
            version: 4,
            mode: TrialMode::Shadow,
        });
        assert_eq!((stage.version_on(1), stage.shadow()), (3, Some(4)));
        let stored = serde_json::to_string(&stage).unwrap();
        assert_eq!(serde_json::from_str::<StageSpec>(&stored).unwrap(), stage);
    }
}
