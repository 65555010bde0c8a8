//! `millstream module build`: crate, core module, component, checked as the agent will check it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use indicatif::BinaryBytes;
use millstream_wasm::{Engine, Module, componentize};
use serde::Serialize;

use super::{
    cargo::{self, Artifact},
    component,
    view::ParamView,
};
use crate::cli::output::{Column, OutputFormat, print, table};

/// Builds the crate in a folder, or takes the core module in a file, and writes its component.
pub async fn run(source: &Path, file: Option<PathBuf>, output: OutputFormat) -> anyhow::Result<()> {
    check(source)?;
    let (name, core_file, file) = match (source.is_file(), file) {
        (false, file) => {
            let Artifact { name, file: core_file } = cargo::build(source).await?;
            let file = file.unwrap_or_else(|| PathBuf::from(format!("{name}.wasm")));
            (name, core_file, file)
        }
        (true, Some(file)) => (source.display().to_string(), source.to_owned(), file),
        (true, None) => bail!("{}: name the component's file with -o", source.display()),
    };
    let core_module = component::read(&core_file).await?;
    let component = componentize(&core_module).with_context(|| name.clone())?;
    let module = Module::compile(&Engine::new()?, &component).context(name)?;

    tokio::fs::write(&file, &component)
        .await
        .with_context(|| file.display().to_string())?;
    let view = BuiltView::new(&file, component.len(), &module);
    print(output, &view, || view.text())
}

/// Whether it can be a crate or a core module.
fn check(source: &Path) -> anyhow::Result<()> {
    let is_one = match source.is_file() {
        true => source.extension().is_some_and(|extension| extension == "wasm"),
        false => source.join("Cargo.toml").is_file(),
    };
    if !is_one {
        bail!(
            "{}: neither a crate's folder, with a Cargo.toml in it, nor a core module, a file that ends in .wasm",
            source.display()
        );
    }
    Ok(())
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
    imports: Vec<String>,
    exports: Vec<String>,
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
            imports: module.imports().to_vec(),
            exports: module.exports().to_vec(),
        }
    }

    fn text(&self) -> String {
        let title = format!(
            "{}: {}\n{} ({})\nimports: {}\nexports: {}",
            self.name,
            self.summary,
            self.file.display(),
            BinaryBytes(self.size_bytes),
            names(&self.imports),
            names(&self.exports)
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

fn names(names: &[String]) -> String {
    match names.is_empty() {
        true => "nothing".to_owned(),
        false => names.join(", "),
    }
}
