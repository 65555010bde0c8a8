//! What the demonstration prints: a line for each step, then one table.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use indicatif::{BinaryBytes, HumanCount};
use millstream_client::TopicStatus;
use serde::Serialize;

use super::check::Counts;
use crate::cli::output::{Column, OutputFormat, table, written};

/// Prints the steps: beside the table for people, on standard error beside JSON.
#[derive(Clone, Copy, Debug)]
pub struct Narrator {
    output: OutputFormat,
}

impl Narrator {
    /// Tells the steps of a run whose result is printed in this format.
    pub fn new(output: OutputFormat) -> Narrator {
        Narrator { output }
    }

    /// Prints a line.
    pub fn say(&self, line: &str) -> anyhow::Result<()> {
        match self.output {
            OutputFormat::Table => written(writeln!(io::stdout(), "{line}")),
            OutputFormat::Json => written(writeln!(io::stderr(), "{line}")),
        }
    }
}

/// A row of the table: a topic, or all of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    topic: String,
    records: u64,
    kept: u64,
    changed: u64,
    dropped: u64,
    segments: u64,
    raw_bytes: u64,
    stored_bytes: u64,
    produce_seconds: f64,
    fetch_seconds: f64,
}

impl Row {
    /// The figures of one topic, and how long its records took in and out.
    pub fn new(counts: &Counts, status: &TopicStatus, produce: Duration, fetch: Duration) -> Row {
        let partitions = || status.partitions.iter();
        Row {
            topic: status.topic.name.clone(),
            records: counts.sent,
            kept: counts.shown,
            changed: counts.changed,
            dropped: counts.sent - counts.shown,
            segments: partitions().map(|partition| partition.segment_count).sum(),
            raw_bytes: partitions().map(|partition| partition.raw_bytes).sum(),
            stored_bytes: partitions().map(|partition| partition.stored_bytes).sum(),
            produce_seconds: produce.as_secs_f64(),
            fetch_seconds: fetch.as_secs_f64(),
        }
    }

    /// A few words on what was read.
    pub fn summary(&self) -> String {
        format!(
            "{} records read in {:.1} s, all as they must be",
            HumanCount(self.kept),
            self.fetch_seconds
        )
    }

    /// All topics together. They had their turns one after the other.
    fn total(rows: &[Row]) -> Row {
        let sum = |figure: fn(&Row) -> u64| rows.iter().map(figure).sum();
        Row {
            topic: "total".to_owned(),
            records: sum(|row| row.records),
            kept: sum(|row| row.kept),
            changed: sum(|row| row.changed),
            dropped: sum(|row| row.dropped),
            segments: sum(|row| row.segments),
            raw_bytes: sum(|row| row.raw_bytes),
            stored_bytes: sum(|row| row.stored_bytes),
            produce_seconds: rows.iter().map(|row| row.produce_seconds).sum(),
            fetch_seconds: rows.iter().map(|row| row.fetch_seconds).sum(),
        }
    }

    fn cells(&self) -> Vec<String> {
        let count = |figure| HumanCount(figure).to_string();
        vec![
            self.topic.clone(),
            count(self.records),
            count(self.kept),
            count(self.changed),
            count(self.dropped),
            count(self.segments),
            BinaryBytes(self.raw_bytes).to_string(),
            BinaryBytes(self.stored_bytes).to_string(),
            format!("{:.2}", self.raw_bytes as f64 / self.stored_bytes.max(1) as f64),
            count(rate(self.records, self.produce_seconds)),
            count(rate(self.kept, self.fetch_seconds)),
        ]
    }
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    topics: Vec<Row>,
    total: Row,
}

impl Report {
    /// A report on topics.
    pub fn new(topics: Vec<Row>) -> Report {
        let total = Row::total(&topics);
        Report { topics, total }
    }

    /// The table for people.
    pub fn text(&self) -> String {
        let columns = [
            Column::Left("topic"),
            Column::Right("records\nin"),
            Column::Right("kept"),
            Column::Right("changed"),
            Column::Right("dropped"),
            Column::Right("segments"),
            Column::Right("raw"),
            Column::Right("stored"),
            Column::Right("ratio"),
            Column::Right("records/s\nin"),
            Column::Right("records/s\nout"),
        ];
        table(&columns, self.topics.iter().chain([&self.total]).map(Row::cells))
    }
}

fn rate(records: u64, seconds: f64) -> u64 {
    (records as f64 / seconds.max(0.001)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(topic: &str, records: u64) -> Row {
        Row {
            topic: topic.to_owned(),
            records,
            kept: records - 10,
            changed: 5,
            dropped: 10,
            segments: 2,
            raw_bytes: 4_096,
            stored_bytes: 2_048,
            produce_seconds: 0.5,
            fetch_seconds: 0.25,
        }
    }

    #[test]
    fn the_table_ends_with_the_total() {
        let report = Report::new(vec![row("a", 210_000), row("b", 350_000)]);
        let text = report.text();
        let last = text.lines().rev().nth(1).unwrap();
        let cells: Vec<_> = last.split(['│', '┆']).map(str::trim).collect();
        assert_eq!(cells[1..6], ["total", "560,000", "559,980", "10", "20"]);
        assert_eq!(cells[6..10], ["4", "8.00 KiB", "4.00 KiB", "2.00"]);
        assert_eq!(cells[10..12], ["560,000", "1,119,960"]);
    }

    #[test]
    fn a_rate_needs_no_time_to_have_passed() {
        assert_eq!(rate(5, 0.0), 5_000);
    }
}
