//! `PipelineService`.

use millstream_broker::{ChangeOptions, Side};
use millstream_proto::v1;
use tonic::{Request, Response, Status};

use super::{
    Api, pipeline_history,
    pipeline_message::{changed_message, pipeline_message, status_message},
    stage::stage_spec,
    status::{missing, status},
};

#[tonic::async_trait]
impl v1::pipeline_service_server::PipelineService for Api {
    async fn add_stage(&self, request: Request<v1::AddStageRequest>) -> Result<Response<v1::AddStageResponse>, Status> {
        let request = request.into_inner();
        let side = side(request.side())?;
        let stage = request.stage.ok_or_else(|| missing("stage"))?;
        let spec = stage_spec(stage)?;
        let options = ChangeOptions {
            no_trial_call: request.no_trial_call,
        };
        let changed = self
            .broker
            .add_stage(&request.topic, side, spec, options)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::AddStageResponse {
            pipeline: Some(changed_message(changed)),
        }))
    }

    async fn remove_stage(
        &self,
        request: Request<v1::RemoveStageRequest>,
    ) -> Result<Response<v1::RemoveStageResponse>, Status> {
        let request = request.into_inner();
        let side = side(request.side())?;
        let changed = self
            .broker
            .remove_stage(&request.topic, side, request.position)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::RemoveStageResponse {
            pipeline: Some(changed_message(changed)),
        }))
    }

    async fn get_pipeline(
        &self,
        request: Request<v1::GetPipelineRequest>,
    ) -> Result<Response<v1::GetPipelineResponse>, Status> {
        let topic = request.into_inner().topic;
        let seen = self.broker.pipeline_status(&topic).await.map_err(status)?;
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
        let paused = self.broker.pause_pipeline(&request.topic, sides(request.side())).await;
        Ok(Response::new(v1::PausePipelineResponse {
            pipeline: Some(changed_message(paused.map_err(status)?)),
        }))
    }

    async fn resume_pipeline(
        &self,
        request: Request<v1::ResumePipelineRequest>,
    ) -> Result<Response<v1::ResumePipelineResponse>, Status> {
        let request = request.into_inner();
        let resumed = self.broker.resume_pipeline(&request.topic, sides(request.side())).await;
        Ok(Response::new(v1::ResumePipelineResponse {
            pipeline: Some(changed_message(resumed.map_err(status)?)),
        }))
    }

    async fn get_pipeline_history(
        &self,
        request: Request<v1::GetPipelineHistoryRequest>,
    ) -> Result<Response<v1::GetPipelineHistoryResponse>, Status> {
        let answer = pipeline_history::get(&self.broker, request.into_inner()).await?;
        Ok(Response::new(answer))
    }
}

fn side(side: v1::PipelineSide) -> Result<Side, Status> {
    match side {
        v1::PipelineSide::Unspecified => Err(missing("side; it is PRODUCE or FETCH")),
        v1::PipelineSide::Produce => Ok(Side::Produce),
        v1::PipelineSide::Fetch => Ok(Side::Fetch),
    }
}

/// Both where none is named.
fn sides(side: v1::PipelineSide) -> &'static [Side] {
    match side {
        v1::PipelineSide::Unspecified => &[Side::Produce, Side::Fetch],
        v1::PipelineSide::Produce => &[Side::Produce],
        v1::PipelineSide::Fetch => &[Side::Fetch],
    }
}
