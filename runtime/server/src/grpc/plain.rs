//! Plain records, for clients that know no encoded batches.

use bytes::Bytes;
use millstream_batch::{Batch, Offset, RecordIter, RecordView};
use millstream_broker::BrokerError;
use millstream_proto::v1;

/// Plain records take more memory than as they are stored: an answer of them may take so many times what was asked for.
const PLAIN_FACTOR: usize = 4;
/// Little is rounded up to this, so that a small batch is never split.
const PLAIN_BYTES_LEAST: usize = 1 << 20;
/// Bound on the uncompressed records of one batch.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// Records out of their batches, one at least and no more than have room.
pub(super) struct PlainRecords {
    pub(super) records: Vec<v1::Record>,
    /// Memory that they take, which is more than they take in a message.
    pub(super) bytes: usize,
    pub(super) bytes_max: usize,
}

impl PlainRecords {
    pub(super) fn new(bytes_max: usize) -> PlainRecords {
        PlainRecords {
            records: Vec::new(),
            bytes: 0,
            bytes_max: bytes_max.max(PLAIN_BYTES_LEAST) * PLAIN_FACTOR,
        }
    }

    /// Whether so many bytes are there that the rest is left for the next request.
    pub(super) fn is_full(&self, bytes_max: usize) -> bool {
        self.bytes >= bytes_max && self.bytes > 0
    }

    /// The records added since they were last taken.
    pub(super) fn take(&mut self) -> Vec<v1::Record> {
        std::mem::take(&mut self.records)
    }

    /// Adds the batch's records at or beyond `from`; tells the first one that has no room, where there is one.
    pub(super) fn add(&mut self, batch: &Batch, from: Offset) -> Result<Option<Offset>, BrokerError> {
        let encoded = batch
            .decompressed(DECOMPRESSED_BYTES_MAX)
            .map_err(BrokerError::StoredBatch)?;
        for record in RecordIter::new(&encoded) {
            let record = record?;
            let offset = batch.base_offset() + u64::from(record.offset_delta.unsigned_abs());
            if offset < from {
                continue;
            }
            let bytes = self.bytes.saturating_add(memory(&record));
            if bytes > self.bytes_max && self.bytes > 0 {
                return Ok(Some(offset));
            }
            self.bytes = bytes;
            self.records.push(plain(&record, batch, offset, &encoded));
        }
        Ok(None)
    }
}

/// Bytes of a record in memory, with its content.
fn memory(record: &RecordView<'_>) -> usize {
    let len = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    let header = |(key, value): (&str, _)| size_of::<v1::Header>() + key.len() + len(value);
    let headers: usize = record.headers().map(header).sum();
    size_of::<v1::Record>() + len(record.key) + len(record.value) + headers
}

fn plain(record: &RecordView<'_>, batch: &Batch, offset: Offset, encoded: &Bytes) -> v1::Record {
    v1::Record {
        key: record.key.map(|key| encoded.slice_ref(key)),
        value: record.value.map(|value| encoded.slice_ref(value)),
        headers: record
            .headers()
            .map(|(key, value)| v1::Header {
                key: key.to_owned(),
                value: value.map(|value| encoded.slice_ref(value)),
            })
            .collect(),
        timestamp_ms: Some(batch.header().timestamp_ms(record.timestamp_delta)),
        offset: offset.0,
    }
}

#[cfg(test)]
mod tests {
    use millstream_batch::{BatchBuilder, Compression};

    use super::*;

    fn batch(records: usize, value: &[u8], headers: usize) -> Batch {
        let mut builder = BatchBuilder::new();
        for _ in 0..records {
            builder.push(0, None, Some(value), (0..headers).map(|_| ("", None)));
        }
        builder.build(Compression::Zstd)
    }

    /// How many records each request gets until the batch is read.
    fn read(batch: &Batch, bytes_max: usize) -> Vec<usize> {
        let (mut from, mut counts, mut next) = (Offset(0), Vec::new(), 0);
        loop {
            let mut plain = PlainRecords::new(bytes_max);
            let left = plain.add(batch, from).unwrap();
            for record in &plain.records {
                assert_eq!(record.offset, next);
                next += 1;
            }
            counts.push(plain.records.len());
            match left {
                Some(left) => from = left,
                None => return counts,
            }
        }
    }

    #[test]
    fn a_batch_that_holds_far_more_than_was_asked_for_is_read_in_pieces() {
        let batch = batch(60, &vec![0; 1_000_000], 0);
        assert!(batch.encoded_len() < 100_000);
        assert!(read(&batch, 1).iter().all(|count| *count == 4));
        assert_eq!(read(&batch, 16 << 20), [60]);
    }

    #[test]
    fn a_record_larger_than_its_bound_comes_alone() {
        assert_eq!(read(&batch(3, &vec![0; 6 << 20], 0), 1), [1, 1, 1]);
        assert_eq!(read(&batch(2, b"", 100_000), 1), [1, 1]);
    }

    #[test]
    fn a_small_batch_is_whole_however_little_was_asked_for() {
        assert_eq!(read(&batch(1_000, &[0; 1_000], 2), 1), [1_000]);
    }
}
