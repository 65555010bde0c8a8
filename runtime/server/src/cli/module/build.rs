//! `millstream module build`: crate, core module, component, checked as the agent will check it.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use indicatif::BinaryBytes;
use millstream_wasm::{Engine, Module, componentize};
use serde::Serialize;

use super::{ParamView, cargo};
use crate::cli::output::{Column, OutputFormat, print, table};

/// Builds the crate in `dir` and writes its component.
pub async fn run(dir: &Path, file: Option<PathBuf>, output: OutputFormat) -> anyhow::Result<()> {
    let artifact = cargo::build(dir).await?;
    let core_module = tokio::fs::read(&artifact.file)
        .await
        .with_context(|| artifact.file.display().to_string())?;
    let component = componentize(&core_module).with_context(|| artifact.name.clone())?;
    let module = Module::compile(&Engine::new()?, &component).with_context(|| artifact.name.clone())?;

    let file = file.unwrap_or_else(|| PathBuf::from(format!("{}.wasm", artifact.name)));
    tokio::fs::write(&file, &component)
        .await
        .with_context(|| file.display().to_string())?;
    let view = BuiltView::new(&file, component.len(), &module);
    print(output, &view, || view.text())
}

/// A built module as `--output json` shows it.
#[derive(Serialize)]
struct BuiltView {
    file: PathBuf,
    size_bytes: u64,
    sha256: String,
    name: String,
    summary: String,
    params: Vec<ParamView>,
}

impl BuiltView {
    fn new(file: &Path, bytes: usize, module: &Module) -> BuiltView {
        let info = module.info().clone();
        let params = info.params.into_iter().map(|param| ParamView {
            name: param.name,
            kind: param.kind,
            default: param.default,
            required: param.required,
            doc: param.doc,
        });
        BuiltView {
            file: file.to_owned(),
            size_bytes: bytes as u64,
            sha256: module.sha256().to_owned(),
            name: info.name,
            summary: info.summary,
            params: params.collect(),
        }
    }

    fn text(&self) -> String {
        let title = format!(
            "{}: {}, {} ({})",
            self.name,
            self.summary,
            self.file.display(),
            BinaryBytes(self.size_bytes)
        );
        if self.params.is_empty() {
            return title;
        }
        let columns = [
            Column::Left("parameter"),
            Column::Left("kind"),
            Column::Left("default"),
            Column::Text("meaning"),
        ];
        let rows = self.params.iter().map(|param| {
            let default = match (&param.default, param.required) {
                (Some(default), _) => default.clone(),
                (None, true) => "required".to_owned(),
                (None, false) => String::new(),
            };
            vec![param.name.clone(), param.kind.clone(), default, param.doc.clone()]
        });
        format!("{title}\n{}", table(&columns, rows))
    }
}
