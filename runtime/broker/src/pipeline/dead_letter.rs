//! Dead letters: records that a stage refused or failed on, as the producer sent them, in a topic of their own.
//!
//! They are durable there before the batch that they came in is handed to the write-ahead log. A crash between the two
//! leaves them there and the batch unacknowledged: sent again, they stand there twice, and never not at all.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use millstream_batch::{Batch, BatchBuilder, Compression, HEADER_BYTES, RecordIter, RecordView};
use millstream_meta::{Topic, TopicConfig};
use tokio::time::timeout;

use super::{PipelineSpec, StageSpec};
use crate::{
    broker::Broker,
    error::{BrokerError, Result},
    partition::{Acks, Shared},
    topics::NewTopic,
};

/// How long the source's batch waits for its dead letters. Pipelines that were changed on two agents at once may form a
/// circle: then this ends it.
const PATIENCE: Duration = Duration::from_secs(30);
/// A batch of dead letters ends at this size.
const BATCH_BYTES: usize = 1 << 20;
/// Bytes of an error that a header repeats.
const ERROR_BYTES_MAX: usize = 1 << 10;
/// What the headers of a dead letter take at most beside the error, and the names in them.
const HEADERS_BYTES: usize = 512;
/// By so much a dead-letter topic's records may be larger than those of its source.
const HEADROOM_BYTES: u32 = 64 << 10;
/// Greatest record size that a topic may allow.
const RECORD_BYTES_MAX: u32 = 16 << 20;
/// Greatest letter that a batch of its own may hold: a batch may be no larger than a record.
const LETTER_BYTES_MAX: usize = RECORD_BYTES_MAX as usize - HEADER_BYTES;
/// Other partitions of the dead-letter topic that are tried where another agent leads the one that it should go to.
const OTHERS_MAX: u32 = 16;

/// Headers that are added, in this order, behind those of the record. The topic comes first: whoever sends a dead letter on
/// its way again cuts off what begins with the last one of this name.
const SOURCE_TOPIC: &str = "millstream-source-topic";
const SOURCE_PARTITION: &str = "millstream-source-partition";
const SOURCE_POSITION: &str = "millstream-source-position";
const APPEND_TIME: &str = "millstream-append-time";
const MODULE: &str = "millstream-module";
const MODULE_VERSION: &str = "millstream-module-version";
const ERROR: &str = "millstream-error";

/// One record at fault.
pub(super) struct Letter {
    /// The dead-letter topic.
    pub(super) topic: String,
    /// Which record of the produced batch.
    pub(super) index: u32,
    pub(super) module: String,
    pub(super) version: u32,
    pub(super) error: Arc<str>,
}

/// The records of one produced batch that go to one topic.
pub(crate) struct DeadLetters {
    topic: String,
    /// Ascending, each record once.
    letters: Vec<Letter>,
    /// All records of the batch as the producer sent them, uncompressed.
    records: Bytes,
    base_timestamp_ms: i64,
}

/// Where dead letters come from.
pub(crate) struct Source {
    pub(crate) topic: String,
    pub(crate) partition: u32,
    pub(crate) append_time_ms: i64,
}

impl DeadLetters {
    /// Of a batch and its uncompressed records.
    pub(super) fn by_topic(mut letters: Vec<Letter>, batch: &Batch, records: &Bytes) -> Vec<DeadLetters> {
        letters.sort_by(|a, b| (&a.topic, a.index).cmp(&(&b.topic, b.index)));
        letters.dedup_by(|a, b| (&a.topic, a.index) == (&b.topic, b.index));
        let mut by_topic: Vec<DeadLetters> = Vec::new();
        for letter in letters {
            match by_topic.last_mut().filter(|last| last.topic == letter.topic) {
                Some(last) => last.letters.push(letter),
                None => by_topic.push(DeadLetters {
                    topic: letter.topic.clone(),
                    letters: vec![letter],
                    records: records.clone(),
                    base_timestamp_ms: batch.header().base_timestamp_ms,
                }),
            }
        }
        by_topic
    }

    /// Batches of dead letters for a topic that takes records of this size.
    fn batches(&self, source: &Source, record_bytes_max: usize) -> Result<Vec<Bytes>> {
        let (mut batches, mut builder) = (Vec::new(), BatchBuilder::new());
        let mut letters = self.letters.iter().peekable();
        for (index, record) in (0..).zip(RecordIter::new(&self.records)) {
            let record = record?;
            let Some(letter) = letters.next_if(|letter| letter.index == index) else {
                continue;
            };
            // A letter near the greatest record that is taken goes alone: two of them may be more than a batch may be.
            let bytes = without_error(source, letter, &record) + letter.error.len().min(ERROR_BYTES_MAX);
            if !builder.is_empty() && builder.records_bytes() + bytes > BATCH_BYTES {
                batches.push(std::mem::take(&mut builder).build(Compression::None).to_bytes());
            }
            self.push(&mut builder, source, letter, &record, record_bytes_max);
        }
        if !builder.is_empty() {
            batches.push(builder.build(Compression::None).to_bytes());
        }
        Ok(batches)
    }

