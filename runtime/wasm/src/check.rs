//! What a module returned is believed only after it passed here.

use std::{collections::HashSet, ops::Range, sync::Arc};

use millstream_batch::RecordIter;

use crate::bindings::transform;
use crate::error::{Call, ModuleError};
use crate::limits::{Limits, OUTPUT_FLOOR_BYTES, REASON_BYTES_MAX, REASONS_MAX, VERDICT_BYTES};
use crate::outcome::{Reject, Verdict};
use crate::piece::Slice;

/// What stands for the reasons beyond [`REASONS_MAX`].
const FURTHER_REASON: &str = "for one of many more reasons, which are not kept";

/// What may still come out of one input: rewritten records, and words.
#[derive(Clone)]
pub struct OutputBudget {
    bytes_left: usize,
    records_left: usize,
    used_up: bool,
    /// Each once, so that a module which refuses every record costs no text for each.
    reasons: HashSet<Arc<str>>,
    further_reason: Arc<str>,
    limits: Limits,
}

impl OutputBudget {
    pub fn new(limits: &Limits) -> OutputBudget {
        OutputBudget {
            bytes_left: limits.output_bytes_max,
            records_left: limits.output_records_max,
            used_up: false,
            reasons: HashSet::new(),
            further_reason: FURTHER_REASON.into(),
            limits: limits.clone(),
        }
    }

    /// Whether more was put out than the whole input may give. No single record is at fault then.
    pub fn is_used_up(&self) -> bool {
        self.used_up
    }

    /// All that may cross the boundary for one slice: records, verdicts, reasons.
    pub fn handover_bytes_max(&self, slice: &Slice) -> usize {
        let verdicts = (slice.count as usize).saturating_mul(VERDICT_BYTES);
        self.growth_bytes_max(slice)
            .min(self.bytes_left)
            .saturating_add(verdicts)
            .saturating_add(OUTPUT_FLOOR_BYTES)
    }

    fn growth_bytes_max(&self, slice: &Slice) -> usize {
        slice
            .records
            .len()
            .saturating_mul(self.limits.output_growth_max)
            .max(OUTPUT_FLOOR_BYTES)
    }

    /// The text of a reason, as it is kept.
    fn reason(&mut self, text: &str) -> Arc<str> {
        let text = &text[..text.floor_char_boundary(REASON_BYTES_MAX)];
        if let Some(known) = self.reasons.get(text) {
            return known.clone();
        }
        if self.reasons.len() >= REASONS_MAX {
            return self.further_reason.clone();
        }
        let new: Arc<str> = text.into();
        self.reasons.insert(new.clone());
        new
    }

    fn spend(&mut self, slice: &Slice, bytes: usize, records: u64) -> Result<(), ModuleError> {
        let growth_bytes_max = self.growth_bytes_max(slice);
        if bytes > growth_bytes_max {
            return Err(too_large(format!(
                "{bytes} bytes of records for {} bytes, more than the {growth_bytes_max} allowed (output may be {} \
                 times its input); raise output_growth_max or make the module write less",
                slice.records.len(),
                self.limits.output_growth_max
            )));
        }
        let records = usize::try_from(records).unwrap_or(usize::MAX);
        let (bytes_max, records_max) = (self.limits.output_bytes_max, self.limits.output_records_max);
        self.used_up = bytes > self.bytes_left || records > self.records_left;
        if bytes > self.bytes_left {
            return Err(too_large(format!(
                "more than {bytes_max} bytes for one batch; raise output_bytes_max or send smaller batches"
            )));
        }
        if records > self.records_left {
            return Err(too_large(format!(
                "more than {records_max} records for one batch; raise output_records_max or send smaller batches"
            )));
        }
        self.bytes_left -= bytes;
        self.records_left -= records;
        Ok(())
    }
}

/// Checks an answer and brings it into the one shape the caller relies on: rejects sorted, each index once (its first
/// reason stands) and no longer kept; spare bits of a bitmap cleared; a bitmap that keeps everything is `Unchanged`.
pub fn check(
    answer: transform::Outcome,
    slice: &Slice,
    base_timestamp_ms: i64,
    budget: &mut OutputBudget,
) -> Result<(Verdict, Vec<Reject>), ModuleError> {
    if !answer.routes.is_empty() {
        return Err(ModuleError::Routed);
    }
    let rejects = check_rejects(answer.rejects, slice.count, budget)?;
    let verdict = match answer.verdict {
        transform::Verdict::Unchanged if rejects.is_empty() => Verdict::Unchanged,
        transform::Verdict::Unchanged => check_keep(vec![0xff; bitmap_len(slice.count)], slice.count, &rejects)?,
        transform::Verdict::Keep(bitmap) => check_keep(bitmap, slice.count, &rejects)?,
        transform::Verdict::Rewrite(emitted) => check_rewrite(emitted, slice, &rejects, base_timestamp_ms, budget)?,
    };
    Ok((verdict, rejects))
}

