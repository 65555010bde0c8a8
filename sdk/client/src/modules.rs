//! Modules: deploying them, and their versions.

use bytes::Bytes;
use millstream_proto::v1;

use crate::{Admin, ClientError, admin::present};

impl Admin {
    /// Deploys a component. The flag is false where the same bytes were already deployed under the name.
    pub async fn deploy_module(&self, name: &str, component: Bytes) -> Result<(v1::ModuleVersion, bool), ClientError> {
        let request = v1::DeployModuleRequest {
            name: name.to_owned(),
            component,
            ..v1::DeployModuleRequest::default()
        };
        let v1::DeployModuleResponse { module, created, .. } = self.deploy(request).await?;
        Ok((present(module, "module")?, created))
    }

    /// Deploys a component as the request says: to be tried, or without a trial call. The answer names the topics that
    /// switched.
    pub async fn deploy(&self, request: v1::DeployModuleRequest) -> Result<v1::DeployModuleResponse, ClientError> {
        let answer = self.connection.modules().deploy_module(request).await;
        Ok(answer.map_err(|status| self.error(status))?.into_inner())
    }

    /// Makes the version of a module current that is being tried. The answer names the topics that switched.
    pub async fn promote_module(&self, name: &str) -> Result<v1::PromoteModuleResponse, ClientError> {
        let request = v1::PromoteModuleRequest { name: name.to_owned() };
        let answer = self.connection.modules().promote_module(request).await;
        Ok(answer.map_err(|status| self.error(status))?.into_inner())
    }

    /// Makes the version of a module current that the current one replaced, or `version`; or ends what is being tried.
    /// The answer names the topics that switched.
    pub async fn rollback_module(
        &self,
        name: &str,
        version: Option<u32>,
    ) -> Result<v1::RollbackModuleResponse, ClientError> {
        let request = v1::RollbackModuleRequest {
            name: name.to_owned(),
            version: version.unwrap_or(0),
        };
        let answer = self.connection.modules().rollback_module(request).await;
        Ok(answer.map_err(|status| self.error(status))?.into_inner())
    }

    /// A version of a module, the current one where none is named, and its component.
    pub async fn download_module(
        &self,
        name: &str,
        version: Option<u32>,
    ) -> Result<(v1::ModuleVersion, Bytes), ClientError> {
        let request = v1::DownloadModuleRequest {
            name: name.to_owned(),
            version: version.unwrap_or(0),
        };
        let answer = self.connection.modules().download_module(request).await;
        let mut pieces = answer.map_err(|status| self.error(status))?.into_inner();
        let (mut module, mut component) = (None, Vec::new());
        while let Some(next) = pieces.message().await.map_err(|status| self.error(status))? {
            module = module.or(next.module);
            component.extend_from_slice(&next.piece);
        }
        Ok((present(module, "module")?, component.into()))
    }

    /// Every version of every module, in order of name and version.
    pub async fn modules(&self) -> Result<Vec<v1::ModuleVersion>, ClientError> {
        let request = v1::ListModulesRequest {};
        let answer = self
            .connection
            .modules()
            .list_modules(request)
            .await
            .map_err(|status| self.error(status))?;
        Ok(answer.into_inner().modules)
    }
}
