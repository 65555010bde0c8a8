//! The records of one batch on their way through a chain: what each verdict makes of them.
//!
//! Between stages records keep the encoding they have. On produce their offset deltas mean nothing until
//! [`Work::into_produced`] numbers them anew; on fetch each record keeps the offset delta it was stored with.

use bytes::Bytes;
use millstream_batch::{Batch, Epoch, RecordIter, RecordView};
use millstream_wasm::{Outcome, Verdict};

use super::Side;
use crate::error::Result;

/// The records of one batch between two stages.
pub(crate) struct Work {
    side: Side,
    /// Timestamp deltas are relative to this all the way through.
    base_timestamp_ms: i64,
    /// Uncompressed, encoded.
    records: Bytes,
    count: u32,
    /// How many records the batch had at the start.
    input_count: u32,
    /// For each record the input record it came from, ascending; `None` while each came from its own.
    sources: Option<Vec<u32>>,
    /// For each input record whether a stage changed it; empty while none did.
    changed: Vec<bool>,
}

/// What became of the input records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fate {
    pub(crate) changed: u32,
    pub(crate) dropped: u32,
}

/// Why a verdict cannot be applied.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// On fetch a record became several.
    Multiplied { source: u32, count: u32 },
}

impl Work {
    pub(crate) fn new(side: Side, batch: &Batch, records: Bytes) -> Work {
        Work {
            side,
            base_timestamp_ms: batch.header().base_timestamp_ms,
            records,
            count: batch.record_count(),
            input_count: batch.record_count(),
            sources: None,
            changed: Vec::new(),
        }
    }

