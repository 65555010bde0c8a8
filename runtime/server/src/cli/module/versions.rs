//! Versions on an agent: deployed, listed, shown, promoted and rolled back.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use millstream_broker::{BrokerError, nearest_module};
use millstream_client::{Admin, v1};
use serde::Serialize;

use super::{
    component,
    view::{ChangeView, ModuleView, imports, module_details, module_table, switched, tried},
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
    /// Try it on these partitions only, as in 0,1, of every topic that follows; elsewhere the current version stays; may repeat
    #[arg(long, value_name = "PARTITION", value_delimiter = ',', conflicts_with = "shadow")]
    canary: Vec<u32>,
    /// Try it beside the current version in every topic that follows: differences are counted, nothing of it is written
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
    /// Partitions to try it on that none of these topics has.
    absent_partitions: Vec<u32>,
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
    let is_tried = request.trial.is_some();
    let admin = args.server.admin().await?;
    let answer = admin.deploy(request).await?;
    let absent_partitions = absent(&admin, &args.canary, &answer.changes).await?;
    let view = DeployedView {
        created: answer.created,
        module: answer.module.context("the answer has no module")?.into(),
        changes: answer.changes.into_iter().map(ChangeView::from).collect(),
        absent_partitions,
    };
    print(output, &view, || view.text(is_tried))
}

/// The partitions that none of the topics has.
async fn absent(admin: &Admin, partitions: &[u32], changes: &[v1::PipelineChange]) -> anyhow::Result<Vec<u32>> {
    let mut end = 0;
    if !partitions.is_empty() {
        for change in changes {
            end = end.max(admin.topic(&change.topic).await?.partitions);
        }
    }
    Ok(partitions
        .iter()
        .copied()
        .filter(|&partition| partition >= end)
        .collect())
}

impl DeployedView {
    fn text(&self, is_tried: bool) -> String {
        let there = match self.created {
            true => "",
            false => "these bytes are already deployed\n",
        };
        let table = module_table(std::slice::from_ref(&self.module));
        let (imports, name) = (imports(&self.module), &self.module.name);
        let changes = match is_tried {
            false => switched(&self.changes),
            true => format!(
                "{}\nnext: millstream module promote {name}, or millstream module rollback {name}",
                tried(&self.changes)
            ),
        };
        let absent: Vec<_> = self.absent_partitions.iter().map(u32::to_string).collect();
        let absent = match (is_tried, absent.is_empty()) {
            (true, false) => format!("\nno such partition in any of these topics: {}", absent.join(", ")),
            _ => String::new(),
        };
        format!("{there}{table}\nimports: {imports}\n{changes}{absent}")
    }
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
    let mut modules = args.server.admin().await?.modules().await?;
    let wanted =
        |module: &v1::ModuleVersion| module.name == name && version.map_or(module.current, |v| v == module.version);
    let Some(found) = modules.iter().position(wanted) else {
        let name = version.map_or_else(|| name.clone(), |version| format!("{name}@{version}"));
        let known = modules.iter().map(|module| (module.name.as_str(), module.version));
        let unknown = BrokerError::UnknownModule { name: name.clone() };
        return Err(match nearest_module(&name, known) {
            Some(nearest) => BrokerError::NearName {
                unknown: Box::new(unknown),
                nearest,
            },
            None => unknown,
        }
        .into());
    };
    let module = ModuleView::from(modules.swap_remove(found));
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
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let stem = stem.filter(|stem| stem.starts_with(|c: char| c.is_ascii_lowercase()) && stem.chars().all(allowed));
    stem.map(str::to_owned).with_context(|| {
        format!(
            "{}: no module can be called that; name it with --name: a-z, 0-9 and '-', beginning with a letter",
            file.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_named_for_its_file() {
        assert_eq!(name_of(Path::new("a/access-log.wasm")).unwrap(), "access-log");
        for none in ["..", "access_log.wasm", "M.wasm", "2.wasm"] {
            assert!(name_of(Path::new(none)).unwrap_err().to_string().contains("--name"));
        }
    }
}