    fn push(
        &self,
        builder: &mut BatchBuilder,
        source: &Source,
        letter: &Letter,
        record: &RecordView<'_>,
        record_bytes_max: usize,
    ) {
        let (partition, position) = (source.partition.to_string(), letter.index.to_string());
        let (append_time, version) = (source.append_time_ms.to_string(), letter.version.to_string());
        let added = [
            (SOURCE_TOPIC, source.topic.as_str()),
            (SOURCE_PARTITION, &partition),
            (SOURCE_POSITION, &position),
            (APPEND_TIME, &append_time),
            (MODULE, &letter.module),
            (MODULE_VERSION, &version),
        ];
        let mut headers: Vec<(&str, Option<&[u8]>)> = record.headers().collect();
        headers.extend(added.map(|(name, value)| (name, Some(value.as_bytes()))));
        // The record counts, not what is said about it: its error is cut to what room there is.
        let taken = without_error(source, letter, record);
        let room = record_bytes_max
            .min(LETTER_BYTES_MAX)
            .saturating_sub(taken)
            .min(ERROR_BYTES_MAX);
        let error = &letter.error[..letter.error.floor_char_boundary(room)];
        if !error.is_empty() {
            headers.push((ERROR, Some(error.as_bytes())));
        }
        let timestamp_ms = self.base_timestamp_ms.wrapping_add(record.timestamp_delta);
        builder.push(timestamp_ms, record.key, record.value, headers.into_iter());
    }
}

/// Bytes that a letter has at most, without the error.
fn without_error(source: &Source, letter: &Letter, record: &RecordView<'_>) -> usize {
    record.encoded().len() + HEADERS_BYTES + source.topic.len() + letter.module.len()
}

/// Returns once all of them are durable.
///
/// # Errors
/// [`BrokerError::DeadLetters`]; some of them may be durable then.
pub(crate) async fn write(shared: Shared, source: Source, all: Vec<DeadLetters>) -> Result<()> {
    for letters in all {
        let written = match timeout(PATIENCE, write_to(&shared, &source, &letters)).await {
            Ok(written) => written,
            Err(_) => Err(BrokerError::DeadLettersLate {
                seconds: PATIENCE.as_secs(),
            }),
        };
        written.map_err(|error| BrokerError::DeadLetters {
            topic: letters.topic.clone(),
            source: Box::new(error),
        })?;
    }
    Ok(())
}

async fn write_to(shared: &Shared, source: &Source, letters: &DeadLetters) -> Result<()> {
    // It is gone while the agent stops: then nothing more is acknowledged.
    let broker = shared.broker().ok_or(BrokerError::Stopping)?;
    let live = broker.live(&letters.topic).await?;
    let topic = live.topic();
    let own = source.partition % topic.partitions;
    for batch in letters.batches(source, topic.config.record_bytes_max as usize)? {
        let mut written = broker.produce(&topic.name, own, batch.clone(), Acks::Durable).await;
        if matches!(&written, Err(error) if error.is_elsewhere()) {
            // Better in another partition than not at all. Those that are open come first.
            let open = live.open_partitions().into_iter().map(|open| open.lease().partition);
            let others = (1..topic.partitions).take(OTHERS_MAX as usize);
            let others = others.map(|step| (own + step) % topic.partitions);
            for other in open.chain(others) {
                written = broker.produce(&topic.name, other, batch.clone(), Acks::Durable).await;
                if !matches!(&written, Err(error) if error.is_elsewhere()) {
                    break;
                }
            }
        }
        written?;
    }
    Ok(())
}

