//! `millstream consume`: prints records, one a line.
//!
//! ```text
//! reading task -(bounded channel)-> printer thread -> standard output
//! ```
//!
//! Without `--follow` the partitions are read in their order, each up to the high watermark found at the start. With it all
//! are read at once, those that are added later too. The printer has a thread to itself: a reader that stalls blocks neither the
//! reading nor Ctrl-C.

mod grouped;

use std::{
    io::{self, BufWriter, Write},
    ops::Range,
    process::ExitCode,
    str::FromStr,
    time::Duration,
};

use clap::{Args, ValueEnum};
use millstream_client::{Admin, Chunk, ClientError, Code, Connection, Consumer, ConsumerSettings, Position, Start, v1};
use tokio::{
    sync::mpsc,
    task::{self, JoinSet},
};

use super::{
    EXIT_INTERRUPTED, Server,
    output::written,
    pipeline::{ModuleRef, Param},
    record_json::RecordJson,
    time::Place,
};

/// Encoded bytes of one answer.
const ANSWER_BYTES: u32 = 1 << 20;
/// Answers that may wait to be printed.
const CHUNKS_WAITING: usize = 2;
/// Buffer in front of standard output.
const OUT_BYTES: usize = 256 << 10;
/// How long the printer may take to end after Ctrl-C; it may be blocked by a reader that does not read.
const INTERRUPT_GRACE: Duration = Duration::from_secs(1);

/// Arguments of `millstream consume`.
#[derive(Debug, Args)]
pub struct ConsumeArgs {
    /// The topic
    topic: String,
    /// Only this partition [default: all of them]
    #[arg(long, value_name = "P")]
    partition: Option<u32>,
    /// Where to begin: earliest, latest, an offset, or @TIME (in UTC, ending in Z, like @2026-01-23T15:00:00Z, or
    /// milliseconds since 1970): the first record at or after it
    #[arg(long, value_name = "FROM", default_value = "earliest")]
    from: From,
    /// Read as a member of this group, which shares the partitions out and remembers how far it came
    #[arg(long, value_name = "GROUP", conflicts_with = "partition")]
    group: Option<String>,
    /// End after this many records
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    /// Go on with new records until Ctrl-C
    #[arg(long)]
    follow: bool,
    /// How a record is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    stage: Stage,
    #[command(flatten)]
    server: Server,
}

/// A module for this reader alone, behind the topic's fetch pipeline.
#[derive(Debug, Args)]
struct Stage {
    /// Let the records go through this module, after the topic's fetch pipeline
    #[arg(long, value_name = "NAME[@N|@latest]")]
    module: Option<ModuleRef>,
    /// A parameter of the module; may repeat
    #[arg(long = "param", value_name = "NAME=VALUE", requires = "module")]
    params: Vec<Param>,
    /// What happens at a record that the module fails on
    #[arg(long, value_enum, default_value_t, requires = "module")]
    on_error: OnError,
}

/// What happens at a record that the module fails on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum OnError {
    /// It is left out
    Skip,
    /// It comes as it was
    Pass,
    /// Reading ends with an error
    #[default]
    Halt,
}

impl Stage {
    fn message(&self) -> Option<v1::Stage> {
        let module = self.module.as_ref()?;
        let on_error = match self.on_error {
            OnError::Skip => v1::OnError::Skip,
            OnError::Pass => v1::OnError::Pass,
            OnError::Halt => v1::OnError::Halt,
        };
        let params = self.params.iter();
        Some(v1::Stage {
            module: module.name.clone(),
            version: module.version.unwrap_or(0),
            params: params.map(|param| (param.name.clone(), param.value.clone())).collect(),
            on_error: on_error.into(),
            ..v1::Stage::default()
        })
    }
}

/// How a record is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The bytes of its value; nothing for null
    #[default]
    Value,
    /// One object with topic, partition, offset, timestamp, key, value and headers (a list of key and value, in order);
    /// bytes that are not UTF-8 come in base64 as key_base64 and value_base64
    Json,
}

/// `--from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct From(Start);

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<From, String> {
        match text {
            "earliest" => Ok(From(Start::Earliest)),
            "latest" => Ok(From(Start::Latest)),
            _ if text.starts_with(|c: char| c == '@' || c.is_ascii_digit()) => match text.parse()? {
                Place::Offset(offset) => Ok(From(Start::Offset(offset))),
                Place::Time(ms) => Ok(From(Start::Timestamp(ms))),
            },
            _ => Err("it is none of earliest, latest, an offset and @TIME".to_owned()),
        }
    }
}

