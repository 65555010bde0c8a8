//! `millstream module diff`: which records come out differently of two components.

use std::collections::BTreeMap;

use anyhow::Context as _;
use clap::Args;
use indicatif::HumanCount;
use millstream_client::Record;
use serde::Serialize;
use tokio::task;

use super::{
    component::ComponentRef,
    dry_run::{self, DryRun},
    fate::{Fate, FateJson, INDENT, difference},
    sample::{SampleArgs, Samples},
    test::StageArgs,
};
use crate::cli::output::{OutputFormat, print};

/// Arguments of `millstream module diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// A module's version, or a file that ends in .wasm
    #[arg(value_name = "NAME@N|FILE.wasm")]
    old: ComponentRef,
    /// What it is compared with
    #[arg(value_name = "NAME@N|FILE.wasm")]
    new: ComponentRef,
    #[command(flatten)]
    samples: SampleArgs,
    #[command(flatten)]
    stage: StageArgs,
}

/// Runs both on the same records and prints where they part.
pub async fn run(args: DiffArgs, output: OutputFormat) -> anyhow::Result<()> {
    let DiffArgs {
        old,
        new,
        samples,
        stage,
    } = args;
    let old_component = old.load(&samples.server).await?;
    let new_component = new.load(&samples.server).await?;
    let (samples, stage) = (samples.read().await?, stage.stage());
    let (samples, tried) = task::spawn_blocking(move || {
        let tried = [old_component, new_component].map(|component| dry_run::run(&component, &stage, &samples));
        (samples, tried)
    })
    .await?;
    let names = [old.to_string(), new.to_string()];
    let [old, new] = tried;
    let (old, new) = (
        old.with_context(|| names[0].clone())?,
        new.with_context(|| names[1].clone())?,
    );

    let view = DiffView::new(&samples, &old, &new);
    print(output, &view, || view.text(&names))
}

/// The result as `--output json` shows it.
#[derive(Serialize)]
struct DiffView<'a> {
    records: usize,
    differ: usize,
    /// How often each pair of fates was met, where they differ: `kept to dropped`.
    summary: BTreeMap<String, u64>,
    differences: Vec<DifferenceView<'a>>,
}

#[derive(Serialize)]
struct DifferenceView<'a> {
    offset: u64,
    old: FateJson<'a>,
    new: FateJson<'a>,
}

impl<'a> DiffView<'a> {
    fn new(samples: &'a Samples, old: &'a DryRun, new: &'a DryRun) -> DiffView<'a> {
        let fates = old.fates.iter().zip(&new.fates);
        let parted = samples.records.iter().zip(fates).filter(|(_, (old, new))| old != new);
        let json = |record, fate| FateJson {
            topic: &samples.topic,
            partition: samples.partition,
            record,
            fate,
        };
        let mut summary = BTreeMap::new();
        let differences: Vec<_> = parted
            .map(|(record, (old, new))| {
                *summary.entry(format!("{} to {}", old.word(), new.word())).or_default() += 1;
                DifferenceView {
                    offset: record.offset,
                    old: json(record, old),
                    new: json(record, new),
                }
            })
            .collect();
        DiffView {
            records: samples.records.len(),
            differ: differences.len(),
            summary,
            differences,
        }
    }

    fn text(&self, names: &[String; 2]) -> String {
        let mut text = String::new();
        for DifferenceView { old, new, .. } in &self.differences {
            text.push_str(&format!("{}:\n{}", names[0], old.fate.text(old.record)));
            text.push_str(&format!("{}:\n{}", names[1], new.fate.text(new.record)));
            text.push_str(&between(old.record, old.fate, new.fate, names));
        }
        let records = HumanCount(self.records as u64);
        text.push_str(&match self.differ {
            0 => format!("{records} records: all come out alike"),
            differ => {
                let differ = HumanCount(differ as u64);
                let pairs: Vec<_> = self
                    .summary
                    .iter()
                    .map(|(pair, n)| format!("{} {pair}", HumanCount(*n)))
                    .collect();
                format!(
                    "{records} records: {differ} come out differently ({})",
                    pairs.join(", ")
                )
            }
        });
        text
    }
}

/// What differs between the one record that each made.
fn between(record: &Record, old: &Fate, new: &Fate, names: &[String; 2]) -> String {
    match (old.records(record), new.records(record)) {
        ([old], [new]) => format!("between them:\n{}", difference(old, new)),
        ([], []) => String::new(),
        (old, new) => {
            let ([old_name, new_name], [old, new]) = (names, [old.len(), new.len()]);
            format!("{INDENT}records: {old} of {old_name}, {new} of {new_name}\n")
        }
    }
}
