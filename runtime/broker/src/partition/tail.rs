//! The durable batches beyond the committed end, kept in memory until their segment is committed.

use std::collections::VecDeque;

use millstream_batch::{Batch, Offset};

use super::{budget::TailBudget, producers::Producers};

/// One batch of the tail.
#[derive(Clone, Debug)]
pub(crate) struct TailBatch {
    pub(crate) batch: Batch,
    pub(crate) pipeline_version: u64,
}

/// What a batch takes besides its bytes, about: its place in the tail and an allocation of its own.
const ENTRY_BYTES: usize = 256;

/// What a batch of the tail counts for against the agent's bound.
pub(crate) fn held_bytes(batch: &Batch) -> usize {
    batch.encoded_len() + ENTRY_BYTES
}

/// Batches with contiguous offsets, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    batches: VecDeque<TailBatch>,
    bytes: usize,
}

impl From<Vec<TailBatch>> for Tail {
    fn from(batches: Vec<TailBatch>) -> Tail {
        Tail {
            bytes: batches.iter().map(|entry| entry.batch.encoded_len()).sum(),
            batches: batches.into(),
        }
    }
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

    /// What they count for against the agent's bound.
    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes + self.batches.len() * ENTRY_BYTES
    }

    /// The last batch.
    pub(crate) fn newest(&self) -> Option<&Batch> {
        self.batches.back().map(|last| &last.batch)
    }

    /// Every batch with the pipeline version that it went through, oldest first.
    pub(crate) fn versions(&self) -> impl Iterator<Item = (&Batch, u64)> {
        self.batches.iter().map(|entry| (&entry.batch, entry.pipeline_version))
    }

    pub(crate) fn start(&self) -> Option<Offset> {
        self.batches.front().map(|first| first.batch.base_offset())
    }

    pub(crate) fn end(&self) -> Option<Offset> {
        self.batches.back().map(|last| last.batch.next_offset())
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

    /// Encoded bytes of the batches from the one that holds `from` on that end at or below `end`, and where they end.
    pub(crate) fn bytes_between(&self, from: Offset, end: Offset) -> (usize, Offset) {
        let first = self.batches.partition_point(|entry| entry.batch.next_offset() <= from);
        let batches = self.batches.range(first..).map(|entry| &entry.batch);
        batches
            .take_while(|batch| batch.next_offset() <= end)
            .fold((0, from), |(bytes, _), batch| {
                (bytes + batch.encoded_len(), batch.next_offset())
            })
    }

    /// The first batch with a record of `timestamp_ms` or later.
    pub(crate) fn first_at(&self, timestamp_ms: i64) -> Option<Batch> {
        let mut batches = self.batches.iter().map(|entry| &entry.batch);
        batches
            .find(|batch| batch.header().max_timestamp_ms >= timestamp_ms)
            .cloned()
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

    /// Removes the batches below `end`, which a committed segment holds now; returns what they
    /// counted for against the agent's bound.
    pub(crate) fn drop_below(&mut self, end: Offset) -> usize {
        let before = self.held_bytes();
        while let Some(first) = self.batches.front().filter(|first| first.batch.next_offset() <= end) {
            self.bytes -= first.batch.encoded_len();
            self.batches.pop_front();
        }
        before - self.held_bytes()
    }
}

fn held_by(batches: &[TailBatch]) -> usize {
    batches.iter().map(|entry| held_bytes(&entry.batch)).sum()
}

/// Durable batches of a partition that nobody serves now: our WAL holds them, and whoever opens the partition takes them.
/// They count against the agent's bound as long as this lives.
#[derive(Debug)]
pub(crate) struct LeftTail {
    batches: Vec<TailBatch>,
    /// The idempotent producers up to its end; `None` where the metadata know all there is to know.
    producers: Option<Producers>,
    bytes: usize,
    budget: TailBudget,
}

impl LeftTail {
    /// What recovery found, which counts from now on.
    pub(crate) fn recovered(batches: Vec<TailBatch>, producers: Option<Producers>, budget: &TailBudget) -> LeftTail {
        budget.force(held_by(&batches));
        LeftTail::counted(batches.into(), producers, budget)
    }

    /// The tail of a partition that closed, which counts already, and its producers.
    pub(crate) fn of(tail: Tail, producers: Producers, budget: &TailBudget) -> LeftTail {
        LeftTail::counted(tail, Some(producers), budget)
    }

    fn counted(tail: Tail, producers: Option<Producers>, budget: &TailBudget) -> LeftTail {
        budget.leave(tail.held_bytes());
        LeftTail {
            bytes: tail.held_bytes(),
            batches: tail.batches.into(),
            producers,
            budget: budget.clone(),
        }
    }

    /// What is known of its idempotent producers, beyond what the metadata know.
    pub(crate) fn producers(&self) -> Option<Producers> {
        self.producers.clone()
    }

    /// Where it ends; `None` where there is nothing.
    pub(crate) fn end(&self) -> Option<Offset> {
        self.batches.last().map(|last| last.batch.next_offset())
    }

    /// What of it lies beyond the committed end; where it does not begin there, the offset that it begins at instead.
    pub(crate) fn beyond(&self, committed_end: Offset) -> Result<Vec<TailBatch>, Offset> {
        let batches = self.batches.iter();
        let beyond: Vec<_> = batches
            .filter(|entry| entry.batch.next_offset() > committed_end)
            .cloned()
            .collect();
        match beyond.first().map(|first| first.batch.base_offset()) {
            Some(found) if found != committed_end => Err(found),
            _ => Ok(beyond),
        }
    }
}

impl Drop for LeftTail {
    fn drop(&mut self) {
        self.budget.give_back_left(self.bytes);
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
        let held = tail.held_bytes();
        let freed = tail.drop_below(Offset(3));
        assert_eq!(tail.start(), Some(Offset(3)));
        assert_eq!(tail.held_bytes() + freed, held);
        assert_eq!(tail.drop_below(Offset(3)), 0);
    }

    #[test]
    fn what_was_left_is_taken_up_at_the_committed_end_and_counts_until_it_is_dropped() {
        let budget = TailBudget::new(10_000);
        let left = LeftTail::recovered(vec![entry(0, 3), entry(3, 2), entry(5, 1)], None, &budget);
        let bases = |end| {
            let beyond = left.beyond(Offset(end))?;
            Ok(beyond
                .iter()
                .map(|entry| entry.batch.base_offset().0)
                .collect::<Vec<_>>())
        };
        assert_eq!(bases(0), Ok(vec![0, 3, 5]));
        assert_eq!(bases(3), Ok(vec![3, 5]));
        assert_eq!(bases(6), Ok(vec![]));
        assert_eq!(bases(9), Ok(vec![]));
        assert_eq!(bases(4), Err(Offset(3)));
        assert!(budget.used() > 0);
        drop(left);
        assert_eq!(budget.used(), 0);
    }
}
