//! Behind the tail: retention and truncation take segments from the front, merging makes few of many.

use futures::FutureExt;
use millstream_batch::{Epoch, Offset};
use millstream_meta::{EXPIRE_SEGMENTS_MAX, Expired, MetaError};
use tokio::sync::oneshot;

use super::{Actor, answer};
use crate::{
    error::{BrokerError, Result},
    partition::{
        Closed,
        merge::{self, Merge, Scan},
    },
};

/// What waits to be taken from the front.
pub(super) enum Ask {
    /// What the topic's retention no longer keeps; answers whether there may be more.
    Expire(oneshot::Sender<Result<bool>>),
    /// Everything below an offset, once that is in segments; answers where the log starts then.
    Cut(Offset, oneshot::Sender<Result<Offset>>),
}

/// What became of it.
pub(super) struct Taken {
    ask: Ask,
    /// Under which lease.
    epoch: Epoch,
    result: Result<Option<Expired>, MetaError>,
    /// Where the log starts; asked after an error, behind which a change may have happened whose answer got lost.
    log_start: Option<Offset>,
}

impl Actor {
    /// Moves the log start up, once everything below it is in segments.
    pub(super) fn truncate(&mut self, before: Offset, reply: oneshot::Sender<Result<Offset>>) {
        let (start, end) = (self.log.state().log_start, self.log.high_watermark());
        if before > end {
            let (topic, partition) = (self.topic.name.clone(), self.lease.partition);
            let error = BrokerError::OffsetOutOfRange {
                topic,
                partition,
                offset: before,
                start,
                end,
            };
            return answer(reply, Err(error));
        }
        self.asks.push(Ask::Cut(before, reply));
    }

    /// Whether somebody waits until the tail is in segments, to have it cut off.
    pub(super) fn waits_for_cut(&self) -> bool {
        self.asks.iter().any(|ask| matches!(ask, Ask::Cut(..)))
    }

    /// Begins with what is due, one at a time: beside the actor, which takes batches while the database thinks.
    pub(super) fn take_from_front(&mut self) {
        if self.taking.is_some() {
            return;
        }
        let committed_end = self.log.state().committed_end;
        let is_due = |ask: &Ask| match ask {
            Ask::Expire(_) => true,
            Ask::Cut(before, _) => *before <= committed_end,
        };
        let Some(at) = self.asks.iter().position(is_due) else {
            return;
        };
        let ask = self.asks.swap_remove(at);
        let (metadata, lease) = (self.shared.metadata.clone(), self.lease.clone());
        let (now_ms, config) = (self.shared.clock.now_ms(), self.topic.config.clone());
        let task = tokio::spawn(async move {
            let result = match &ask {
                Ask::Expire(_) => {
                    let before_ms = config.retention_ms.map(|ms| now_ms.saturating_sub_unsigned(ms));
                    metadata
                        .expire_segments(&lease, before_ms, config.retention_bytes, now_ms)
                        .await
                }
                Ask::Cut(before, _) => metadata.truncate(&lease, *before, now_ms).await.map(Some),
            };
            let log_start = match result {
                Ok(_) => None,
                // Cut at 0 nothing changes, and the answer says where the log starts. Where this fails too, readers find out.
                Err(_) => metadata.truncate(&lease, Offset(0), now_ms).await.ok(),
            };
            Taken {
                ask,
                epoch: lease.epoch,
                result,
                log_start: log_start.map(|expired| expired.log_start),
            }
        });
        self.taking = Some(async move { task.await.ok() }.boxed());
    }

    /// `None` where the task panicked: whoever waited hears of it from a closed channel.
    pub(super) fn on_taken(&mut self, taken: Option<Taken>) {
        let Some(taken) = taken else { return };
        if let Some(log_start) = taken.log_start {
            self.log.start_at(log_start);
        }
        let result = taken
            .result
            .map_err(|error| self.step_down_if_fenced(error, taken.epoch));
        match (taken.ask, result) {
            (Ask::Expire(reply), result) => {
                let more = result.map(|expired| {
                    expired.is_some_and(|expired| {
                        self.start_at(&expired, "retention took segments");
                        expired.keys.len() >= EXPIRE_SEGMENTS_MAX as usize
                    })
                });
                answer(reply, more);
            }
            (Ask::Cut(before, reply), Err(error)) => {
                let start = taken.log_start.filter(|start| *start >= before);
                answer(reply, start.ok_or(error));
            }
            (Ask::Cut(before, reply), Ok(expired)) => {
                let log_start = expired.map_or(before, |expired| {
                    self.start_at(&expired, "a truncation took segments");
                    expired.log_start
                });
                answer(reply, Ok(log_start));
            }
        }
    }

    /// Somebody else may lead the partition: nothing more is acknowledged under this lease.
    fn step_down_if_fenced(&self, error: MetaError, under: Epoch) -> BrokerError {
        // It may also be us who took a greater epoch meanwhile.
        if matches!(error, MetaError::Fenced { .. }) && under == self.lease.epoch {
            self.log.close(Closed::SteppedDown(error.to_string()));
        }
        error.into()
    }

    fn start_at(&self, expired: &Expired, what: &str) {
        let (partition, segments) = (self.lease.partition, expired.keys.len());
        tracing::info!(
            topic = self.topic.name,
            partition,
            segments,
            log_start = expired.log_start.0,
            "{what}"
        );
        self.log.start_at(expired.log_start);
    }

    /// Answers once there is nothing left to merge.
    pub(super) fn start_merge(&mut self, reply: oneshot::Sender<Result<()>>) {
        if !self.merge_due && self.merge.is_none() {
            return answer(reply, Ok(()));
        }
        self.merges.push(reply);
        if self.merge.is_none() {
            self.scan();
        }
    }

    fn scan(&mut self) {
        self.merge_due = false;
        self.merge = Some(merge::start(Merge {
            shared: self.shared.clone(),
            topic: self.topic.clone(),
            lease: self.lease.clone(),
            log: self.log.clone(),
            from: self.merged_below,
        }));
    }

    pub(super) fn on_merged(&mut self, result: Result<Scan>) {
        match result {
            Ok(Scan::Merged(row)) => {
                // Retention may have taken it meanwhile.
                if row.end_offset > self.log.state().log_start {
                    self.log.merged(&row);
                }
                self.scan();
            }
            Ok(Scan::Nothing { below }) => {
                self.merged_below = below;
                self.merges.drain(..).for_each(|reply| answer(reply, Ok(())));
            }
            Err(error) => {
                // The sources stay as they are; the next sweep tries again.
                tracing::warn!(topic = self.topic.name, partition = self.lease.partition, %error,
                    "small segments could not be merged");
                self.merge_due = true;
                let mut waiting = self.merges.drain(..);
                if let Some(first) = waiting.next() {
                    answer(first, Err(error));
                }
                // The others hear from a closed channel; the next sweep asks for them.
            }
        }
    }
}
