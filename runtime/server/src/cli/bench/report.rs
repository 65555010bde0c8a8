//! What a run came to, for people and for programs.

use std::{io::IsTerminal as _, time::Duration};

use indicatif::{BinaryBytes, HumanCount, ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{
    super::output::{Column, OutputFormat, print, table},
    latencies::{Latencies, Percentiles},
    machine::Machine,
    server::ServerUse,
    settings::Settings,
};

/// One part of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    pub what: String,
    pub records: u64,
    /// Of values.
    pub bytes: u64,
    pub seconds: f64,
    pub records_per_second: f64,
    pub bytes_per_second: f64,
    /// Processor time of the agent; absent where its metrics could not be read.
    pub server_cpu_seconds: Option<f64>,
    pub server_cpu_seconds_per_million: Option<f64>,
    /// Memory of the agent when it was over.
    pub server_resident_bytes: Option<u64>,
    pub latencies: Vec<Latency>,
}

/// How long something took.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    pub what: &'static str,
    #[serde(flatten)]
    pub percentiles: Percentiles,
}

impl Figures {
    pub fn new(what: &str, elapsed: Duration, (before, after): (Option<ServerUse>, Option<ServerUse>)) -> Figures {
        let cpu = before
            .zip(after)
            .map(|(before, after)| after.cpu_seconds - before.cpu_seconds);
        Figures {
            what: what.to_owned(),
            records: 0,
            bytes: 0,
            seconds: elapsed.as_secs_f64(),
            records_per_second: 0.0,
            bytes_per_second: 0.0,
            server_cpu_seconds: cpu,
            server_cpu_seconds_per_million: None,
            server_resident_bytes: after.map(|after| after.resident_bytes),
            latencies: Vec::new(),
        }
    }

    pub fn records(self, records: u64, bytes: u64) -> Figures {
        let seconds = self.seconds.max(f64::MIN_POSITIVE);
        Figures {
            records,
            bytes,
            records_per_second: records as f64 / seconds,
            bytes_per_second: bytes as f64 / seconds,
            server_cpu_seconds_per_million: self.server_cpu_seconds.map(|cpu| cpu * 1e6 / records.max(1) as f64),
            ..self
        }
    }

    pub fn latencies(mut self, what: &'static str, latencies: &Latencies) -> Figures {
        let percentiles = latencies.percentiles();
        self.latencies
            .extend(percentiles.map(|percentiles| Latency { what, percentiles }));
        self
    }
}

/// A whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    bench: &'static str,
    version: &'static str,
    settings: Settings,
    machine: Machine,
    figures: Vec<Figures>,
}

impl Report {
    pub fn new(bench: &'static str, settings: Settings, machine: Machine, figures: Vec<Figures>) -> Report {
        Report {
            bench,
            version: env!("CARGO_PKG_VERSION"),
            settings,
            machine,
            figures,
        }
    }

    pub fn print(&self, output: OutputFormat) -> anyhow::Result<()> {
        print(output, self, || self.text())
    }

    fn text(&self) -> String {
        let Machine {
            copied_bytes_per_second,
            lz4_bytes_per_second,
            synced_bytes_per_second,
            sync,
        } = &self.machine;
        let machine = format!(
            "this machine: memory copied at {}/s, LZ4 at {}/s, 1 MiB written and synced at {}/s (p50 {:.2} ms, p99 {:.2} ms)",
            speed(*copied_bytes_per_second),
            speed(*lz4_bytes_per_second),
            speed(*synced_bytes_per_second),
            sync.p50_ms,
            sync.p99_ms,
        );
        let mut text = format!("{}\n{machine}\n{}", self.settings.text(), self.throughput());
        if self.figures.iter().any(|figures| !figures.latencies.is_empty()) {
            text.push('\n');
            text.push_str(&self.times());
        }
        text
    }

    fn throughput(&self) -> String {
        let columns = [
            Column::Left(self.bench),
            Column::Right("records"),
            Column::Right("seconds"),
            Column::Right("records/s"),
            Column::Right("values/s"),
            Column::Right("agent CPU s / million"),
            Column::Right("agent memory"),
        ];
        let unknown = || "unknown".to_owned();
        let rows = self.figures.iter().map(|figures| {
            let cpu = figures.server_cpu_seconds_per_million;
            let memory = figures.server_resident_bytes;
            vec![
                figures.what.clone(),
                HumanCount(figures.records).to_string(),
                format!("{:.2}", figures.seconds),
                HumanCount(figures.records_per_second as u64).to_string(),
                speed(figures.bytes_per_second),
                cpu.map_or_else(unknown, |cpu| format!("{cpu:.3}")),
                memory.map_or_else(unknown, |bytes| BinaryBytes(bytes).to_string()),
            ]
        });
        table(&columns, rows)
    }

    fn times(&self) -> String {
        let columns = [
            Column::Left("ms"),
            Column::Right("p50"),
            Column::Right("p90"),
            Column::Right("p99"),
            Column::Right("p99.9"),
            Column::Right("max"),
        ];
        let rows = self.figures.iter().flat_map(|figures| {
            figures.latencies.iter().map(|latency| {
                let p = &latency.percentiles;
                let figures_of = [p.p50_ms, p.p90_ms, p.p99_ms, p.p999_ms, p.max_ms];
                let mut row = vec![format!("{}, {}", figures.what, latency.what)];
                row.extend(figures_of.map(|ms| format!("{ms:.3}")));
                row
            })
        });
        table(&columns, rows)
    }
}

fn speed(bytes_per_second: f64) -> String {
    BinaryBytes(bytes_per_second as u64).to_string()
}

/// Live progress, on a terminal.
pub fn bar(records: u64, what: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} {msg}, {per_sec}, {eta} left");
    let bar = ProgressBar::new(records).with_message(what);
    bar.set_style(style.expect("the template is well-formed"));
    bar
}