impl Broker {
    /// Makes the dead-letter topic of a stage that is to be added to a topic's produce pipeline, where there is none.
    ///
    /// # Errors
    /// Dead letters would go round in a circle; or the topic cannot be made.
    pub(crate) async fn prepare_dead_letter(self: &Arc<Self>, topic: &Topic, stage: &StageSpec) -> Result<()> {
        let Some(name) = stage.dead_letter_topic(&topic.name) else {
            return Ok(());
        };
        self.check_no_circle(&topic.name, &name).await?;
        match self.live(&name).await {
            Err(BrokerError::UnknownTopic { .. }) => {}
            found => return found.map(drop),
        }
        let config = &topic.config;
        let made = self.create_topic(NewTopic {
            name,
            partitions: topic.partitions,
            config: TopicConfig {
                record_bytes_max: (config.record_bytes_max + HEADROOM_BYTES).min(RECORD_BYTES_MAX),
                ..config.clone()
            },
        });
        match made.await {
            // Somebody else made it at the same time.
            Ok(_) | Err(BrokerError::TopicExists { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Follows the dead letters of all pipelines from `to` on; they must not come back to `from`.
    async fn check_no_circle(&self, from: &str, to: &str) -> Result<()> {
        let (mut open, mut seen) = (vec![vec![from.to_owned(), to.to_owned()]], Vec::new());
        while let Some(path) = open.pop() {
            let last = path.last().expect("a path has two topics at least").clone();
            if last == from {
                return Err(BrokerError::DeadLetterCircle { topics: path });
            }
            if seen.contains(&last) {
                continue;
            }
            for next in self.dead_letter_topics(&last).await? {
                open.push(path.iter().cloned().chain([next]).collect());
            }
            seen.push(last);
        }
        Ok(())
    }

    /// Where dead letters of a topic go.
    async fn dead_letter_topics(&self, topic: &str) -> Result<Vec<String>> {
        let metadata = &self.shared().metadata;
        let Some(found) = metadata.topic(topic).await? else {
            return Ok(Vec::new());
        };
        let Some(stored) = metadata.pipeline(found.id).await? else {
            return Ok(Vec::new());
        };
        let spec: PipelineSpec =
            serde_json::from_str(&stored.stages_json).map_err(|source| BrokerError::StoredForm {
                what: "pipeline",
                source,
            })?;
        let stages = spec.produce.iter();
        Ok(stages.filter_map(|stage| stage.dead_letter_topic(topic)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letters(error: &str) -> DeadLetters {
        let mut builder = BatchBuilder::new();
        for i in 0..3u8 {
            let header = ("own", Some(&b"h"[..]));
            builder.push(1_000 + i64::from(i), Some(&[i]), Some(&[i; 100]), [header].into_iter());
        }
        let batch = builder.build(Compression::None);
        let letter = |index| Letter {
            topic: "dead".to_owned(),
            index,
            module: "m".to_owned(),
            version: 7,
            error: error.into(),
        };
        let all = vec![letter(2), letter(1), letter(2)];
        DeadLetters::by_topic(all, &batch, batch.records()).remove(0)
    }

    fn source() -> Source {
        Source {
            topic: "orders".to_owned(),
            partition: 4,
            append_time_ms: 9,
        }
    }

    #[test]
    fn a_dead_letter_keeps_everything_and_says_where_it_comes_from() {
        let mut bytes = letters("it broke").batches(&source(), 1 << 20).unwrap().remove(0);
        let batch = Batch::split_first(&mut bytes).unwrap();
        let records: Vec<_> = RecordIter::new(batch.records()).map(Result::unwrap).collect();
        assert_eq!(records.len(), 2, "each record once");
        let first = records[0];
        assert_eq!((first.key, first.value), (Some(&[1][..]), Some(&[1; 100][..])));
        assert_eq!(batch.header().base_timestamp_ms + first.timestamp_delta, 1_001);
        let text =
            |(name, value): (&str, Option<&[u8]>)| format!("{name}={}", std::str::from_utf8(value.unwrap()).unwrap());
        let headers: Vec<_> = first.headers().map(text).collect();
        let expected = [
            "own=h",
            "millstream-source-topic=orders",
            "millstream-source-partition=4",
            "millstream-source-position=1",
            "millstream-append-time=9",
            "millstream-module=m",
            "millstream-module-version=7",
            "millstream-error=it broke",
        ];
        assert_eq!(headers, expected);
    }

    #[test]
    fn where_there_is_little_room_the_error_is_cut_and_never_the_record() {
        for record_bytes_max in [10, 700, 800, 2_000, 1 << 20] {
            let bytes = letters(&"ü".repeat(3_000))
                .batches(&source(), record_bytes_max)
                .unwrap()
                .remove(0);
            let batch = Batch::split_first(&mut bytes.clone()).unwrap();
            for record in RecordIter::new(batch.records()) {
                let record = record.unwrap();
                assert_eq!(record.value.unwrap().len(), 100);
                let fits = record.encoded().len() <= record_bytes_max;
                assert!(
                    fits || record_bytes_max < 700,
                    "{} in {record_bytes_max}",
                    record.encoded().len()
                );
                let error = record.headers().find(|(name, _)| *name == ERROR);
                assert!(error.is_none_or(|(_, error)| error.unwrap().len() <= ERROR_BYTES_MAX));
            }
        }
    }

    #[test]
    fn letters_near_the_greatest_record_go_one_by_one() {
        let value = vec![7; 900 << 10];
        let mut builder = BatchBuilder::new();
        for _ in 0..3 {
            builder.push(0, None, Some(&value), [].into_iter());
        }
        builder.push(0, None, Some(&[7; 100]), [].into_iter());
        let batch = builder.build(Compression::None);
        let letter = |index| Letter {
            topic: "dead".to_owned(),
            index,
            module: "m".to_owned(),
            version: 7,
            error: "no".into(),
        };
        let letters = DeadLetters::by_topic((0..4).map(letter).collect(), &batch, batch.records()).remove(0);
        let batches = letters.batches(&source(), 1 << 20).unwrap();
        let counts = batches
            .iter()
            .map(|bytes| Batch::split_first(&mut bytes.clone()).unwrap().record_count());
        assert_eq!(counts.collect::<Vec<_>>(), [1, 1, 2]);
        assert!(batches.iter().all(|batch| batch.len() <= BATCH_BYTES));
    }
}
