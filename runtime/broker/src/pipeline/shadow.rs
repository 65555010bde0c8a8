//! A version that runs beside the one in force: what it does differently is counted, and nothing of it is written.
//!
//! It runs on a thread of its own, behind the batch it is compared on. While one comparison of a chain is under way, or
//! there are enough of the whole agent, others are left out: a shadow never holds up a batch, nor piles up work.

use std::sync::{Arc, Mutex, atomic::Ordering::Relaxed};

use bytes::Bytes;
use millstream_batch::{RecordIter, RecordView};
use millstream_wasm::{Input, Outcome, Piece, Runner, Verdict};

use super::{Monitor, Pool, monitor::short, work::same_content};

/// The version beside one stage of one chain.
pub(super) struct Shadow {
    runner: Arc<Mutex<Runner>>,
    monitor: Arc<Monitor>,
    is_guarded: bool,
    pool: Pool,
}

/// What a stage was given.
pub(super) struct Given {
    pub(super) partition: u32,
    pub(super) first_offset: Option<u64>,
    pub(super) append_time_ms: i64,
    pub(super) base_timestamp_ms: i64,
    pub(super) count: u32,
    pub(super) records: Bytes,
}

impl Given {
    pub(super) fn input(&self) -> Input<'_> {
        Input {
            partition: self.partition,
            first_offset: self.first_offset,
            append_time_ms: self.append_time_ms,
            base_timestamp_ms: self.base_timestamp_ms,
            count: self.count,
            records: &self.records,
        }
    }
}

impl Shadow {
    pub(super) fn new(runner: Runner, monitor: Arc<Monitor>, is_guarded: bool, pool: Pool) -> Shadow {
        Shadow {
            runner: Arc::new(Mutex::new(runner)),
            monitor,
            is_guarded,
            pool,
        }
    }

    /// Begins to compare, on a batch of which the version in force has made `outcome`.
    pub(super) fn compare(&self, given: Given, outcome: Outcome) {
        // The comparison that waits or runs holds the other one.
        if Arc::strong_count(&self.runner) > 1 {
            return;
        }
        let (runner, monitor, is_guarded) = (self.runner.clone(), self.monitor.clone(), self.is_guarded);
        self.pool.compare(move || {
            // One that panicked is left alone.
            let Ok(mut runner) = runner.try_lock() else { return };
            monitor.batches.fetch_add(1, Relaxed);
            monitor.records_in.fetch_add(given.count.into(), Relaxed);
            let before = runner.cpu_used();
            let beside = runner.process(given.input());
            let cpu = runner.cpu_used().saturating_sub(before);
            monitor.cpu_nanos.fetch_add(cpu.as_nanos() as u64, Relaxed);
            match beside {
                Ok(beside) => {
                    if is_guarded {
                        monitor.fare.went_well();
                    }
                    monitor.rejected.fetch_add(beside.rejects.len() as u64, Relaxed);
                    let differences = differences(&given.records, &outcome, &beside);
                    monitor.shadow_differences.fetch_add(differences, Relaxed);
                }
                Err(error) if error.is_module_fault() => {
                    if is_guarded {
                        monitor.fare.failed(given.partition, given.first_offset);
                    }
                    monitor.failed_batches.fetch_add(1, Relaxed);
                    monitor.failed.fetch_add(given.count.into(), Relaxed);
                    let text = format!("the shadow failed: {}", short(&error.to_string()));
                    monitor.log(
                        millstream_wasm::Level::Error,
                        given.partition,
                        super::logs::LINES_PER_SECOND,
                        &text,
                    );
                }
                Err(_) => {}
            }
        });
    }
}

/// How many of the records came out differently.
fn differences(records: &[u8], a: &Outcome, b: &Outcome) -> u64 {
    if a == b {
        return 0;
    }
    let (mut a, mut b) = (Fates::new(a), Fates::new(b));
    let mut differences = 0;
    for record in RecordIter::new(records) {
        let Ok(record) = record else { break };
        differences += u64::from(!a.next().is_same(&b.next(), &record));
    }
    differences
}

/// What became of each record, one after the other.
struct Fates<'a> {
    pieces: std::slice::Iter<'a, Piece>,
    rejects: std::iter::Peekable<std::slice::Iter<'a, millstream_wasm::Reject>>,
    /// The piece that is being looked at, how many of its records were, and what is left of those it emitted.
    piece: Option<(&'a Piece, u32, RecordIter<'a>)>,
    index: u32,
}

