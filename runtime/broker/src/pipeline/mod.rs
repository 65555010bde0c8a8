//! Pipelines: the ordered stages of a topic and how a batch goes through them.
//!
//! [`PipelineSpec`] is what the metadata store keeps; [`Pipeline`] is the same with compiled modules. A partition runs
//! it as a [`Chain`] of instances over a [`Work`], the records of one batch on their way through.

mod chain;
mod change;
mod pool;
mod work;

use std::{collections::BTreeMap, fmt};

use millstream_wasm::Module;
use serde::{Deserialize, Serialize};

pub(crate) use chain::{Chain, ChainContext, OutputLimits, Produced};
pub(crate) use pool::Pool;
use work::Work;

/// Most stages on one side of a pipeline.
pub(crate) const STAGES_MAX: usize = 16;

/// The side of the log on which a stage runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// One stage as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageSpec {
    /// Name of the module.
    pub module: String,
    /// Its version.
    pub version: u32,
    /// What the module is configured with.
    #[serde(default)]
    pub params: BTreeMap<String, String>,
}

/// One version of a topic's pipeline as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineSpec {
    /// Stages between the client and the write-ahead log, in order.
    pub produce: Vec<StageSpec>,
    /// Stages between the stored log and every reader, in order.
    pub fetch: Vec<StageSpec>,
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
}

/// A stage that can run.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) spec: StageSpec,
    pub(crate) module: Module,
}

/// One version of a topic's pipeline, ready to run. Version 0 is that of a topic that never had one.
#[derive(Clone, Default)]
pub(crate) struct Pipeline {
    pub(crate) version: u64,
    pub(crate) spec: PipelineSpec,
    pub(crate) produce: Vec<Stage>,
    pub(crate) fetch: Vec<Stage>,
}

impl Pipeline {
    pub(crate) fn side(&self, side: Side) -> &[Stage] {
        match side {
            Side::Produce => &self.produce,
            Side::Fetch => &self.fetch,
        }
    }
}
