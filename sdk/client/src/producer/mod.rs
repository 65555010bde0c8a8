//! The producer: records become batches, batches go out in order within each partition.
//!
//! ```text
//! send -> builder of the partition -(full)-> lane's queue -> one request in flight -> ledger
//! ```
//!
//! Each partition has a lane, a task that sends its batches one after another; lanes run beside each other. The ledger
//! knows what was acknowledged. After the first failure nothing more goes out: a batch behind a failed one would be out
//! of order. What was in flight is waited for, and everything else is named as not acknowledged. A request that may have
//! been applied is never sent again.

mod lane;
mod ledger;

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use millstream_batch::{BatchBuilder, Compression, HEADER_BYTES};
use millstream_proto::v1;
use thiserror::Error;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use crate::{Admin, ClientError, Connection, Reject, partitioner::Partitioner};
use lane::{Lane, SealedBatch};
use ledger::{Ledger, Sequences};

/// Largest encoded batch that an agent takes.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// Bounds on what the encoding adds to a record, and to each of its headers: varints of at most 10 bytes.
const RECORD_OVERHEAD_BYTES: usize = 64;
const HEADER_OVERHEAD_BYTES: usize = 20;

/// A record to produce, borrowed.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewRecord<'a> {
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The key; it chooses the partition.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: Option<&'a [u8]>,
    /// Headers in order; a key may repeat.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

/// How a producer collects and sends.
#[derive(Clone, Debug)]
pub struct ProducerSettings {
    /// When the agent answers; unspecified, the topic's default.
    pub acks: v1::Acks,
    /// The partition for everything; without one the key chooses.
    pub partition: Option<u32>,
    /// A batch is sent once it holds this many encoded bytes; 16 MiB at most.
    pub batch_bytes: usize,
    /// Bound on the encoded bytes that are held, in open batches and in sealed ones not yet answered.
    pub buffer_bytes_max: usize,
    /// How batches are compressed on their way.
    pub compression: Compression,
}

impl Default for ProducerSettings {
    fn default() -> ProducerSettings {
        ProducerSettings {
            acks: v1::Acks::Unspecified,
            partition: None,
            batch_bytes: 256 << 10,
            buffer_bytes_max: 32 << 20,
            compression: Compression::None,
        }
    }
}

/// What was acknowledged so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Records sent and acknowledged.
    pub acknowledged: u64,
    /// Records stored in their place.
    pub stored: u64,
    /// Sent records that the pipeline changed.
    pub changed: u64,
    /// Sent records that the pipeline dropped.
    pub dropped: u64,
    /// Requests answered.
    pub batches: u64,
}

/// Why a producer stopped, and what that means for the records it was given.
#[derive(Clone, Debug, Error)]
#[error("{cause}")]
pub struct ProduceError {
    /// The first failure.
    pub cause: Box<ClientError>,
    /// What was acknowledged before and beside it.
    pub totals: Totals,
    /// The records that were not acknowledged, counted from 0 in the order of `send`; in order, not adjacent.
    pub unacknowledged: Vec<Range<u64>>,
    /// The records that a module rejected, counted in the same way.
    pub rejects: Vec<Reject>,
}

impl ProduceError {
    /// What went wrong, without the reasons that `rejects` has.
    pub fn summary(&self) -> String {
        match &*self.cause {
            ClientError::Refused {
                summary: Some(summary), ..
            } if !self.rejects.is_empty() => summary.clone(),
            other => other.to_string(),
        }
    }
}

/// Sends records to one topic. Dropping it abandons what was not flushed.
#[derive(Debug)]
pub struct Producer {
    connection: Connection,
    topic: Arc<str>,
    settings: ProducerSettings,
    partitioner: Partitioner,
    lanes: BTreeMap<u32, OpenBatch>,
    tasks: JoinSet<()>,
    ledger: Ledger,
    /// Bytes in `lanes`, at most half of the buffer.
    open_bytes: usize,
    /// The other half of the buffer: sealed batches hold as many permits as they have bytes until they are answered.
    sealed_bytes: Arc<Semaphore>,
    next_sequence: u64,
}