enum Fate<'a> {
    Kept,
    Rejected,
    Emitted(Vec<RecordView<'a>>),
}

impl Fate<'_> {
    fn is_same(&self, other: &Fate<'_>, record: &RecordView<'_>) -> bool {
        let as_it_came = |emitted: &[RecordView<'_>]| emitted.len() == 1 && same_content(&emitted[0], record);
        match (self, other) {
            (Fate::Kept, Fate::Kept) | (Fate::Rejected, Fate::Rejected) => true,
            (Fate::Kept, Fate::Emitted(emitted)) | (Fate::Emitted(emitted), Fate::Kept) => as_it_came(emitted),
            (Fate::Emitted(a), Fate::Emitted(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_content(a, b))
            }
            (Fate::Rejected, _) | (_, Fate::Rejected) => false,
        }
    }
}

impl<'a> Fates<'a> {
    fn new(outcome: &'a Outcome) -> Fates<'a> {
        Fates {
            pieces: outcome.pieces.iter(),
            rejects: outcome.rejects.iter().peekable(),
            piece: None,
            index: 0,
        }
    }

    fn next(&mut self) -> Fate<'a> {
        let rejected = self.rejects.next_if(|reject| reject.index == self.index).is_some();
        self.index += 1;
        while self.piece.as_ref().is_none_or(|(piece, at, _)| *at >= piece.count) {
            let Some(piece) = self.pieces.next() else {
                return Fate::Emitted(Vec::new());
            };
            let emitted: &[u8] = match &piece.verdict {
                Verdict::Rewrite { records, .. } => records,
                _ => &[],
            };
            self.piece = Some((piece, 0, RecordIter::new(emitted)));
        }
        let (piece, at, emitted) = self.piece.as_mut().expect("the loop ends with one");
        let i = *at as usize;
        *at += 1;
        let fate = match &piece.verdict {
            Verdict::Unchanged => Fate::Kept,
            Verdict::Keep(bitmap) if bitmap[i / 8] >> (i % 8) & 1 == 1 => Fate::Kept,
            Verdict::Keep(_) => Fate::Emitted(Vec::new()),
            Verdict::Rewrite { counts, .. } => {
                Fate::Emitted(emitted.by_ref().take(counts[i] as usize).flatten().collect())
            }
        };
        if rejected { Fate::Rejected } else { fate }
    }
}

#[cfg(test)]
mod tests {
    use millstream_batch::{BatchBuilder, Compression, encode_record};
    use millstream_wasm::Reject;

    use super::*;

    fn outcome(count: u32, len: usize, verdict: Verdict) -> Outcome {
        let piece = Piece {
            count,
            records: 0..len,
            verdict,
        };
        Outcome {
            pieces: vec![piece],
            rejects: Vec::new(),
        }
    }

    #[test]
    fn only_what_came_out_otherwise_counts() {
        let mut builder = BatchBuilder::new();
        for value in ["a", "b", "c"] {
            builder.push(0, None, Some(value.as_bytes()), [].into_iter());
        }
        let batch = builder.build(Compression::None);
        let records = batch.records().clone();
        let mut rewritten = Vec::new();
        for value in ["a", "B"] {
            encode_record(&mut rewritten, 0, 0, None, Some(value.as_bytes()), [].into_iter());
        }
        let rewrite = Verdict::Rewrite {
            counts: vec![1, 1, 0],
            records: rewritten,
        };
        let rewritten = outcome(3, records.len(), rewrite);
        let kept = outcome(3, records.len(), Verdict::Unchanged);
        let first_two = outcome(3, records.len(), Verdict::Keep(vec![0b011]));
        assert_eq!(differences(&records, &kept, &kept), 0);
        assert_eq!(differences(&records, &kept, &first_two), 1);
        assert_eq!(differences(&records, &kept, &rewritten), 2);
        assert_eq!(differences(&records, &rewritten, &first_two), 1);
        let mut refused = first_two.clone();
        refused.rejects = vec![Reject {
            index: 2,
            reason: "no".into(),
        }];
        assert_eq!(differences(&records, &first_two, &refused), 1);
    }
}
