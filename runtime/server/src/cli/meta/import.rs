//! `millstream meta import`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use millstream_meta::{ImportOptions, SnapshotReport};
use tokio::io::{AsyncBufRead, BufReader};
use uuid::Uuid;

use super::{DatabaseArgs, open, report_table, rows_bar};
use crate::{
    cli::output::{OutputFormat, print},
    config::Settings,
    parts,
};

/// Bytes of the file that are read ahead.
const READ_BYTES: usize = 256 << 10;

/// Arguments of `millstream meta import`.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// What `millstream meta export` wrote; - is standard input
    file: PathBuf,
    /// Import although agents were running at the export: what they wrote afterwards is lost
    #[arg(long)]
    running: bool,
    #[command(flatten)]
    database: DatabaseArgs,
}

pub async fn run(args: ImportArgs, output: OutputFormat) -> anyhow::Result<()> {
    let settings = args.database.settings()?;
    let mut input = input(&args.file)
        .await
        .with_context(|| format!("cannot read {}", args.file.display()))?;
    let _locks = parts::lock(&settings)?;
    let options = ImportOptions {
        database: Uuid::new_v4(),
        running: args.running,
    };
    let report = import(&settings, &mut *input, options).await;
    let report = report.with_context(|| format!("cannot import {}", args.file.display()))?;
    print(output, &report, || report_table(&report))
}

async fn input(file: &Path) -> anyhow::Result<Box<dyn AsyncBufRead + Send + Unpin>> {
    if file == Path::new("-") {
        return Ok(Box::new(BufReader::new(tokio::io::stdin())));
    }
    let file = tokio::fs::File::open(file).await?;
    if file.metadata().await?.is_dir() {
        anyhow::bail!("it is a directory: name the file that `millstream meta export` wrote");
    }
    Ok(Box::new(BufReader::with_capacity(READ_BYTES, file)))
}

async fn import(
    settings: &Settings,
    input: &mut (dyn AsyncBufRead + Send + Unpin),
    options: ImportOptions,
) -> anyhow::Result<SnapshotReport> {
    let metadata = open(settings).await?;
    let bar = rows_bar();
    let report = metadata.import(input, options, &|rows| bar.inc(rows)).await;
    bar.finish_and_clear();
    // An SQLite file is whole by itself once its last connection is closed.
    metadata.close().await;
    Ok(report?)
}