    pub(crate) fn records(&self) -> &Bytes {
        &self.records
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    pub(crate) fn base_timestamp_ms(&self) -> i64 {
        self.base_timestamp_ms
    }

    /// The input record that record `index` came from.
    pub(crate) fn source(&self, index: u32) -> u32 {
        self.sources.as_ref().map_or(index, |sources| sources[index as usize])
    }

    /// What [`Work::source`] says for every record; `None` while each comes from its own.
    pub(crate) fn sources(&self) -> Option<&[u32]> {
        self.sources.as_deref()
    }

    /// Whether the records are still, byte for byte, those of the input batch.
    pub(crate) fn is_untouched(&self) -> bool {
        self.sources.is_none() && self.changed.is_empty()
    }

    pub(crate) fn fate(&self) -> Fate {
        let Some(sources) = &self.sources else {
            return Fate {
                changed: self.changed.iter().filter(|changed| **changed).count() as u32,
                dropped: 0,
            };
        };
        let mut distinct = sources.clone();
        distinct.dedup();
        let changed = distinct
            .iter()
            .filter(|source| self.changed.get(**source as usize).copied().unwrap_or(false))
            .count();
        Fate {
            changed: changed as u32,
            dropped: self.input_count - distinct.len() as u32,
        }
    }

    /// Applies a stage's outcome, which the module host has checked: pieces cover all records, and what a module made
    /// is well-formed.
    pub(crate) fn apply(&mut self, outcome: &Outcome) -> Result<Result<(), Unfit>> {
        if outcome
            .pieces
            .iter()
            .all(|piece| matches!(piece.verdict, Verdict::Unchanged))
        {
            return Ok(Ok(()));
        }
        let mut next = Next {
            bytes: Vec::with_capacity(self.records.len()),
            sources: Vec::new(),
        };
        let mut index = 0;
        for piece in &outcome.pieces {
            let records = self.records.slice(piece.records.clone());
            match &piece.verdict {
                Verdict::Unchanged => {
                    next.bytes.extend_from_slice(&records);
                    next.sources
                        .extend((index..index + piece.count).map(|i| self.source(i)));
                }
                Verdict::Keep(bitmap) => self.keep(&records, index, bitmap, &mut next)?,
                Verdict::Rewrite {
                    counts,
                    records: emitted,
                } => {
                    if let Err(unfit) = self.rewrite(&records, index, counts, emitted, &mut next)? {
                        return Ok(Err(unfit));
                    }
                }
            }
            index += piece.count;
        }
        self.count = next.sources.len() as u32;
        self.records = next.bytes.into();
        self.sources = Some(next.sources);
        Ok(Ok(()))
    }

    /// Copies the records whose bit is set; neighbours go in one piece.
    fn keep(&self, records: &[u8], first: u32, bitmap: &[u8], next: &mut Next) -> Result<()> {
        let (mut run_start, mut position) = (0, 0);
        for (i, record) in RecordIter::new(records).enumerate() {
            let end = position + record?.encoded().len();
            if bitmap[i / 8] >> (i % 8) & 1 == 1 {
                next.sources.push(self.source(first + i as u32));
            } else {
                next.bytes.extend_from_slice(&records[run_start..position]);
                run_start = end;
            }
            position = end;
        }
        next.bytes.extend_from_slice(&records[run_start..position]);
        Ok(())
    }

    fn rewrite(
        &mut self,
        records: &[u8],
        first: u32,
        counts: &[u32],
        emitted: &[u8],
        next: &mut Next,
    ) -> Result<Result<(), Unfit>> {
        self.changed.resize(self.input_count as usize, false);
        let mut made = RecordIter::new(emitted);
        for (i, (input, &count)) in RecordIter::new(records).zip(counts).enumerate() {
            let input = input?;
            let source = self.source(first + i as u32);
            if self.side == Side::Fetch && count > 1 {
                return Ok(Err(Unfit::Multiplied { source, count }));
            }
            for output in made.by_ref().take(count as usize) {
                let output = output?;
                self.changed[source as usize] |= count != 1 || !same_content(&input, &output);
                next.sources.push(source);
                match self.side {
                    Side::Produce => next.bytes.extend_from_slice(output.encoded()),
                    // A reader finds a record at the offset at which it is stored, whatever a module made of it.
                    Side::Fetch => output.encode_with(output.timestamp_delta, input.offset_delta, &mut next.bytes),
                }
            }
        }
        Ok(Ok(()))
    }

    /// The batch to store, its offsets contiguous from 0 and its timestamps relative to the first record's; `None` when
    /// no record is left. `original` is given back as it came where no stage touched it.
    pub(crate) fn into_produced(self, original: Batch) -> Result<Option<Batch>> {
        if self.is_untouched() {
            return Ok(Some(original));
        }
        let mut encoded = Vec::with_capacity(self.records.len() + self.records.len() / 64);
        let (mut first_delta, mut max_delta) = (None, i64::MIN);
        for (i, record) in RecordIter::new(&self.records).enumerate() {
            let record = record?;
            let first = *first_delta.get_or_insert(record.timestamp_delta);
            max_delta = max_delta.max(record.timestamp_delta);
            record.encode_with(record.timestamp_delta.wrapping_sub(first), i as i32, &mut encoded);
        }
        let Some(first_delta) = first_delta else {
            return Ok(None);
        };
        Ok(Some(Batch::from_records(
            self.base_timestamp_ms.wrapping_add(first_delta),
            self.base_timestamp_ms.wrapping_add(max_delta),
            self.count,
            self.count - 1,
            encoded.into(),
        )))
    }

    /// The batch to return to a reader, spanning the same offsets as `original`; `None` when no record is left.
    pub(crate) fn into_fetched(self, original: Batch) -> Result<Option<Batch>> {
        if self.is_untouched() {
            return Ok(Some(original));
        }
        let mut max_delta = None;
        for record in RecordIter::new(&self.records) {
            max_delta = max_delta.max(Some(record?.timestamp_delta));
        }
        let Some(max_delta) = max_delta else { return Ok(None) };
        let header = original.header();
        let mut batch = Batch::from_records(
            self.base_timestamp_ms,
            self.base_timestamp_ms.wrapping_add(max_delta),
            self.count,
            header.last_offset_delta as u32,
            self.records,
        );
        let epoch = u64::try_from(header.leader_epoch).unwrap_or_default();
        batch.stamp(original.base_offset(), Epoch(epoch));
        Ok(Some(batch))
    }
}

struct Next {
    bytes: Vec<u8>,
    sources: Vec<u32>,
}

/// Whether two encoded records differ in nothing but their offset delta.
fn same_content(a: &RecordView<'_>, b: &RecordView<'_>) -> bool {
    a.timestamp_delta == b.timestamp_delta && a.key == b.key && a.value == b.value && a.headers().eq(b.headers())
}

#[cfg(test)]
mod tests {
    use millstream_batch::{BatchBuilder, Compression, Offset, encode_record};
    use millstream_wasm::Piece;

