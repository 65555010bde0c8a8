//! Pipelines: the ordered stages of a topic and how a batch goes through them.
//!
//! [`PipelineSpec`] is what the metadata store keeps; [`Pipeline`] is the same with compiled modules. A partition runs
//! it as a [`Chain`] of instances over a [`Work`], the records of one batch on their way through.

mod chain;
mod change;
mod pool;
mod spec;
mod work;

use millstream_wasm::Module;

pub(crate) use chain::{Chain, ChainContext, OutputLimits, Produced};
pub(crate) use pool::Pool;
pub use spec::{BreakerSpec, Follows, OnError, PipelineSpec, Side, StageLimits, StageSpec, Trial, TrialMode};
use work::Work;

/// Most stages on one side of a pipeline.
pub(crate) const STAGES_MAX: usize = 16;

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
