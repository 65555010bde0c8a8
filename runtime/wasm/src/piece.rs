//! Cuts an input into the slices that go to the module one by one.

use std::ops::Range;

use millstream_batch::RecordIter;

use crate::ModuleError;
use crate::instance::Input;
use crate::limits::PIECE_BYTES;

/// A run of an input's records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Index of its first record in the input.
    pub first_index: u32,
    pub count: u32,
    pub records: Range<usize>,
}

/// Slices of at most [`PIECE_BYTES`], or of one record that is larger. An input that fits is not walked.
pub fn slices(input: &Input<'_>) -> Result<Vec<Slice>, ModuleError> {
    if input.count == 0 {
        return if input.records.is_empty() {
            Ok(Vec::new())
        } else {
            Err(damaged("bytes without records"))
        };
    }
    if input.records.len() <= PIECE_BYTES {
        let records = 0..input.records.len();
        return Ok(vec![Slice {
            first_index: 0,
            count: input.count,
            records,
        }]);
    }
    let slices = walk(input)?;
    let walked: u32 = slices.iter().map(|slice| slice.count).sum();
    if walked != input.count {
        return Err(damaged(format!("{walked} records instead of {}", input.count)));
    }
    Ok(slices)
}

fn walk(input: &Input<'_>) -> Result<Vec<Slice>, ModuleError> {
    let mut slices: Vec<Slice> = Vec::with_capacity(input.records.len() / PIECE_BYTES + 1);
    let mut position = 0;
    for (index, record) in (0..).zip(RecordIter::new(input.records)) {
        let record = record.map_err(damaged)?;
        let end = position + record.encoded().len();
        match slices.last_mut() {
            Some(slice) if end - slice.records.start <= PIECE_BYTES => {
                slice.count += 1;
                slice.records.end = end;
            }
            _ => slices.push(Slice {
                first_index: index,
                count: 1,
                records: position..end,
            }),
        }
        position = end;
    }
    Ok(slices)
}

fn damaged(what: impl ToString) -> ModuleError {
    ModuleError::Input { what: what.to_string() }
}

#[cfg(test)]
mod tests {
    use millstream_batch::encode_record;

    use super::*;

    fn records(sizes: &[usize]) -> Vec<u8> {
        let mut records = Vec::new();
        for (index, &size) in (0..).zip(sizes) {
            encode_record(&mut records, 0, index, None, Some(&vec![7; size]), std::iter::empty());
        }
        records
    }

    fn input(count: u32, records: &[u8]) -> Input<'_> {
        Input {
            partition: 0,
            first_offset: None,
            append_time_ms: 0,
            base_timestamp_ms: 0,
            count,
            records,
        }
    }

    #[test]
    fn slices_cover_the_input_without_gaps_and_respect_the_size() {
        let sizes: Vec<usize> = (0..600)
            .map(|i| if i == 300 { 2 * PIECE_BYTES } else { 1_000 })
            .collect();
        let records = records(&sizes);
        let slices = slices(&input(600, &records)).unwrap();
        assert!(slices.len() > 5);
        let (mut index, mut position) = (0, 0);
        for slice in &slices {
            assert_eq!((slice.first_index, slice.records.start), (index, position));
            assert!(slice.records.len() <= PIECE_BYTES || slice.count == 1);
            assert_eq!(
                RecordIter::new(&records[slice.records.clone()]).count(),
                slice.count as usize
            );
            (index, position) = (index + slice.count, slice.records.end);
        }
        assert_eq!((index, position), (600, records.len()));
    }

    #[test]
    fn a_damaged_input_is_an_error() {
        let records = records(&[PIECE_BYTES, 10]);
        assert!(slices(&input(3, &records)).is_err(), "count");
        assert!(slices(&input(2, &records[..records.len() - 1])).is_err(), "cut");
        assert!(slices(&input(0, &records)).is_err(), "no records");
        assert_eq!(slices(&input(0, &[])).unwrap(), []);
    }
}