    use super::*;

    /// A batch at offset 100 whose records are made at 1000, 1001, ...
    fn batch(values: &[&str]) -> Batch {
        let mut builder = BatchBuilder::new();
        for (i, value) in values.iter().enumerate() {
            builder.push(1_000 + i as i64, None, Some(value.as_bytes()), [].into_iter());
        }
        let mut batch = builder.build(Compression::None);
        batch.stamp(Offset(100), Epoch(7));
        batch
    }

    fn work(side: Side, batch: &Batch) -> Work {
        Work::new(side, batch, batch.records().clone())
    }

    fn whole(work: &Work, verdict: Verdict) -> Outcome {
        let piece = Piece {
            count: work.count(),
            records: 0..work.records().len(),
            verdict,
        };
        Outcome {
            pieces: vec![piece],
            rejects: Vec::new(),
        }
    }

    fn records(values: &[(&str, i64)]) -> Vec<u8> {
        let mut records = Vec::new();
        for (value, timestamp_delta) in values {
            encode_record(
                &mut records,
                *timestamp_delta,
                0,
                None,
                Some(value.as_bytes()),
                [].into_iter(),
            );
        }
        records
    }

    /// Offset, timestamp and value of every record.
    fn content(batch: &Batch) -> Vec<(u64, i64, String)> {
        RecordIter::new(batch.records())
            .map(|record| {
                let record = record.unwrap();
                let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                let offset = batch.base_offset().0 + record.offset_delta as u64;
                (offset, batch.header().base_timestamp_ms + record.timestamp_delta, value)
            })
            .collect()
    }

    fn row(offset: u64, timestamp_ms: i64, value: &str) -> (u64, i64, String) {
        (offset, timestamp_ms, value.to_owned())
    }

    #[test]
    fn what_no_stage_touched_is_stored_as_it_came() {
        let batch = batch(&["a", "b"]);
        let mut work = work(Side::Produce, &batch);
        let unchanged = whole(&work, Verdict::Unchanged);
        work.apply(&unchanged).unwrap().unwrap();
        assert!(work.is_untouched());
        assert_eq!(work.fate(), Fate { changed: 0, dropped: 0 });
        assert_eq!(work.into_produced(batch.clone()).unwrap(), Some(batch));
    }

    #[test]
    fn kept_records_get_contiguous_offsets_on_produce_and_keep_theirs_on_fetch() {
        let batch = batch(&["a", "b", "c", "d"]);
        for side in [Side::Produce, Side::Fetch] {
            let mut work = work(side, &batch);
            let keep = whole(&work, Verdict::Keep(vec![0b1010]));
            work.apply(&keep).unwrap().unwrap();
            assert_eq!(work.fate(), Fate { changed: 0, dropped: 2 });
            assert_eq!(work.sources(), Some(&[1, 3][..]));
            match side {
                Side::Produce => {
                    let stored = work.into_produced(batch.clone()).unwrap().unwrap();
                    assert_eq!(content(&stored), [row(0, 1_001, "b"), row(1, 1_003, "d")]);
                }
                Side::Fetch => {
                    let seen = work.into_fetched(batch.clone()).unwrap().unwrap();
                    assert_eq!(content(&seen), [row(101, 1_001, "b"), row(103, 1_003, "d")]);
                    assert_eq!(
                        seen.next_offset(),
                        Offset(104),
                        "readers move on over what was filtered"
                    );
                }
            }
        }
    }