/// A partition's batch in the making, and the way to its lane.
#[derive(Debug)]
struct OpenBatch {
    builder: BatchBuilder,
    sequences: Sequences,
    queue: mpsc::UnboundedSender<SealedBatch>,
}

impl Producer {
    /// A producer for a topic that exists.
    ///
    /// # Errors
    /// What `GetTopic` answers, and [`ClientError::NoSuchPartition`] where the settings name one that is not there.
    pub async fn open(
        connection: &Connection,
        topic: &str,
        settings: ProducerSettings,
    ) -> Result<Producer, ClientError> {
        let partitions = Admin::new(connection).topic(topic).await?.partitions;
        let partitioner = match settings.partition {
            Some(partition) if partition >= partitions => {
                return Err(ClientError::NoSuchPartition {
                    topic: topic.to_owned(),
                    partition,
                    partitions,
                });
            }
            Some(partition) => Partitioner::Fixed(partition),
            None if partitions == 0 => {
                return Err(ClientError::BadAnswer {
                    reason: format!("topic {topic:?} has no partitions"),
                });
            }
            None => Partitioner::Keyed { partitions, sticky: 0 },
        };
        Ok(Producer {
            connection: connection.clone(),
            topic: topic.into(),
            partitioner,
            lanes: BTreeMap::new(),
            tasks: JoinSet::new(),
            ledger: Ledger::default(),
            open_bytes: 0,
            sealed_bytes: Arc::new(Semaphore::new(half_buffer(&settings))),
            next_sequence: 0,
            settings,
        })
    }

    /// Adds a record to its partition's batch, and sends the batch when it is full. Waits where the buffer is full.
    ///
    /// # Errors
    /// Once a request has failed, here or in the background. From then on every call answers the same.
    pub async fn send(&mut self, record: NewRecord<'_>) -> Result<(), ProduceError> {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        if self.ledger.failed() {
            let error = self.give_up().await;
            return Err(self.with_lost(sequence, error));
        }
        let bytes = encoded_bytes_bound(&record);
        if bytes + HEADER_BYTES > BATCH_BYTES_MAX {
            return Err(self.refuse(sequence, bytes).await);
        }

