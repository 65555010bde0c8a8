//! Makes a batch out of records, as a producer does.

use crate::batch::Batch;
use crate::compression::Compression;
use crate::record::encode_record;

/// Collects records into one batch. The first record's timestamp becomes the base timestamp.
#[derive(Clone, Debug, Default)]
pub struct BatchBuilder {
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    record_count: u32,
    records: Vec<u8>,
}

impl BatchBuilder {
    /// A builder without records.
    pub fn new() -> BatchBuilder {
        BatchBuilder::default()
    }

    /// A builder with room for so many bytes of records before they are compressed.
    pub fn with_capacity(bytes: usize) -> BatchBuilder {
        BatchBuilder {
            records: Vec::with_capacity(bytes),
            ..BatchBuilder::default()
        }
    }

    /// Appends one record.
    ///
    /// Nothing is refused here: what makes a batch that no broker takes (a record that is too large, timestamps further
    /// apart than 63 bits) is refused by [`Batch::validate`].
    ///
    /// # Panics
    ///
    /// Above 2^31 - 1 records.
    pub fn push<'h>(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl ExactSizeIterator<Item = (&'h str, Option<&'h [u8]>)> + Clone,
    ) {
        if self.is_empty() {
            (self.base_timestamp_ms, self.max_timestamp_ms) = (timestamp_ms, timestamp_ms);
        }
        let timestamp_delta = timestamp_ms.wrapping_sub(self.base_timestamp_ms);
        let offset_delta = i32::try_from(self.record_count).expect("a batch holds fewer than 2^31 records");
        encode_record(&mut self.records, timestamp_delta, offset_delta, key, value, headers);
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
        self.record_count += 1;
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.record_count as usize
    }

    /// True without records.
    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// Size of the records in bytes, before compression.
    pub fn records_bytes(&self) -> usize {
        self.records.len()
    }

    /// The batch, with its records compressed by `compression`.
    ///
    /// # Panics
    ///
    /// Without a record, and above 2 GiB.
    pub fn build(self, compression: Compression) -> Batch {
        let last_offset_delta = self
            .record_count
            .checked_sub(1)
            .expect("a batch holds at least one record");
        let (base, max) = (self.base_timestamp_ms, self.max_timestamp_ms);
        Batch::from_records(base, max, self.record_count, last_offset_delta, self.records.into())
            .compressed(compression)
    }
}
