//! What a partition knows of its idempotent producers: of each its epoch, and its last batches with what became of them.
//!
//! A producer numbers its records, partition by partition, from 0 in each of its epochs. A batch that continues the numbers
//! is new. One that was sent before is answered as it was then, and never goes through the pipeline again. Anything else is
//! refused: what lies between would be lost, or stand in the log twice.
//!
//! What is durable and what is on its way into the WAL are kept apart, because what is on its way may fail. The durable
//! part comes from frames alone: at the next opening it is the checkpoint that the metadata have for the committed end
//! (each segment notes the same), and on top of it the frames that the WAL holds beyond.

mod codec;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};

use millstream_batch::{Batch, Offset};
use millstream_log::{
    Frame, Outcome, ProducerStamp,
    segment::{PRODUCER_BATCHES_MAX, ProducerBatch, ProducerCheckpoint, ProducerState},
};

pub(crate) use codec::{decode, encode};

/// Producers that one partition remembers. Beyond it the one goes that sent nothing for longest, and has to begin a new epoch.
pub(crate) const PRODUCERS_MAX: usize = 1_000;
/// Bound on what a partition remembers of them, in bytes of memory: what modules did to each record may take much.
const BYTES_MAX: usize = 1 << 20;
/// Sequences count from 0 to here, and then from 0 again.
const SEQUENCE_MAX: i32 = i32::MAX;
/// A sequence is behind another one where no more than so many lie between them.
const BEHIND_MAX: i32 = SEQUENCE_MAX / 2;

/// What a frame tells about a producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamped {
    pub(crate) stamp: ProducerStamp,
    /// The first offset of what was appended, or the offset that was next.
    pub(crate) base_offset: Offset,
    pub(crate) outcome: Outcome,
}

/// Why a batch is neither the next one nor one that was sent before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A greater epoch of the producer was here.
    Fenced { current: i16 },
    /// Nothing is known of the producer, and the batch is not its first one.
    Unknown,
    /// Batches are missing in between.
    OutOfOrder { expected: i32 },
    /// It was sent before, but what became of it is not remembered any more.
    Forgotten,
}

/// The idempotent producers of one partition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Producers {
    durable: HashMap<i64, Known>,
    /// Batches on their way into the WAL, in the order of their offsets.
    pending: VecDeque<Stamped>,
    /// Counts what became durable: orders producers by their last batch.
    turn: u64,
    bytes: usize,
}

#[derive(Clone, Debug)]
struct Known {
    epoch: i16,
    batches: VecDeque<ProducerBatch>,
    last_turn: u64,
}

impl Stamped {
    /// `None` where no idempotent producer sent the frame's input.
    pub(crate) fn of(frame: &Frame) -> Option<Stamped> {
        (frame.producer.id >= 0).then(|| Stamped {
            stamp: frame.producer,
            base_offset: frame.base_offset,
            outcome: frame.outcome.clone(),
        })
    }

    fn batch(self) -> ProducerBatch {
        ProducerBatch {
            first_sequence: self.stamp.first_sequence,
            last_sequence: self.stamp.last_sequence,
            base_offset: self.base_offset,
            outcome: self.outcome,
        }
    }
}

/// Who sent a batch, by its header; [`ProducerStamp::NONE`] where that was no idempotent producer.
pub(crate) fn stamp_of(batch: &Batch) -> ProducerStamp {
    let header = batch.header();
    if header.producer_id < 0 {
        return ProducerStamp::NONE;
    }
    let (first, beyond) = (header.base_sequence, batch.record_count().saturating_sub(1) as i32);
    ProducerStamp {
        id: header.producer_id,
        epoch: header.producer_epoch,
        first_sequence: first,
        // Batches hold far fewer than 2^31 records.
        last_sequence: first.wrapping_add(beyond) & SEQUENCE_MAX,
    }
}