fn check_rejects(
    rejects: Vec<transform::Reject>,
    count: u32,
    budget: &mut OutputBudget,
) -> Result<Vec<Reject>, ModuleError> {
    let mut checked = Vec::with_capacity(rejects.len());
    for reject in rejects {
        if reject.index >= count {
            return Err(wrong(format!("it rejects record {} of {count}", reject.index)));
        }
        checked.push(Reject {
            index: reject.index,
            reason: budget.reason(&reject.reason),
        });
    }
    checked.sort_by_key(|reject| reject.index);
    checked.dedup_by_key(|reject| reject.index);
    Ok(checked)
}

fn check_keep(mut bitmap: Vec<u8>, count: u32, rejects: &[Reject]) -> Result<Verdict, ModuleError> {
    let expected = bitmap_len(count);
    if bitmap.len() != expected {
        return Err(wrong(format!(
            "a bitmap of {} bytes for {count} records, expected {expected}",
            bitmap.len()
        )));
    }
    let spare_bits = expected * 8 - count as usize;
    if let Some(last) = bitmap.last_mut() {
        *last &= 0xff >> spare_bits;
    }
    for reject in rejects {
        bitmap[reject.index as usize / 8] &= !(1 << (reject.index % 8));
    }
    let kept: u32 = bitmap.iter().map(|byte| byte.count_ones()).sum();
    Ok(if kept == count {
        Verdict::Unchanged
    } else {
        Verdict::Keep(bitmap)
    })
}

fn check_rewrite(
    emitted: transform::Emitted,
    slice: &Slice,
    rejects: &[Reject],
    base_timestamp_ms: i64,
    budget: &mut OutputBudget,
) -> Result<Verdict, ModuleError> {
    let transform::Emitted {
        mut counts,
        mut records,
    } = emitted;
    if counts.len() != slice.count as usize {
        return Err(wrong(format!("{} counts for {} records", counts.len(), slice.count)));
    }
    let total: u64 = counts.iter().map(|&count| u64::from(count)).sum();
    budget.spend(slice, records.len(), total)?;
    let dropped = walk(&records, &counts, rejects, base_timestamp_ms)?;
    remove(&mut records, &dropped);
    for reject in rejects {
        counts[reject.index as usize] = 0;
    }
    Ok(Verdict::Rewrite { counts, records })
}

/// Walks all records, which must be as many as `counts` says, and finds the bytes that came from rejected ones.
fn walk(
    records: &[u8],
    counts: &[u32],
    rejects: &[Reject],
    base_timestamp_ms: i64,
) -> Result<Vec<Range<usize>>, ModuleError> {
    let mut walked = RecordIter::new(records);
    let mut rejects = rejects.iter().peekable();
    let mut dropped = Vec::with_capacity(rejects.len());
    let mut position = 0;
    for (index, &count) in (0..).zip(counts) {
        let start = position;
        for _ in 0..count {
            let record = walked
                .next()
                .ok_or_else(|| wrong("fewer records than its counts say"))?;
            let record = record.map_err(|error| wrong(format!("a record made of record {index}: {error}")))?;
            if base_timestamp_ms.checked_add(record.timestamp_delta).is_none() {
                return Err(wrong(format!(
                    "a record made of record {index} has a timestamp out of range"
                )));
            }
            position += record.encoded().len();
        }
        if rejects.next_if(|reject| reject.index == index).is_some() {
            dropped.push(start..position);
        }
    }
    if position != records.len() {
        return Err(wrong(format!(
            "{} bytes after the last record its counts tell of",
            records.len() - position
        )));
    }
    Ok(dropped)
}

/// Takes ascending ranges out of `bytes`, moving each byte that stays once.
fn remove(bytes: &mut Vec<u8>, ranges: &[Range<usize>]) {
    let Some(first) = ranges.first() else { return };
    let mut end = first.start;
    let following = ranges.iter().skip(1).map(|range| range.start).chain([bytes.len()]);
    for (range, next) in ranges.iter().zip(following) {
        bytes.copy_within(range.end..next, end);
        end += next - range.end;
    }
    bytes.truncate(end);
}

fn bitmap_len(count: u32) -> usize {
    count.div_ceil(8) as usize
}

fn wrong(what: impl Into<String>) -> ModuleError {
    ModuleError::Output { what: what.into() }
}

fn too_large(what: String) -> ModuleError {
    ModuleError::OutputTooLarge {
        call: Call::Process,
        what,
    }
}

#[cfg(test)]
mod tests {
    use millstream_batch::encode_record;

    use super::*;

    fn record(value: &str) -> Vec<u8> {
        let mut record = Vec::new();
        encode_record(
            &mut record,
            5,
            0,
            None,
            Some(value.as_bytes()),
            [("k", None)].into_iter(),
        );
        record
    }