        let mut partition = self.partitioner.choose(record.key);
        if self.would_overflow(partition, bytes) {
            if let Err(error) = self.seal(partition).await {
                return Err(self.with_lost(sequence, error));
            }
            partition = self.partitioner.choose(record.key);
        }
        self.push(partition, sequence, &record);
        if self.would_overflow(partition, 0) {
            self.seal(partition).await?;
        }
        if self.open_bytes > half_buffer(&self.settings) {
            self.dispatch().await?;
        }
        Ok(())
    }

    /// Sends what is collected, full or not, without waiting for the answers.
    ///
    /// # Errors
    /// As [`Producer::send`].
    pub async fn dispatch(&mut self) -> Result<(), ProduceError> {
        let open: Vec<u32> = self
            .lanes
            .iter()
            .filter(|(_, lane)| !lane.builder.is_empty())
            .map(|(partition, _)| *partition)
            .collect();
        for partition in open {
            self.seal(partition).await?;
        }
        Ok(())
    }

    /// Sends what is collected and waits until everything is acknowledged.
    ///
    /// # Errors
    /// As [`Producer::send`].
    pub async fn flush(&mut self) -> Result<Totals, ProduceError> {
        self.dispatch().await?;
        self.ledger.settled().await;
        match self.ledger.failed() {
            true => Err(self.give_up().await),
            false => Ok(self.totals()),
        }
    }

    /// Flushes and ends.
    ///
    /// # Errors
    /// As [`Producer::send`].
    pub async fn close(mut self) -> Result<Totals, ProduceError> {
        self.flush().await
    }

    /// What was acknowledged so far.
    pub fn totals(&self) -> Totals {
        self.ledger.totals()
    }

    fn would_overflow(&self, partition: u32, bytes: usize) -> bool {
        self.lanes.get(&partition).is_some_and(|lane| {
            let batch_bytes_max = self.settings.batch_bytes.min(BATCH_BYTES_MAX);
            !lane.builder.is_empty() && HEADER_BYTES + lane.builder.records_bytes() + bytes >= batch_bytes_max
        })
    }

    fn push(&mut self, partition: u32, sequence: u64, record: &NewRecord<'_>) {
        let lane = self.lanes.entry(partition).or_insert_with(|| {
            let (queue, batches) = mpsc::unbounded_channel();
            let lane = Lane::new(
                &self.connection,
                &self.topic,
                partition,
                self.settings.acks,
                &self.ledger,
            );
            self.tasks.spawn(lane.run(batches));
            OpenBatch {
                builder: BatchBuilder::new(),
                sequences: Sequences::default(),
                queue,
            }
        });
        let bytes_before = lane.builder.records_bytes();
        lane.builder.push(
            record.timestamp_ms,
            record.key,
            record.value,
            record.headers.iter().copied(),
        );
        lane.sequences.push(sequence);
        self.open_bytes += lane.builder.records_bytes() - bytes_before;
    }

    /// Hands a partition's batch to its lane, once the buffer has room for it.
    async fn seal(&mut self, partition: u32) -> Result<(), ProduceError> {
        if self.ledger.failed() {
            return Err(self.give_up().await);
        }
        let Some(lane) = self.lanes.get_mut(&partition).filter(|lane| !lane.builder.is_empty()) else {
            return Ok(());
        };
        let records_bytes = lane.builder.records_bytes();
        // A single batch above the whole budget waits until it is alone.
        let permits = records_bytes.min(half_buffer(&self.settings)) as u32;
        let permit = Arc::clone(&self.sealed_bytes)
            .acquire_many_owned(permits)
            .await
            .expect("it is never closed");

        let batch = std::mem::take(&mut lane.builder).build(self.settings.compression);
        let sealed = SealedBatch {
            bytes: batch.to_bytes(),
            sequences: std::mem::take(&mut lane.sequences),
            permit,
        };
        self.open_bytes -= records_bytes;
        self.ledger.sealed();
        if let Err(unsent) = lane.queue.send(sealed) {
            self.ledger.discarded(&unsent.0.sequences);
        }
        self.partitioner.batch_sealed(partition);
        Ok(())
    }

    /// A record that fits into no batch ends the producer, after everything before it has gone out.
    async fn refuse(&mut self, sequence: u64, bytes: usize) -> ProduceError {
        if let Err(error) = self.flush().await {
            return self.with_lost(sequence, error);
        }
        self.ledger.sealed();
        let cause = ClientError::RecordTooLarge {
            bytes,
            bytes_max: BATCH_BYTES_MAX,
        };
        self.ledger.failed_with(&Sequences::of(sequence), cause);
        self.give_up().await
    }

    /// Adds the record at hand to those that an earlier failure left behind.
    fn with_lost(&mut self, sequence: u64, mut error: ProduceError) -> ProduceError {
        self.ledger.sealed();
        self.ledger.discarded(&Sequences::of(sequence));
        error.unacknowledged = self.ledger.unacknowledged();
        error
    }

    /// Waits for what is in flight and tells what was lost. Only after a failure.
    async fn give_up(&mut self) -> ProduceError {
        for lane in self.lanes.values_mut() {
            lane.builder = BatchBuilder::new();
            self.ledger.sealed();
            self.ledger.discarded(&std::mem::take(&mut lane.sequences));
        }
        self.open_bytes = 0;
        self.ledger.settled().await;
        self.ledger.error()
    }
}

/// Sealed batches and open ones get half of the buffer each. Bounded so that it fits a semaphore's permits.
fn half_buffer(settings: &ProducerSettings) -> usize {
    (settings.buffer_bytes_max / 2).clamp(1, 1 << 30)
}

fn encoded_bytes_bound(record: &NewRecord<'_>) -> usize {
    let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    let headers: usize = record
        .headers
        .iter()
        .map(|(key, value)| key.len() + length(*value) + HEADER_OVERHEAD_BYTES)
        .sum();
    length(record.key) + length(record.value) + headers + RECORD_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests;
