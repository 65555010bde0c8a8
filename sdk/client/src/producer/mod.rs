//! The producer: records become batches, batches go out in order within each partition.
//!
//! ```text
//! send -> lane: open -(full, or time to go)-> full -> under way -(answer)-> Delivery
//!                                              again <-(to be tried again)
//! ```
//!
//! Each partition has a lane. One task, the driver, sends what may be sent over one `ProduceStream` call, several batches of a
//! partition at once, and reads the answers, which come in order. A batch that has to be tried again ends its partition's part
//! of that call: the driver waits for the rest of the answers and opens another. An idempotent producer numbers the records of
//! each partition, so that the agent knows what it has had before; where a number will never be stored, a greater epoch begins
//! them anew, once nothing numbered is under way.
//!
//! Each agent that leads partitions has a call of its own (`fan`); a batch that comes back because another agent leads its
//! partition goes to that one. Partitions that are added to the topic are found while the producer is open (`partitions`).
//!
//! What `send` was given holds its bytes of the buffer until it is answered; `send` waits for room.

mod delivery;
mod driver;
mod fan;
mod lane;
mod ledger;
mod link;
mod partitions;
mod retry;
mod settings;
mod state;
mod wire;

use std::{ops::Range, sync::Arc};

use millstream_batch::{Batch, HEADER_BYTES};
use thiserror::Error;
use tokio::task::JoinHandle;

use crate::{Admin, ClientError, Connection, Reject, partitioner::Partitioner};
use delivery::Teller;
pub use delivery::{BatchDelivery, Delivered, Delivery};
use driver::Driver;
use lane::{FullBatch, MadeBatch};
use ledger::Numbers;
pub use settings::ProducerSettings;
use state::Shared;

/// Largest encoded batch that an agent takes.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// Bounds on what the encoding adds to a record, and to each of its headers: varints of at most 10 bytes.
const RECORD_OVERHEAD_BYTES: usize = 64;
const HEADER_OVERHEAD_BYTES: usize = 20;

/// A record to produce, borrowed.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewRecord<'a> {
    /// The partition; without one that of the settings, or the one that the key chooses.
    pub partition: Option<u32>,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: Option<&'a [u8]>,
    /// Headers in order; a key may repeat.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
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

/// What failed, and what that means for the records that were sent.
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
            } if !self.rejects.is_empty() => summary.to_string(),
            other => other.to_string(),
        }
    }
}

/// Sends records to one topic. Clones share everything; when the last one is dropped, what was not flushed is given up.
#[derive(Clone, Debug)]
pub struct Producer {
    shared: Arc<Shared>,
    connection: Connection,
    _tasks: Arc<[Task; 2]>,
}

