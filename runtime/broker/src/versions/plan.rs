//! Carrying out what was made ready: one transaction, then every open partition of this agent.

use std::sync::Arc;

use futures::future::join_all;
use millstream_meta::{MetaError, NewCurrent, NewPipeline, PipelineChanges};

use crate::{
    broker::Broker,
    error::{BrokerError, Result},
    pipeline::{Pipeline, PipelineSpec},
    topic::LiveTopic,
    versions::{Activation, Others, PipelineSwitch},
};

/// Pipelines that are ready to come into force together.
pub(crate) struct Plan {
    pub(crate) topics: Vec<PlannedTopic>,
    /// Modules that some of them began to follow, at the versions they were made for.
    pub(crate) follows: Vec<(String, u32)>,
    /// The module whose current version moves with them.
    pub(crate) current: Option<NewCurrent>,
    pub(crate) reason: String,
}

/// One topic's next pipeline.
pub(crate) struct PlannedTopic {
    pub(crate) live: Arc<LiveTopic>,
    /// The version that it is based on.
    pub(crate) expected: u64,
    pub(crate) next: Arc<Pipeline>,
}

impl Broker {
    /// Stores what is planned, then switches every open partition of this agent. Not to be given up in between: see
    /// [`crate::broker::to_the_end`]. Whoever has to know that other agents have switched too waits with
    /// [`Broker::await_others`].
    pub(crate) async fn carry_out(&self, plan: Plan) -> Result<Activation> {
        let number = self.store(&plan).await?;
        let switches = plan.topics.iter().map(async |planned| {
            let PlannedTopic { live, next, .. } = planned;
            let mut slot = live.pipeline.write().await;
            // Versions only grow; a greater one may have come meanwhile, or this one by another way.
            if slot.as_ref().is_none_or(|loaded| loaded.version < next.version) {
                live.switch(&mut slot, next.clone()).await;
                self.shared().monitors.close_breakers(live.topic().id);
            }
            let switch = PipelineSwitch {
                topic: live.topic().name.clone(),
                pipeline_version: next.version,
                others: Others::default(),
            };
            (live.topic().id, switch)
        });
        Ok(Activation {
            number,
            switches: join_all(switches).await,
        })
    }

    /// The number of the activation, where other agents have to follow it.
    async fn store(&self, plan: &Plan) -> Result<Option<u64>> {
        let pipelines = plan.topics.iter().map(|planned| NewPipeline {
            topic_id: planned.live.topic().id,
            expected_version: planned.expected,
            stages_json: stored_form(&planned.next.spec),
        });
        let changes = PipelineChanges {
            pipelines: pipelines.collect(),
            follows: plan.follows.clone(),
            current: plan.current.clone(),
            reason: plan.reason.clone(),
        };
        let (metadata, now_ms) = (&self.shared().metadata, self.shared().clock.now_ms());
        match metadata.change_pipelines(&changes, now_ms).await {
            // One that has left is not counted, and that may be this one.
            Ok(changed) if changed.is_alone && !self.is_stopping() => Ok(None),
            Ok(changed) => Ok(changed.rows.first().map(|row| row.activation)),
            // The answer may have been lost behind a change that happened: then what is stored is ours.
            Err(error) => match self.stored(plan).await {
                Ok(Some(number)) => Ok(number),
                Ok(None) | Err(_) => Err(error.into()),
            },
        }
    }

    /// The number of the activation, where one was needed, if what is in force is what was planned.
    async fn stored(&self, plan: &Plan) -> Result<Option<Option<u64>>, MetaError> {
        let metadata = &self.shared().metadata;
        if let Some(current) = &plan.current {
            let state = metadata.module_state(&current.module).await?;
            let moved = (current.to, current.followed + 1);
            if state.map(|state| (state.current_version, state.followed)) != Some(moved) {
                return Ok(None);
            }
        }
        let mut number = None;
        for planned in &plan.topics {
            let row = metadata.pipeline(planned.live.topic().id).await?;
            let ours = row.as_ref().is_some_and(|row| {
                // A database gives JSON back in a form of its own.
                let spec = serde_json::from_str::<PipelineSpec>(&row.stages_json);
                row.version == planned.next.version
                    && row.reason == plan.reason
                    && spec.is_ok_and(|spec| spec == planned.next.spec)
            });
            if !ours {
                return Ok(None);
            }
            number = row.map(|row| row.activation);
        }
        Ok((number.is_some() || plan.current.is_some()).then_some(number))
    }
}

/// A pipeline as the metadata keep it.
pub(crate) fn stored_form(spec: &PipelineSpec) -> String {
    serde_json::to_string(spec).expect("a struct of strings and numbers always becomes JSON")
}

/// A pipeline that the metadata kept.
pub(crate) fn read_form(stages_json: &str) -> Result<PipelineSpec> {
    serde_json::from_str(stages_json).map_err(|source| BrokerError::StoredForm {
        what: "pipeline",
        source,
    })
}
