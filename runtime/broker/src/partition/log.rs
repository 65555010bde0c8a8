//! What readers see of a partition: the tail, the known segments and the offsets between which it can be read.
//!
//! The actor writes it, readers share it: a fetch never waits for a produce. Every lock here is held for a few
//! instructions and never across an await.

use std::sync::{OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard};

use millstream_batch::Offset;
use millstream_meta::{Lease, SegmentRow, Topic};
use tokio::sync::watch;
use uuid::Uuid;

use crate::error::BrokerError;

use super::{
    index::SegmentIndex,
    tail::{Tail, TailBatch},
};

/// One partition's offsets, tail and segment index.
pub(crate) struct PartitionLog {
    topic_id: Uuid,
    topic: String,
    partition: u32,
    state: RwLock<State>,
    high_watermark: watch::Sender<Offset>,
    closed_because: OnceLock<String>,
}

/// What changes under one lock, so that an offset is always found in the tail or in the index.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) tail: Tail,
    pub(crate) index: SegmentIndex,
    pub(crate) log_start: Offset,
    pub(crate) committed_end: Offset,
}

impl PartitionLog {
    pub(crate) fn new(topic: &Topic, lease: &Lease, recovered: Vec<TailBatch>) -> PartitionLog {
        let mut tail = Tail::default();
        let mut end = lease.committed_end;
        for entry in recovered {
            end = entry.batch.next_offset();
            tail.push(entry);
        }
        let index = SegmentIndex::default();
        let state = State {
            tail,
            index,
            log_start: lease.log_start,
            committed_end: lease.committed_end,
        };
        PartitionLog {
            topic_id: topic.id,
            topic: topic.name.clone(),
            partition: lease.partition,
            state: RwLock::new(state),
            high_watermark: watch::Sender::new(end),
            closed_because: OnceLock::new(),
        }
    }

    pub(crate) fn topic_id(&self) -> Uuid {
        self.topic_id
    }

    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    pub(crate) fn partition(&self) -> u32 {
        self.partition
    }

    pub(crate) fn high_watermark(&self) -> Offset {
        *self.high_watermark.borrow()
    }

    /// Sees every later high watermark.
    pub(crate) fn watch_high_watermark(&self) -> watch::Receiver<Offset> {
        self.high_watermark.subscribe()
    }

    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().expect("no code panics while it holds this lock")
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().expect("no code panics while it holds this lock")
    }

    /// Shows a batch, now durable, to readers.
    pub(crate) fn publish(&self, entry: TailBatch) {
        let end = entry.batch.next_offset();
        self.state_mut().tail.push(entry);
        self.high_watermark.send_replace(end);
    }

    /// Moves readers of a committed range from the tail to its segment; returns the bytes that left the tail.
    pub(crate) fn committed(&self, row: SegmentRow) -> usize {
        let mut state = self.state_mut();
        let end = row.end_offset;
        state.index.insert(row);
        state.committed_end = end;
        state.tail.drop_below(end)
    }

    /// Remembers a segment that the metadata store was asked for.
    pub(crate) fn remember(&self, row: SegmentRow) {
        self.state_mut().index.insert(row);
    }

    /// Moves the log start offset on.
    pub(crate) fn start_at(&self, log_start: Offset) {
        let mut state = self.state_mut();
        state.log_start = log_start;
        state.index.drop_below(log_start);
    }

    /// Empties the tail of a closed partition; returns the bytes that left it.
    pub(crate) fn clear(&self) -> usize {
        let mut state = self.state_mut();
        std::mem::take(&mut state.tail).bytes()
    }

    /// Why the partition takes no requests any more.
    pub(crate) fn closed_because(&self) -> Option<String> {
        self.closed_because.get().cloned()
    }

    /// The error for requests to a closed partition.
    pub(crate) fn closed_error(&self) -> Option<BrokerError> {
        let (topic, partition) = (self.topic.clone(), self.partition);
        let reason = self.closed_because()?;
        Some(BrokerError::PartitionClosed {
            topic,
            partition,
            reason,
        })
    }

    pub(crate) fn close(&self, reason: &str) {
        // The first reason is the one that matters.
        let _ = self.closed_because.set(reason.to_owned());
    }
}
