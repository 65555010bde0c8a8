//! What readers see of a partition: the tail, the known segments and the offsets between which it can be read.
//!
//! The actor writes it, readers share it: a fetch never waits for a produce. Every lock here is held for a few
//! instructions and never across an await.

use std::sync::{
    Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use millstream_batch::{Epoch, Offset};
use millstream_log::{SegmentDirectory, SegmentRef};
use millstream_meta::{Lease, SegmentRow, Topic};
use tokio::sync::watch;
use uuid::Uuid;

use crate::error::BrokerError;

use super::{
    TailBudget,
    producers::Producers,
    tail::{LeftTail, Tail, TailBatch},
};

/// Why a partition takes no requests any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// Its topic was deleted.
    Deleted,
    /// The agent stops.
    Stopping,
    /// Somebody else may lead it. The next request opens it again.
    SteppedDown(String),
}

/// One partition's offsets, tail and segment directory.
pub(crate) struct PartitionLog {
    topic_id: Uuid,
    topic: String,
    partition: u32,
    /// The epoch of the lease under which the actor appends.
    epoch: AtomicU64,
    state: RwLock<State>,
    high_watermark: watch::Sender<Offset>,
    closed: watch::Sender<Option<Closed>>,
    /// Bytes of the tail that are on their way into a segment.
    rolling_bytes: AtomicUsize,
    /// The idempotent producers. The actor alone changes it; it is here so that it outlives one that panicked.
    producers: Mutex<Producers>,
    /// What the actor left when it stepped down, for whoever opens the partition next.
    left: Mutex<Option<LeftTail>>,
}

/// What changes under one lock, so that an offset is always found in the tail or in the index.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) tail: Tail,
    pub(crate) index: SegmentDirectory,
    pub(crate) log_start: Offset,
    pub(crate) committed_end: Offset,
}

impl PartitionLog {
    pub(crate) fn new(
        topic: &Topic,
        lease: &Lease,
        tail: Vec<TailBatch>,
        producers: Producers,
        segment_entries_max: usize,
    ) -> PartitionLog {
        let tail = Tail::from(tail);
        let end = tail.end().unwrap_or(lease.committed_end);
        let state = State {
            tail,
            index: SegmentDirectory::new(segment_entries_max),
            log_start: lease.log_start,
            committed_end: lease.committed_end,
        };
        PartitionLog {
            topic_id: topic.id,
            topic: topic.name.clone(),
            partition: lease.partition,
            epoch: AtomicU64::new(lease.epoch.0),
            state: RwLock::new(state),
            high_watermark: watch::Sender::new(end),
            closed: watch::Sender::new(None),
            rolling_bytes: AtomicUsize::new(0),
            producers: Mutex::new(producers),
            left: Mutex::new(None),
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

    /// The lease as it is now, with the offsets that readers see.
    pub(crate) fn lease(&self) -> Lease {
        let state = self.state();
        Lease {
            topic_id: self.topic_id,
            partition: self.partition,
            epoch: Epoch(self.epoch.load(Ordering::Acquire)),
            committed_end: state.committed_end,
            log_start: state.log_start,
            wal: None,
        }
    }

    /// The actor appends under a greater epoch from now on.
    pub(crate) fn set_epoch(&self, epoch: Epoch) {
        self.epoch.store(epoch.0, Ordering::Release);
    }

    pub(crate) fn high_watermark(&self) -> Offset {
        *self.high_watermark.borrow()
    }

    /// Sees every later high watermark, and a change without one when the partition closes.
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
        // Under one lock: who finds it in the tail finds the high watermark behind it.
        let mut state = self.state_mut();
        state.tail.push(entry);
        self.high_watermark.send_replace(end);
    }

    /// Moves readers of a committed range from the tail to its segment; returns the bytes that left the tail.
    pub(crate) fn committed(&self, row: &SegmentRow) -> usize {
        let mut state = self.state_mut();
        state.index.insert(segment_ref(row));
        state.committed_end = row.end_offset;
        state.tail.drop_below(row.end_offset)
    }

    /// Moves readers of a merged range to the segment that took its place.
    pub(crate) fn merged(&self, row: &SegmentRow) {
        let range = row.base_offset..row.end_offset;
        self.state_mut().index.replace(range, segment_ref(row));
    }

    /// Remembers a segment that the metadata store was asked for.
    pub(crate) fn remember(&self, row: &SegmentRow) {
        self.state_mut().index.insert(segment_ref(row));
    }

    /// Moves the log start offset on; never back.
    pub(crate) fn start_at(&self, log_start: Offset) {
        let mut state = self.state_mut();
        state.log_start = state.log_start.max(log_start);
        let log_start = state.log_start;
        state.index.drop_below(log_start);
    }

    /// What is known of the idempotent producers.
    pub(crate) fn producers(&self) -> MutexGuard<'_, Producers> {
        self.producers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the tail and the producers out of a closed partition.
    pub(crate) fn take_left(&self, budget: &TailBudget) -> LeftTail {
        let mut producers = std::mem::take(&mut *self.producers());
        producers.forget_pending();
        LeftTail::of(std::mem::take(&mut self.state_mut().tail), producers, budget)
    }

    /// Keeps what the actor left, or takes it.
    pub(crate) fn swap_left(&self, left: Option<LeftTail>) -> Option<LeftTail> {
        // Nothing panics while it holds this lock.
        let mut place = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *place, left)
    }

    pub(crate) fn set_rolling(&self, bytes: usize) {
        self.rolling_bytes.store(bytes, Ordering::Release);
    }

    /// What the tail counts for against the agent's bound, and what of that is on its way into a segment.
    pub(crate) fn tail_bytes(&self) -> (usize, usize) {
        (
            self.state().tail.held_bytes(),
            self.rolling_bytes.load(Ordering::Acquire),
        )
    }

    /// Why the partition takes no requests any more.
    pub(crate) fn closed_because(&self) -> Option<String> {
        self.closed.borrow().as_ref().map(|closed| match closed {
            Closed::Deleted => "its topic was deleted".to_owned(),
            Closed::Stopping => "the agent is stopping".to_owned(),
            Closed::SteppedDown(reason) => reason.clone(),
        })
    }

    pub(crate) fn how_closed(&self) -> Option<Closed> {
        self.closed.borrow().clone()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.borrow().is_some()
    }

    /// Resolves when the partition takes no requests any more.
    pub(crate) async fn closed(&self) {
        // The sender lives as long as the borrow of it.
        let _ = self.closed.subscribe().wait_for(Option::is_some).await;
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

    /// Ends everything that waits for the partition. The first reason is the one that counts, except that a deleted
    /// topic is gone whatever was before.
    pub(crate) fn close(&self, why: Closed) {
        self.closed.send_if_modified(|closed| {
            let counts = closed.is_none() || why == Closed::Deleted;
            if counts {
                *closed = Some(why);
            }
            counts
        });
        // Readers that wait at the end watch the high watermark.
        self.high_watermark.send_modify(|_| {});
    }
}

/// What a reader needs of a committed segment.
pub(crate) fn segment_ref(row: &SegmentRow) -> SegmentRef {
    SegmentRef {
        key: row.key.as_str().into(),
        base_offset: row.base_offset,
        end_offset: row.end_offset,
        stored_bytes: row.stored_bytes,
        etag: row.etag.as_deref().map(Into::into),
        max_timestamp_ms: row.max_timestamp_ms,
    }
}
