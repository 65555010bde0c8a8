//! Records to try a module on: out of a file, or stored ones through an agent.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use millstream_client::{Consumer, ConsumerSettings, Record, Start};
use serde::{Deserialize, de::IgnoredAny};

use crate::cli::Server;

/// Largest file of samples.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// Topic that a module is told it runs on where the records come out of a file.
const SAMPLE_TOPIC: &str = "sample";

/// Where the records come from.
#[derive(Debug, Args)]
pub struct SampleArgs {
    /// A file of records, one a line; or --from
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    input: Option<PathBuf>,
    /// What a line of a file is
    #[arg(long, value_enum, default_value_t)]
    pub format: RecordFormat,
    /// Stored records of this topic, as a reader gets them
    #[arg(long, value_name = "TOPIC")]
    from: Option<String>,
    /// The partition that they are read from, or that the module is told
    #[arg(long, value_name = "P", default_value_t = 0)]
    pub partition: u32,
    /// The first of the stored records [default: the earliest]
    #[arg(long, value_name = "N", requires = "from")]
    offset: Option<u64>,
    /// So many stored records at most
    #[arg(long, value_name = "N", default_value_t = 1_000, requires = "from")]
    max: usize,
    #[command(flatten)]
    pub server: Server,
}

/// What a line of a file is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RecordFormat {
    /// The value of a record, as `produce` takes it and `consume` prints it
    #[default]
    Value,
    /// One object with key, value, headers and timestamp, as `consume --format json` prints it
    Json,
}

/// Records, in order of offset.
#[derive(Debug)]
pub struct Samples {
    /// The topic they are of.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Those of a file count from 0, unless it says which offsets they have.
    pub records: Vec<Record>,
}

impl SampleArgs {
    /// Reads them.
    pub async fn read(&self) -> anyhow::Result<Samples> {
        let (topic, records) = match (&self.input, &self.from) {
            (Some(file), _) => (SAMPLE_TOPIC, read_file(file, self.format).await?),
            (None, Some(topic)) => (topic.as_str(), self.read_topic(topic).await?),
            (None, None) => {
                bail!("there are no records to try it on: name a file with --input, or a topic with --from")
            }
        };
        Ok(Samples {
            topic: topic.to_owned(),
            partition: self.partition,
            records,
        })
    }

    async fn read_topic(&self, topic: &str) -> anyhow::Result<Vec<Record>> {
        let connection = self.server.connect().await?;
        let start = self.offset.map_or(Start::Earliest, Start::Offset);
        let mut consumer =
            Consumer::open(&connection, topic, self.partition, start, ConsumerSettings::default()).await?;
        let position = consumer.position(topic, self.partition).unwrap_or_default();
        let (mut next, end) = (position.next_offset, position.high_watermark);
        let mut records = Vec::new();
        while records.len() < self.max && next < end {
            let chunk = consumer.next_chunk().await?;
            next = chunk.next_offset;
            records.extend(chunk.records.into_iter().take_while(|record| record.offset < end));
        }
        records.truncate(self.max);
        Ok(records)
    }
}

/// The records of a file.
pub async fn read_file(file: &Path, format: RecordFormat) -> anyhow::Result<Vec<Record>> {
    let name = || file.display().to_string();
    let bytes = tokio::fs::metadata(file).await.with_context(name)?.len();
    if bytes > FILE_BYTES_MAX {
        bail!(
            "{}: {bytes} bytes are above the limit of {FILE_BYTES_MAX} for a file of samples",
            file.display()
        );
    }
    parse(&tokio::fs::read(file).await.with_context(name)?, format).with_context(name)
}

/// The records of a text. A line that is none is named by its number.
fn parse(text: &[u8], format: RecordFormat) -> anyhow::Result<Vec<Record>> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let lines = text
        .split(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut records: Vec<Record> = Vec::new();
    for (number, line) in (1..).zip(lines) {
        let expected = records.last().map_or(0, |last| last.offset.saturating_add(1));
        let record = match format {
            RecordFormat::Value => value_record(line, expected),
            RecordFormat::Json if line.iter().all(u8::is_ascii_whitespace) => continue,
            RecordFormat::Json => json_record(line, expected).with_context(|| format!("line {number}"))?,
        };
        if record.offset < expected {
            bail!(
                "line {number}: offset {} does not follow that of the record before it",
                record.offset
            );
        }
        records.push(record);
    }
    Ok(records)
}

