//! Pipelines: the stages of a topic.

use millstream_proto::v1;

use crate::{Admin, ClientError, admin::present};

impl Admin {
    /// Appends a stage to one side of a topic's pipeline; a version of 0 means the latest.
    pub async fn add_stage(
        &self,
        topic: &str,
        side: v1::PipelineSide,
        stage: v1::Stage,
    ) -> Result<v1::Pipeline, ClientError> {
        let request = v1::AddStageRequest {
            topic: topic.to_owned(),
            side: side.into(),
            stage: Some(stage),
            no_trial_call: false,
        };
        let answer = self
            .connection
            .pipelines()
            .add_stage(request)
            .await
            .map_err(|status| self.error(status))?;
        present(answer.into_inner().pipeline, "pipeline")
    }

    /// Removes the stage at a position, counted from 0, from one side of a topic's pipeline.
    pub async fn remove_stage(
        &self,
        topic: &str,
        side: v1::PipelineSide,
        position: u32,
    ) -> Result<v1::Pipeline, ClientError> {
        let request = v1::RemoveStageRequest {
            topic: topic.to_owned(),
            side: side.into(),
            position,
        };
        let answer = self
            .connection
            .pipelines()
            .remove_stage(request)
            .await
            .map_err(|status| self.error(status))?;
        present(answer.into_inner().pipeline, "pipeline")
    }

    /// A topic's pipeline as it stands.
    pub async fn pipeline(&self, topic: &str) -> Result<v1::Pipeline, ClientError> {
        let request = v1::GetPipelineRequest {
            topic: topic.to_owned(),
        };
        let answer = self
            .connection
            .pipelines()
            .get_pipeline(request)
            .await
            .map_err(|status| self.error(status))?;
        present(answer.into_inner().pipeline, "pipeline")
    }
}
