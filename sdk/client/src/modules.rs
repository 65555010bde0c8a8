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
        let answer = self
            .connection
            .modules()
            .deploy_module(request)
            .await
            .map_err(|status| self.error(status))?;
        let v1::DeployModuleResponse { module, created, .. } = answer.into_inner();
        Ok((present(module, "module")?, created))
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
