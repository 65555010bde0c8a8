//! `PipelineService`.

use millstream_broker::{PipelineSpec, Side, StageSpec};
use millstream_proto::v1;
use tonic::{Request, Response, Status};

use super::{
    Api,
    status::{missing, status},
};

#[tonic::async_trait]
impl v1::pipeline_service_server::PipelineService for Api {
    async fn add_stage(&self, request: Request<v1::AddStageRequest>) -> Result<Response<v1::AddStageResponse>, Status> {
        let request = request.into_inner();
        let side = side(request.side())?;
        let stage = request.stage.ok_or_else(|| missing("stage"))?;
        let version = (stage.version > 0).then_some(stage.version);
        let (version, spec) = self
            .broker
            .add_stage(&request.topic, side, &stage.module, version, stage.params)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::AddStageResponse {
            pipeline: Some(pipeline_message(version, spec)),
        }))
    }

    async fn remove_stage(
        &self,
        request: Request<v1::RemoveStageRequest>,
    ) -> Result<Response<v1::RemoveStageResponse>, Status> {
        let request = request.into_inner();
        let side = side(request.side())?;
        let (version, spec) = self
            .broker
            .remove_stage(&request.topic, side, request.position)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::RemoveStageResponse {
            pipeline: Some(pipeline_message(version, spec)),
        }))
    }

    async fn get_pipeline(
        &self,
        request: Request<v1::GetPipelineRequest>,
    ) -> Result<Response<v1::GetPipelineResponse>, Status> {
        let (version, spec) = self
            .broker
            .pipeline(&request.into_inner().topic)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::GetPipelineResponse {
            pipeline: Some(pipeline_message(version, spec)),
            stages: Vec::new(),
        }))
    }

    async fn pause_pipeline(
        &self,
        _: Request<v1::PausePipelineRequest>,
    ) -> Result<Response<v1::PausePipelineResponse>, Status> {
        Err(Status::unimplemented("pause"))
    }

    async fn resume_pipeline(
        &self,
        _: Request<v1::ResumePipelineRequest>,
    ) -> Result<Response<v1::ResumePipelineResponse>, Status> {
        Err(Status::unimplemented("resume"))
    }

    async fn get_pipeline_history(
        &self,
        _: Request<v1::GetPipelineHistoryRequest>,
    ) -> Result<Response<v1::GetPipelineHistoryResponse>, Status> {
        Err(Status::unimplemented("history"))
    }
}

fn side(side: v1::PipelineSide) -> Result<Side, Status> {
    match side {
        v1::PipelineSide::Unspecified => Err(missing("side; it is PRODUCE or FETCH")),
        v1::PipelineSide::Produce => Ok(Side::Produce),
        v1::PipelineSide::Fetch => Ok(Side::Fetch),
    }
}

fn pipeline_message(version: u64, spec: PipelineSpec) -> v1::Pipeline {
    let stages = |stages: Vec<StageSpec>| {
        stages
            .into_iter()
            .map(|stage| v1::Stage {
                module: stage.module,
                version: stage.version,
                params: stage.params.into_iter().collect(),
                ..v1::Stage::default()
            })
            .collect()
    };
    v1::Pipeline {
        version,
        produce: stages(spec.produce),
        fetch: stages(spec.fetch),
        paused: Vec::new(),
    }
}
