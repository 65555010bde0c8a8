//! `millstream module`: from a crate to a deployed version.

mod build;
mod cargo;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use indicatif::BinaryBytes;
use millstream_client::v1;
use serde::Serialize;

use super::{
    Server,
    output::{Column, OutputFormat, print, table},
    topic::show_time,
};

/// Largest component that an agent takes.
const COMPONENT_BYTES_MAX: u64 = 64 << 20;

/// Verbs of `module`.
#[derive(Debug, Subcommand)]
pub enum ModuleCommand {
    /// Compile a crate to a component
    Build {
        /// The crate's folder
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// Where the component goes [default: the crate's name with .wasm, here]
        #[arg(short = 'o', value_name = "FILE.wasm")]
        file: Option<PathBuf>,
    },
    /// Send a component to the agent as a module's next version
    Deploy {
        /// The component
        file: PathBuf,
        /// The module's name [default: the file's name without .wasm]
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        server: Server,
    },
    /// List every version of every module
    List {
        #[command(flatten)]
        server: Server,
    },
}

/// Runs a verb.
pub async fn run(command: ModuleCommand, output: OutputFormat) -> anyhow::Result<()> {
    match command {
        ModuleCommand::Build { dir, file } => build::run(&dir, file, output).await,
        ModuleCommand::Deploy { file, name, server } => {
            let name = match name {
                Some(name) => name,
                None => name_of(&file)?,
            };
            let component = read(&file).await.with_context(|| file.display().to_string())?;
            let (module, created) = server.admin().await?.deploy_module(&name, component.into()).await?;
            let view = DeployedView {
                created,
                module: module.into(),
            };
            print(output, &view, || {
                let there = match created {
                    true => "",
                    false => "these bytes are already deployed\n",
                };
                format!("{there}{}", module_table(std::slice::from_ref(&view.module)))
            })
        }
        ModuleCommand::List { server } => {
            let modules = server.admin().await?.modules().await?;
            let modules: Vec<_> = modules.into_iter().map(ModuleView::from).collect();
            print(output, &modules, || module_table(&modules))
        }
    }
}

fn name_of(file: &Path) -> anyhow::Result<String> {
    let stem = file.file_stem().and_then(|stem| stem.to_str());
    stem.map(str::to_owned)
        .with_context(|| format!("{}: no module's name, give one with --name", file.display()))
}

async fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = tokio::fs::metadata(file).await?.len();
    if bytes > COMPONENT_BYTES_MAX {
        anyhow::bail!("{bytes} bytes are above the limit of {COMPONENT_BYTES_MAX} bytes for a module");
    }
    Ok(tokio::fs::read(file).await?)
}

/// A module's version as `--output json` shows it.
#[derive(Serialize)]
struct ModuleView {
    name: String,
    version: u32,
    sha256: String,
    size_bytes: u64,
    summary: String,
    params: Vec<ParamView>,
    deployed_at_ms: i64,
}

#[derive(Serialize)]
struct DeployedView {
    created: bool,
    #[serde(flatten)]
    module: ModuleView,
}

/// A module's parameter.
#[derive(Debug, Serialize)]
struct ParamView {
    name: String,
    kind: String,
    default: Option<String>,
    required: bool,
    doc: String,
}

impl From<v1::ModuleVersion> for ModuleView {
    fn from(module: v1::ModuleVersion) -> ModuleView {
        let v1::ModuleVersion {
            name,
            version,
            sha256,
            size_bytes,
            summary,
            params,
            deployed_at_ms,
            ..
        } = module;
        let params = params.into_iter().map(ParamView::from).collect();
        ModuleView {
            name,
            version,
            sha256,
            size_bytes,
            summary,
            params,
            deployed_at_ms,
        }
    }
}

impl From<v1::ModuleParam> for ParamView {
    fn from(param: v1::ModuleParam) -> ParamView {
        let v1::ModuleParam {
            name,
            kind,
            default,
            required,
            doc,
        } = param;
        ParamView {
            name,
            kind,
            default,
            required,
            doc,
        }
    }
}

impl ParamView {
    /// As a person would type it: `name=default`, or the kind in its place.
    fn usage(&self) -> String {
        match (&self.default, self.required) {
            (Some(default), _) => format!("{}={default}", self.name),
            (None, true) => format!("{}=<{}>", self.name, self.kind),
            (None, false) => format!("[{}=<{}>]", self.name, self.kind),
        }
    }
}

fn module_table(modules: &[ModuleView]) -> String {
    let columns = [
        Column::Left("module"),
        Column::Right("version"),
        Column::Text("summary"),
        Column::Left("parameters"),
        Column::Right("size"),
        Column::Left("sha256"),
        Column::Left("deployed"),
    ];
    let rows = modules.iter().map(|module| {
        let params: Vec<_> = module.params.iter().map(ParamView::usage).collect();
        vec![
            module.name.clone(),
            module.version.to_string(),
            module.summary.clone(),
            params.join("\n"),
            BinaryBytes(module.size_bytes).to_string(),
            module.sha256.chars().take(12).collect(),
            show_time(module.deployed_at_ms),
        ]
    });
    table(&columns, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_named_for_its_file() {
        assert_eq!(name_of(Path::new("a/access-log.wasm")).unwrap(), "access-log");
        assert!(name_of(Path::new("..")).is_err());
    }

    #[test]
    fn a_parameter_is_shown_as_one_would_type_it() {
        let param = |default: Option<&str>, required| ParamView {
            name: "unparsed".to_owned(),
            kind: "keep|drop".to_owned(),
            default: default.map(str::to_owned),
            required,
            doc: String::new(),
        };
        assert_eq!(param(Some("keep"), false).usage(), "unparsed=keep");
        assert_eq!(param(None, true).usage(), "unparsed=<keep|drop>");
        assert_eq!(param(None, false).usage(), "[unparsed=<keep|drop>]");
    }
}
