//! What is written on the command line about stages.

use std::{collections::HashMap, str::FromStr};

use clap::{Args, ValueEnum};
use millstream_client::v1;

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
    pub(in crate::cli) name: String,
    pub(in crate::cli) version: Option<u32>,
}

/// A parameter for a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    pub(in crate::cli) name: String,
    pub(in crate::cli) value: String,
}

/// What happens to a record that a stage refuses or fails on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnError {
    /// The whole request fails (on produce, the default there)
    Reject,
    /// The record is left out, and counted
    Skip,
    /// The record goes to the dead-letter topic (on produce)
    DeadLetter,
    /// The record goes on as it came
    Pass,
    /// Producers are refused until `pipeline resume`; readers get an error at the record (on fetch, the default there)
    Halt,
}

/// A stage to be added.
#[derive(Debug, Args)]
pub struct StageArgs {
    /// A parameter of the module; may repeat
    #[arg(long = "param", value_name = "NAME=VALUE")]
    params: Vec<Param>,
    /// What happens to a record that the module refuses or fails on
    #[arg(long, value_enum)]
    on_error: Option<OnError>,
    /// Where dead letters go, made where it is missing [default: TOPIC.dead-letter]
    #[arg(long, value_name = "TOPIC")]
    dead_letter: Option<String>,
    #[command(flatten)]
    limits: LimitArgs,
    /// Failed batches in a row after which the module is left alone for a while; 0 for never
    #[arg(long, value_name = "N", default_value_t = 5)]
    breaker_failures: u32,
    /// How long it is left alone before a batch is tried; doubles while that fails
    #[arg(long, value_name = "TIME", default_value = "5s")]
    breaker_cooldown: humantime::Duration,
}

/// Limits of a stage.
#[derive(Debug, Default, Args)]
pub(super) struct LimitArgs {
    /// CPU time of the module for one piece of a batch, about 128 KiB
    #[arg(long, value_name = "MS")]
    cpu_ms: Option<u64>,
    /// Memory of one instance
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    memory: Option<u64>,
    /// What one batch may become, in bytes
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    output_bytes: Option<u64>,
    /// What one batch may become, in records
    #[arg(long, value_name = "N")]
    output_records: Option<u64>,
    /// How many times its input the output may be, in bytes
    #[arg(long, value_name = "N")]
    output_growth: Option<u64>,
    /// Log lines a second; what is more is dropped and counted
    #[arg(long, value_name = "N")]
    log_lines: Option<u32>,
}

/// A number of bytes.
fn bytes(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| "bytes are given as a plain number: 16777216 for 16 MiB".to_owned())
}

impl StageArgs {
    /// The stage that is asked for.
    pub fn stage(self, module: ModuleRef) -> anyhow::Result<v1::Stage> {
        let on_error = policy(self.on_error, self.dead_letter.as_deref())?;
        Ok(v1::Stage {
            module: module.name,
            // 0 asks for the current one, and to follow it.
            version: module.version.unwrap_or_default(),
            params: unique(self.params)?,
            on_error: on_error.into(),
            dead_letter_topic: self.dead_letter.unwrap_or_default(),
            limits: Some(self.limits.message()),
            breaker: Some(v1::Breaker {
                failures: self.breaker_failures,
                cooldown_ms: milliseconds(self.breaker_cooldown),
            }),
            ..v1::Stage::default()
        })
    }
}

impl LimitArgs {
    pub(super) fn message(self) -> v1::StageLimits {
        v1::StageLimits {
            cpu_ms: self.cpu_ms,
            memory_bytes: self.memory,
            output_bytes: self.output_bytes,
            output_records: self.output_records,
            output_growth: self.output_growth,
            log_lines_per_second: self.log_lines,
        }
    }
}

/// The policy that is meant: who names a topic for dead letters wants letters in it.
pub(super) fn policy(on_error: Option<OnError>, dead_letter: Option<&str>) -> anyhow::Result<v1::OnError> {
    match (on_error, dead_letter) {
        (None, Some(_)) => Ok(v1::OnError::DeadLetter),
        (Some(other), Some(_)) if other != OnError::DeadLetter => {
            anyhow::bail!("--dead-letter goes with --on-error dead-letter only")
        }
        (on_error, _) => Ok(on_error.map_or(v1::OnError::Unspecified, v1::OnError::from)),
    }
}

pub(super) fn milliseconds(time: humantime::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A version, or `latest`: 0 asks for the current one, and to follow it.
pub(super) fn version(text: &str) -> Result<u32, String> {
    match (text, text.parse()) {
        ("latest", _) => Ok(0),
        (_, Ok(version)) if version > 0 => Ok(version),
        _ => Err(format!("{text:?} is no version: write a number from 1 on, or latest")),
    }
}

impl FromStr for ModuleRef {
    type Err = String;

    fn from_str(text: &str) -> Result<ModuleRef, String> {
        let (name, version) = match text.split_once('@') {
            None => (text, None),
            Some((name, text)) => (name, Some(version(text)?).filter(|version| *version > 0)),
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

/// A side, or both where none is named.
pub(super) fn side_or_both(side: Option<Side>) -> v1::PipelineSide {
    side.map_or(v1::PipelineSide::Unspecified, v1::PipelineSide::from)
}

impl From<OnError> for v1::OnError {
    fn from(on_error: OnError) -> v1::OnError {
        match on_error {
            OnError::Reject => v1::OnError::Reject,
            OnError::Skip => v1::OnError::Skip,
            OnError::DeadLetter => v1::OnError::DeadLetter,
            OnError::Pass => v1::OnError::Pass,
            OnError::Halt => v1::OnError::Halt,
        }
    }
}

pub(super) fn unique(params: Vec<Param>) -> anyhow::Result<HashMap<String, String>> {
    let mut unique = HashMap::new();
    for Param { name, value } in params {
        if unique.insert(name.clone(), value).is_some() {
            anyhow::bail!("parameter {name} is given twice");
        }
    }
    Ok(unique)
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
}
