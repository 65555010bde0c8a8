//! Batches of idempotent producers: whether one is new, how one that was sent before is answered, and what is kept of those
//! of which no record was.
//!
//! Such a batch takes no offset, so no segment need ever go beyond it, and its frame would keep the WAL for ever. Where nothing
//! follows it the actor gives the metadata a checkpoint instead, when a segment would be due; then the WAL lets go.

use std::{future::Future, time::Duration};

use futures::FutureExt;
use millstream_batch::{Epoch, Offset};
use millstream_log::{Fate, Frame, Outcome, ProducerStamp};
use millstream_meta::MetaError;
use tokio::time::Instant;

use super::{Actor, Appended, Waiting, answer};
use crate::{
    error::{BrokerError, Result},
    partition::{
        Closed, Receipt,
        producers::{Refusal, Stamped, encode},
        upload::{patiently, pause},
    },
};

/// A checkpoint that the metadata have, or will not take.
pub(super) struct Kept {
    under: Epoch,
    end: Offset,
    /// How many parts the WAL had begun before it was made.
    parts_begun: u64,
    /// Since when there has been one more that it does not have, as far as that was known when it was made.
    loose_since: Option<Instant>,
    result: Result<(), KeepFailure>,
}

/// Why a checkpoint was not kept.
pub(super) enum KeepFailure {
    Fenced(MetaError),
    Closed,
}

impl Actor {
    /// Answers what is not new. `None` where it was answered.
    pub(super) fn new_only(&mut self, waiting: Waiting) -> Option<Waiting> {
        if waiting.stamp == ProducerStamp::NONE {
            return Some(waiting);
        }
        let checked = self.log.producers().check(&waiting.stamp);
        self.shared.measures.numbered(&checked);
        match checked {
            Ok(None) => return Some(waiting),
            Err(refusal) => {
                let error = self.refused(&waiting.stamp, refusal);
                answer(waiting.reply, Err(error));
            }
            Ok(Some(original)) => {
                let receipt = Receipt {
                    duplicate: true,
                    ..Receipt::of(original.base_offset, &original.outcome)
                };
                // It waits for its turn: behind the original, should that be on its way still.
                let appended = Appended {
                    entry: None,
                    numbered: false,
                    receipt,
                    reply: Some(waiting.reply),
                };
                self.commits.push_back(async move { (appended, Ok(())) }.boxed());
            }
        }
        None
    }

    /// Looks once more before the batch gets an offset: one that it continued may have failed since.
    pub(super) fn check_still_new(&self, stamp: &ProducerStamp) -> Result<()> {
        if *stamp == ProducerStamp::NONE {
            return Ok(());
        }
        let checked = self.log.producers().check(stamp);
        match checked {
            Ok(_) => Ok(()),
            Err(refusal) => Err(self.refused(stamp, refusal)),
        }
    }

    fn refused(&self, stamp: &ProducerStamp, refusal: Refusal) -> BrokerError {
        let (topic, partition) = (self.topic.name.clone(), self.lease.partition);
        let (id, epoch, first) = (stamp.id, stamp.epoch, stamp.first_sequence);
        match refusal {
            Refusal::Fenced { current } => BrokerError::ProducerFenced {
                topic,
                partition,
                id,
                epoch,
                current,
            },
            Refusal::Unknown => BrokerError::ProducerUnknown { topic, partition, id },
            Refusal::OutOfOrder { expected } => BrokerError::SequenceOutOfOrder {
                topic,
                partition,
                id,
                expected,
                found: first,
            },
            Refusal::Forgotten => BrokerError::SequenceForgotten {
                topic,
                partition,
                id,
                first,
                last: stamp.last_sequence,
            },
        }
    }

    /// Under a greater epoch, writes again what only frames of a lesser one tell of this end of the log: at the next recovery
    /// the first frame of the greater epoch overrules them.
    pub(super) async fn write_loose_again(&mut self) -> Result<()> {
        if !self.loose_due {
            return Ok(());
        }
        let loose = self.log.producers().loose(self.log_end);
        for loose in loose {
            let frame = Frame {
                topic_id: self.topic.id,
                partition: self.lease.partition,
                epoch: self.lease.epoch,
                pipeline_version: self.pipeline.version,
                base_offset: loose.base_offset,
                producer: loose.stamp,
                outcome: loose.outcome,
                batch: None,
            };
            // What is written behind it is durable only where it is.
            drop(self.shared.wal.submit(frame).await?);
        }
        self.loose_due = false;
        Ok(())
    }

