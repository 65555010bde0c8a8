//! The records of one batch on their way through a chain: what each verdict makes of them.
//!
//! Between stages records keep the encoding they have. On produce their offset deltas mean nothing until
//! [`Work::into_produced`] numbers them anew; on fetch each record keeps the offset delta it was stored with.

use std::{
    iter::{Copied, Peekable},
    slice,
};

use bytes::Bytes;
use millstream_batch::{Batch, Epoch, RecordError, RecordIter, RecordView};
use millstream_wasm::{Call, Failed, ModuleError, Outcome, Verdict};

use super::Side;
use crate::error::Result;

#[cfg(test)]
mod tests;

/// The records of one batch between two stages.
#[derive(Clone)]
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

    /// How many records the batch had at the start.
    pub(crate) fn input_count(&self) -> u32 {
        self.input_count
    }

    pub(crate) fn base_timestamp_ms(&self) -> i64 {
        self.base_timestamp_ms
    }

    /// The input record that record `index` came from.
    pub(crate) fn source(&self, index: u32) -> u32 {
        self.sources.as_ref().map_or(index, |sources| sources[index as usize])
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

    /// Records of which a module made several, and how many. On fetch that is refused: two cannot stand at one offset.
    pub(crate) fn multiplied(&self, outcome: &Outcome) -> Vec<(u32, u32)> {
        let (mut found, mut first) = (Vec::new(), 0);
        for piece in &outcome.pieces {
            if let Verdict::Rewrite { counts, .. } = &piece.verdict {
                let several = (first..).zip(counts).filter(|(_, count)| **count > 1);
                found.extend(several.map(|(index, count)| (index, *count)));
            }
            first += piece.count;
        }
        found
    }

    /// Records of which a module made one that is larger than the topic takes, as it was encoded: those it has failed on.
    pub(crate) fn oversized(&self, outcome: &Outcome, bytes_max: usize) -> Result<Vec<Failed>> {
        let (mut found, mut first) = (Vec::new(), 0);
        for piece in &outcome.pieces {
            if let Verdict::Rewrite { counts, records } = &piece.verdict
                // Nearly always all of them together are smaller than one may be.
                && records.len() > bytes_max
            {
                let mut made = RecordIter::new(records);
                for (index, count) in (first..).zip(counts) {
                    let mut largest = 0;
                    for record in made.by_ref().take(*count as usize) {
                        largest = largest.max(record?.encoded().len());
                    }
                    if largest > bytes_max {
                        let what = format!("a record of {largest} bytes; the topic's limit is {bytes_max}");
                        let call = Call::Process;
                        found.push(Failed {
                            records: index..index + 1,
                            error: ModuleError::OutputTooLarge { call, what },
                            isolated: true,
                        });
                    }
                }
            }
            first += piece.count;
        }
        Ok(found)
    }

    /// Applies a stage's outcome, which the module host has checked: pieces cover all records, and what a module made
    /// is well-formed. The records `passed`, ascending, stay as they are, whatever the outcome says. On fetch nothing is
    /// left of a record that became several.
    pub(crate) fn apply(&mut self, outcome: &Outcome, passed: &[u32]) -> Result<()> {
        if outcome
            .pieces
            .iter()
            .all(|piece| matches!(piece.verdict, Verdict::Unchanged))
        {
            return Ok(());
        }
        let mut next = Next {
            bytes: Vec::with_capacity(self.records.len()),
            sources: Vec::with_capacity(self.count as usize),
            passed: passed.iter().copied().peekable(),
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
                } => self.rewrite(&records, index, counts, emitted, &mut next)?,
            }
            index += piece.count;
        }
        self.count = next.sources.len() as u32;
        self.records = next.bytes.into();
        self.sources = Some(next.sources);
        Ok(())
    }

    /// Copies the records whose bit is set, and those that are passed; neighbours go in one piece.
    fn keep(&self, records: &[u8], first: u32, bitmap: &[u8], next: &mut Next<'_>) -> Result<()> {
        let (mut run_start, mut position, mut index) = (0, 0, 0);
        while position < records.len() {
            let end = position + first_len(records, position)?;
            let kept = bitmap.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1);
            if kept || next.is_passed(first + index as u32) {
                next.sources.push(self.source(first + index as u32));
            } else {
                next.bytes.extend_from_slice(&records[run_start..position]);
                run_start = end;
            }
            position = end;
            index += 1;
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
        next: &mut Next<'_>,
    ) -> Result<()> {
        self.changed.resize(self.input_count as usize, false);
        let mut made = RecordIter::new(emitted);
        for (i, (input, &count)) in RecordIter::new(records).zip(counts).enumerate() {
            let input = input?;
            let index = first + i as u32;
            let source = self.source(index);
            if next.is_passed(index) {
                next.push(source, input.encoded());
                made.by_ref()
                    .take(count as usize)
                    .try_for_each(|output| output.map(drop))?;
                continue;
            }
            for output in made.by_ref().take(count as usize) {
                let output = output?;
                match self.side {
                    Side::Produce => next.push(source, output.encoded()),
                    Side::Fetch if count > 1 => continue,
                    // A reader finds a record at the offset at which it is stored, whatever a module made of it.
                    Side::Fetch => {
                        output.encode_with(output.timestamp_delta, input.offset_delta, &mut next.bytes);
                        next.sources.push(source);
                    }
                }
                self.changed[source as usize] |= count != 1 || !same_content(&input, &output);
            }
        }
        Ok(())
    }

    /// Drops whatever is left of these input records, ascending.
    pub(crate) fn drop_sources(&mut self, dropped: &[u32]) -> Result<()> {
        self.retain(|source| dropped.binary_search(&source).is_err())
    }

    /// Drops whatever came from this input record or a later one.
    pub(crate) fn cut_at(&mut self, first: u32) -> Result<()> {
        self.retain(|source| source < first)
    }

    fn retain(&mut self, keeps: impl Fn(u32) -> bool) -> Result<()> {
        if (0..self.count).all(|index| keeps(self.source(index))) {
            return Ok(());
        }
        let mut next = Next {
            bytes: Vec::with_capacity(self.records.len()),
            sources: Vec::with_capacity(self.count as usize),
            passed: [].iter().copied().peekable(),
        };
        let mut position = 0;
        for index in 0..self.count {
            let end = position + first_len(&self.records, position)?;
            if keeps(self.source(index)) {
                next.push(self.source(index), &self.records[position..end]);
            }
            position = end;
        }
        self.count = next.sources.len() as u32;
        self.records = next.bytes.into();
        self.sources = Some(next.sources);
        Ok(())
    }

    /// The batch to store, its offsets contiguous from 0 and its timestamps relative to the first record's, and for each
    /// record what [`Work::source`] says. The batch is `None` when no record is left; the sources are `None`, and
    /// `original` is given back as it came, where no stage touched it.
    pub(crate) fn into_produced(self, original: Batch) -> Result<(Option<Batch>, Option<Vec<u32>>)> {
        if self.is_untouched() {
            return Ok((Some(original), None));
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
            return Ok((None, self.sources));
        };
        let batch = Batch::from_records(
            self.base_timestamp_ms.wrapping_add(first_delta),
            self.base_timestamp_ms.wrapping_add(max_delta),
            self.count,
            self.count - 1,
            encoded.into(),
        );
        Ok((Some(batch), self.sources))
    }

    /// The batch to return to a reader; `None` when no record is left. It spans the same offsets as `original`, or where
    /// the stages stopped at one of its records, those before that.
    pub(crate) fn into_fetched(self, original: Batch, stopped_at: Option<u32>) -> Result<Option<Batch>> {
        if self.is_untouched() && stopped_at.is_none() {
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
            stopped_at.map_or(header.last_offset_delta as u32, |at| at.saturating_sub(1)),
            self.records,
        );
        let epoch = u64::try_from(header.leader_epoch).unwrap_or_default();
        batch.stamp(original.base_offset(), Epoch(epoch));
        Ok(Some(batch))
    }
}

