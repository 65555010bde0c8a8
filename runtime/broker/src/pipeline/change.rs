//! Changing a topic's pipeline: nothing reaches a partition before it was compiled, configured and stored.

use std::sync::Arc;

use millstream_wasm::{Instance, StageContext};

use super::{Pipeline, PipelineSpec, STAGES_MAX, Side, StageSpec};
use crate::{
    broker::{Broker, to_the_end},
    error::{BrokerError, Result},
    topic::LiveTopic,
};

impl Broker {
    /// Appends a stage; without a version the module's latest one. Returns the pipeline once every open partition has
    /// switched to it.
    pub async fn add_stage(
        self: &Arc<Self>,
        topic: &str,
        side: Side,
        module: &str,
        version: Option<u32>,
        params: impl IntoIterator<Item = (String, String)> + Send,
    ) -> Result<(u64, PipelineSpec)> {
        let live = self.live(topic).await?;
        let version = self.module_store().version(module, version).await?.version;
        let stage = StageSpec {
            params: params.into_iter().collect(),
            ..StageSpec::new(module, version)
        };
        let topic = topic.to_owned();
        self.change_pipeline(live, move |spec| {
            let stages = spec.side_mut(side);
            if stages.len() >= STAGES_MAX {
                let (side, count) = (side.name(), stages.len());
                return Err(BrokerError::TooManyStages { topic, side, count });
            }
            stages.push(stage);
            Ok(())
        })
        .await
    }

    /// Removes the stage at a position, 0 for the first.
    pub async fn remove_stage(self: &Arc<Self>, topic: &str, side: Side, position: u32) -> Result<(u64, PipelineSpec)> {
        let (live, topic) = (self.live(topic).await?, topic.to_owned());
        self.change_pipeline(live, move |spec| {
            let stages = spec.side_mut(side);
            if position as usize >= stages.len() {
                let (side, count) = (side.name(), stages.len());
                return Err(BrokerError::UnknownStage {
                    topic,
                    side,
                    count,
                    position,
                });
            }
            stages.remove(position as usize);
            Ok(())
        })
        .await
    }

    /// The pipeline as it stands, and its version.
    pub async fn pipeline(&self, topic: &str) -> Result<(u64, PipelineSpec)> {
        let live = self.live(topic).await?;
        let pipeline = self.newest_pipeline(&live).await?;
        Ok((pipeline.version, pipeline.spec.clone()))
    }

    async fn change_pipeline(
        self: &Arc<Self>,
        live: Arc<LiveTopic>,
        change: impl FnOnce(&mut PipelineSpec) -> Result<()>,
    ) -> Result<(u64, PipelineSpec)> {
        let current = self.newest_pipeline(&live).await?;
        let mut spec = current.spec.clone();
        change(&mut spec)?;
        let next = self.module_store().load(current.version + 1, spec).await?;
        self.try_configure(&live, &next).await?;
        let broker = self.clone();
        to_the_end("activating a pipeline", async move {
            broker.activate(&live, current.version, next).await
        })
        .await
    }

    /// Stores the pipeline, then switches every open partition.
    async fn activate(&self, live: &LiveTopic, current: u64, next: Pipeline) -> Result<(u64, PipelineSpec)> {
        let stages = serde_json::to_string(&next.spec).expect("a struct of strings and numbers always becomes JSON");
        let mut slot = live.pipeline.write().await;
        let (metadata, now_ms) = (&self.shared().metadata, self.shared().clock.now_ms());
        let row = match metadata
            .activate_pipeline(live.topic().id, current, &stages, now_ms)
            .await
        {
            Ok(row) => row,
            // The answer may have been lost behind a change that happened: then what is stored is ours.
            Err(error) => match metadata.pipeline(live.topic().id).await {
                Ok(Some(row)) if row.version == current + 1 && row.stages_json == stages => row,
                _ => return Err(error.into()),
            },
        };
        let next = Arc::new(Pipeline {
            version: row.version,
            ..next
        });
        live.switch(&mut slot, next.clone()).await;
        Ok((next.version, next.spec.clone()))
    }

    /// Configures every stage once, off the data path, so that wrong parameters never reach a partition.
    async fn try_configure(&self, live: &LiveTopic, pipeline: &Pipeline) -> Result<()> {
        for side in [Side::Produce, Side::Fetch] {
            for stage in pipeline.side(side).iter().cloned() {
                let context = StageContext {
                    topic: live.topic().name.clone(),
                    on_fetch: side == Side::Fetch,
                };
                let limits = self.shared().settings.module_limits.clone();
                let name = format!("module {}@{}", stage.spec.module, stage.spec.version);
                let params: Vec<_> = stage.spec.params.into_iter().collect();
                self.module_store()
                    .pool()
                    .run("configuring a module", move || {
                        Instance::new(&stage.module, &limits, &context, &params)
                    })
                    .await?
                    .map_err(|source| BrokerError::BadModule { module: name, source })?;
            }
        }
        Ok(())
    }
}
