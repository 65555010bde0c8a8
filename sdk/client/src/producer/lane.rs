//! One partition's batches, from the record that begins one to the answer.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use millstream_batch::{Batch, BatchBuilder, Compression, HEADER_BYTES};
use tokio::time::Instant;

use super::{
    delivery::{Outcome, Teller},
    ledger::Numbers,
};

/// Pauses before a batch is sent again: each twice the one before, and never shorter than the agent asks for.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// A partition's batches.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Takes records.
    pub(super) open: Option<OpenBatch>,
    /// Takes none any more.
    pub(super) full: VecDeque<FullBatch>,
    /// Were sent, and have to be sent again before anything else.
    pub(super) again: VecDeque<SealedBatch>,
    /// Are sent and not answered.
    pub(super) under_way: VecDeque<SealedBatch>,
    /// Nothing is sent before.
    pub(super) paused_until: Option<Instant>,
    pause: Duration,
    /// Of the next batch, where the producer is idempotent.
    pub(super) next_sequence: i32,
    /// Whether the driver knows that there is something to do.
    pub(super) is_due: bool,
}

impl Lane {
    /// Lets the batch that takes records take no more; false where there is none.
    pub(super) fn close_open(&mut self) -> bool {
        let open = self.open.take();
        let was_open = open.is_some();
        self.full.extend(open.map(FullBatch::Records));
        was_open
    }

    /// The one of those to be sent again that this batch stands behind.
    pub(super) fn before(&self, batch: &SealedBatch) -> Option<&SealedBatch> {
        self.place_of(batch).checked_sub(1).map(|before| &self.again[before])
    }

    /// Puts a batch among those to be sent again, in the order of their records.
    pub(super) fn put_again(&mut self, batch: SealedBatch) {
        self.again.insert(self.place_of(&batch), batch);
    }

    fn place_of(&self, batch: &SealedBatch) -> usize {
        let first = batch.numbers.first();
        self.again.partition_point(|other| other.numbers.first() < first)
    }

    /// Whether there is nothing that is not answered.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_none() && self.full.is_empty() && self.again.is_empty() && self.under_way.is_empty()
    }

    /// Sends nothing for a while, longer each time in a row; `least` is what the agent asks for.
    pub(super) fn pause(&mut self, least: Duration) -> Instant {
        self.pause = (self.pause * 2).clamp(PAUSE_FIRST, PAUSE_MAX);
        let until = Instant::now() + self.pause.max(least.min(PAUSE_MAX));
        self.paused_until = Some(until);
        until
    }

    /// A batch got through.
    pub(super) fn got_through(&mut self) {
        self.pause = Duration::ZERO;
    }
}

/// A batch in the making.
#[derive(Debug)]
pub(super) struct OpenBatch {
    builder: BatchBuilder,
    numbers: Numbers,
    teller: Teller,
    /// What it holds of the buffer.
    room: usize,
    pub(super) began: Instant,
}

impl OpenBatch {
    pub(super) fn new(partition: u32) -> OpenBatch {
        OpenBatch {
            builder: BatchBuilder::new(),
            numbers: Numbers::default(),
            teller: Teller::new(partition),
            room: 0,
            began: Instant::now(),
        }
    }

    /// Encoded bytes so far.
    pub(super) fn bytes(&self) -> usize {
        HEADER_BYTES + self.builder.records_bytes()
    }

    /// Adds a record; its place within the batch.
    pub(super) fn push(&mut self, record: &super::NewRecord<'_>, number: u64, room: usize) -> u32 {
        let index = self.builder.len() as u32;
        self.builder.push(
            record.timestamp_ms,
            record.key,
            record.value,
            record.headers.iter().copied(),
        );
        self.numbers.push(number);
        self.room += room;
        index
    }

    pub(super) fn outcome(&self) -> &Arc<Outcome> {
        self.teller.outcome()
    }
}

/// A batch that can be sent.
#[derive(Debug)]
pub(super) enum FullBatch {
    /// Not encoded yet.
    Records(OpenBatch),
    /// Made by the caller.
    Made(MadeBatch),
}

/// A batch that the caller made.
#[derive(Debug)]
pub(super) struct MadeBatch {
    pub(super) batch: Batch,
    pub(super) numbers: Numbers,
    pub(super) teller: Teller,
    pub(super) room: usize,
}

impl FullBatch {
    pub(super) fn outcome(&self) -> &Arc<Outcome> {
        match self {
            FullBatch::Records(open) => open.outcome(),
            FullBatch::Made(made) => made.teller.outcome(),
        }
    }

    /// Makes the batch that travels.
    pub(super) fn seal(self, compression: Compression) -> SealedBatch {
        let made = match self {
            FullBatch::Records(open) => MadeBatch {
                batch: open.builder.build(compression),
                numbers: open.numbers,
                teller: open.teller,
                room: open.room,
            },
            FullBatch::Made(made) => made,
        };
        SealedBatch {
            record_count: made.batch.record_count() as i32,
            batch: made.batch,
            numbers: made.numbers,
            teller: made.teller,
            room: made.room,
            sequence: None,
            first_sent: Instant::now(),
        }
    }
}

/// A batch as it travels.
#[derive(Debug)]
pub(super) struct SealedBatch {
    batch: Batch,
    pub(super) record_count: i32,
    pub(super) numbers: Numbers,
    pub(super) teller: Teller,
    pub(super) room: usize,
    /// Its number among the records of its partition, where the producer is idempotent and has given it one.
    pub(super) sequence: Option<i32>,
    pub(super) first_sent: Instant,
}

impl SealedBatch {
    /// Gives it a place in the sequence of its partition.
    pub(super) fn number(&mut self, producer_id: i64, epoch: i16, sequence: i32) {
        self.batch = self.batch.clone().with_producer(producer_id, epoch, sequence);
        self.sequence = Some(sequence);
    }

    /// What is sent; it shares the memory.
    pub(super) fn batch(&self) -> Batch {
        self.batch.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NewRecord;

    fn batch(number: u64) -> SealedBatch {
        let mut open = OpenBatch::new(0);
        open.push(&NewRecord::default(), number, 0);
        FullBatch::Records(open).seal(Compression::None)
    }

    #[test]
    fn what_is_sent_again_keeps_the_order_of_its_records() {
        let mut lane = Lane::default();
        for number in [3, 1, 2] {
            lane.put_again(batch(number));
        }
        let order: Vec<_> = lane.again.iter().map(|batch| batch.numbers.first()).collect();
        assert_eq!(order, [Some(1), Some(2), Some(3)]);
        let before = |number| lane.before(&batch(number)).and_then(|before| before.numbers.first());
        assert_eq!((before(1), before(4)), (None, Some(3)));
    }
}