impl Producers {
    /// What the checkpoint says, and on top of it what frames tell, in the order in which they were written.
    pub(crate) fn restored(checkpoint: ProducerCheckpoint, frames: Vec<Stamped>) -> Producers {
        let mut producers = Producers::default();
        for state in checkpoint.producers {
            let stamp = |batch: &ProducerBatch| ProducerStamp {
                id: state.id,
                epoch: state.epoch,
                first_sequence: batch.first_sequence,
                last_sequence: batch.last_sequence,
            };
            for batch in &state.batches {
                producers.apply(Stamped {
                    stamp: stamp(batch),
                    base_offset: batch.base_offset,
                    outcome: batch.outcome.clone(),
                });
            }
        }
        frames.into_iter().for_each(|frame| producers.apply(frame));
        producers
    }

    /// How many of them are known.
    pub(crate) fn count(&self) -> usize {
        self.durable.len()
    }

    /// What became of the batch where it was sent before; `None` where it is the producer's next one.
    pub(crate) fn check(&self, stamp: &ProducerStamp) -> Result<Option<ProducerBatch>, Refusal> {
        let (epoch, last) = match self.last_of(stamp.id) {
            None if stamp.first_sequence == 0 => return Ok(None),
            None => return Err(Refusal::Unknown),
            Some(last) => last,
        };
        if stamp.epoch < epoch {
            return Err(Refusal::Fenced { current: epoch });
        }
        let expected = if stamp.epoch > epoch { 0 } else { next(last) };
        if stamp.first_sequence == expected {
            return Ok(None);
        }
        if stamp.epoch > epoch {
            return Err(Refusal::OutOfOrder { expected });
        }
        if let Some(original) = self.find(stamp) {
            return Ok(Some(original));
        }
        Err(match is_behind(stamp.last_sequence, expected) {
            true => Refusal::Forgotten,
            false => Refusal::OutOfOrder { expected },
        })
    }

    /// The batch is on its way into the WAL.
    pub(crate) fn begin(&mut self, stamped: Stamped) {
        self.pending.push_back(stamped);
    }

    /// The oldest batch on its way is durable.
    pub(crate) fn settle(&mut self) {
        if let Some(stamped) = self.pending.pop_front() {
            self.apply(stamped);
        }
    }

    /// Nothing that is on its way will be durable.
    pub(crate) fn forget_pending(&mut self) {
        self.pending.clear();
    }

    /// Whether there is nothing durable to remember.
    pub(crate) fn is_empty(&self) -> bool {
        self.durable.is_empty()
    }

    /// What is known below `end`, and of batches at `end` of which no record was kept: least recently used producers first.
    pub(crate) fn checkpoint(&self, end: Offset) -> ProducerCheckpoint {
        let mut known: Vec<(&i64, &Known)> = self.durable.iter().collect();
        known.sort_unstable_by_key(|(_, known)| known.last_turn);
        let states = known.into_iter().map(|(id, known)| {
            let below = |batch: &&ProducerBatch| batch.base_offset < end || is_loose(batch, end);
            ProducerState {
                id: *id,
                epoch: known.epoch,
                batches: known.batches.iter().filter(below).cloned().collect(),
            }
        });
        ProducerCheckpoint {
            producers: states.filter(|state| !state.batches.is_empty()).collect(),
        }
    }

    /// The durable batches at `end` of which no record was kept: no segment below notes them.
    pub(crate) fn loose(&self, end: Offset) -> Vec<Stamped> {
        let of = |(id, known): (&i64, &Known)| {
            let (id, epoch) = (*id, known.epoch);
            let loose = known.batches.iter().filter(|batch| is_loose(batch, end));
            let stamped = loose.map(move |batch| Stamped {
                stamp: ProducerStamp {
                    id,
                    epoch,
                    first_sequence: batch.first_sequence,
                    last_sequence: batch.last_sequence,
                },
                base_offset: batch.base_offset,
                outcome: batch.outcome.clone(),
            });
            stamped.collect::<Vec<_>>()
        };
        self.durable.iter().flat_map(of).collect()
    }

