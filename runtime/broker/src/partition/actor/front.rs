//! Behind the tail: retention and truncation take segments from the front, merging makes few of many.

use millstream_batch::Offset;
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

impl Actor {
    /// Lets go of what the topic's retention no longer keeps; whether there may be more.
    pub(super) async fn expire(&mut self) -> Result<bool> {
        let now_ms = self.shared.clock.now_ms();
        let config = &self.topic.config;
        let before_ms = config.retention_ms.map(|ms| now_ms.saturating_sub_unsigned(ms));
        let expired = self
            .shared
            .metadata
            .expire_segments(&self.lease, before_ms, config.retention_bytes, now_ms)
            .await;
        let expired = match expired {
            Ok(expired) => expired,
            Err(error) => {
                let error = self.step_down_if_fenced(error);
                self.look_where_it_starts().await;
                return Err(error);
            }
        };
        let Some(expired) = expired else { return Ok(false) };
        self.start_at(&expired, "retention took segments");
        Ok(expired.keys.len() >= EXPIRE_SEGMENTS_MAX as usize)
    }

    /// Moves the log start up, once everything below it is in segments.
    pub(super) async fn truncate(&mut self, before: Offset, reply: oneshot::Sender<Result<Offset>>) {
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
        self.cuts.push((before, reply));
    }

    /// Truncates where what is cut off is in segments by now.
    pub(super) async fn cut_what_is_due(&mut self) {
        let committed_end = self.log.state().committed_end;
        while let Some(at) = self.cuts.iter().position(|(before, _)| *before <= committed_end) {
            let (before, reply) = self.cuts.swap_remove(at);
            let now_ms = self.shared.clock.now_ms();
            let cut = self.shared.metadata.truncate(&self.lease, before, now_ms).await;
            let cut = match cut {
                Ok(expired) => {
                    self.start_at(&expired, "a truncation took segments");
                    Ok(expired.log_start)
                }
                Err(error) => {
                    let error = self.step_down_if_fenced(error);
                    let start = self.look_where_it_starts().await;
                    start.filter(|start| *start >= before).ok_or(error)
                }
            };
            answer(reply, cut);
        }
    }

    /// The answer to a cut may get lost behind a change that happened: then the log starts further on than we know.
    async fn look_where_it_starts(&mut self) -> Option<Offset> {
        let now_ms = self.shared.clock.now_ms();
        // Cut at 0 nothing changes, and the answer says where the log starts. Where this fails too, readers find out.
        let cut = self.shared.metadata.truncate(&self.lease, Offset(0), now_ms).await;
        let log_start = cut.ok()?.log_start;
        self.log.start_at(log_start);
        Some(log_start)
    }

    /// Whether the lease is still ours. Where it is not the partition steps down.
    pub(super) async fn confirm_lease(&mut self) -> Result<bool> {
        let holds = self.shared.metadata.holds_lease(&self.lease).await?;
        if !holds {
            self.log.close(Closed::SteppedDown("another one leads it".to_owned()));
        }
        Ok(holds)
    }

    /// Somebody else may lead the partition: nothing more is acknowledged under this lease.
    fn step_down_if_fenced(&self, error: MetaError) -> BrokerError {
        if matches!(error, MetaError::Fenced { .. }) {
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