type Chunks = mpsc::Sender<Result<Chunk, ClientError>>;

/// Prints the records.
pub async fn run(args: ConsumeArgs) -> anyhow::Result<ExitCode> {
    let connection = args.server.connect().await?;
    if let Some(group) = &args.group {
        return grouped::run(&args, group, &connection).await;
    }
    let (chunks, received) = mpsc::channel(CHUNKS_WAITING);
    let mut tasks = JoinSet::new();
    let partitions = check_partitions(&args, &connection).await?;
    if args.follow {
        let consumer = open(&args, &connection).await?;
        tasks.spawn(follow(consumer, chunks));
    } else {
        let bounded = read_to_the_ends(open_each(&args, &connection, partitions).await?, chunks);
        tasks.spawn(bounded);
    }

    let code = match args.follow {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(EXIT_INTERRUPTED),
    };
    let mut printer = task::spawn_blocking(move || {
        let out = BufWriter::with_capacity(OUT_BYTES, io::stdout());
        Printer {
            topic: args.topic,
            format: args.format,
            left: args.max,
            out,
        }
        .run(received)
    });
    tokio::select! {
        printed = &mut printer => printed?.map(|()| ExitCode::SUCCESS),
        signal = tokio::signal::ctrl_c() => {
            signal?;
            // Without the reading task the channel ends, and the printer with it.
            drop(tasks);
            if let Ok(printed) = tokio::time::timeout(INTERRUPT_GRACE, printer).await {
                printed??;
            }
            Ok(code)
        }
    }
}

/// The wanted partitions.
async fn check_partitions(args: &ConsumeArgs, connection: &Connection) -> anyhow::Result<Range<u32>> {
    let partitions = match args.partition {
        Some(partition) => partition..partition.saturating_add(1),
        None => 0..Admin::new(connection).topic(&args.topic).await?.partitions,
    };
    if matches!(args.from.0, Start::Offset(_)) && partitions.len() > 1 {
        anyhow::bail!(
            "an offset belongs to one partition: add --partition, 0 to {}",
            partitions.end - 1
        );
    }
    Ok(partitions)
}

fn settings(args: &ConsumeArgs) -> ConsumerSettings {
    ConsumerSettings {
        max_bytes: ANSWER_BYTES,
        stage: args.stage.message(),
        ..ConsumerSettings::default()
    }
}

/// One consumer for all that is followed.
async fn open(args: &ConsumeArgs, connection: &Connection) -> Result<Consumer, ClientError> {
    let (topic, start) = (args.topic.as_str(), args.from.0);
    match (args.partition, start) {
        (Some(partition), _) => Consumer::open(connection, topic, partition, start, settings(args)).await,
        // There is one partition.
        (None, Start::Offset(_)) => Consumer::open(connection, topic, 0, start, settings(args)).await,
        (None, _) => Consumer::open_topics(connection, &[topic], start, settings(args)).await,
    }
}

/// A consumer for each partition, all opened before anything is read, and where each ends.
async fn open_each(
    args: &ConsumeArgs,
    connection: &Connection,
    partitions: Range<u32>,
) -> Result<Vec<(Consumer, Position)>, ClientError> {
    let mut consumers = Vec::new();
    for partition in partitions {
        let consumer = Consumer::open(connection, &args.topic, partition, args.from.0, settings(args)).await?;
        let position = consumer.position(&args.topic, partition);
        consumers.push((consumer, position.expect("it was opened there")));
    }
    Ok(consumers)
}

/// Reads each partition to the high watermark that it had when it was opened.
async fn read_to_the_ends(consumers: Vec<(Consumer, Position)>, chunks: Chunks) {
    for (mut consumer, position) in consumers {
        let (mut next, end) = (position.next_offset, position.high_watermark);
        while next < end {
            let mut chunk = consumer.next_chunk().await;
            if let Ok(chunk) = &mut chunk {
                let records = &mut chunk.records;
                records.truncate(records.partition_point(|record| record.offset < end));
                next = chunk.next_offset;
            }
            if pass_on(chunk, &chunks).await.is_err() {
                return;
            }
        }
    }
}

/// Reads on until there is an error or nobody listens.
async fn follow(mut consumer: Consumer, chunks: Chunks) {
    while pass_on(consumer.next_chunk().await, &chunks).await.is_ok() {}
}

