//! `millstream produce`: one record a line, from standard input or a file, in bounded memory.

mod key;
mod lines;

use std::{
    io::IsTerminal as _,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use clap::Args;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use millstream_client::{NewRecord, ProduceError, Producer, ProducerSettings, Totals, v1};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{
    EXIT_INTERRUPTED, Server,
    output::{OutputFormat, print},
    topic::Acks,
};
use key::KeySource;
use lines::LineSplitter;

/// How much is read at once.
const READ_BYTES: usize = 256 << 10;
/// Longest line: what fits a batch of 16 MiB with room to spare for a key. The topic's own limit is mostly lower.
const LINE_BYTES_MAX: usize = 15 << 20;
/// When input pauses for this long, what was read goes out though its batch is not full.
const LINGER: Duration = Duration::from_millis(5);
/// How long an agent may be away: a restart. Whoever waits for the command is told then.
const UNREACHABLE: Duration = Duration::from_secs(5);
/// How many rejected records an error tells of.
const REJECTS_TOLD: usize = 3;

/// Arguments of `millstream produce`.
#[derive(Debug, Args)]
pub struct ProduceArgs {
    /// The topic
    topic: String,
    /// Read from this file [default: standard input]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Send everything to this partition [default: by key, and round all partitions without one]
    #[arg(long, value_name = "P")]
    partition: Option<u32>,
    /// The key of every record
    #[arg(long, value_name = "KEY", conflicts_with = "key_field")]
    key: Option<String>,
    /// Take each record's key from this field of the JSON object that it is
    #[arg(long, value_name = "NAME")]
    key_field: Option<String>,
    /// When a record counts as acknowledged [default: the topic's setting]
    #[arg(long, value_enum)]
    acks: Option<Acks>,
    /// How long to try again [default: 5s where no agent answers, 5m where it says when to come again]
    #[arg(long, value_name = "TIME")]
    retry_for: Option<humantime::Duration>,
    #[command(flatten)]
    server: Server,
}

/// Sends the lines.
pub async fn run(args: ProduceArgs, output: OutputFormat) -> anyhow::Result<ExitCode> {
    let (source, bar) = open(args.file.as_ref()).await?;
    let defaults = ProducerSettings::default();
    let retry_for = args.retry_for.map(Duration::from);
    let settings = ProducerSettings {
        acks: args.acks.map_or(v1::Acks::Unspecified, v1::Acks::from),
        partition: args.partition,
        linger: LINGER,
        retry_for: retry_for.unwrap_or(defaults.retry_for),
        unreachable_for: retry_for.unwrap_or(UNREACHABLE),
        stop_at_failure: true,
        ..defaults
    };
    let connection = args.server.connect().await?;
    let producer = Producer::open(&connection, &args.topic, settings).await?;
    let key = match (args.key, args.key_field) {
        (Some(key), _) => KeySource::Fixed(key),
        (None, Some(field)) => KeySource::Field(field),
        (None, None) => KeySource::None,
    };

    let started = Instant::now();
    let mut feed = Feed {
        producer,
        key,
        lines: LineSplitter::new(LINE_BYTES_MAX),
        lines_sent: 0,
        bar,
    };
    let fed = tokio::select! {
        fed = feed.run(source) => Some(fed),
        signal = tokio::signal::ctrl_c() => signal.map(|()| None)?,
    };
    feed.bar.finish_and_clear();
    // What was read goes out whole, also after Ctrl-C; a second one ends at once.
    let interrupted = ExitCode::from(EXIT_INTERRUPTED);
    let flushed = tokio::select! {
        flushed = feed.producer.flush() => flushed,
        signal = tokio::signal::ctrl_c() => return signal.map(|()| interrupted).map_err(Into::into),
    };

    let summary = Summary::new(feed.lines_sent, feed.producer.totals(), started.elapsed());
    let ended_early = fed.is_none();
    match (flushed, fed) {
        (Err(refusal), _) => return Err(refused(&refusal, feed.lines_sent)),
        (Ok(totals), Some(Err(error))) => {
            anyhow::bail!("{error:#}; {} records before it were acknowledged", totals.acknowledged);
        }
        (Ok(_), Some(Ok(())) | None) => print(output, &summary, || summary.text())?,
    }
    Ok(match ended_early {
        true => interrupted,
        false => ExitCode::SUCCESS,
    })
}

type Source = Box<dyn AsyncRead + Send + Unpin>;

/// The input, and a progress bar that shows only on a terminal.
async fn open(file: Option<&PathBuf>) -> anyhow::Result<(Source, ProgressBar)> {
    let (source, bytes): (Source, _) = match file {
        None => (Box::new(tokio::io::stdin()), None),
        Some(path) => {
            let file = tokio::fs::File::open(path)
                .await
                .with_context(|| path.display().to_string())?;
            let bytes = file.metadata().await.with_context(|| path.display().to_string())?.len();
            (Box::new(file), Some(bytes))
        }
    };
    if !std::io::stderr().is_terminal() {
        return Ok((source, ProgressBar::hidden()));
    }
    let bar = match bytes {
        Some(bytes) => ProgressBar::new(bytes).with_style(style(
            "{bar:40} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} {msg}",
        )),
        None => ProgressBar::new_spinner().with_style(style("{spinner} {decimal_bytes} {msg}")),
    };
    Ok((source, bar))
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates of this file are well-formed")
}

/// Turns input into records.
struct Feed {
    producer: Producer,
    key: KeySource,
    lines: LineSplitter,
    lines_sent: u64,
    bar: ProgressBar,
}

impl Feed {
    /// Reads to the end of the input. Records may still be on their way then.
    async fn run(&mut self, mut source: Source) -> anyhow::Result<()> {
        while self.read(&mut source).await? {
            let now_ms = now_ms();
            while let Some(line) = self.lines.next_line().map_err(|error| self.at_line(error))? {
                self.send(&line, now_ms).await?;
            }
            self.bar.set_message(format!("{} records", HumanCount(self.lines_sent)));
        }
        if let Some(line) = self.lines.finish().map_err(|error| self.at_line(error))? {
            self.send(&line, now_ms()).await?;
        }
        Ok(())
    }

    /// Reads a piece; false at the end.
    async fn read(&mut self, source: &mut Source) -> anyhow::Result<bool> {
        let buffer = self.lines.buffer();
        buffer.reserve(READ_BYTES);
        let bytes = source.read_buf(buffer).await.context("reading the input")?;
        self.bar.inc(bytes as u64);
        Ok(bytes > 0)
    }

    async fn send(&mut self, line: &[u8], timestamp_ms: i64) -> anyhow::Result<()> {
        let key = self.key.key_of(line).map_err(|reason| self.at_line(reason))?;
        self.lines_sent += 1;
        let record = NewRecord {
            timestamp_ms,
            key: key.as_deref(),
            value: Some(line),
            ..NewRecord::default()
        };
        // What becomes of it is told at the end.
        self.producer.send(record).await?;
        Ok(())
    }

    /// Something is wrong with the line at hand.
    fn at_line(&self, reason: impl std::fmt::Display) -> anyhow::Error {
        anyhow::anyhow!("line {}: {reason}", self.lines_sent + 1)
    }
}

fn now_ms() -> i64 {
    // A clock before 1970 is not worth an error here.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_millis() as i64)
}

/// Why not everything was acknowledged. Records and lines are the same here: the first one is line 1.
fn refused(error: &ProduceError, lines_sent: u64) -> anyhow::Error {
    let mut text = error.summary();
    for reject in error.rejects.iter().take(REJECTS_TOLD) {
        text.push_str(&format!("; line {}: {}", reject.index + 1, reject.reason));
    }
    if error.rejects.len() > REJECTS_TOLD {
        text.push_str(&format!("; and {} more", error.rejects.len() - REJECTS_TOLD));
    }
    let acknowledged = error.totals.acknowledged;
    text.push_str(&format!(
        "; {acknowledged} of the {lines_sent} records sent were acknowledged"
    ));
    if let Some(first) = error.unacknowledged.first() {
        text.push_str(&format!(", the first that was not is line {}", first.start + 1));
    }
    anyhow::anyhow!(text)
}

/// What became of the input.
#[derive(Debug, Serialize)]
struct Summary {
    records: u64,
    acknowledged: u64,
    stored: u64,
    changed: u64,
    dropped: u64,
    seconds: f64,
}

impl Summary {
    fn new(records: u64, totals: Totals, elapsed: Duration) -> Summary {
        let Totals {
            acknowledged,
            stored,
            changed,
            dropped,
            ..
        } = totals;
        let seconds = (elapsed.as_secs_f64() * 1_000.0).round() / 1_000.0;
        Summary {
            records,
            acknowledged,
            stored,
            changed,
            dropped,
            seconds,
        }
    }

    fn text(&self) -> String {
        let Summary {
            acknowledged,
            stored,
            changed,
            dropped,
            seconds,
            ..
        } = self;
        let rate = *acknowledged as f64 / seconds.max(0.001);
        format!(
            "{} {} acknowledged: {} stored, {} changed, {} dropped, in {seconds:.3} s ({} records/s)",
            HumanCount(*acknowledged),
            if *acknowledged == 1 { "record" } else { "records" },
            HumanCount(*stored),
            HumanCount(*changed),
            HumanCount(*dropped),
            HumanCount(rate as u64),
        )
    }
}

#[cfg(test)]
mod tests {
    use millstream_client::{ClientError, Code, Reject};

    use super::*;

    #[test]
    fn a_refusal_names_lines_and_what_was_acknowledged() {
        let rejects = (6..10)
            .map(|index| Reject {
                index,
                reason: format!("bad {index}"),
            })
            .collect();
        let error = ProduceError {
            cause: Box::new(ClientError::Refused {
                code: Code::InvalidArgument,
                reason: String::new(),
                message: "m@1 rejected 4 of 5 records: record 1: bad 6; ...".into(),
                summary: Some("m@1 rejected 4 of 5 records".into()),
                rejects: Vec::new(),
                retry_after: None,
                leader: None,
            }),
            totals: Totals {
                acknowledged: 5,
                ..Totals::default()
            },
            unacknowledged: vec![5..10, 12..13],
            rejects,
        };
        assert_eq!(
            refused(&error, 13).to_string(),
            "m@1 rejected 4 of 5 records; line 7: bad 6; line 8: bad 7; line 9: bad 8; and 1 more; \
             5 of the 13 records sent were acknowledged, the first that was not is line 6"
        );
    }

    #[test]
    fn the_summary_has_a_rate_even_when_no_time_passed() {
        let totals = Totals {
            acknowledged: 12_345,
            stored: 12_000,
            changed: 3,
            dropped: 345,
            batches: 1,
        };
        let summary = Summary::new(12_345, totals, Duration::from_millis(500));
        assert_eq!(
            summary.text(),
            "12,345 records acknowledged: 12,000 stored, 3 changed, 345 dropped, in 0.500 s (24,690 records/s)"
        );
        assert_eq!(serde_json::to_value(&summary).unwrap()["seconds"], 0.5);
        assert!(
            Summary::new(0, Totals::default(), Duration::ZERO)
                .text()
                .contains("(0 records/s)")
        );
    }
}
