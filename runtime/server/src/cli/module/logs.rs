//! `millstream module logs`: what a module says.

use std::io::{self, Write as _};

use clap::Args;
use millstream_client::v1;
use serde::Serialize;

use crate::cli::{
    Server,
    output::{OutputFormat, written},
    topic::show_time,
};

/// Options of `logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The module
    name: String,
    /// Only what it says about this topic
    #[arg(long)]
    topic: Option<String>,
    /// Go on with what it says from now on
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    server: Server,
}

/// A line as `--output json` prints it.
#[derive(Serialize)]
struct LineView {
    timestamp_ms: i64,
    level: String,
    topic: String,
    partition: Option<u32>,
    version: u32,
    text: String,
}

/// Prints the last lines, and with `--follow` all that come.
pub async fn run(args: LogsArgs, output: OutputFormat) -> anyhow::Result<()> {
    let admin = args.server.admin().await?;
    let topic = args.topic.as_deref().unwrap_or_default();
    let mut lines = admin.module_logs(&args.name, topic, args.follow).await?;
    while let Some(line) = lines.next().await? {
        let line = match output {
            OutputFormat::Table => text(&line),
            OutputFormat::Json => serde_json::to_string(&LineView::from(line))?,
        };
        let mut out = io::stdout().lock();
        written(writeln!(out, "{line}").and_then(|()| out.flush()))?;
    }
    Ok(())
}

fn text(line: &v1::ModuleLogsResponse) -> String {
    // What is said about the module itself is of no topic; and about a file that was never deployed, of no version.
    let place = match line.partition {
        Some(partition) => format!("{}/{partition} ", line.topic),
        None if line.topic.is_empty() => String::new(),
        None => format!("{} ", line.topic),
    };
    let version = match line.version {
        0 => String::new(),
        version => format!("@{version} "),
    };
    // Who writes a module does not get to move the cursor of who reads its log.
    let text: String = line
        .text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    format!(
        "{} {:5} {place}{version}{text}",
        show_time(line.timestamp_ms),
        line.level
    )
}

impl From<v1::ModuleLogsResponse> for LineView {
    fn from(line: v1::ModuleLogsResponse) -> LineView {
        LineView {
            timestamp_ms: line.timestamp_ms,
            level: line.level,
            topic: line.topic,
            partition: line.partition,
            version: line.version,
            text: line.text,
        }
    }
}
