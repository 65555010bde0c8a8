//! Pausing and resuming a side of a topic, and how its stages fare.

use std::sync::Arc;

use super::{ChangeOptions, Changed, OnError, PartitionHalt, PipelineSpec, Side, StageFigures, StageKey, StageSpec};
use crate::{
    broker::Broker,
    error::{BrokerError, Result},
    versions::Others,
};

/// A topic's pipeline and how it fares on this agent.
#[derive(Clone, Debug)]
pub struct PipelineStatus {
    /// The pipeline's version.
    pub version: u64,
    /// The pipeline.
    pub spec: PipelineSpec,
    /// Its stages that have run, produce before fetch; one that is being tried stands behind the one in force.
    pub stages: Vec<StageStatus>,
}

/// How one stage fares.
#[derive(Clone, Debug)]
pub struct StageStatus {
    /// Its position, 0 for the first.
    pub position: u32,
    /// Its figures.
    pub figures: StageFigures,
    /// Partitions that it halted.
    pub halts: Vec<PartitionHalt>,
}

impl Broker {
    /// Refuses every request to these sides of a topic until they are resumed. Where they are paused already it only asks, and
    /// waits, for the agents that have not switched.
    pub async fn pause_pipeline(self: &Arc<Self>, topic: &str, sides: &[Side]) -> Result<Changed> {
        let (version, spec) = self.pipeline(topic).await?;
        if sides.iter().all(|side| spec.is_paused(*side)) {
            let others = self.others_of(topic, version).await?;
            return Ok(Changed { version, spec, others });
        }
        let pause = |spec: &mut PipelineSpec| {
            let new = sides.iter().filter(|side| !spec.is_paused(**side)).copied();
            let new: Vec<_> = new.collect();
            spec.paused.extend(new);
            Ok(())
        };
        let reason = format!("{} paused", names(sides));
        self.change_pipeline(topic, reason, WITHOUT_TRIAL, pause).await
    }

    /// Ends a pause, lets partitions go on that a failing module halted, and closes breakers, on every agent: as a new
    /// version of the pipeline, which knows of no halts and no breakers. Where there is none of these nothing changes.
    pub async fn resume_pipeline(self: &Arc<Self>, topic: &str, sides: &[Side]) -> Result<Changed> {
        let standing = self.pipeline(topic).await?;
        if !self.stands_still(topic, sides, &standing).await? {
            let (version, spec) = standing;
            let others = Others::default();
            return Ok(Changed { version, spec, others });
        }
        let resume = |spec: &mut PipelineSpec| {
            spec.paused.retain(|paused| !sides.contains(paused));
            Ok(())
        };
        let reason = format!("{} resumed", names(sides));
        self.change_pipeline(topic, reason, WITHOUT_TRIAL, resume).await
    }

    /// Whether there is something to resume. What halted on another agent, or has a breaker open there, is not known here.
    async fn stands_still(&self, topic: &str, sides: &[Side], (version, spec): &(u64, PipelineSpec)) -> Result<bool> {
        if sides.iter().any(|side| spec.is_paused(*side)) {
            return Ok(true);
        }
        if sides.iter().all(|side| spec.side(*side).is_empty()) {
            return Ok(false);
        }
        let (shared, topic_id) = (self.shared(), self.live(topic).await?.topic().id);
        let halts = !shared.monitors.halts(topic_id, *version).is_empty();
        let figures = shared.monitors.figures(Some(topic_id));
        let mut of_sides = figures.iter().filter(|stage| sides.contains(&stage.side));
        if halts && sides.contains(&Side::Produce) || of_sides.any(|stage| !stage.breakers.is_empty()) {
            return Ok(true);
        }
        let agents = shared.metadata.agents().await?;
        Ok(agents
            .iter()
            .any(|agent| agent.live && agent.incarnation != shared.incarnation))
    }

    /// The pipeline as it stands, and how its stages fare on this agent.
    pub async fn pipeline_status(&self, topic: &str) -> Result<PipelineStatus> {
        let (version, spec) = self.pipeline(topic).await?;
        let topic = self.live(topic).await?.topic();
        let monitors = &self.shared().monitors;
        let halts = monitors.halts(topic.id, version);
        let mut stages = Vec::new();
        for side in [Side::Produce, Side::Fetch] {
            for (position, stage) in (0..).zip(spec.side(side)) {
                let versions = [Some(stage.version), stage.trial.as_ref().map(|trial| trial.version)];
                for version in versions.into_iter().flatten() {
                    let key = StageKey {
                        topic_id: topic.id,
                        topic: topic.name.clone(),
                        side,
                        module: stage.module.clone(),
                        version,
                        stage: stage.id,
                        is_further: false,
                    };
                    let Some(monitor) = monitors.find(&key) else { continue };
                    let of_stage = |halt: &&PartitionHalt| (halt.stage, halt.version) == (stage.id, version);
                    stages.push(StageStatus {
                        position,
                        figures: monitor.figures(),
                        halts: halts.iter().filter(of_stage).cloned().collect(),
                    });
                }
            }
        }
        Ok(PipelineStatus { version, spec, stages })
    }

    /// Refuses a stage whose policy the side does not offer, and makes the topic of its dead letters.
    pub(crate) async fn prepare_stage(self: &Arc<Self>, topic: &str, side: Side, stage: &StageSpec) -> Result<()> {
        let on_error = stage.on_error(side);
        match (side, on_error) {
            (Side::Fetch, OnError::Reject | OnError::DeadLetter) => Err(BrokerError::OnErrorOnFetch {
                on_error: on_error.name(),
            }),
            (Side::Produce, OnError::DeadLetter) => {
                let topic = self.live(topic).await?.topic();
                self.prepare_dead_letter(&topic, stage).await
            }
            _ => Ok(()),
        }
    }
}

/// The stages stay as they are.
const WITHOUT_TRIAL: ChangeOptions = ChangeOptions {
    no_trial_call: true,
    expected_version: None,
};

fn names(sides: &[Side]) -> String {
    let names: Vec<_> = sides.iter().map(|side| side.name()).collect();
    names.join(" and ")
}
