//! From a transformed batch to its acknowledgement, or to the failure of everything queued behind it.

use futures::{FutureExt, StreamExt, future::BoxFuture};
use millstream_batch::Batch;
use millstream_log::{Frame, LogError, ProducerStamp};
use tokio::time::Instant;

use super::{Actor, Appended, Waiting, answer};
use crate::{
    error::{BrokerError, Result},
    partition::{Acks, Closed, Receipt, TailBatch, held_bytes},
    pipeline::Produced,
};

impl Actor {
    /// Gives offsets and hands the batch to the WAL.
    pub(super) async fn append(&mut self, waiting: Waiting, produced: Produced) {
        // What was on its way into the WAL may have failed while this one was in the pipeline.
        if let Err(broken) = waiting.reply.check() {
            return answer(waiting.reply, Err(broken));
        }
        let bytes = produced.batch.as_ref().map_or(0, held_bytes);
        let bytes_max = self.shared.budget.bytes_max();
        if bytes > bytes_max {
            return answer(waiting.reply, Err(BrokerError::BatchAboveTail { bytes, bytes_max }));
        }
        if let Err(used) = self.shared.budget.take(bytes) {
            return answer(waiting.reply, Err(BrokerError::TailFull { bytes: used, bytes_max }));
        }
        let result = self.submit(&waiting, produced).await;
        let (mut appended, commit) = match result {
            Ok(submitted) => submitted,
            Err(error) => {
                self.shared.budget.give_back(bytes);
                return answer(waiting.reply, Err(error));
            }
        };
        match waiting.acks {
            Acks::Durable => appended.reply = Some(waiting.reply),
            Acks::Memory => answer(waiting.reply, Ok(appended.receipt.clone())),
        }
        self.commits.push_back(async move { (appended, commit.await) }.boxed());
    }

    async fn submit(
        &mut self,
        waiting: &Waiting,
        produced: Produced,
    ) -> Result<(Appended, BoxFuture<'static, Result<(), LogError>>)> {
        // Beyond the deadline another agent may be taking over. What is on its way into the log is acknowledged all the same:
        // whoever takes over seals the log, and finds it there or makes it fail.
        self.shared.lease_time.check()?;
        if self.needs_epoch {
            self.take_greater_epoch().await?;
        }
        self.check_still_new(&waiting.stamp)?;
        let outcome = produced.outcome(waiting.batch.record_count());
        let receipt = Receipt {
            changed_count: produced.fate.changed,
            pipeline_version: self.pipeline.version,
            append_time_ms: waiting.append_time_ms,
            ..Receipt::of(self.log_end, &outcome)
        };
        let mut batch = produced
            .batch
            .map(|batch| self.with_time(batch, waiting.append_time_ms));
        if batch.is_none() && waiting.stamp == ProducerStamp::NONE {
            // Nothing to store; the answer still waits for its turn.
            let appended = Appended {
                entry: None,
                numbered: false,
                receipt,
                reply: None,
            };
            return Ok((appended, std::future::ready(Ok(())).boxed()));
        }
        self.write_loose_again().await?;
        if let Some(batch) = &mut batch {
            batch.stamp(self.log_end, self.lease.epoch);
        }
        let frame = Frame {
            topic_id: self.topic.id,
            partition: self.lease.partition,
            epoch: self.lease.epoch,
            pipeline_version: self.pipeline.version,
            base_offset: self.log_end,
            producer: waiting.stamp,
            outcome: outcome.clone(),
            batch: batch.clone(),
        };
        let commit = self.shared.wal.submit(frame).await?;
        let numbered = self.begin_numbered(waiting.stamp, &outcome);
        self.log_end = batch.as_ref().map_or(self.log_end, Batch::next_offset);
        let pipeline_version = self.pipeline.version;
        let appended = Appended {
            entry: batch.map(|batch| TailBatch {
                batch,
                pipeline_version,
            }),
            numbered,
            receipt,
            reply: None,
        };
        Ok((appended, commit.boxed()))
    }

    /// The batch is durable: show it to readers, then answer its producer.
    pub(super) fn on_committed(&mut self, appended: Appended) {
        self.settle_numbered(appended.numbered, appended.entry.is_some());
        if let Some(entry) = appended.entry {
            self.log.publish(entry);
            self.tail_since.get_or_insert_with(Instant::now);
        }
        if let Some(reply) = appended.reply {
            answer(reply, Ok(appended.receipt));
        }
    }

    /// Fails the batch and everything queued behind it; the partition goes on from the high watermark with a greater
    /// epoch. What of it may have reached the disk all the same loses to that epoch when the WAL is replayed.
    pub(super) async fn on_append_failed(&mut self, first: Appended, error: &LogError) {
        let reason = error.to_string();
        tracing::error!(
            topic = self.topic.name,
            partition = self.lease.partition,
            reason,
            "an append failed"
        );
        self.needs_epoch = true;
        // Known before the producer is: who hears of it from there finds the agent failed.
        let _ = self.shared.check_failure();
        self.fail(first, &reason);
        while let Some((behind, _)) = self.commits.next().await {
            self.fail(behind, &reason);
        }
        self.log.producers().forget_pending();
        self.log_end = self.log.high_watermark();
        // A flush must not wait for what will never be durable.
        for (wanted, _) in &mut self.flushes {
            *wanted = (*wanted).min(self.log_end);
        }
    }

    pub(super) fn fail(&mut self, appended: Appended, reason: &str) {
        self.shared
            .budget
            .give_back(appended.entry.map_or(0, |entry| held_bytes(&entry.batch)));
        if let Some(reply) = appended.reply {
            answer(
                reply,
                Err(BrokerError::AppendFailed {
                    reason: reason.to_owned(),
                }),
            );
        }
    }

    async fn take_greater_epoch(&mut self) -> Result<()> {
        self.shared.check_failure()?;
        let lease = self
            .shared
            .metadata
            .acquire_lease(self.topic.id, self.lease.partition, self.shared.incarnation)
            .await?;
        if lease.wal != Some(self.shared.incarnation) {
            // Somebody else has led it: what counts is in another WAL.
            let reason = "its write-ahead log is no longer ours".to_owned();
            self.log.close(Closed::SteppedDown(reason));
            return Err(self.log.closed_error().expect("it was closed just now"));
        }
        self.log.set_epoch(lease.epoch);
        self.lease = lease;
        self.needs_epoch = false;
        self.loose_due = true;
        Ok(())
    }
}