struct Next<'a> {
    bytes: Vec<u8>,
    sources: Vec<u32>,
    /// What is still to come of the records that stay as they are.
    passed: Peekable<Copied<slice::Iter<'a, u32>>>,
}

impl Next<'_> {
    fn push(&mut self, source: u32, encoded: &[u8]) {
        self.bytes.extend_from_slice(encoded);
        self.sources.push(source);
    }

    /// Asked for one record after the other.
    fn is_passed(&mut self, index: u32) -> bool {
        while self.passed.next_if(|passed| *passed < index).is_some() {}
        self.passed.next_if_eq(&index).is_some()
    }
}

/// Whether two encoded records differ in nothing but their offset delta.
pub(super) fn same_content(a: &RecordView<'_>, b: &RecordView<'_>) -> bool {
    a.timestamp_delta == b.timestamp_delta && a.key == b.key && a.value == b.value && a.headers().eq(b.headers())
}

/// Bytes of the record at `position`, with its length field: a zigzag varint of at most 5 bytes. What it says was checked
/// when the batch came in, so nothing else of the record is looked at.
fn first_len(records: &[u8], position: usize) -> Result<usize, RecordError> {
    const VARINT_BYTES_MAX: usize = 5;
    let (mut length, mut shift) = (0u64, 0);
    for (i, byte) in records[position..].iter().take(VARINT_BYTES_MAX).enumerate() {
        length |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            let whole = (length >> 1) as usize + i + 1;
            if whole <= records.len() - position {
                return Ok(whole);
            }
            break;
        }
    }
    Err(RecordError::CutShort { position })
}
