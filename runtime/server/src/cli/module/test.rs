//! `millstream module test`: a dry run of a component on records, without a broker.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::Args;
use indicatif::{BinaryBytes, HumanCount};
use millstream_client::Record;
use serde::Serialize;
use serde_json::Value;
use similar::TextDiff;
use tokio::task;

use super::{
    component,
    dry_run::{self, DryRun, Stage},
    fate::{Fate, FateJson},
    sample::{RecordFormat, SampleArgs, Samples, read_file},
};
use crate::cli::{
    output::{OutputFormat, print},
    pipeline::Param,
    record_json::RecordJson,
};

/// Lines around a difference from what was expected.
const CONTEXT_LINES: usize = 2;

/// Arguments of `millstream module test`.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// The component, as `module build` makes it
    file: PathBuf,
    #[command(flatten)]
    samples: SampleArgs,
    #[command(flatten)]
    stage: StageArgs,
    /// Fail unless exactly the records of this file come out, in the format of --format
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
}

/// How a stage would run the module.
#[derive(Debug, Args)]
pub struct StageArgs {
    /// A parameter of the module; may repeat
    #[arg(long = "param", value_name = "NAME=VALUE")]
    params: Vec<Param>,
    /// Run it as for a reader, not as before records are stored
    #[arg(long)]
    on_fetch: bool,
}

impl StageArgs {
    /// The stage.
    pub fn stage(&self) -> Stage {
        let params = self.params.iter();
        Stage {
            on_fetch: self.on_fetch,
            params: params.map(|param| (param.name.clone(), param.value.clone())).collect(),
        }
    }
}

/// Runs the module and prints what became of each record.
pub async fn run(args: TestArgs, output: OutputFormat) -> anyhow::Result<()> {
    let component = component::read(&args.file).await?;
    let samples = args.samples.read().await?;
    let stage = args.stage.stage();
    let (samples, tried) = task::spawn_blocking(move || {
        let tried = dry_run::run(&component, &stage, &samples);
        (samples, tried)
    })
    .await?;
    let tried = tried.with_context(|| args.file.display().to_string())?;
    let difference = match &args.expect {
        Some(file) => Some(difference(file, args.samples.format, &samples, &tried).await?),
        None => None,
    };

    let view = TestView::new(&samples, &tried, difference.as_deref());
    print(output, &view, || view.text(&samples, &tried))?;
    let failed = tried.fates.iter().filter(|fate| fate.is_failure()).count();
    if failed > 0 {
        bail!(
            "{}: {failed} of {} records failed",
            args.file.display(),
            tried.fates.len()
        );
    }
    match (&args.expect, difference.as_deref()) {
        (Some(file), Some(text)) if !text.is_empty() => bail!("what came out differs from {}", file.display()),
        _ => Ok(()),
    }
}

/// How what came out differs from what was expected; empty where it does not.
async fn difference(file: &Path, format: RecordFormat, samples: &Samples, tried: &DryRun) -> anyhow::Result<String> {
    let expected = read_file(file, format).await?;
    let found = samples.records.iter().zip(&tried.fates);
    let found: Vec<_> = found.flat_map(|(record, fate)| fate.records(record)).collect();
    let (expected, found) = (text(expected.iter(), format)?, text(found.into_iter(), format)?);
    let diff = TextDiff::from_lines(&expected, &found);
    let mut unified = diff.unified_diff();
    unified
        .context_radius(CONTEXT_LINES)
        .header(&file.display().to_string(), "what came out");
    Ok(unified.to_string())
}

/// Records in lines, without what a module does not decide on: topic, partition and offset.
fn text<'a>(records: impl Iterator<Item = &'a Record>, format: RecordFormat) -> anyhow::Result<String> {
    let mut text = String::new();
    for record in records {
        match format {
            RecordFormat::Value => match std::str::from_utf8(record.value.as_deref().unwrap_or_default()) {
                Ok(value) => text.push_str(value),
                Err(_) => text.push_str(&record.value.as_deref().unwrap_or_default().escape_ascii().to_string()),
            },
            RecordFormat::Json => {
                let mut json = serde_json::to_value(RecordJson {
                    topic: "",
                    partition: 0,
                    record,
                })?;
                if let Value::Object(members) = &mut json {
                    members.retain(|name, _| !["topic", "partition", "offset"].contains(&name.as_str()));
                }
                text.push_str(&json.to_string());
            }
        }
        text.push('\n');
    }
    Ok(text)
}

