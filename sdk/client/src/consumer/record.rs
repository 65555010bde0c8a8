//! Records as they are read.

use std::sync::Arc;

use bytes::Bytes;
use millstream_batch::{Batch, RecordIter, RecordView};

/// Bound on one batch's records once decompressed.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// A record as it was read. Key, value and header values are slices of the fetched bytes and keep them alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the partition.
    pub offset: u64,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The key.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
    /// Headers in order; a key may repeat.
    pub headers: Vec<(String, Option<Bytes>)>,
}

/// Records of one partition, in order of offset, as they came in one answer.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: u32,
    /// None where a fetch pipeline left none of those it looked at, or where there are none yet.
    pub records: Vec<Record>,
    /// Where to go on: beyond everything returned and everything that a fetch pipeline left out.
    pub next_offset: u64,
    /// One past the last offset that could be read at the time.
    pub high_watermark: u64,
    /// First offset that could be read at the time.
    pub log_start_offset: u64,
    /// How many offsets there were from `next_offset` to the high watermark.
    pub lag: u64,
}

/// A record, and where it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumed {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: u32,
    /// What was read.
    pub record: Record,
}

/// The records at or beyond `from`: the first batch may begin below it.
pub(super) fn decode(mut batches: Bytes, from: u64) -> Result<Vec<Record>, String> {
    let mut records = Vec::new();
    while !batches.is_empty() {
        let batch = Batch::split_first(&mut batches).map_err(|error| error.to_string())?;
        let bytes = batch
            .decompressed(DECOMPRESSED_BYTES_MAX)
            .map_err(|error| error.to_string())?;
        for view in RecordIter::new(&bytes) {
            let view = view.map_err(|error| format!("batch at offset {}: {error}", batch.base_offset()))?;
            let offset = batch
                .base_offset()
                .0
                .saturating_add_signed(i64::from(view.offset_delta));
            if offset >= from {
                let timestamp_ms = batch.header().timestamp_ms(view.timestamp_delta);
                records.push(owned(&bytes, &view, offset, timestamp_ms));
            }
        }
    }
    Ok(records)
}

fn owned(bytes: &Bytes, view: &RecordView<'_>, offset: u64, timestamp_ms: i64) -> Record {
    let slice = |part: &[u8]| bytes.slice_ref(part);
    Record {
        offset,
        timestamp_ms,
        key: view.key.map(slice),
        value: view.value.map(slice),
        headers: view
            .headers()
            .map(|(key, value)| (key.to_owned(), value.map(slice)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use millstream_batch::{BatchBuilder, Compression, Epoch, Offset};

    use super::*;

    fn batch(base_offset: u64, values: &[&str], compression: Compression) -> Bytes {
        let mut builder = BatchBuilder::new();
        for (i, value) in values.iter().enumerate() {
            let headers: [(&str, Option<&[u8]>); 2] = [("trace", Some(b"1")), ("trace", None)];
            builder.push(1_000 + i as i64, None, Some(value.as_bytes()), headers.into_iter());
        }
        let mut batch = builder.build(compression);
        batch.stamp(Offset(base_offset), Epoch(1));
        batch.to_bytes()
    }

    #[test]
    fn batches_back_to_back_decode_from_the_wanted_offset_on() {
        let bytes = [
            batch(10, &["a", "b", "c"], Compression::None),
            batch(20, &["d"], Compression::Lz4),
        ]
        .concat();

        let records = decode(bytes.into(), 11).unwrap();

        let found: Vec<_> = records
            .iter()
            .map(|record| {
                (
                    record.offset,
                    record.timestamp_ms,
                    record.value.as_deref().unwrap_or_default(),
                )
            })
            .collect();
        assert_eq!(found, [(11, 1_001, &b"b"[..]), (12, 1_002, b"c"), (20, 1_000, b"d")]);
        assert_eq!(records[0].key, None);
        let headers = [
            ("trace".to_owned(), Some(Bytes::from_static(b"1"))),
            ("trace".to_owned(), None),
        ];
        assert_eq!(records[0].headers, headers);
    }

    #[test]
    fn a_damaged_batch_is_an_error() {
        let mut bytes = batch(0, &["a"], Compression::None).to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        assert!(decode(bytes.into(), 0).is_err());
    }
}