    /// A batch of an idempotent producer is on its way into the WAL.
    pub(super) fn begin_numbered(&mut self, stamp: ProducerStamp, outcome: &Outcome) -> bool {
        if stamp == ProducerStamp::NONE {
            return false;
        }
        self.log.producers().begin(Stamped {
            stamp,
            base_offset: self.log_end,
            outcome: outcome.clone(),
        });
        true
    }

    /// A batch is durable: whether anything follows what no segment notes.
    pub(super) fn settle_numbered(&mut self, numbered: bool, is_stored: bool) {
        if numbered {
            self.log.producers().settle();
        }
        match (is_stored, numbered) {
            (true, _) => self.loose_since = None,
            (false, true) => {
                self.loose_since.get_or_insert_with(Instant::now);
            }
            (false, false) => {}
        }
    }

    /// Whether there is something of the producers that neither a segment nor the metadata will have by themselves.
    pub(super) fn is_loose(&self) -> bool {
        self.loose_since.is_some()
    }

    /// Whether the metadata are to get a checkpoint, because no segment will have what is known of the producers.
    pub(super) fn is_checkpoint_due(&self) -> bool {
        let Some(since) = self.loose_since else { return false };
        let is_due = self.roll_wanted || self.stopping.is_some() || since.elapsed() >= self.segment_age();
        is_due && self.upload.is_none() && self.keeping.is_none() && self.log.tail_bytes().0 == 0
    }

    /// Gives the metadata a checkpoint where one is due, once nothing is on its way into the WAL: a frame that is written, but
    /// not known to be, is in none of the parts that the checkpoint lets go of.
    pub(super) fn keep_producers_if_due(&mut self) {
        if !self.commits.is_empty() || !self.is_checkpoint_due() {
            return;
        }
        self.roll_wanted = false;
        let end = self.log.high_watermark();
        let state = encode(&self.log.producers().checkpoint(end));
        // Everything in the checkpoint is in one of these parts.
        let parts_begun = self.shared.wal.parts_begun();
        let (metadata, lease, log) = (self.shared.metadata.clone(), self.lease.clone(), self.log.clone());
        // What becomes durable from here on is not in it.
        let loose_since = self.loose_since.take();
        let task = tokio::spawn(async move {
            let mut delays = patiently();
            let result = loop {
                match metadata.keep_partition_producers(&lease, end, &state).await {
                    Ok(()) => break Ok(()),
                    Err(error @ MetaError::Fenced { .. }) => break Err(KeepFailure::Fenced(error)),
                    Err(error) => {
                        let delay = delays.next().unwrap_or(Duration::from_secs(30));
                        tracing::warn!(partition = lease.partition, %error, ?delay, "a checkpoint of producers is tried again");
                        if pause(&log, delay).await.is_err() {
                            break Err(KeepFailure::Closed);
                        }
                    }
                }
            };
            Kept {
                under: lease.epoch,
                end,
                parts_begun,
                loose_since,
                result,
            }
        });
        self.keeping = Some(kept(task).boxed());
    }

    /// `None` where the task panicked: the WAL keeps what it has.
    pub(super) fn on_kept(&mut self, kept: Option<Kept>) {
        let Some(kept) = kept else { return };
        match kept.result {
            Ok(()) => {
                let (topic_id, partition) = (self.topic.id, self.lease.partition);
                self.shared
                    .wal
                    .checkpointed(topic_id, partition, kept.end, kept.parts_begun);
            }
            Err(KeepFailure::Fenced(error)) if kept.under == self.lease.epoch => {
                self.log.close(Closed::SteppedDown(error.to_string()));
            }
            // A greater epoch of ours was taken meanwhile, or the partition has closed: it is as loose as before.
            Err(_) => self.loose_since = self.loose_since.or(kept.loose_since),
        }
    }
}

async fn kept(task: impl Future<Output = Result<Kept, tokio::task::JoinError>>) -> Option<Kept> {
    task.await.ok()
}

impl Receipt {
    /// What is known of a batch by what became of its records.
    pub(super) fn of(base_offset: Offset, outcome: &Outcome) -> Receipt {
        let dropped = outcome.runs().iter().filter(|run| run.emitted == 0);
        Receipt {
            base_offset,
            record_count: u32::try_from(outcome.emitted_count()).unwrap_or(u32::MAX),
            changed_count: 0,
            dropped_count: dropped.map(|run| run.length).sum(),
            pipeline_version: 0,
            append_time_ms: 0,
            results: told(outcome),
            duplicate: false,
        }
    }
}

/// What there is to tell: nothing where every record became one.
fn told(outcome: &Outcome) -> Option<Outcome> {
    let plain = |run: &millstream_log::Run| run.emitted == 1 && run.fate == Fate::Pipeline;
    (!outcome.runs().iter().all(plain)).then(|| outcome.clone())
}
