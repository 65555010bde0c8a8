//! `millstream pipeline`: which modules a topic's records go through.

use std::{
    collections::{BTreeMap, HashMap},
    str::FromStr,
};

use clap::{Subcommand, ValueEnum};
use millstream_client::v1;
use serde::Serialize;

use super::{
    Server,
    output::{Column, OutputFormat, print, table},
};

/// Verbs of `pipeline`.
#[derive(Debug, Subcommand)]
pub enum PipelineCommand {
    /// Append a module to a topic's pipeline
    Add {
        /// The topic
        topic: String,
        /// The module; its version is fixed now, the latest where none is named
        #[arg(value_name = "MODULE[@N|@latest]")]
        module: ModuleRef,
        /// Between the client and the log, or between the log and every reader
        #[arg(long, value_enum)]
        on: Side,
        /// A parameter of the module; may repeat
        #[arg(long = "param", value_name = "NAME=VALUE")]
        params: Vec<Param>,
        #[command(flatten)]
        server: Server,
    },
    /// Show a topic's pipeline
    Show {
        /// The topic
        topic: String,
        #[command(flatten)]
        server: Server,
    },
    /// Remove a module from a topic's pipeline
    Remove {
        /// The topic
        topic: String,
        /// Its position as `pipeline show` has it, counted from 0
        position: u32,
        /// The side it is on
        #[arg(long, value_enum)]
        on: Side,
        #[command(flatten)]
        server: Server,
    },
}

/// The side of the log on which a stage runs.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Side {
    /// Before records are stored
    Produce,
    /// Before records are returned
    Fetch,
}

/// A module, and its version where it is pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleRef {
    name: String,
    version: Option<u32>,
}

/// A parameter for a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    name: String,
    value: String,
}

impl FromStr for ModuleRef {
    type Err = String;

    fn from_str(text: &str) -> Result<ModuleRef, String> {
        let (name, version) = match text.split_once('@') {
            None => (text, None),
            Some((name, "latest")) => (name, None),
            Some((name, version)) => match version.parse() {
                Ok(version) if version > 0 => (name, Some(version)),
                _ => {
                    return Err(format!(
                        "{version:?} is no version: write a number from 1 on, or latest"
                    ));
                }
            },
        };
        match name {
            "" => Err("the module's name is missing".to_owned()),
            name => Ok(ModuleRef {
                name: name.to_owned(),
                version,
            }),
        }
    }
}

impl FromStr for Param {
    type Err = String;

    fn from_str(text: &str) -> Result<Param, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(Param {
                name: name.to_owned(),
                value: value.to_owned(),
            }),
            _ => Err("it is not NAME=VALUE".to_owned()),
        }
    }
}

impl From<Side> for v1::PipelineSide {
    fn from(side: Side) -> v1::PipelineSide {
        match side {
            Side::Produce => v1::PipelineSide::Produce,
            Side::Fetch => v1::PipelineSide::Fetch,
        }
    }
}

/// Runs a verb.
pub async fn run(command: PipelineCommand, output: OutputFormat) -> anyhow::Result<()> {
    let (topic, pipeline) = match command {
        PipelineCommand::Add {
            topic,
            module,
            on,
            params,
            server,
        } => {
            let stage = v1::Stage {
                module: module.name,
                // 0 asks for the latest.
                version: module.version.unwrap_or_default(),
                params: unique(params)?,
                ..v1::Stage::default()
            };
            let pipeline = server.admin().await?.add_stage(&topic, on.into(), stage).await?;
            (topic, pipeline)
        }
        PipelineCommand::Show { topic, server } => {
            let pipeline = server.admin().await?.pipeline(&topic).await?;
            (topic, pipeline)
        }
        PipelineCommand::Remove {
            topic,
            position,
            on,
            server,
        } => {
            let pipeline = server.admin().await?.remove_stage(&topic, on.into(), position).await?;
            (topic, pipeline)
        }
    };
    let view = PipelineView::new(topic, pipeline);
    print(output, &view, || view.text())
}

fn unique(params: Vec<Param>) -> anyhow::Result<HashMap<String, String>> {
    let mut unique = HashMap::new();
    for Param { name, value } in params {
        if unique.insert(name.clone(), value).is_some() {
            anyhow::bail!("parameter {name} is given twice");
        }
    }
    Ok(unique)
}

