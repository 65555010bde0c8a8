//! What is told of stages at work.

use std::{collections::BTreeMap, time::Duration};

use prometheus_client::metrics::histogram::Histogram;

use super::Side;

/// How a stage has fared on this agent since the agent started, over all partitions.
#[derive(Clone, Debug)]
pub struct StageFigures {
    /// The topic.
    pub topic: String,
    /// Where it runs.
    pub side: Side,
    /// The module.
    pub module: String,
    /// Its version.
    pub version: u32,
    /// The stage's id in its pipeline: two stages of one module have figures of their own.
    pub stage: u32,
    /// Batches it was given.
    pub batches: u64,
    /// Batches of which more than half failed by the module's fault.
    pub failed_batches: u64,
    /// Records it was given.
    pub records_in: u64,
    /// Records that came of them.
    pub records_out: u64,
    /// Records it refused.
    pub rejected: u64,
    /// Records it failed on.
    pub failed: u64,
    /// Of those two, records that were dropped.
    pub skipped: u64,
    /// Of those two, records that went to a dead-letter topic.
    pub dead_lettered: u64,
    /// Records that went on as they came, because of a failure or while a breaker was open.
    pub passed: u64,
    /// Records that came out differently of this version, which ran beside another one.
    pub shadow_differences: u64,
    /// Log lines that were too many.
    pub log_lines_dropped: u64,
    /// CPU time of the module.
    pub cpu: Duration,
    /// How long each batch took in the module, the search for records at fault included; seconds.
    pub seconds: Histogram,
    /// What the module counts itself.
    pub counters: BTreeMap<String, u64>,
    /// Breakers that are not closed.
    pub breakers: Vec<OpenBreaker>,
}

/// A breaker that is not closed.
#[derive(Clone, Debug)]
pub struct OpenBreaker {
    /// The partition.
    pub partition: u32,
    /// When a batch is tried.
    pub retry_in: Duration,
    /// Why it is open.
    pub cause: String,
}

/// A partition that takes no records until its pipeline is resumed or changed.
#[derive(Clone, Debug)]
pub struct PartitionHalt {
    /// The partition.
    pub partition: u32,
    /// The version of the pipeline that halted.
    pub pipeline_version: u64,
    /// The stage's id in that pipeline.
    pub stage: u32,
    /// The stage's module.
    pub module: String,
    /// Its version.
    pub version: u32,
    /// Why.
    pub cause: String,
}