/// The result as `--output json` shows it.
#[derive(Serialize)]
struct TestView<'a> {
    records: Vec<FateJson<'a>>,
    fates: BTreeMap<&'static str, u64>,
    logs: Vec<LogView<'a>>,
    logs_dropped: u64,
    counters: &'a BTreeMap<String, u64>,
    ns_per_record: Option<u64>,
    memory_peak_bytes: usize,
    /// Present with `--expect`: whether what came out is what was expected, and the difference.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    difference: Option<&'a str>,
}

#[derive(Serialize)]
struct LogView<'a> {
    level: &'static str,
    text: &'a str,
}

impl<'a> TestView<'a> {
    fn new(samples: &'a Samples, tried: &'a DryRun, difference: Option<&'a str>) -> TestView<'a> {
        let records = samples.records.iter().zip(&tried.fates);
        let logs = tried.logs.iter();
        TestView {
            records: records
                .map(|(record, fate)| FateJson {
                    topic: &samples.topic,
                    partition: samples.partition,
                    record,
                    fate,
                })
                .collect(),
            fates: counts(&tried.fates),
            logs: logs
                .map(|(level, text)| LogView {
                    level: level.name(),
                    text,
                })
                .collect(),
            logs_dropped: tried.logs_dropped,
            counters: &tried.counters,
            ns_per_record: tried.ns_per_record,
            memory_peak_bytes: tried.memory_peak_bytes,
            expected: difference.map(str::is_empty),
            difference: difference.filter(|difference| !difference.is_empty()),
        }
    }

    fn text(&self, samples: &Samples, tried: &DryRun) -> String {
        let mut text = String::new();
        for (record, fate) in samples.records.iter().zip(&tried.fates) {
            text.push_str(&fate.text(record));
        }
        for log in &self.logs {
            text.push_str(&format!("log {}: {}\n", log.level, log.text));
        }
        if self.logs_dropped > 0 {
            text.push_str(&format!("{} more log lines\n", HumanCount(self.logs_dropped)));
        }
        for (name, value) in self.counters {
            text.push_str(&format!("counter {name}: {}\n", HumanCount(*value)));
        }
        if let Some(difference) = self.difference {
            text.push_str(difference);
        }
        text.push_str(&self.summary(tried.fates.len()));
        text
    }

    fn summary(&self, records: usize) -> String {
        let fates: Vec<_> = self
            .fates
            .iter()
            .map(|(word, count)| format!("{} {word}", HumanCount(*count)))
            .collect();
        let speed = self.ns_per_record.map_or_else(
            || "time not measured".to_owned(),
            |ns| format!("{} ns a record", HumanCount(ns)),
        );
        let memory = BinaryBytes(self.memory_peak_bytes as u64);
        let fates = match fates.is_empty() {
            true => String::new(),
            false => format!(": {}", fates.join(", ")),
        };
        format!(
            "{} records{fates}; {speed}, memory peak {memory}",
            HumanCount(records as u64)
        )
    }
}

/// How many records met each fate.
fn counts(fates: &[Fate]) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for fate in fates {
        *counts.entry(fate.word()).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_a_module_does_not_decide_on_is_not_compared() {
        let record = |offset, timestamp_ms| Record {
            offset,
            timestamp_ms,
            key: None,
            value: Some(Bytes::from_static(b"v")),
            headers: Vec::new(),
        };
        let json = |record| text([&record].into_iter(), RecordFormat::Json).unwrap();
        assert_eq!(json(record(1, 5)), json(record(2, 5)));
        assert_ne!(json(record(1, 5)), json(record(1, 6)));
        assert_eq!(text([&record(1, 5)].into_iter(), RecordFormat::Value).unwrap(), "v\n");
    }
}
