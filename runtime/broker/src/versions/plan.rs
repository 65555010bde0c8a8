//! Carrying out what was made ready: one transaction, then every open partition.

use std::sync::Arc;

use futures::future::join_all;
use millstream_meta::{MetaError, NewCurrent, NewPipeline, PipelineChanges};

use crate::{
    broker::Broker,
    error::{BrokerError, Result},
    pipeline::{Pipeline, PipelineSpec},
    topic::LiveTopic,
    versions::PipelineSwitch,
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
    /// Stores what is planned, then switches every open partition. Not to be given up in between: see
    /// [`crate::broker::to_the_end`].
    pub(crate) async fn carry_out(&self, plan: Plan) -> Result<Vec<PipelineSwitch>> {
        self.store(&plan).await?;
        let switches = plan.topics.iter().map(async |planned| {
            let PlannedTopic { live, next, .. } = planned;
            let mut slot = live.pipeline.write().await;
            // Versions only grow; a greater one may have come meanwhile, or this one by another way.
            if slot.as_ref().is_none_or(|loaded| loaded.version < next.version) {
                live.switch(&mut slot, next.clone()).await;
                self.shared().monitors.close_breakers(live.topic().id);
            }
            PipelineSwitch {
                topic: live.topic().name.clone(),
                pipeline_version: next.version,
            }
        });
        Ok(join_all(switches).await)
    }

    async fn store(&self, plan: &Plan) -> Result<()> {
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
            Ok(_) => Ok(()),
            // The answer may have been lost behind a change that happened: then what is stored is ours.
            Err(error) => match self.is_stored(plan).await {
                Ok(true) => Ok(()),
                Ok(false) | Err(_) => Err(error.into()),
            },
        }
    }

    /// Whether what is in force is what was planned.
    async fn is_stored(&self, plan: &Plan) -> Result<bool, MetaError> {
        let metadata = &self.shared().metadata;
        if let Some(current) = &plan.current {
            let state = metadata.module_state(&current.module).await?;
            let moved = (current.to, current.followed + 1);
            if state.map(|state| (state.current_version, state.followed)) != Some(moved) {
                return Ok(false);
            }
        }
        for planned in &plan.topics {
            let row = metadata.pipeline(planned.live.topic().id).await?;
            let ours = row.is_some_and(|row| {
                // A database gives JSON back in a form of its own.
                let spec = serde_json::from_str::<PipelineSpec>(&row.stages_json);
                row.version == planned.next.version
                    && row.reason == plan.reason
                    && spec.is_ok_and(|spec| spec == planned.next.spec)
            });
            if !ours {
                return Ok(false);
            }
        }
        Ok(!plan.topics.is_empty() || plan.current.is_some())
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