    #[test]
    fn pieces_are_applied_each_with_its_own_verdict() {
        let batch = batch(&["a", "b", "c"]);
        let first_len = RecordIter::new(batch.records())
            .next()
            .unwrap()
            .unwrap()
            .encoded()
            .len();
        let mut work = work(Side::Produce, &batch);
        let rest = first_len..work.records().len();
        let pieces = vec![
            Piece {
                count: 1,
                records: 0..first_len,
                verdict: Verdict::Unchanged,
            },
            Piece {
                count: 2,
                records: rest,
                verdict: Verdict::Rewrite {
                    counts: vec![0, 2],
                    records: records(&[("C1", 5), ("C2", 6)]),
                },
            },
        ];
        work.apply(&Outcome {
            pieces,
            rejects: Vec::new(),
        })
        .unwrap()
        .unwrap();
        assert_eq!(work.fate(), Fate { changed: 1, dropped: 1 });
        let stored = work.into_produced(batch).unwrap().unwrap();
        assert_eq!(
            content(&stored),
            [row(0, 1_000, "a"), row(1, 1_005, "C1"), row(2, 1_006, "C2")]
        );
        assert_eq!(stored.header().max_timestamp_ms, 1_006);
    }

    #[test]
    fn a_second_stage_is_traced_back_to_the_input() {
        let batch = batch(&["a", "b", "c"]);
        let mut work = work(Side::Produce, &batch);
        let keep = whole(&work, Verdict::Keep(vec![0b110]));
        work.apply(&keep).unwrap().unwrap();
        assert_eq!(work.source(0), 1);
        let rewrite = Verdict::Rewrite {
            counts: vec![1, 1],
            records: records(&[("b", 1), ("x", 2)]),
        };
        let rewrite = whole(&work, rewrite);
        work.apply(&rewrite).unwrap().unwrap();
        assert_eq!(work.fate(), Fate { changed: 1, dropped: 1 }, "b came back as it was");
    }

    #[test]
    fn on_fetch_a_rewritten_record_stays_at_its_offset_and_cannot_become_two() {
        let batch = batch(&["a", "b"]);
        let mut once = work(Side::Fetch, &batch);
        let rewrite = whole(
            &once,
            Verdict::Rewrite {
                counts: vec![0, 1],
                records: records(&[("B", 0)]),
            },
        );
        once.apply(&rewrite).unwrap().unwrap();
        assert_eq!(
            content(&once.into_fetched(batch.clone()).unwrap().unwrap()),
            [row(101, 1_000, "B")]
        );

        let mut twice = work(Side::Fetch, &batch);
        let records = records(&[("a", 0), ("b", 0), ("b", 0)]);
        let rewrite = whole(
            &twice,
            Verdict::Rewrite {
                counts: vec![1, 2],
                records,
            },
        );
        assert_eq!(
            twice.apply(&rewrite).unwrap(),
            Err(Unfit::Multiplied { source: 1, count: 2 })
        );
    }

    #[test]
    fn a_batch_of_which_nothing_is_left_is_no_batch() {
        let batch = batch(&["a", "b"]);
        for side in [Side::Produce, Side::Fetch] {
            let mut work = work(side, &batch);
            let none = whole(&work, Verdict::Keep(vec![0]));
            work.apply(&none).unwrap().unwrap();
            assert_eq!(work.fate(), Fate { changed: 0, dropped: 2 });
            let left = match side {
                Side::Produce => work.into_produced(batch.clone()),
                Side::Fetch => work.into_fetched(batch.clone()),
            };
            assert_eq!(left.unwrap(), None);
        }
    }
}