/// Ends with the producer.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
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
        if partitions == 0 {
            return Err(ClientError::BadAnswer {
                reason: format!("topic {topic:?} has no partitions"),
            });
        }
        let partitioner = match settings.partition {
            Some(partition) => {
                check_partition(topic, partition, partitions)?;
                Partitioner::Fixed(partition)
            }
            None => Partitioner::Keyed { partitions, sticky: 0 },
        };
        let shared = Arc::new(Shared::new(topic, settings, partitions, partitioner));
        let driver = Driver::new(connection.clone(), shared.clone());
        let renewing = partitions::renew(connection.clone(), shared.clone());
        Ok(Producer {
            shared,
            connection: connection.clone(),
            _tasks: Arc::new([Task(tokio::spawn(driver.run())), Task(tokio::spawn(renewing))]),
        })
    }

    /// Adds a record to its partition's batch, once the buffer has room for it. The [`Delivery`] tells what becomes of it; who
    /// does not want to know drops it.
    ///
    /// # Errors
    /// A record that fits in no batch, or names a partition that is not there; and whatever ended the producer, where
    /// something did.
    pub async fn send(&self, record: NewRecord<'_>) -> Result<Delivery, ClientError> {
        if let Some(partition) = record.partition {
            self.find_partition(partition).await?;
        }
        let bytes = encoded_bytes_bound(&record);
        if bytes + HEADER_BYTES > BATCH_BYTES_MAX {
            let error = ClientError::RecordTooLarge {
                bytes,
                bytes_max: BATCH_BYTES_MAX,
            };
            return Err(self.refuse(1, error));
        }
        let room = self.shared.take_room(bytes).await;
        let (outcome, index, is_due) = {
            let mut state = self.shared.state();
            if let Some(ended) = state.ended.clone() {
                drop(state);
                self.shared.room.add_permits(room);
                return Err(self.refuse(1, ended));
            }
            state.push(&record, bytes, room, &self.shared.settings)
        };
        if is_due {
            self.shared.wake.notify_one();
        }
        Ok(Delivery::new(&outcome, index))
    }

    /// Sends a batch that is made already, behind what its partition was given before. The settings' compression does not
    /// change it.
    ///
    /// # Errors
    /// As [`Producer::send`].
    pub async fn send_batch(&self, partition: u32, batch: Batch) -> Result<BatchDelivery, ClientError> {
        self.find_partition(partition).await?;
        let (bytes, records) = (batch.encoded_len(), u64::from(batch.record_count()));
        if bytes > BATCH_BYTES_MAX {
            let error = ClientError::RecordTooLarge {
                bytes,
                bytes_max: BATCH_BYTES_MAX,
            };
            return Err(self.refuse(records, error));
        }
        let room = self.shared.take_room(bytes).await;
        let teller = Teller::new(partition);
        let delivery = BatchDelivery::new(teller.outcome());
        {
            let mut state = self.shared.state();
            if let Some(ended) = state.ended.clone() {
                drop(state);
                self.shared.room.add_permits(room);
                return Err(self.refuse(records, ended));
            }
            let first = state.next_number;
            state.next_number += records;
            let lane = state.lanes.entry(partition).or_default();
            lane.close_open();
            lane.full.push_back(FullBatch::Made(MadeBatch {
                batch,
                numbers: Numbers::of(first..first + records),
                teller,
                room,
            }));
            state.mark_due(partition);
        }
        self.shared.wake.notify_one();
        Ok(delivery)
    }

    /// Lets everything collected go, full or not, without waiting for the answers.
    pub fn dispatch(&self) {
        self.shared.state().dispatch();
        self.shared.wake.notify_one();
    }

    /// Lets everything collected go and waits until it is answered.
    ///
    /// # Errors
    /// Where anything failed that was not told before: the first failure, and all the records that were not acknowledged.
    pub async fn flush(&self) -> Result<Totals, ProduceError> {
        let outcomes = self.shared.state().dispatch();
        self.shared.wake.notify_one();
        for outcome in outcomes {
            // The ledger has it.
            let _ = outcome.told().await;
        }
        match self.shared.ledger.take_error() {
            Some(error) => Err(error),
            None => Ok(self.totals()),
        }
    }

    /// Flushes and ends.
    ///
    /// # Errors
    /// As [`Producer::flush`].
    pub async fn close(self) -> Result<Totals, ProduceError> {
        self.flush().await
    }

    /// What was acknowledged so far.
    pub fn totals(&self) -> Totals {
        self.shared.ledger.totals()
    }

    /// The partitions of the topic, as far as is known: those that are added later are found within
    /// [`partitions_max_age`](ProducerSettings::partitions_max_age), or when a record names one.
    pub fn partitions(&self) -> u32 {
        self.shared.partitions()
    }

    /// Fails where there is no such partition, also not since a moment ago.
    async fn find_partition(&self, partition: u32) -> Result<(), ClientError> {
        if partition >= self.partitions() {
            partitions::look(&self.connection, &self.shared).await?;
        }
        check_partition(&self.shared.topic, partition, self.partitions())
    }

    /// Records that are not sent count as not acknowledged.
    fn refuse(&self, records: u64, error: ClientError) -> ClientError {
        let mut state = self.shared.state();
        let first = state.next_number;
        state.next_number += records;
        self.shared.ledger.failed(&Numbers::of(first..first + records), &error);
        if self.shared.settings.stop_at_failure {
            state.ended.get_or_insert_with(|| error.clone());
            self.shared.wake.notify_one();
        }
        error
    }
}

fn check_partition(topic: &str, partition: u32, partitions: u32) -> Result<(), ClientError> {
    match partition < partitions {
        true => Ok(()),
        false => Err(ClientError::NoSuchPartition {
            topic: topic.to_owned(),
            partition,
            partitions,
        }),
    }
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
