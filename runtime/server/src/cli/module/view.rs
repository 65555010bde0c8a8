//! A module's version as it is printed.

use indicatif::BinaryBytes;
use millstream_client::v1;
use serde::Serialize;

use crate::cli::{
    others::{OthersView, with_others},
    output::{Column, table},
    topic::show_time,
};

/// A module's version as `--output json` shows it.
#[derive(Serialize)]
pub struct ModuleView {
    pub name: String,
    pub version: u32,
    pub current: bool,
    sha256: String,
    size_bytes: u64,
    summary: String,
    params: Vec<ParamView>,
    pub imports: Vec<String>,
    deployed_at_ms: i64,
}

/// A module's parameter.
#[derive(Debug, Serialize)]
pub struct ParamView {
    pub name: String,
    pub kind: String,
    pub default: Option<String>,
    pub required: bool,
    pub doc: String,
}

/// A topic that switched.
#[derive(Debug, Serialize)]
pub struct ChangeView {
    topic: String,
    pipeline_version: u64,
    #[serde(flatten)]
    others: OthersView,
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
            current,
            imports,
        } = module;
        let params = params.into_iter().map(ParamView::from).collect();
        ModuleView {
            name,
            version,
            current,
            sha256,
            size_bytes,
            summary,
            params,
            imports,
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

impl From<v1::PipelineChange> for ChangeView {
    fn from(change: v1::PipelineChange) -> ChangeView {
        let v1::PipelineChange {
            topic,
            pipeline_version,
            not_switched,
            others_unknown,
        } = change;
        ChangeView {
            topic,
            pipeline_version,
            others: OthersView::new(not_switched, others_unknown),
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

/// Versions in rows; the current ones are marked.
pub fn module_table(modules: &[ModuleView]) -> String {
    let columns = [
        Column::Left("module"),
        Column::Right("version"),
        Column::Left("current"),
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
            if module.current { "yes" } else { "" }.to_owned(),
            module.summary.clone(),
            params.join("\n"),
            BinaryBytes(module.size_bytes).to_string(),
            module.sha256.chars().take(12).collect(),
            show_time(module.deployed_at_ms),
        ]
    });
    table(&columns, rows)
}

/// Everything about one version.
pub fn module_details(module: &ModuleView) -> String {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        row("module", format!("{}@{}", module.name, module.version)),
        row("current", if module.current { "yes" } else { "no" }.to_owned()),
        row("summary", module.summary.clone()),
        row("size", BinaryBytes(module.size_bytes).to_string()),
        row("sha256", module.sha256.clone()),
        row("deployed", show_time(module.deployed_at_ms)),
        row("imports", imports(module)),
    ];
    rows.extend(module.params.iter().map(|param| {
        let doc = format!("{}  {} {}", param.usage(), param.kind, param.doc);
        row("parameter", doc.trim_end().to_owned())
    }));
    table(&[Column::Left(""), Column::Left("")], rows)
}

/// What a version imports.
pub fn imports(module: &ModuleView) -> String {
    match module.imports.is_empty() {
        true => "nothing".to_owned(),
        false => module.imports.join(", "),
    }
}

/// The topics that switched, in a line of their own, and the agents that have not.
pub fn switched(changes: &[ChangeView]) -> String {
    match changes.is_empty() {
        true => "no topic switched".to_owned(),
        false => on_others(format!("switched: {}", topics(changes)), changes),
    }
}

/// The topics that try it, in a line of their own, and the agents that do not yet.
pub fn tried(changes: &[ChangeView]) -> String {
    match changes.is_empty() {
        true => "nothing changed: it is tried like this already".to_owned(),
        false => on_others(format!("tried in: {}", topics(changes)), changes),
    }
}

fn on_others(text: String, changes: &[ChangeView]) -> String {
    with_others(text, changes.iter().map(|change| (&*change.topic, &change.others)))
}

fn topics(changes: &[ChangeView]) -> String {
    let topics = changes
        .iter()
        .map(|change| format!("{} (pipeline version {})", change.topic, change.pipeline_version));
    topics.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

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