fn value_record(line: &[u8], offset: u64) -> Record {
    Record {
        offset,
        timestamp_ms: 0,
        key: None,
        value: Some(Bytes::copy_from_slice(line)),
        headers: Vec::new(),
    }
}

/// A record as `consume --format json` prints it. What is left out is null, 0 or empty.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordLine {
    #[serde(rename = "topic")]
    _topic: Option<IgnoredAny>,
    #[serde(rename = "partition")]
    _partition: Option<IgnoredAny>,
    offset: Option<u64>,
    #[serde(default)]
    timestamp: i64,
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    #[serde(default)]
    headers: Vec<HeaderLine>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderLine {
    key: String,
    value: Option<String>,
    value_base64: Option<String>,
}

fn json_record(line: &[u8], expected_offset: u64) -> anyhow::Result<Record> {
    let line: RecordLine = serde_json::from_slice(line).context(
        "it is no record as `consume --format json` prints it (with --format value each line is a record's value)",
    )?;
    let headers = line.headers.into_iter().map(|header| {
        let value = bytes("value", header.value, header.value_base64)?;
        Ok((header.key, value))
    });
    Ok(Record {
        offset: line.offset.unwrap_or(expected_offset),
        timestamp_ms: line.timestamp,
        key: bytes("key", line.key, line.key_base64)?,
        value: bytes("value", line.value, line.value_base64)?,
        headers: headers.collect::<anyhow::Result<_>>()?,
    })
}

fn bytes(name: &str, text: Option<String>, base64: Option<String>) -> anyhow::Result<Option<Bytes>> {
    match (text, base64) {
        (Some(_), Some(_)) => bail!("it has both {name} and {name}_base64"),
        (Some(text), None) => Ok(Some(text.into())),
        (None, Some(text)) => {
            let bytes = STANDARD.decode(text).with_context(|| format!("{name}_base64"))?;
            Ok(Some(bytes.into()))
        }
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::record_json::RecordJson;

    fn error(text: &str) -> String {
        format!("{:#}", parse(text.as_bytes(), RecordFormat::Json).unwrap_err())
    }

    #[test]
    fn what_consume_prints_is_read_back() {
        let record = Record {
            offset: 7,
            timestamp_ms: -1,
            key: None,
            value: Some(Bytes::from_static(b"\xff\x00")),
            headers: vec![
                ("h".to_owned(), Some(Bytes::from_static(b"x"))),
                ("h".to_owned(), None),
                ("b".to_owned(), Some(Bytes::from_static(b"\xfe"))),
            ],
        };
        let json = RecordJson {
            topic: "t",
            partition: 2,
            record: &record,
        };
        let line = serde_json::to_string(&json).unwrap();
        assert_eq!(
            parse(format!("{line}\n\n").as_bytes(), RecordFormat::Json).unwrap(),
            [record]
        );
    }

    #[test]
    fn lines_are_values_unless_told_otherwise() {
        let records = parse(b"{\"a\":1}\r\n\nlast", RecordFormat::Value).unwrap();
        let values: Vec<_> = records.iter().map(|record| record.value.as_deref().unwrap()).collect();
        assert_eq!(values, [&b"{\"a\":1}"[..], b"", b"last"]);
        assert_eq!(records[2].offset, 2);
        assert!(parse(b"", RecordFormat::Value).unwrap().is_empty());
    }

    #[test]
    fn a_bad_line_is_named_with_what_is_wrong() {
        let number = error("{\"value\":\"v\"}\nnonsense");
        assert!(number.starts_with("line 2: it is no record"), "{number}");
        assert!(error("{\"level\":\"info\"}").contains("unknown field `level`"));
        assert!(error("{\"key\":\"a\",\"key_base64\":\"YQ==\"}").contains("both key and key_base64"));
        assert!(error("{\"value_base64\":\"?\"}").contains("value_base64"));
        assert!(error("{\"offset\":5}\n{\"offset\":5}").starts_with("line 2: offset 5"));
    }
}