    /// Epoch and last sequence of a producer, what is on its way included.
    fn last_of(&self, id: i64) -> Option<(i16, i32)> {
        let pending = self.pending.iter().rev().find(|pending| pending.stamp.id == id);
        if let Some(pending) = pending {
            return Some((pending.stamp.epoch, pending.stamp.last_sequence));
        }
        let known = self.durable.get(&id)?;
        let last = known.batches.back().expect("a known producer has sent a batch");
        Some((known.epoch, last.last_sequence))
    }

    /// The batch with exactly these numbers.
    fn find(&self, stamp: &ProducerStamp) -> Option<ProducerBatch> {
        if let Some(pending) = self.pending.iter().find(|pending| pending.stamp == *stamp) {
            return Some(pending.clone().batch());
        }
        let known = self.durable.get(&stamp.id).filter(|known| known.epoch == stamp.epoch)?;
        let same = |batch: &&ProducerBatch| {
            batch.first_sequence == stamp.first_sequence && batch.last_sequence == stamp.last_sequence
        };
        known.batches.iter().find(same).cloned()
    }

    /// Takes a durable batch in. One that is there already, because a checkpoint was made after its frame, changes nothing.
    fn apply(&mut self, stamped: Stamped) {
        self.turn += 1;
        let (id, epoch) = (stamped.stamp.id, stamped.stamp.epoch);
        let known = self.durable.entry(id).or_insert_with(|| Known {
            epoch,
            batches: VecDeque::new(),
            last_turn: 0,
        });
        let last = known.batches.back().map(|last| last.last_sequence);
        let continues = last.is_none_or(|last| next(last) == stamped.stamp.first_sequence);
        if epoch < known.epoch || (epoch == known.epoch && !continues) {
            return;
        }
        if epoch > known.epoch {
            self.bytes -= known.batches.drain(..).map(|batch| memory(&batch)).sum::<usize>();
            known.epoch = epoch;
        }
        known.last_turn = self.turn;
        let batch = stamped.batch();
        self.bytes += memory(&batch);
        known.batches.push_back(batch);
        if known.batches.len() > PRODUCER_BATCHES_MAX {
            self.bytes -= known.batches.pop_front().map_or(0, |oldest| memory(&oldest));
        }
        self.make_room(id);
    }

    /// Lets go of what was not used for longest; of the producer that sent last its last batch is kept, whatever it takes.
    fn make_room(&mut self, newest: i64) {
        while self.durable.len() > PRODUCERS_MAX || (self.bytes > BYTES_MAX && self.durable.len() > 1) {
            let oldest = self.durable.iter().min_by_key(|(_, known)| known.last_turn);
            let Some(oldest) = oldest.map(|(id, _)| *id) else {
                return;
            };
            let gone = self.durable.remove(&oldest).expect("it was found just now");
            self.bytes -= gone.batches.iter().map(memory).sum::<usize>();
        }
        let Some(known) = self.durable.get_mut(&newest) else {
            return;
        };
        while self.bytes > BYTES_MAX && known.batches.len() > 1 {
            self.bytes -= known.batches.pop_front().map_or(0, |oldest| memory(&oldest));
        }
    }
}

/// Whether no record of the batch was kept, at `end`.
fn is_loose(batch: &ProducerBatch, end: Offset) -> bool {
    batch.base_offset == end && batch.outcome.emitted_count() == 0
}

fn memory(batch: &ProducerBatch) -> usize {
    size_of::<ProducerBatch>() + size_of_val(batch.outcome.runs())
}

/// The sequence that follows.
fn next(sequence: i32) -> i32 {
    sequence.wrapping_add(1) & SEQUENCE_MAX
}

/// Whether `sequence` was used before `expected`, as far as numbers that begin anew can tell.
fn is_behind(sequence: i32, expected: i32) -> bool {
    let distance = expected.wrapping_sub(sequence) & SEQUENCE_MAX;
    (1..=BEHIND_MAX).contains(&distance)
}
