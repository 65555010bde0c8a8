//! `ModuleService`.

use millstream_broker::{BrokerError, DeployOptions, Deployed, ModuleInfo, ModuleVersion, TrialMode};
use millstream_proto::v1;
use tonic::{Request, Response, Status};

use super::{
    Api,
    compression::charge_decompressed,
    download,
    pipeline_message::not_switched,
    status::{missing, status},
};

#[tonic::async_trait]
impl v1::module_service_server::ModuleService for Api {
    type DownloadModuleStream = futures::stream::BoxStream<'static, Result<v1::DownloadModuleResponse, Status>>;
    type ModuleLogsStream = futures::stream::BoxStream<'static, Result<v1::ModuleLogsResponse, Status>>;

    async fn deploy_module(
        &self,
        request: Request<v1::DeployModuleRequest>,
    ) -> Result<Response<v1::DeployModuleResponse>, Status> {
        charge_decompressed(&request)?;
        let v1::DeployModuleRequest {
            name,
            component,
            trial,
            no_trial_call,
        } = request.into_inner();
        let trial = trial.map(trial_mode).transpose()?;
        let options = DeployOptions {
            trial,
            no_trial_call,
            ..DeployOptions::default()
        };
        let deployed = self.broker.deploy_module(&name, component, options).await;
        let deployed = self.told(deployed).await?;
        let created = deployed.created;
        let (module, changes) = deployed_message(deployed)?;
        Ok(Response::new(v1::DeployModuleResponse {
            module: Some(module),
            created,
            changes,
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
        request: Request<v1::DownloadModuleRequest>,
    ) -> Result<Response<Self::DownloadModuleStream>, Status> {
        let v1::DownloadModuleRequest { name, version } = request.into_inner();
        let version = (version > 0).then_some(version);
        let turn = self.downloads.turn().await?;
        let found = self.broker.module_component(&name, version).await;
        let (module, component) = self.told(found).await?;
        let module = module_message(module).map_err(status)?;
        Ok(Response::new(download::pieces(turn, module, component)))
    }

    async fn promote_module(
        &self,
        request: Request<v1::PromoteModuleRequest>,
    ) -> Result<Response<v1::PromoteModuleResponse>, Status> {
        let promoted = self.broker.promote_module(&request.into_inner().name).await;
        let (module, changes) = deployed_message(self.told(promoted).await?)?;
        Ok(Response::new(v1::PromoteModuleResponse {
            module: Some(module),
            changes,
        }))
    }

    async fn rollback_module(
        &self,
        request: Request<v1::RollbackModuleRequest>,
    ) -> Result<Response<v1::RollbackModuleResponse>, Status> {
        let v1::RollbackModuleRequest { name, version } = request.into_inner();
        let version = (version > 0).then_some(version);
        let back = self.broker.rollback_module(&name, version).await;
        let (module, changes) = deployed_message(self.told(back).await?)?;
        Ok(Response::new(v1::RollbackModuleResponse {
            module: Some(module),
            changes,
        }))
    }

    async fn module_logs(
        &self,
        request: Request<v1::ModuleLogsRequest>,
    ) -> Result<Response<Self::ModuleLogsStream>, Status> {
        let lines = super::module_logs::stream(self, request.into_inner()).await?;
        Ok(Response::new(lines))
    }
}

fn trial_mode(trial: v1::ModuleTrial) -> Result<TrialMode, Status> {
    use v1::module_trial::Mode;
    match trial.mode {
        Some(Mode::Canary(canary)) => Ok(TrialMode::Canary(canary.partitions)),
        Some(Mode::Shadow(_)) => Ok(TrialMode::Shadow),
        None => Err(missing("trial.mode; it is canary or shadow")),
    }
}

fn deployed_message(deployed: Deployed) -> Result<(v1::ModuleVersion, Vec<v1::PipelineChange>), Status> {
    let changes = deployed.switches.into_iter().map(|switch| v1::PipelineChange {
        topic: switch.topic,
        pipeline_version: switch.pipeline_version,
        others_unknown: switch.others.unknown,
        not_switched: not_switched(switch.others),
    });
    let changes = changes.collect();
    Ok((module_message(deployed.module).map_err(status)?, changes))
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
        current: version.current,
        imports: info.imports,
    })
}
