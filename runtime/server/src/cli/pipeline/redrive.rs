//! `millstream pipeline redrive`: dead letters go through the pipeline of their topic again.
//!
//! What is in the dead-letter topic when it begins is read, each record is sent to the topic and partition that it came
//! from, and what is durable there is cut off the dead-letter topic. A crash between the two sends records again; none is
//! lost. A record that fails once more comes back as a new dead letter, behind the end that was found at the beginning.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use clap::Args;
use millstream_client::{
    Admin, Code, Connection, Consumer, ConsumerSettings, NewRecord, Producer, ProducerSettings, Record, Start,
};
use serde::Serialize;

use crate::cli::{
    Server,
    output::{OutputFormat, print},
};

/// Headers of dead letters. They stand behind those of the record itself, this one first; a record that came to a
/// dead-letter topic from another one has them twice, and its last step is the one to go back.
const SOURCE_TOPIC: &str = "millstream-source-topic";
const SOURCE_PARTITION: &str = "millstream-source-partition";

/// Encoded bytes that are sent before what is durable is cut off.
const ROUND_BYTES: u32 = 4 << 20;

/// Options of `redrive`.
#[derive(Debug, Args)]
pub struct RedriveArgs {
    /// The dead-letter topic
    #[arg(value_name = "DEAD-LETTER-TOPIC")]
    topic: String,
    /// Stop after so many records
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    #[command(flatten)]
    server: Server,
}

/// Where a dead letter goes back.
type Source = (String, u32);

#[derive(Debug, Serialize)]
struct Summary {
    topic: String,
    records: u64,
    /// Dead letters that came to the topic meanwhile: of records that failed again, and of others.
    came: u64,
    /// Records by the topic they went back to.
    topics: BTreeMap<String, u64>,
}

/// Sends dead letters on their way again.
pub(super) async fn run(args: RedriveArgs, output: OutputFormat) -> anyhow::Result<()> {
    let connection = args.server.connect().await?;
    let admin = Admin::new(&connection);
    let partitions = admin.topic(&args.topic).await?.partitions;
    let (pipeline, _) = admin.pipeline(&args.topic).await?;
    if !pipeline.fetch.is_empty() {
        bail!(
            "topic {} has a fetch pipeline, and what that changes or hides could not be sent again as it is: remove it first",
            args.topic
        );
    }
    let mut redrive = Redrive {
        connection,
        admin,
        topic: args.topic,
        left: args.max.unwrap_or(u64::MAX),
        producers: BTreeMap::new(),
        sent: BTreeMap::new(),
    };
    let ends = redrive.ends(partitions).await?;
    for (partition, &end) in (0..).zip(&ends) {
        redrive.partition(partition, end).await?;
    }
    let now = redrive.ends(partitions).await?;
    let summary = Summary {
        records: redrive.sent.values().sum(),
        came: now.iter().zip(&ends).map(|(now, end)| now.saturating_sub(*end)).sum(),
        topic: redrive.topic,
        topics: redrive.sent,
    };
    print(output, &summary, || summary.text())
}

struct Redrive {
    connection: Connection,
    admin: Admin,
    topic: String,
    /// Records that may still be sent.
    left: u64,
    producers: BTreeMap<Source, Producer>,
    sent: BTreeMap<String, u64>,
}

impl Redrive {
    /// Where each partition ends now.
    async fn ends(&self, partitions: u32) -> anyhow::Result<Vec<u64>> {
        let mut ends = Vec::new();
        for partition in 0..partitions {
            ends.push(self.admin.offsets(&self.topic, partition, None).await?.high_watermark);
        }
        Ok(ends)
    }

    /// Sends what is below an offset.
    async fn partition(&mut self, partition: u32, end: u64) -> anyhow::Result<()> {
        let settings = ConsumerSettings {
            max_bytes: ROUND_BYTES,
            ..ConsumerSettings::default()
        };
        let mut consumer = Consumer::open(&self.connection, &self.topic, partition, Start::Earliest, settings).await?;
        let mut next = consumer
            .position(&self.topic, partition)
            .map_or(end, |at| at.next_offset);
        while next < end && self.left > 0 {
            let chunk = consumer.next_chunk().await?;
            next = chunk.next_offset;
            let mut below = next.min(end);
            for record in chunk.records.iter().filter(|record| record.offset < end) {
                if self.left == 0 {
                    below = record.offset;
                    break;
                }
                self.send(partition, record).await?;
                self.left -= 1;
            }
            self.finish(partition, below).await?;
        }
        Ok(())
    }

