//! Changing a topic's pipeline: nothing reaches a partition before it was compiled, configured, tried on recent records
//! and stored.

use std::sync::Arc;

use millstream_meta::MetaError;

use super::{Follows, PipelineSpec, STAGES_MAX, Side, StageSpec};
use crate::{
    broker::{Broker, to_the_end},
    error::{BrokerError, Result},
    topic::LiveTopic,
    versions::{Others, Plan, PlannedTopic},
};

/// How often a stage is added or altered anew because others changed the pipeline, or its module, beside it.
pub(super) const TRIES_MAX: u32 = 8;

/// How a pipeline is changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangeOptions {
    /// Leaves out the trial call on recent records of the topic.
    pub no_trial_call: bool,
    /// Changes nothing where the pipeline is at another version. Not looked at where a module moves.
    pub expected_version: Option<u64>,
}

impl ChangeOptions {
    pub(super) fn check_expected(self, topic: &str, found: u64) -> Result<()> {
        match self.expected_version {
            Some(expected) if expected != found => Err(BrokerError::PipelineChanged {
                topic: topic.to_owned(),
                expected,
                found,
            }),
            _ => Ok(()),
        }
    }
}

/// A topic's pipeline after a change.
#[derive(Clone, Debug)]
pub struct Changed {
    /// Its version.
    pub version: u64,
    /// The pipeline. Every open partition of this agent has switched to it.
    pub spec: PipelineSpec,
    /// Which other agents have switched.
    pub others: Others,
}

impl Broker {
    /// Adds a stage behind those that there are: as [`Broker::insert_stage`].
    pub async fn add_stage(
        self: &Arc<Self>,
        topic: &str,
        side: Side,
        stage: StageSpec,
        options: ChangeOptions,
    ) -> Result<Changed> {
        self.insert_stage(topic, side, None, stage, options).await
    }

    /// Adds a stage at a position, 0 for the first, before the one that is there; without one behind all. One of version 0
    /// runs the module's current version, and follows it. Returns the pipeline once every open partition has switched to it,
    /// with the agents that have not.
    pub async fn insert_stage(
        self: &Arc<Self>,
        topic: &str,
        side: Side,
        position: Option<u32>,
        stage: StageSpec,
        options: ChangeOptions,
    ) -> Result<Changed> {
        let version = match stage.version {
            0 => String::new(),
            version => format!("@{version}"),
        };
        let place = position.map_or_else(String::new, |position| format!(" at {position}"));
        let reason = format!("{side} stage {}{version} added{place}", stage.module);
        let add = |spec: &mut PipelineSpec| {
            let stages = spec.side_mut(side);
            if stages.len() >= STAGES_MAX {
                let (topic, side, count) = (topic.to_owned(), side.name(), stages.len());
                return Err(BrokerError::TooManyStages { topic, side, count });
            }
            let at = position.map_or(stages.len(), |position| position as usize);
            if at > stages.len() {
                return Err(no_stage(topic, side, stages.len(), at as u32));
            }
            stages.insert(at, stage.clone());
            Ok(())
        };
        stage.check_params()?;
        stage.limits.check(self.shared().settings.module_guest_memory_bytes)?;
        self.prepare_stage(topic, side, &stage).await?;
        let mut tries = 1;
        loop {
            match self.change_pipeline(topic, reason.clone(), options, add).await {
                Err(BrokerError::Meta(MetaError::Conflict { .. })) if tries < TRIES_MAX => tries += 1,
                done => return done,
            }
        }
    }

    /// Removes the stage at a position, 0 for the first.
    pub async fn remove_stage(
        self: &Arc<Self>,
        topic: &str,
        side: Side,
        position: u32,
        options: ChangeOptions,
    ) -> Result<Changed> {
        let reason = format!("{side} stage {position} removed");
        let remove = |spec: &mut PipelineSpec| {
            let stages = spec.side_mut(side);
            if position as usize >= stages.len() {
                return Err(no_stage(topic, side, stages.len(), position));
            }
            stages.remove(position as usize);
            Ok(())
        };
        self.change_pipeline(topic, reason, options, remove).await
    }

    /// The pipeline as it stands, and its version.
    pub async fn pipeline(&self, topic: &str) -> Result<(u64, PipelineSpec)> {
        let live = self.live(topic).await?;
        let pipeline = self.newest_pipeline(&live).await?;
        Ok((pipeline.version, pipeline.spec.clone()))
    }

    /// The one way to change the pipeline of one topic: `change` gets it as it stands; what it leaves is compiled,
    /// configured, tried and stored, and then every open partition switches between two batches. Stages of version 0 get
    /// the module's current one, and follow it. A change of somebody else beside it is a `Conflict`, and nothing has
    /// changed.
    pub(crate) async fn change_pipeline(
        self: &Arc<Self>,
        topic: &str,
        reason: String,
        options: ChangeOptions,
        change: impl FnOnce(&mut PipelineSpec) -> Result<()>,
    ) -> Result<Changed> {
        let live = self.live(topic).await?;
        let current = self.newest_pipeline(&live).await?;
        options.check_expected(topic, current.version)?;
        let mut spec = current.spec.clone();
        change(&mut spec)?;
        let follows = self.resolve(&mut spec).await?;
        let planned = self
            .prepare(live, (current.version, &current.spec), spec, options)
            .await?;
        let (broker, next) = (self.clone(), planned.next.clone());
        let plan = Plan {
            topics: vec![planned],
            follows,
            current: None,
            reason,
        };
        let activation = to_the_end("activating a pipeline", async move { broker.carry_out(plan).await }).await?;
        let switches = self.await_others(activation).await;
        let switch = switches.into_iter().next().expect("one planned topic switches");
        Ok(Changed {
            version: next.version,
            spec: next.spec.clone(),
            others: switch.others,
        })
    }

    /// Gives stages without a version the current one of their module; those that were read.
    async fn resolve(&self, spec: &mut PipelineSpec) -> Result<Vec<(String, u32)>> {
        let mut follows = Vec::new();
        for stage in spec.produce.iter_mut().chain(&mut spec.fetch) {
            if stage.version == 0 {
                stage.version = self.module_store().version(&stage.module, None).await?.version;
                stage.follows = Follows::Latest;
                follows.push((stage.module.clone(), stage.version));
            }
        }
        Ok(follows)
    }

    /// Makes a topic's next pipeline ready: loaded, configured and, unless the options say otherwise, tried.
    pub(crate) async fn prepare(
        &self,
        live: Arc<LiveTopic>,
        (version, before): (u64, &PipelineSpec),
        spec: PipelineSpec,
        options: ChangeOptions,
    ) -> Result<PlannedTopic> {
        let next = self.module_store().load(version + 1, spec).await?;
        let mut before = before.clone();
        before.number_stages();
        self.try_stages(&live, &before, &next, options).await?;
        Ok(PlannedTopic {
            live,
            expected: version,
            next: Arc::new(next),
        })
    }
}

pub(super) fn no_stage(topic: &str, side: Side, count: usize, position: u32) -> BrokerError {
    BrokerError::UnknownStage {
        topic: topic.to_owned(),
        side: side.name(),
        count,
        position,
    }
}
