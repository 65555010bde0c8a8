//! `millstream meta rebuild`.

use std::env;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use indicatif::{BinaryBytes, HumanCount, ProgressBar, ProgressStyle};
use millstream_broker::{
    Clock as _,
    rebuild::{OnGap, RebuildReport, RebuildSettings, RebuildStep, rebuild},
};
use millstream_meta::Metadata;
use uuid::Uuid;

use super::{TICK, open};
use crate::{
    cli::{
        output::{Column, OutputFormat, print, table},
        serve::ServeArgs,
    },
    config::Settings,
    name,
    parts::{self, SystemClock},
};

/// What a log is known by as long as nothing is written.
const NOBODY: &str = "dry-run";

/// Arguments of `millstream meta rebuild`, and those of `serve`.
#[derive(Debug, clap::Args)]
pub struct RebuildArgs {
    /// Only say what would be done; neither the database nor the store is touched
    #[arg(long)]
    dry_run: bool,
    /// What to do with a partition that lacks offsets
    #[arg(long, value_enum, default_value_t)]
    on_gap: Gaps,
    #[command(flatten)]
    settings: ServeArgs,
}

/// [`OnGap`] as a flag.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Gaps {
    /// Rebuild nothing
    #[default]
    Refuse,
    /// Keep what lies below the first gap
    KeepFront,
    /// Keep what lies beyond the last gap
    KeepBack,
}

pub async fn run(args: RebuildArgs, output: OutputFormat) -> anyhow::Result<()> {
    let settings = args.settings.settings(env::vars_os().collect())?;
    let _locks = parts::lock(&settings)?;
    let on_gap = match args.on_gap {
        Gaps::Refuse => OnGap::Refuse,
        Gaps::KeepFront => OnGap::KeepFront,
        Gaps::KeepBack => OnGap::KeepBack,
    };
    let report = match args.dry_run {
        false => {
            let metadata = open(&settings).await?;
            let agent_name = name::of_agent(&settings, &metadata).await?;
            let report = rebuilt(&settings, &metadata, false, on_gap, agent_name).await;
            // An SQLite file is whole by itself once its last connection is closed.
            metadata.close().await;
            report?
        }
        true => {
            // One that goes away again: opening the real one would make it.
            let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
            let url = format!("sqlite:{}", folder.path().join("metadata.db").display());
            let metadata = Metadata::open(&url).await?;
            let report = rebuilt(&settings, &metadata, true, on_gap, NOBODY.to_owned()).await?;
            metadata.close().await;
            report
        }
    };
    print(output, &report, || report_text(&report))?;
    match (args.dry_run, args.on_gap) {
        (true, Gaps::Refuse) if !report.gaps.is_empty() => bail!(
            "offsets are missing, so a rebuild with these flags is refused: choose --on-gap keep-front or keep-back (what is \
             shown above is keep-back), or bring the objects back"
        ),
        _ => Ok(()),
    }
}

async fn rebuilt(
    settings: &Settings,
    metadata: &Metadata,
    dry_run: bool,
    on_gap: OnGap,
    agent_name: String,
) -> anyhow::Result<RebuildReport> {
    let store = parts::store(settings)?;
    let wals = parts::wals(settings, &store);
    let rebuild_settings = RebuildSettings {
        dry_run,
        on_gap,
        now_ms: SystemClock.now_ms(),
        agent_name,
        database: Uuid::new_v4(),
    };
    let bar = steps_bar();
    let report = rebuild(metadata, &store, &wals, &rebuild_settings, &|step| tell(&bar, step)).await;
    bar.finish_and_clear();
    Ok(report?)
}

fn steps_bar() -> ProgressBar {
    if !std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("  {spinner} {msg}, {elapsed}");
    let bar = ProgressBar::new_spinner().with_style(style.expect("the template is well-formed"));
    bar.enable_steady_tick(TICK);
    bar
}

fn tell(bar: &ProgressBar, step: RebuildStep<'_>) {
    bar.set_message(match step {
        RebuildStep::Logs => "write-ahead logs".to_owned(),
        RebuildStep::Topic { name, segments } => format!("{name}; {} segments so far", HumanCount(segments)),
        RebuildStep::Written { segments } => format!("writing, {} segments", HumanCount(segments)),
    });
}

fn report_text(report: &RebuildReport) -> String {
    let mut parts = vec![topics_table(report)];
    if !report.wals.is_empty() {
        parts.push(wals_table(report));
    }
    if !report.left_out.is_empty() {
        parts.push(left_out_table(report));
    }
    parts.extend(report.gaps.iter().map(|gap| format!("gap: {gap}")));
    parts.extend(report.warnings.iter().map(|warning| format!("note: {warning}")));
    let segments = HumanCount(report.segments);
    parts.push(match report.written {
        true => format!("Written, segments: {segments}. Start the agent with the same settings."),
        false => format!("Nothing was written, and the database was not looked at. Segments found: {segments}."),
    });
    parts.push(
        "Agents on other machines cannot be seen from here: none that uses this store may run until this one is up."
            .to_owned(),
    );
    parts.join("\n")
}

fn topics_table(report: &RebuildReport) -> String {
    let columns = [
        Column::Left("topic"),
        Column::Right("partition"),
        Column::Right("from"),
        Column::Right("in segments to"),
        Column::Right("with logs to"),
        Column::Right("segments"),
        Column::Right("epoch"),
    ];
    let rows = report.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| {
            vec![
                topic.name.clone(),
                partition.number.to_string(),
                partition.log_start.to_string(),
                partition.committed_end.to_string(),
                partition.end.to_string(),
                partition.segments.to_string(),
                partition.epoch.to_string(),
            ]
        })
    });
    table(&columns, rows)
}

fn wals_table(report: &RebuildReport) -> String {
    let columns = [
        Column::Left("write-ahead log"),
        Column::Left("kind"),
        Column::Right("frames"),
        Column::Right("partitions"),
        Column::Text("not readable"),
    ];
    let rows = report.wals.iter().map(|wal| {
        vec![
            wal.id.clone(),
            wal.kind.to_owned(),
            wal.frames.to_string(),
            wal.partitions.to_string(),
            wal.unreadable.clone().unwrap_or_default(),
        ]
    });
    table(&columns, rows)
}

fn left_out_table(report: &RebuildReport) -> String {
    let columns = [
        Column::Left("left out"),
        Column::Right("objects"),
        Column::Right("bytes"),
        Column::Text("what it means"),
    ];
    let rows = report.left_out.iter().map(|(class, objects)| {
        vec![
            (*class).to_owned(),
            objects.count.to_string(),
            BinaryBytes(objects.bytes).to_string(),
            objects.meaning.to_owned(),
        ]
    });
    table(&columns, rows)
}
