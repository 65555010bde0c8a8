//! `ModuleService`.

use millstream_broker::{BrokerError, ModuleInfo, ModuleVersion};
use millstream_proto::v1;
use tonic::{Request, Response, Status};

use super::{Api, status::status};

#[tonic::async_trait]
impl v1::module_service_server::ModuleService for Api {
    type DownloadModuleStream = futures::stream::BoxStream<'static, Result<v1::DownloadModuleResponse, Status>>;
    type ModuleLogsStream = futures::stream::BoxStream<'static, Result<v1::ModuleLogsResponse, Status>>;

    async fn deploy_module(
        &self,
        request: Request<v1::DeployModuleRequest>,
    ) -> Result<Response<v1::DeployModuleResponse>, Status> {
        let request = request.into_inner();
        let (version, created) = self
            .broker
            .deploy_module(&request.name, request.component)
            .await
            .map_err(status)?;
        let module = Some(module_message(version).map_err(status)?);
        Ok(Response::new(v1::DeployModuleResponse {
            module,
            created,
            changes: Vec::new(),
        }))
    }

    async fn list_modules(
        &self,
        _: Request<v1::ListModulesRequest>,
    ) -> Result<Response<v1::ListModulesResponse>, Status> {
        let versions = self.broker.modules().await.map_err(status)?;
        let modules: Result<Vec<_>, _> = versions.into_iter().map(module_message).collect();
        Ok(Response::new(v1::ListModulesResponse {
            modules: modules.map_err(status)?,
        }))
    }

    async fn download_module(
        &self,
        _: Request<v1::DownloadModuleRequest>,
    ) -> Result<Response<Self::DownloadModuleStream>, Status> {
        Err(Status::unimplemented("download"))
    }

    async fn promote_module(
        &self,
        _: Request<v1::PromoteModuleRequest>,
    ) -> Result<Response<v1::PromoteModuleResponse>, Status> {
        Err(Status::unimplemented("promote"))
    }

    async fn rollback_module(
        &self,
        _: Request<v1::RollbackModuleRequest>,
    ) -> Result<Response<v1::RollbackModuleResponse>, Status> {
        Err(Status::unimplemented("rollback"))
    }

    async fn module_logs(&self, _: Request<v1::ModuleLogsRequest>) -> Result<Response<Self::ModuleLogsStream>, Status> {
        Err(Status::unimplemented("logs"))
    }
}

fn module_message(version: ModuleVersion) -> Result<v1::ModuleVersion, BrokerError> {
    let info = ModuleInfo::of(&version)?;
    let params = info.params.into_iter().map(|param| v1::ModuleParam {
        name: param.name,
        kind: param.kind,
        default: param.default,
        required: param.required,
        doc: param.doc,
    });
    Ok(v1::ModuleVersion {
        name: version.name,
        version: version.version,
        sha256: version.sha256,
        size_bytes: version.size_bytes,
        summary: info.summary,
        params: params.collect(),
        deployed_at_ms: version.deployed_at_ms,
        current: false,
        imports: Vec::new(),
    })
}
