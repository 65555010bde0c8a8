//! `millstream meta export`.

use std::{
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use millstream_broker::Clock as _;
use millstream_meta::{MetaError, Metadata, SnapshotReport};

use super::{DatabaseArgs, open, report_table, rows_bar, rows_of};
use crate::{
    cli::output::{OutputFormat, PipeClosed, print},
    config::{MetadataUrl, Settings},
    parts::SystemClock,
};

/// Arguments of `millstream meta export`.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// File to write; it is there when all of it is [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    database: DatabaseArgs,
}

pub async fn run(args: ExportArgs, output: OutputFormat) -> anyhow::Result<()> {
    let settings = args.database.settings()?;
    check_there(&settings)?;
    let metadata = open(&settings).await?;
    let report = match &args.out {
        None => to_standard_output(&metadata).await?,
        Some(file) => {
            let report = to_file(&metadata, file).await;
            report.with_context(|| format!("cannot export to {}", file.display()))?
        }
    };
    metadata.close().await;
    if !report.header.live_agents.is_empty() {
        eprintln!(
            "warning: agents are running ({}): what they write from now on is not in the snapshot; stop them before an \
             export that is to be imported",
            report.header.live_agents.join(", ")
        );
    }
    match args.out {
        // Standard output is the snapshot itself.
        None => {
            eprintln!("{} rows of {} exported", rows_of(&report), metadata.place());
            Ok(())
        }
        Some(_) => print(output, &report, || report_table(&report)),
    }
}

/// Opening would make a file that is not there.
fn check_there(settings: &Settings) -> anyhow::Result<()> {
    match settings.metadata_url() {
        MetadataUrl::Sqlite(path) if !path.exists() => bail!(
            "there is no database {}; name another with --metadata or --data-dir",
            path.display()
        ),
        _ => Ok(()),
    }
}

async fn to_standard_output(metadata: &Metadata) -> anyhow::Result<SnapshotReport> {
    let bar = rows_bar();
    let mut out = tokio::io::stdout();
    let report = metadata
        .export(&mut out, SystemClock.now_ms(), &|rows| bar.inc(rows))
        .await;
    bar.finish_and_clear();
    let report = report.map_err(|error| match error {
        MetaError::SnapshotFile { source } if source.kind() == io::ErrorKind::BrokenPipe => PipeClosed.into(),
        error => anyhow::Error::from(error),
    })?;
    check_filled(metadata, &report)?;
    Ok(report)
}

/// A backup of the wrong database must not look like a good one.
fn check_filled(metadata: &Metadata, report: &SnapshotReport) -> anyhow::Result<()> {
    match report.tables.iter().all(|count| count.rows == 0) {
        true => bail!(
            "{} holds nothing, no agent has ever run on it: name another database with --metadata",
            metadata.place()
        ),
        false => Ok(()),
    }
}

/// A file that is not whole never has the name.
async fn to_file(metadata: &Metadata, path: &Path) -> anyhow::Result<SnapshotReport> {
    let dir = match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    let staged = tempfile::NamedTempFile::new_in(dir)?;
    let mut out = tokio::fs::File::from_std(staged.reopen()?);
    let bar = rows_bar();
    let report = metadata
        .export(&mut out, SystemClock.now_ms(), &|rows| bar.inc(rows))
        .await?;
    bar.finish_and_clear();
    check_filled(metadata, &report)?;
    out.sync_all().await?;
    staged.persist(path)?;
    std::fs::File::open(dir)?.sync_all()?;
    Ok(report)
}
