//! `millstream meta`: the metadata as a whole, without an agent: out of a database, into one, or from what an object
//! store holds.

mod export;
mod import;
mod rebuild;

use std::{
    env,
    io::{self, IsTerminal as _},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Subcommand};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use millstream_meta::{Metadata, SnapshotReport};

use super::output::{Column, table};
use crate::{
    config::{Secret, Settings, Sources},
    logging::LogFormat,
};

/// What is logged where nobody says otherwise.
const LOG: &str = "warn";
/// How often a bar that does not know its end moves.
const TICK: Duration = Duration::from_millis(200);

/// Verbs of `meta`.
#[derive(Debug, Subcommand)]
pub enum MetaCommand {
    /// Write everything that a database holds as lines of JSON; agents may be running
    Export(export::ExportArgs),
    /// Fill an empty database with what was exported from another
    Import(import::ImportArgs),
    /// Fill an empty database with what the object store and the write-ahead logs tell; no agent may be running
    Rebuild(rebuild::RebuildArgs),
}

/// Which database. What is not given comes from the environment (MILLSTREAM_*), then from the file.
#[derive(Debug, Args)]
struct DatabaseArgs {
    /// Folder for everything that the agent keeps on this machine [default: millstream-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where metadata is kept, sqlite:PATH or postgres://USER@HOST:PORT/NAME [default: a file in the data folder]
    #[arg(long, value_name = "URL")]
    metadata: Option<Secret>,
    /// TOML file with settings
    #[arg(long, value_name = "FILE", env = "MILLSTREAM_CONFIG")]
    config: Option<PathBuf>,
}

impl DatabaseArgs {
    fn settings(self) -> anyhow::Result<Settings> {
        let metadata = self.metadata.map(|url| url.reveal().to_owned());
        let given = [("data_dir", self.data_dir), ("metadata", metadata)];
        let flags = given.into_iter().filter_map(|(key, value)| Some((key, value?)));
        Ok(Settings::load(Sources {
            file: self.config.as_deref(),
            env: env::vars_os().collect(),
            flags: flags.collect(),
        })?)
    }
}

/// Runs a verb.
pub async fn run(command: MetaCommand, output: super::output::OutputFormat) -> anyhow::Result<()> {
    crate::logging::init(LOG, LogFormat::Text)?;
    match command {
        MetaCommand::Export(args) => export::run(args, output).await,
        MetaCommand::Import(args) => import::run(args, output).await,
        MetaCommand::Rebuild(args) => rebuild::run(args, output).await,
    }
}

/// Opens the database at once or not at all.
async fn open(settings: &Settings) -> anyhow::Result<Metadata> {
    Ok(Metadata::open_with(&settings.metadata_settings(Duration::ZERO)).await?)
}

/// Counts rows on standard error, where that is a terminal.
fn rows_bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("  {spinner} {human_pos} rows, {per_sec}, {elapsed}");
    let bar = ProgressBar::new_spinner().with_style(style.expect("the template is well-formed"));
    bar.enable_steady_tick(TICK);
    bar
}

/// The rows of each table that has any.
fn report_table(report: &SnapshotReport) -> String {
    let filled = report.tables.iter().filter(|count| count.rows > 0);
    let rows = filled.map(|count| vec![count.table.to_owned(), HumanCount(count.rows).to_string()]);
    table(&[Column::Left("table"), Column::Right("rows")], rows)
}

fn rows_of(report: &SnapshotReport) -> HumanCount {
    HumanCount(report.tables.iter().map(|count| count.rows).sum())
}
