//! From the tail into segments: when a range is marked, what becomes of its upload, and who waits for it.

use std::time::Duration;

use millstream_batch::Offset;
use millstream_meta::SegmentRow;
use tokio::time::Instant;

use super::{Actor, answer};
use crate::{
    error::Result,
    partition::{
        Closed, held_bytes,
        upload::{self, Upload},
    },
};

impl Actor {
    /// Starts an upload where the tail is large, old or wanted in segments.
    pub(super) fn roll_if_due(&mut self) {
        // A checkpoint on its way belongs to the committed end as it is.
        if self.upload.is_some() || self.keeping.is_some() {
            return;
        }
        let segment_bytes = self.topic.config.segment_bytes;
        let range = {
            let state = self.log.state();
            let bytes = state.tail.bytes();
            let large = bytes as u64 >= segment_bytes;
            if bytes == 0 || !(large || self.is_old() || self.roll_wanted || self.is_wanted()) {
                return;
            }
            state.tail.oldest(segment_bytes)
        };
        let end = range.last().map_or(Offset(0), |last| last.batch.next_offset());
        let producers = {
            let known = self.log.producers();
            (!known.is_empty()).then(|| known.checkpoint(end))
        };
        let range_bytes = range.iter().map(|entry| held_bytes(&entry.batch)).sum();
        self.log.set_rolling(range_bytes);
        self.roll_wanted = false;
        self.upload_epoch = self.lease.epoch;
        self.upload_started = Instant::now();
        self.upload = Some(upload::start(Upload {
            shared: self.shared.clone(),
            topic: self.topic.clone(),
            lease: self.lease.clone(),
            log: self.log.clone(),
            range,
            producers,
        }));
    }

    fn is_old(&self) -> bool {
        self.tail_since
            .is_some_and(|since| since.elapsed() >= self.segment_age())
    }

    /// Whether somebody waits for segments, and everything that they wait for is in the tail: what is still on its way
    /// into the WAL would make a second, small segment.
    fn is_wanted(&self) -> bool {
        let high_watermark = self.log.high_watermark();
        let flush = self.flushes.front().is_some_and(|(end, _)| *end <= high_watermark);
        let stop = self.stopping.is_some() && self.commits.is_empty() && self.transform.is_none();
        flush || stop || self.waits_for_cut()
    }

    pub(super) fn on_uploaded(&mut self, result: Result<SegmentRow>) {
        self.log.set_rolling(0);
        match result {
            Ok(row) => {
                let end = row.end_offset;
                self.shared.budget.give_back(self.log.committed(&row));
                // Only now may the WAL let go: until here it was the only durable copy that recovery would find.
                self.shared.wal.committed(self.topic.id, self.lease.partition, end);
                self.tail_since = self.log.state().tail.start().map(|_| self.upload_started);
                self.merge_due = true;
            }
            // The range is still in the tail: the next round uploads it under the epoch that was taken meanwhile.
            Err(error) if self.upload_epoch < self.lease.epoch => {
                tracing::warn!(%error, "an upload under a former epoch of ours was refused");
            }
            Err(error) => {
                tracing::error!(topic = self.topic.name, partition = self.lease.partition, %error, "stepping down");
                self.log.close(Closed::SteppedDown(error.to_string()));
            }
        }
    }

    pub(super) fn answer_flushes(&mut self) {
        let committed_end = self.log.state().committed_end;
        while self.flushes.front().is_some_and(|(wanted, _)| *wanted <= committed_end) {
            let (_, reply) = self.flushes.pop_front().expect("the loop's condition saw it");
            answer(reply, Ok(()));
        }
    }

    /// Where a stop was asked for, closes once everything is in segments, and says what can be given back.
    pub(super) fn finish_stop(&mut self) {
        let idle =
            self.transform.is_none() && self.commits.is_empty() && self.upload.is_none() && self.taking.is_none();
        if !idle || self.keeping.is_some() || self.is_loose() || self.log.state().tail.bytes() > 0 {
            return;
        }
        let Some(reply) = self.stopping.take() else { return };
        self.log.close(Closed::Stopping);
        answer(reply, (self.lease.clone(), self.log_end));
    }

    pub(super) fn segment_age(&self) -> Duration {
        Duration::from_millis(self.topic.config.segment_age_ms)
    }
}