/// The printer has ended, or the reading failed: no more is wanted.
struct Ended;

async fn pass_on(chunk: Result<Chunk, ClientError>, chunks: &Chunks) -> Result<(), Ended> {
    let failed = chunk.is_err();
    match chunks.send(chunk).await {
        Ok(()) if !failed => Ok(()),
        _ => Err(Ended),
    }
}

/// Why there are no more records.
fn stopped(error: ClientError) -> anyhow::Error {
    match error.code() {
        // A module failed on a record.
        Some(Code::Aborted) => anyhow::anyhow!(
            "{error}; readers get past such a record where the stage is added with --on-error skip or pass"
        ),
        _ => error.into(),
    }
}

/// Writes records out.
struct Printer<W> {
    topic: String,
    format: Format,
    /// How many more records are wanted; none: all.
    left: Option<u64>,
    out: W,
}

impl<W: Write> Printer<W> {
    fn run(mut self, mut chunks: mpsc::Receiver<Result<Chunk, ClientError>>) -> anyhow::Result<()> {
        while self.left != Some(0)
            && let Some(chunk) = chunks.blocking_recv()
        {
            written(self.print(&chunk.map_err(stopped)?))?;
            // Somebody may be looking on.
            written(self.out.flush())?;
        }
        written(self.out.flush())
    }

    fn print(&mut self, chunk: &Chunk) -> io::Result<()> {
        for record in &chunk.records {
            match &mut self.left {
                Some(0) => break,
                Some(left) => *left -= 1,
                None => {}
            }
            match self.format {
                Format::Value => self.out.write_all(record.value.as_deref().unwrap_or_default())?,
                Format::Json => {
                    let json = RecordJson {
                        topic: &self.topic,
                        partition: chunk.partition,
                        record,
                    };
                    serde_json::to_writer(&mut self.out, &json)?;
                }
            }
            self.out.write_all(b"\n")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use millstream_client::Record;

    use super::*;

    fn print(format: Format, max: Option<u64>, values: &[Option<&'static [u8]>]) -> Vec<u8> {
        let records = (5..)
            .zip(values)
            .map(|(offset, value)| Record {
                offset,
                timestamp_ms: 0,
                key: None,
                value: value.map(Bytes::from_static),
                headers: Vec::new(),
            })
            .collect();
        let (chunks, received) = mpsc::channel(1);
        chunks
            .try_send(Ok(Chunk {
                topic: "t".into(),
                partition: 2,
                records,
                next_offset: 9,
                high_watermark: 9,
                log_start_offset: 0,
                lag: 0,
            }))
            .map_err(|_| "full")
            .unwrap();
        drop(chunks);
        let mut out = Vec::new();
        Printer {
            topic: "t".to_owned(),
            format,
            left: max,
            out: &mut out,
        }
        .run(received)
        .unwrap();
        out
    }

    #[test]
    fn values_are_printed_as_they_are_one_a_line() {
        let out = print(Format::Value, None, &[Some(b"a"), None, Some(b"\xff\xfe"), Some(b"")]);
        assert_eq!(out, b"a\n\n\xff\xfe\n\n");
    }

    #[test]
    fn no_more_records_are_printed_than_wanted() {
        assert_eq!(
            print(Format::Value, Some(2), &[Some(b"a"), Some(b"b"), Some(b"c")]),
            b"a\nb\n"
        );
        assert_eq!(print(Format::Value, Some(0), &[Some(b"a")]), b"");
    }

    #[test]
    fn json_is_one_object_a_line() {
        let out = String::from_utf8(print(Format::Json, None, &[Some(b"a"), None])).unwrap();
        let offsets: Vec<_> = out
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["offset"].clone())
            .collect();
        assert_eq!(offsets, [5, 6]);
    }

    #[test]
    fn from_is_a_word_an_offset_or_a_time() {
        assert_eq!("earliest".parse(), Ok(From(Start::Earliest)));
        assert_eq!("latest".parse(), Ok(From(Start::Latest)));
        assert_eq!("17".parse(), Ok(From(Start::Offset(17))));
        assert_eq!("@5".parse(), Ok(From(Start::Timestamp(5))));
        for text in ["-1", "@soon", "5x", "soon", ""] {
            assert!(text.parse::<From>().is_err(), "{text:?}");
        }
    }
}