    async fn send(&mut self, partition: u32, record: &Record) -> anyhow::Result<()> {
        let Some((source, own_headers)) = source(record) else {
            let offset = record.offset;
            let hint = self.hint().await;
            bail!(
                "record {offset} of partition {partition} of {} has no headers that say where it comes from, so it is no \
                 dead letter{hint}",
                self.topic
            );
        };
        let producer = match self.producers.get(&source) {
            Some(producer) => producer,
            None => {
                let settings = ProducerSettings {
                    partition: Some(source.1),
                    stop_at_failure: true,
                    ..ProducerSettings::default()
                };
                let opened = Producer::open(&self.connection, &source.0, settings).await;
                let opened =
                    opened.with_context(|| format!("record {} came from topic {}", record.offset, source.0))?;
                self.producers.entry(source.clone()).or_insert(opened)
            }
        };
        let headers: Vec<_> = record.headers[..own_headers]
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref()))
            .collect();
        let again = NewRecord {
            timestamp_ms: record.timestamp_ms,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
            ..NewRecord::default()
        };
        let sent = producer.send(again).await;
        sent.with_context(|| format!("records were refused by topic {} and stay dead letters", source.0))?;
        *self.sent.entry(source.0).or_default() += 1;
        Ok(())
    }

    /// Waits until all that was sent is durable, then cuts it off. A crash between the two sends it again.
    async fn finish(&mut self, partition: u32, below: u64) -> anyhow::Result<()> {
        for ((topic, _), producer) in &self.producers {
            let flushed = producer.flush().await;
            flushed.with_context(|| format!("records were refused by topic {topic} and stay dead letters"))?;
        }
        let cut = self.admin.truncate_topic(&self.topic, partition, below).await;
        cut.context(
            "the records were sent, but could not be taken from the dead-letter topic: they would be sent again",
        )?;
        Ok(())
    }

    async fn hint(&self) -> String {
        let named = format!("{}.dead-letter", self.topic);
        match self.admin.topic(&named).await {
            Ok(_) => format!("; did you mean {named}?"),
            Err(error) if error.code() == Some(Code::NotFound) => String::new(),
            Err(_) => String::new(),
        }
    }
}

/// Where a dead letter came from, and how many of its headers are its own.
fn source(record: &Record) -> Option<(Source, usize)> {
    let at = record.headers.iter().rposition(|(name, _)| name == SOURCE_TOPIC)?;
    let added = &record.headers[at..];
    let text = |wanted: &str| {
        let (_, value) = added.iter().find(|(name, _)| name == wanted)?;
        std::str::from_utf8(value.as_deref()?).ok()
    };
    let partition = text(SOURCE_PARTITION)?.parse().ok()?;
    Some(((text(SOURCE_TOPIC)?.to_owned(), partition), at))
}

impl Summary {
    fn text(&self) -> String {
        if self.records == 0 {
            return format!("{} holds no dead letters", self.topic);
        }
        let topics = self
            .topics
            .iter()
            .map(|(topic, count)| format!("{count} records sent to {topic} again"));
        let mut lines: Vec<_> = topics.collect();
        if self.came > 0 {
            let Summary { came, topic, .. } = self;
            lines.push(format!(
                "{came} new dead letters came to {topic} meanwhile; their header millstream-error says why"
            ));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(headers: &[(&str, &str)]) -> Record {
        Record {
            offset: 0,
            timestamp_ms: 0,
            key: None,
            value: None,
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), Some(value.as_bytes().to_vec().into())))
                .collect(),
        }
    }

    #[test]
    fn the_last_step_is_the_one_to_go_back() {
        let once = [
            ("own", "1"),
            (SOURCE_TOPIC, "a"),
            (SOURCE_PARTITION, "3"),
            ("millstream-error", "x"),
        ];
        assert_eq!(source(&record(&once)), Some((("a".to_owned(), 3), 1)));
        let twice = [&once[..], &[(SOURCE_TOPIC, "a.dead-letter"), (SOURCE_PARTITION, "0")]].concat();
        assert_eq!(source(&record(&twice)), Some((("a.dead-letter".to_owned(), 0), 4)));
        for none in [
            &[("own", "1")][..],
            &[(SOURCE_TOPIC, "a")],
            &[(SOURCE_TOPIC, "a"), (SOURCE_PARTITION, "x")],
        ] {
            assert_eq!(source(&record(none)), None);
        }
    }
}
