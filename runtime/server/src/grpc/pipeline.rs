//! `PipelineService`.

use millstream_broker::{BrokerError, ChangeOptions, Changed};
use millstream_proto::v1;
use tonic::{Request, Response, Status};

use super::{
    Api,
    enums::{side, sides},
    pipeline_history,
    pipeline_message::{changed_message, pipeline_message, status_message},
    stage::{stage_change, stage_spec},
    status::missing,
};

#[tonic::async_trait]
impl v1::pipeline_service_server::PipelineService for Api {
    async fn add_stage(&self, request: Request<v1::AddStageRequest>) -> Result<Response<v1::AddStageResponse>, Status> {
        let request = request.into_inner();
        let side = side(request.side)?;
        let stage = request.stage.ok_or_else(|| missing("stage"))?;
        let spec = stage_spec(stage)?;
        let options = ChangeOptions {
            no_trial_call: request.no_trial_call,
            expected_version: request.expected_version,
        };
        let topic = &request.topic;
        let added = self.broker.insert_stage(topic, side, request.position, spec, options);
        let pipeline = self.standing(added.await).await?;
        Ok(Response::new(v1::AddStageResponse { pipeline }))
    }

    async fn alter_stage(
        &self,
        request: Request<v1::AlterStageRequest>,
    ) -> Result<Response<v1::AlterStageResponse>, Status> {
        let request = request.into_inner();
        let side = side(request.side)?;
        let change = request.change.ok_or_else(|| missing("change"))?;
        let change = stage_change(change)?;
        let options = ChangeOptions {
            no_trial_call: request.no_trial_call,
            expected_version: request.expected_version,
        };
        let (topic, position) = (&request.topic, request.position);
        let altered = self.broker.alter_stage(topic, side, position, change, options);
        let pipeline = self.standing(altered.await).await?;
        Ok(Response::new(v1::AlterStageResponse { pipeline }))
    }

    async fn remove_stage(
        &self,
        request: Request<v1::RemoveStageRequest>,
    ) -> Result<Response<v1::RemoveStageResponse>, Status> {
        let request = request.into_inner();
        let side = side(request.side)?;
        let options = ChangeOptions {
            expected_version: request.expected_version,
            ..ChangeOptions::default()
        };
        let (topic, position) = (&request.topic, request.position);
        let removed = self.broker.remove_stage(topic, side, position, options).await;
        let pipeline = self.standing(removed).await?;
        Ok(Response::new(v1::RemoveStageResponse { pipeline }))
    }

    async fn get_pipeline(
        &self,
        request: Request<v1::GetPipelineRequest>,
    ) -> Result<Response<v1::GetPipelineResponse>, Status> {
        let topic = request.into_inner().topic;
        let seen = self.broker.pipeline_status(&topic).await;
        let seen = self.told(seen).await?;
        Ok(Response::new(v1::GetPipelineResponse {
            pipeline: Some(pipeline_message(seen.version, seen.spec)),
            stages: seen.stages.into_iter().map(status_message).collect(),
        }))
    }

    async fn pause_pipeline(
        &self,
        request: Request<v1::PausePipelineRequest>,
    ) -> Result<Response<v1::PausePipelineResponse>, Status> {
        let request = request.into_inner();
        let sides = sides(request.side)?;
        let paused = self.broker.pause_pipeline(&request.topic, sides).await;
        let pipeline = self.standing(paused).await?;
        Ok(Response::new(v1::PausePipelineResponse { pipeline }))
    }

    async fn resume_pipeline(
        &self,
        request: Request<v1::ResumePipelineRequest>,
    ) -> Result<Response<v1::ResumePipelineResponse>, Status> {
        let request = request.into_inner();
        let sides = sides(request.side)?;
        let resumed = self.broker.resume_pipeline(&request.topic, sides).await;
        let pipeline = self.standing(resumed).await?;
        Ok(Response::new(v1::ResumePipelineResponse { pipeline }))
    }

    async fn get_pipeline_history(
        &self,
        request: Request<v1::GetPipelineHistoryRequest>,
    ) -> Result<Response<v1::GetPipelineHistoryResponse>, Status> {
        let answer = pipeline_history::get(self, request.into_inner()).await?;
        Ok(Response::new(answer))
    }
}

impl Api {
    /// The pipeline after a change.
    async fn standing(&self, changed: Result<Changed, BrokerError>) -> Result<Option<v1::Pipeline>, Status> {
        Ok(Some(changed_message(self.told(changed).await?)))
    }
}
