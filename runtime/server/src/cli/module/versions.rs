//! Versions on an agent: deployed, listed, shown, promoted and rolled back.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use millstream_client::v1;
use serde::Serialize;

use super::{
    component,
    view::{ChangeView, ModuleView, imports, module_details, module_table, switched},
};
use crate::cli::{
    Server,
    output::{OutputFormat, print},
    pipeline::ModuleRef,
};

/// Arguments of `module deploy`.
#[derive(Debug, Args)]
pub struct DeployArgs {
    /// The component
    file: PathBuf,
    /// The module's name [default: the file's name without .wasm]
    #[arg(long)]
    name: Option<String>,
    /// Try it on these partitions only; elsewhere the current version stays
    #[arg(long, value_name = "PARTITION", value_delimiter = ',', conflicts_with = "shadow")]
    canary: Vec<u32>,
    /// Try it beside the current version: differences are counted, nothing of it is written
    #[arg(long)]
    shadow: bool,
    /// Do not call it on recent records of the topics first
    #[arg(long)]
    no_trial: bool,
    #[command(flatten)]
    server: Server,
}

/// Arguments of `module show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The module; its current version where none is named
    #[arg(value_name = "MODULE[@N]")]
    module: ModuleRef,
    #[command(flatten)]
    server: Server,
}

/// Arguments of `module rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The module
    name: String,
    /// The version to go back to [default: the one that the current version replaced; while another one is being tried, the
    /// current one]
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u32).range(1..))]
    to: Option<u32>,
    #[command(flatten)]
    server: Server,
}

/// Arguments of `module promote`.
#[derive(Debug, Args)]
pub struct PromoteArgs {
    /// The module
    name: String,
    #[command(flatten)]
    server: Server,
}

#[derive(Serialize)]
struct DeployedView {
    created: bool,
    #[serde(flatten)]
    module: ModuleView,
    changes: Vec<ChangeView>,
}

#[derive(Serialize)]
struct MovedView {
    #[serde(flatten)]
    module: ModuleView,
    changes: Vec<ChangeView>,
}

/// Runs `module deploy`.
pub async fn deploy(args: DeployArgs, output: OutputFormat) -> anyhow::Result<()> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => name_of(&args.file)?,
    };
    let component = component::read(&args.file).await?.into();
    let request = v1::DeployModuleRequest {
        name,
        component,
        trial: trial(&args),
        no_trial_call: args.no_trial,
    };
    let answer = args.server.admin().await?.deploy(request).await?;
    let view = DeployedView {
        created: answer.created,
        module: answer.module.context("the answer has no module")?.into(),
        changes: answer.changes.into_iter().map(ChangeView::from).collect(),
    };
    print(output, &view, || {
        let there = match view.created {
            true => "",
            false => "these bytes are already deployed\n",
        };
        let table = module_table(std::slice::from_ref(&view.module));
        let imports = imports(&view.module);
        format!("{there}{table}\nimports: {imports}\n{}", switched(&view.changes))
    })
}

fn trial(args: &DeployArgs) -> Option<v1::ModuleTrial> {
    use v1::module_trial::{Canary, Mode, Shadow};
    let mode = match (args.shadow, args.canary.is_empty()) {
        (true, _) => Mode::Shadow(Shadow {}),
        (false, false) => Mode::Canary(Canary {
            partitions: args.canary.clone(),
        }),
        (false, true) => return None,
    };
    Some(v1::ModuleTrial { mode: Some(mode) })
}

/// Runs `module list`.
pub async fn list(server: Server, output: OutputFormat) -> anyhow::Result<()> {
    let modules = server.admin().await?.modules().await?;
    let modules: Vec<_> = modules.into_iter().map(ModuleView::from).collect();
    print(output, &modules, || module_table(&modules))
}

/// Runs `module show`.
pub async fn show(args: ShowArgs, output: OutputFormat) -> anyhow::Result<()> {
    let ModuleRef { name, version } = args.module;
    let modules = args.server.admin().await?.modules().await?;
    let mut modules = modules.into_iter().map(ModuleView::from);
    let wanted = |module: &ModuleView| module.name == name && version.map_or(module.current, |v| v == module.version);
    let module = modules.find(wanted).with_context(|| {
        let version = version.map(|version| format!("@{version}")).unwrap_or_default();
        format!("there is no module {name}{version}; `millstream module list` shows those that are deployed")
    })?;
    print(output, &module, || module_details(&module))
}

/// Runs `module promote`.
pub async fn promote(args: PromoteArgs, output: OutputFormat) -> anyhow::Result<()> {
    let answer = args.server.admin().await?.promote_module(&args.name).await?;
    moved(answer.module, answer.changes, output)
}

/// Runs `module rollback`.
pub async fn rollback(args: RollbackArgs, output: OutputFormat) -> anyhow::Result<()> {
    let answer = args.server.admin().await?.rollback_module(&args.name, args.to).await?;
    moved(answer.module, answer.changes, output)
}

fn moved(
    module: Option<v1::ModuleVersion>,
    changes: Vec<v1::PipelineChange>,
    output: OutputFormat,
) -> anyhow::Result<()> {
    let view = MovedView {
        module: module.context("the answer has no module")?.into(),
        changes: changes.into_iter().map(ChangeView::from).collect(),
    };
    print(output, &view, || {
        let ModuleView { name, version, .. } = &view.module;
        format!("{name}@{version} is current\n{}", switched(&view.changes))
    })
}

fn name_of(file: &Path) -> anyhow::Result<String> {
    let stem = file.file_stem().and_then(|stem| stem.to_str());
    stem.map(str::to_owned)
        .with_context(|| format!("{}: no module's name, give one with --name", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_named_for_its_file() {
        assert_eq!(name_of(Path::new("a/access-log.wasm")).unwrap(), "access-log");
        assert!(name_of(Path::new("..")).is_err());
    }
}