    fn checked(
        count: u32,
        verdict: transform::Verdict,
        rejects: &[(u32, &str)],
    ) -> Result<(Verdict, Vec<Reject>), ModuleError> {
        let rejects = rejects
            .iter()
            .map(|&(index, reason)| transform::Reject {
                index,
                reason: reason.into(),
            })
            .collect();
        let answer = transform::Outcome {
            verdict,
            rejects,
            routes: Vec::new(),
        };
        let slice = Slice {
            first_index: 0,
            count,
            records: 0..100,
        };
        check(
            answer,
            &slice,
            i64::MAX - 10,
            &mut OutputBudget::new(&Limits::default()),
        )
    }

    fn rewrite(counts: &[u32], records: Vec<u8>) -> transform::Verdict {
        transform::Verdict::Rewrite(transform::Emitted {
            counts: counts.to_vec(),
            records,
        })
    }

    #[test]
    fn a_rejected_record_is_not_kept_whatever_the_verdict_says() {
        let rejects = [(2, "later"), (0, "first"), (2, "again")];
        let (verdict, sorted) = checked(10, transform::Verdict::Unchanged, &rejects).unwrap();
        assert_eq!(verdict, Verdict::Keep(vec![0b1111_1010, 0b11]));
        assert_eq!(
            sorted.iter().map(|r| (r.index, &*r.reason)).collect::<Vec<_>>(),
            [(0, "first"), (2, "later")]
        );

        let (verdict, _) = checked(10, transform::Verdict::Keep(vec![0b101, 0]), &rejects).unwrap();
        assert_eq!(verdict, Verdict::Keep(vec![0, 0]));

        let emitted = [record("a"), record("b"), record("c"), record("d"), record("e")].concat();
        let (verdict, _) = checked(4, rewrite(&[2, 1, 1, 1], emitted), &rejects).unwrap();
        let records = [record("c"), record("e")].concat();
        assert_eq!(
            verdict,
            Verdict::Rewrite {
                counts: vec![0, 1, 0, 1],
                records
            }
        );
    }

    #[test]
    fn spare_bits_are_cleared_and_a_full_bitmap_is_unchanged() {
        let keep =
            |bytes: &[u8]| checked(10, transform::Verdict::Keep(bytes.to_vec()), &[]).map(|(verdict, _)| verdict);
        assert_eq!(keep(&[0xfe, 0xff]), Ok(Verdict::Keep(vec![0xfe, 0b11])));
        assert_eq!(keep(&[0xff, 0b11]), Ok(Verdict::Unchanged));
        assert!(keep(&[0xff]).is_err());
        assert!(keep(&[0xff, 0xff, 0xff]).is_err());
    }

    #[test]
    fn rewritten_records_are_walked_to_the_last_byte() {
        let two = [record("a"), record("b")].concat();
        assert!(checked(1, rewrite(&[2], two.clone()), &[]).is_ok());
        for (counts, records) in [
            (&[1][..], two.clone()),
            (&[3], two.clone()),
            (&[u32::MAX], two.clone()),
            (&[1, 1], two.clone()),
            (&[2], two[..two.len() - 1].to_vec()),
            (
                &[2],
                two.iter().map(|&byte| if byte == b'k' { 0xff } else { byte }).collect(),
            ),
        ] {
            assert!(checked(1, rewrite(counts, records), &[]).is_err(), "{counts:?}");
        }
    }

    #[test]
    fn a_timestamp_that_overflows_is_refused() {
        let mut late = Vec::new();
        encode_record(&mut late, 11, 0, None, None, std::iter::empty());
        let error = checked(1, rewrite(&[1], late), &[]).unwrap_err();
        assert!(error.to_string().contains("timestamp"), "{error}");
    }

    #[test]
    fn a_long_reason_is_cut() {
        let reason = "é".repeat(REASON_BYTES_MAX);
        let (_, rejects) = checked(1, transform::Verdict::Unchanged, &[(0, &reason)]).unwrap();
        assert_eq!(rejects[0].reason.len(), REASON_BYTES_MAX);
    }

    #[test]
    fn reasons_are_kept_once_each_and_not_without_bound() {
        let texts: Vec<String> = (0..2 * REASONS_MAX).map(|i| format!("reason {i}")).collect();
        let all: Vec<(u32, &str)> = (0..).zip(&texts).map(|(i, text)| (i, text.as_str())).collect();
        let (_, rejects) = checked(all.len() as u32, transform::Verdict::Unchanged, &all).unwrap();
        assert_eq!(rejects.len(), all.len());
        assert_eq!(&*rejects[REASONS_MAX - 1].reason, texts[REASONS_MAX - 1]);
        assert!(
            rejects[REASONS_MAX..]
                .iter()
                .all(|reject| &*reject.reason == FURTHER_REASON)
        );

        let same: Vec<(u32, &str)> = (0..100_000).map(|i| (i, "no")).collect();
        let (_, rejects) = checked(100_000, transform::Verdict::Unchanged, &same).unwrap();
        assert!(
            rejects
                .iter()
                .all(|reject| Arc::ptr_eq(&reject.reason, &rejects[0].reason))
        );
    }
}
