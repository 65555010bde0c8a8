//! Pipelines: the ordered stages of a topic and how a batch goes through them.
//!
//! [`PipelineSpec`] is what the metadata store keeps; [`Pipeline`] is the same with compiled modules. A partition runs
//! it as a [`Chain`] of stages over a [`Work`], the records of one batch on their way through. What a stage refuses or
//! fails on goes by its policy; what is worth telling about a stage is in its [`Monitor`].

mod alter;
mod bounds;
mod breaker;
mod chain;
mod change;
mod dead_letter;
mod fare;
mod fetch_stages;
mod figures;
mod logs;
mod monitor;
mod pause;
mod policy;
mod pool;
mod running;
mod shadow;
mod spec;
mod tell;
mod work;

use millstream_wasm::{Limits, Module};

pub use alter::StageChange;
pub(crate) use chain::{Chain, ChainContext, OutputLimits, Produced, Visible};
pub use change::{ChangeOptions, Changed};
pub(crate) use dead_letter::{DeadLetters, Source as DeadLetterSource, write as write_dead_letters};
pub(crate) use fare::{Fared, Fares};
pub(crate) use fetch_stages::FetchStages;
pub use figures::{OpenBreaker, PartitionHalt, StageFigures};
pub use logs::{LogLine, ModuleLogs};
pub(crate) use monitor::{Monitor, Monitors, StageKey};
pub use pause::{PipelineStatus, StageStatus};
pub(crate) use pool::{Lane, Pool};
pub use spec::{BreakerSpec, Follows, OnError, PipelineSpec, Side, StageLimits, StageSpec, Trial, TrialMode};
pub(crate) use work::Work;

use crate::error::{BrokerError, Result};

/// Most stages on one side of a pipeline.
pub(crate) const STAGES_MAX: usize = 16;

/// A stage that can run.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) spec: StageSpec,
    /// The version in force.
    pub(crate) module: Module,
    /// The version that is being tried, where there is any.
    pub(crate) trial: Option<Module>,
    /// Whether a reader asks for it, behind the topic's own.
    pub(crate) is_further: bool,
}

impl Stage {
    /// Whether what happens to it decides about the way back from a version.
    pub(crate) fn is_guarded(&self) -> bool {
        !self.is_further && (self.spec.follows == Follows::Latest || self.spec.trial.is_some())
    }

    /// What decides on a partition, and its version.
    pub(crate) fn module_on(&self, partition: u32) -> (u32, &Module) {
        let version = self.spec.version_on(partition);
        match &self.trial {
            Some(trial) if version != self.spec.version => (version, trial),
            _ => (self.spec.version, &self.module),
        }
    }

    /// What runs beside and decides nothing, and its version.
    pub(crate) fn shadow(&self) -> Option<(u32, &Module)> {
        Some((self.spec.shadow()?, self.trial.as_ref()?))
    }

    /// The agent's limits, where the stage sets none of its own.
    pub(crate) fn limits(&self, agent: &Limits) -> Limits {
        let set = &self.spec.limits;
        let size = |set: Option<u64>, agent: usize| set.map_or(agent, |set| usize::try_from(set).unwrap_or(usize::MAX));
        Limits {
            memory_bytes: size(set.memory_bytes, agent.memory_bytes),
            cpu_deadline: set.cpu_ms.map_or(agent.cpu_deadline, std::time::Duration::from_millis),
            output_bytes_max: size(set.output_bytes, agent.output_bytes_max),
            output_records_max: size(set.output_records, agent.output_records_max),
            output_growth_max: size(set.output_growth, agent.output_growth_max),
            ..agent.clone()
        }
    }
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

    /// Fails where a side takes no requests. Whoever runs a [`Chain`] asks this first, also where the side has no stages.
    pub(crate) fn check_open(&self, topic: &str, side: Side) -> Result<()> {
        if !self.spec.is_paused(side) {
            return Ok(());
        }
        Err(BrokerError::Paused {
            topic: topic.to_owned(),
            side: side.name(),
        })
    }
}