/// A pipeline as `--output json` shows it.
#[derive(Serialize)]
struct PipelineView {
    topic: String,
    version: u64,
    produce: Vec<StageView>,
    fetch: Vec<StageView>,
}

#[derive(Serialize)]
struct StageView {
    module: String,
    version: u32,
    params: BTreeMap<String, String>,
}

impl From<v1::Stage> for StageView {
    fn from(stage: v1::Stage) -> StageView {
        let v1::Stage {
            module,
            version,
            params,
            ..
        } = stage;
        StageView {
            module,
            version,
            params: params.into_iter().collect(),
        }
    }
}

impl PipelineView {
    fn new(topic: String, pipeline: v1::Pipeline) -> PipelineView {
        let stages = |stages: Vec<v1::Stage>| stages.into_iter().map(StageView::from).collect();
        PipelineView {
            topic,
            version: pipeline.version,
            produce: stages(pipeline.produce),
            fetch: stages(pipeline.fetch),
        }
    }

    fn text(&self) -> String {
        let title = format!("pipeline of {}, version {}", self.topic, self.version);
        if self.produce.is_empty() && self.fetch.is_empty() {
            return format!("{title}: no modules");
        }
        let columns = [
            Column::Left("on"),
            Column::Right("position"),
            Column::Left("module"),
            Column::Left("parameters"),
        ];
        let rows = [("produce", &self.produce), ("fetch", &self.fetch)]
            .into_iter()
            .flat_map(|(side, stages)| {
                stages.iter().enumerate().map(move |(position, stage)| {
                    let params: Vec<_> = stage
                        .params
                        .iter()
                        .map(|(name, value)| format!("{name}={value}"))
                        .collect();
                    let module = format!("{}@{}", stage.module, stage.version);
                    vec![side.to_owned(), position.to_string(), module, params.join("\n")]
                })
            });
        format!("{title}\n{}", table(&columns, rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_may_be_pinned_or_float() {
        let parsed = |text: &str| text.parse::<ModuleRef>().map(|module| (module.name, module.version));
        assert_eq!(parsed("redact"), Ok(("redact".to_owned(), None)));
        assert_eq!(parsed("redact@latest"), Ok(("redact".to_owned(), None)));
        assert_eq!(parsed("redact@3"), Ok(("redact".to_owned(), Some(3))));
        for text in ["", "@3", "@latest", "redact@", "redact@0", "redact@x", "redact@1@2"] {
            assert!(parsed(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_parameter_is_split_at_the_first_equals_sign() {
        let parsed = |text: &str| text.parse::<Param>().map(|param| (param.name, param.value));
        assert_eq!(parsed("path=$.a=b"), Ok(("path".to_owned(), "$.a=b".to_owned())));
        assert_eq!(parsed("path="), Ok(("path".to_owned(), String::new())));
        assert!(parsed("path").is_err());
        assert!(parsed("=x").is_err());
    }

    #[test]
    fn a_parameter_given_twice_is_refused() {
        let param = |value: &str| Param {
            name: "p".to_owned(),
            value: value.to_owned(),
        };
        assert!(unique(vec![param("1"), param("2")]).is_err());
        assert_eq!(unique(vec![param("1")]).unwrap()["p"], "1");
    }

    #[test]
    fn a_pipeline_is_shown_stage_by_stage() {
        let stage = v1::Stage {
            module: "redact".to_owned(),
            version: 2,
            params: [
                ("with".to_owned(), "*".to_owned()),
                ("fields".to_owned(), "$.a".to_owned()),
            ]
            .into(),
            ..v1::Stage::default()
        };
        let pipeline = v1::Pipeline {
            version: 4,
            produce: vec![stage],
            fetch: Vec::new(),
            paused: Vec::new(),
        };
        let text = PipelineView::new("orders".to_owned(), pipeline).text();
        assert!(text.starts_with("pipeline of orders, version 4\n"), "{text}");
        assert!(
            text.contains("│ produce ┆        0 ┆ redact@2 ┆ fields=$.a │"),
            "{text}"
        );

        let empty = PipelineView::new("orders".to_owned(), v1::Pipeline::default()).text();
        assert_eq!(empty, "pipeline of orders, version 0: no modules");
    }
}
