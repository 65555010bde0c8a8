//! Pipelines: the stages of a topic.

use millstream_proto::v1;

use crate::{Admin, ClientError, admin::present};

impl Admin {
    /// Appends a stage to one side of a topic's pipeline, after a trial call on recent records of the topic. A version of 0
    /// means the module's current one, which the stage then follows.
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
            ..v1::AddStageRequest::default()
        };
        self.add_stage_with(request).await
    }

    /// As [`Admin::add_stage`], with everything that can be said about it: a position, for one.
    pub async fn add_stage_with(&self, request: v1::AddStageRequest) -> Result<v1::Pipeline, ClientError> {
        let answer = self
            .connection
            .pipelines()
            .add_stage(request)
            .await
            .map_err(|status| self.error(status))?;
        present(answer.into_inner().pipeline, "pipeline")
    }

    /// Changes a stage in its place, or moves it; every record goes through it as it was or as it is then.
    pub async fn alter_stage(&self, request: v1::AlterStageRequest) -> Result<v1::Pipeline, ClientError> {
        let answer = self.connection.pipelines().alter_stage(request).await;
        let answer = answer.map_err(|status| self.error(status))?;
        present(answer.into_inner().pipeline, "pipeline")
    }

    /// Removes the stage at a position, counted from 0, from one side of a topic's pipeline; where a version is expected, only
    /// from that version of it.
    pub async fn remove_stage(
        &self,
        topic: &str,
        side: v1::PipelineSide,
        position: u32,
        expected_version: Option<u64>,
    ) -> Result<v1::Pipeline, ClientError> {
        let request = v1::RemoveStageRequest {
            topic: topic.to_owned(),
            side: side.into(),
            position,
            expected_version,
        };
        let answer = self
            .connection
            .pipelines()
            .remove_stage(request)
            .await
            .map_err(|status| self.error(status))?;
        present(answer.into_inner().pipeline, "pipeline")
    }

    /// A topic's pipeline as it stands, and how its stages fare on the agent.
    pub async fn pipeline(&self, topic: &str) -> Result<(v1::Pipeline, Vec<v1::StageStatus>), ClientError> {
        let request = v1::GetPipelineRequest {
            topic: topic.to_owned(),
        };
        let answer = self.connection.pipelines().get_pipeline(request).await;
        let answer = answer.map_err(|status| self.error(status))?.into_inner();
        Ok((present(answer.pipeline, "pipeline")?, answer.stages))
    }

    /// Refuses every request to a side of a topic until it is resumed; to both where the side is unspecified.
    pub async fn pause_pipeline(&self, topic: &str, side: v1::PipelineSide) -> Result<v1::Pipeline, ClientError> {
        let request = v1::PausePipelineRequest {
            topic: topic.to_owned(),
            side: side.into(),
        };
        let answer = self.connection.pipelines().pause_pipeline(request).await;
        let answer = answer.map_err(|status| self.error(status))?;
        present(answer.into_inner().pipeline, "pipeline")
    }

    /// Ends a pause, and lets partitions go on that a failing module halted; on both sides where the side is unspecified.
    pub async fn resume_pipeline(&self, topic: &str, side: v1::PipelineSide) -> Result<v1::Pipeline, ClientError> {
        let request = v1::ResumePipelineRequest {
            topic: topic.to_owned(),
            side: side.into(),
        };
        let answer = self.connection.pipelines().resume_pipeline(request).await;
        let answer = answer.map_err(|status| self.error(status))?;
        present(answer.into_inner().pipeline, "pipeline")
    }
}
