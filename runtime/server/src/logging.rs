//! The agent's log: lines on standard error, chosen by `MILLSTREAM_LOG`, as text for people or as JSON for programs.

use std::{
    env, fmt,
    io::{self, IsTerminal as _},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// How a line of the log is written: `text` or `json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line: `timestamp`, `level`, `target`, `message`, and what else the line tells.
    Json,
}

/// Begins to log what `MILLSTREAM_LOG` asks for, and `default` without it. Once in a process.
///
/// # Errors
/// The variable is no filter.
pub fn init(default: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(env::var("MILLSTREAM_LOG").as_deref().unwrap_or(default))
        .map_err(|error| anyhow::anyhow!("MILLSTREAM_LOG: {error}"))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .init(),
    }
    Ok(())
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<LogFormat, String> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("{text:?} is neither text nor json")),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        })
    }
}

impl TryFrom<String> for LogFormat {
    type Error = String;

    fn try_from(text: String) -> Result<LogFormat, String> {
        text.parse()
    }
}

impl From<LogFormat> for String {
    fn from(format: LogFormat) -> String {
        format.to_string()
    }
}
