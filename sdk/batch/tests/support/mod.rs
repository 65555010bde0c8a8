//! What the tests of this crate share: records as plain values, and batches that are wrong on purpose.

#![allow(dead_code, reason = "no test uses all of it")]

use bytes::Bytes;
use millstream_batch::{Batch, BatchBuilder, Compression, RecordIter, encode_record};

/// One header: key and value.
pub type Header = (String, Option<Vec<u8>>);

/// A record that owns its content.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<Header>,
}

impl Record {
    /// A record with a value only.
    pub fn of(timestamp_ms: i64, value: &[u8]) -> Record {
        Record {
            timestamp_ms,
            key: None,
            value: Some(value.to_vec()),
            headers: Vec::new(),
        }
    }

    pub fn encode_into(&self, out: &mut Vec<u8>, base_timestamp_ms: i64, offset_delta: i32) {
        let (key, value) = (self.key.as_deref(), self.value.as_deref());
        encode_record(
            out,
            self.timestamp_ms - base_timestamp_ms,
            offset_delta,
            key,
            value,
            self.headers(),
        );
    }

    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&str, Option<&[u8]>)> + Clone {
        self.headers.iter().map(|(key, value)| (key.as_str(), value.as_deref()))
    }
}

/// The batch of these records, as our own producer builds it.
pub fn build(records: &[Record], codec: Compression) -> Batch {
    let mut builder = BatchBuilder::new();
    for record in records {
        builder.push(
            record.timestamp_ms,
            record.key.as_deref(),
            record.value.as_deref(),
            record.headers(),
        );
    }
    builder.build(codec)
}

/// What a batch holds, decompressed; offset deltas are checked on the way.
pub fn read(batch: &Batch) -> Vec<Record> {
    let records = batch.decompressed(64 << 20).unwrap();
    RecordIter::new(&records)
        .enumerate()
        .map(|(index, record)| {
            let record = record.unwrap();
            assert_eq!(record.offset_delta, index as i32);
            let headers = record
                .headers()
                .map(|(key, value)| (key.to_owned(), value.map(<[u8]>::to_vec)));
            Record {
                timestamp_ms: batch.header().base_timestamp_ms + record.timestamp_delta,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers: headers.collect(),
            }
        })
        .collect()
}

/// Overwrites the field at `position`.
pub fn put<const N: usize>(batch: &mut [u8], position: usize, field: [u8; N]) {
    batch[position..position + N].copy_from_slice(&field);
}

/// Makes length and checksum those of the bytes, so that only what they hold can be wrong.
pub fn seal(mut batch: Vec<u8>) -> Bytes {
    if batch.len() >= 61 {
        let length = batch.len() as i32 - 12;
        put(&mut batch, 8, length.to_be_bytes());
        let crc = crc32c::crc32c(&batch[21..]);
        put(&mut batch, 17, crc.to_be_bytes());
    }
    batch.into()
}
