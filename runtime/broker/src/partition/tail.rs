//! The durable batches beyond the committed end, kept in memory until their segment is committed.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use millstream_batch::{Batch, Offset};
use tokio::sync::Notify;

/// One batch of the tail.
#[derive(Clone, Debug)]
pub(crate) struct TailBatch {
    pub(crate) batch: Batch,
    pub(crate) pipeline_version: u64,
}

/// Batches with contiguous offsets, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    batches: VecDeque<TailBatch>,
    bytes: usize,
}

impl Tail {
    pub(crate) fn push(&mut self, batch: TailBatch) {
        self.bytes += batch.batch.encoded_len();
        self.batches.push_back(batch);
    }

    /// Encoded bytes of all batches.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn start(&self) -> Option<Offset> {
        self.batches.front().map(|first| first.batch.base_offset())
    }

    /// The batches from the one that holds `offset` on, within `bytes_max`; where `one_at_least` says so the first one
    /// whatever its size.
    pub(crate) fn read(&self, offset: Offset, bytes_max: usize, one_at_least: bool) -> Vec<Batch> {
        let first = self
            .batches
            .partition_point(|entry| entry.batch.next_offset() <= offset);
        let mut bytes = 0;
        let fits = |(i, batch): &(usize, &Batch)| {
            bytes += batch.encoded_len();
            bytes <= bytes_max || (one_at_least && *i == 0)
        };
        let batches = self.batches.range(first..).map(|entry| &entry.batch);
        batches
            .enumerate()
            .take_while(fits)
            .map(|(_, batch)| batch.clone())
            .collect()
    }

    /// The oldest batches, until `bytes_max` is reached but one at least. They stay in the tail.
    pub(crate) fn oldest(&self, bytes_max: u64) -> Vec<TailBatch> {
        let mut bytes = 0;
        self.batches
            .iter()
            .take_while(|entry| {
                let fits = bytes == 0 || bytes + entry.batch.encoded_len() as u64 <= bytes_max;
                bytes += entry.batch.encoded_len() as u64;
                fits
            })
            .cloned()
            .collect()
    }

    /// Removes the batches below `end`, which a committed segment holds now; returns their bytes.
    pub(crate) fn drop_below(&mut self, end: Offset) -> usize {
        let before = self.bytes;
        while let Some(first) = self.batches.front().filter(|first| first.batch.next_offset() <= end) {
            self.bytes -= first.batch.encoded_len();
            self.batches.pop_front();
        }
        before - self.bytes
    }
}

/// The agent's bound on the tails of all its partitions together, batches still on their way into the WAL included.
#[derive(Clone, Debug)]
pub(crate) struct TailBudget {
    used: Arc<AtomicUsize>,
    /// Whether a producer was refused since there was last room again, and whoever wants to hear of it.
    exhausted: Arc<(AtomicBool, Notify)>,
    bytes_max: usize,
}

impl TailBudget {
    pub(crate) fn new(bytes_max: usize) -> TailBudget {
        TailBudget {
            used: Arc::default(),
            exhausted: Arc::default(),
            bytes_max,
        }
    }

    /// Takes `bytes` unless that passes the bound; then says how much is used.
    pub(crate) fn take(&self, bytes: usize) -> Result<(), usize> {
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                used.checked_add(bytes).filter(|used| *used <= self.bytes_max)
            })
            .map(|_| ())
            .inspect_err(|_| {
                self.exhausted.0.store(true, Ordering::Release);
                self.exhausted.1.notify_waiters();
            })
    }

    /// Takes `bytes` whatever the bound: what recovery finds must be held.
    pub(crate) fn force(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
        if !self.is_tight() {
            self.exhausted.0.store(false, Ordering::Release);
        }
    }

    /// Whether producers are being refused: then a tail of any size makes room.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.exhausted.0.load(Ordering::Acquire)
    }

    /// Resolves when the next producer is refused.
    pub(crate) async fn exhausted(&self) {
        self.exhausted.1.notified().await;
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Above three quarters partitions make segments early, so that the bound is seldom met.
    pub(crate) fn is_tight(&self) -> bool {
        self.used() > self.bytes_max / 4 * 3
    }
}

#[cfg(test)]
mod tests {
    use millstream_batch::{BatchBuilder, Compression, Epoch};

    use super::*;

    fn entry(base: u64, records: usize) -> TailBatch {
        let mut builder = BatchBuilder::new();
        for _ in 0..records {
            builder.push(0, None, Some(b"value"), [].into_iter());
        }
        let mut batch = builder.build(Compression::None);
        batch.stamp(Offset(base), Epoch(1));
        TailBatch {
            batch,
            pipeline_version: 0,
        }
    }

    #[test]
    fn reading_begins_with_the_batch_that_holds_the_offset() {
        let mut tail = Tail::default();
        tail.push(entry(0, 3));
        tail.push(entry(3, 2));
        tail.push(entry(5, 1));
        let bases = |offset| {
            tail.read(Offset(offset), usize::MAX, true)
                .iter()
                .map(|b| b.base_offset().0)
                .collect::<Vec<_>>()
        };
        assert_eq!(bases(0), [0, 3, 5]);
        assert_eq!(bases(2), [0, 3, 5]);
        assert_eq!(bases(4), [3, 5]);
        assert_eq!(bases(6), [0u64; 0]);
        assert_eq!(tail.read(Offset(0), 1, true).len(), 1);
        assert_eq!(tail.read(Offset(0), 1, false).len(), 0);
    }

    #[test]
    fn what_is_committed_leaves_and_gives_its_bytes_back() {
        let mut tail = Tail::default();
        tail.push(entry(0, 3));
        tail.push(entry(3, 2));
        let bytes = tail.bytes();
        let freed = tail.drop_below(Offset(3));
        assert_eq!(tail.start(), Some(Offset(3)));
        assert_eq!(tail.bytes() + freed, bytes);
        assert_eq!(tail.drop_below(Offset(3)), 0);
    }

    #[test]
    fn the_budget_refuses_what_passes_its_bound() {
        let budget = TailBudget::new(100);
        budget.take(70).unwrap();
        assert!(!budget.is_tight());
        assert_eq!(budget.take(31), Err(70));
        budget.take(30).unwrap();
        assert!(budget.is_tight());
        budget.give_back(100);
        budget.take(100).unwrap();
    }
}
