//! What can be wrong with a batch, with the facts that say where.

use thiserror::Error;

#[cfg(feature = "codecs")]
use crate::compression::Compression;

/// A record that does not follow the layout. Positions count bytes from the start of the batch's uncompressed records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The record, or all records, end inside a field.
    #[error("ends at byte {position} of the records, inside a field")]
    CutShort {
        /// Where the bytes end.
        position: usize,
    },
    /// A varint that does not fit its type.
    #[error("varint at byte {position} of the records does not fit {bits} bits")]
    Varint {
        /// Where the varint starts.
        position: usize,
        /// Width of the field's type.
        bits: u32,
    },
    /// A length that is negative where null is not allowed, or that reaches past the end of the record or of the records.
    #[error("{field} at byte {position} of the records is {length}, but {available} bytes are left")]
    Length {
        /// Which length.
        field: &'static str,
        /// Where the length starts.
        position: usize,
        /// The length as it stands there.
        length: i64,
        /// Bytes left in the record, or in the records for a record's own length.
        available: usize,
    },
    /// Record attributes are unused in version 2.
    #[error("record attributes at byte {position} of the records are {found:#04x}, expected 0")]
    Attributes {
        /// Where the attributes stand.
        position: usize,
        /// Their value.
        found: u8,
    },
    /// A header key that is not UTF-8.
    #[error("header key at byte {position} of the records is not UTF-8")]
    HeaderKey {
        /// Where the key starts.
        position: usize,
    },
    /// A record's length covers more than its fields.
    #[error("fields end at byte {position} of the records, {bytes} bytes before the record does")]
    Surplus {
        /// Where the fields end.
        position: usize,
        /// Bytes left over.
        bytes: usize,
    },
}

/// A batch that is not accepted, and why.
#[cfg(feature = "codecs")]
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BatchError {
    /// Fewer bytes than a header, or than the header says.
    #[error("batch is cut short: {found} bytes, {needed} needed")]
    CutShort {
        /// Bytes there are.
        found: usize,
        /// Bytes the batch needs.
        needed: usize,
    },
    /// The length field is too small for a header or negative.
    #[error("batch length field is {found}, at least {least} is needed")]
    Length {
        /// The field's value: bytes after the field itself.
        found: i32,
        /// The least it can be.
        least: i32,
    },
    /// Bytes after the one batch that was expected.
    #[error("{bytes} bytes follow the batch of {batch_bytes} bytes")]
    Trailing {
        /// Bytes left over.
        bytes: usize,
        /// Size of the batch by its length field.
        batch_bytes: usize,
    },
    /// The batch is above the limit.
    #[error("batch of {size} bytes is above the limit of {limit}")]
    TooLarge {
        /// Its size in bytes, as it travels.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Not a batch of version 2.
    #[error("batch magic is {found}, expected 2")]
    Magic {
        /// The byte found.
        found: i8,
    },
    /// The content is not what was checksummed.
    #[error("batch crc {found:#010x} in the header, {computed:#010x} computed")]
    Crc {
        /// CRC-32C in the header.
        found: u32,
        /// CRC-32C of the bytes.
        computed: u32,
    },
    /// A codec that is not offered.
    #[error("batch has the unknown codec {code}; known are 0 (none), 3 (lz4) and 4 (zstd)")]
    UnknownCodec {
        /// Attribute bits 0 to 2.
        code: u8,
    },
    /// A name that is none of a codec.
    #[error("unknown compression \"{name}\": expected none, lz4 or zstd")]
    UnknownCompression {
        /// The name given.
        name: String,
    },
    /// Attribute bits that nobody outside may set.
    #[error("batch attributes {attributes:#06x} are refused: {what}")]
    RefusedAttributes {
        /// All attribute bits.
        attributes: u16,
        /// What the refused bit stands for.
        what: &'static str,
    },
    /// A base offset below zero, or one so great that the last offset overflows.
    #[error("batch base offset {base_offset} with last offset delta {last_offset_delta} is out of range")]
    Offset {
        /// Base offset in the header.
        base_offset: i64,
        /// Last offset delta in the header.
        last_offset_delta: i32,
    },
    /// A count below what is allowed, or more records than offsets.
    #[error("batch counts {record_count} records with last offset delta {last_offset_delta}")]
    Count {
        /// Record count in the header.
        record_count: i32,
        /// Last offset delta in the header.
        last_offset_delta: i32,
    },
    /// Fewer records than the header counts.
    #[error("batch counts {declared} records, but holds {found}")]
    RecordsMissing {
        /// Record count in the header.
        declared: u32,
        /// Records there are.
        found: u32,
    },
    /// More records than the header counts.
    #[error("batch counts {declared} records, but bytes follow them at byte {position} of the records")]
    RecordsSurplus {
        /// Record count in the header.
        declared: u32,
        /// End of the last counted record.
        position: usize,
    },
    /// Producer fields that contradict each other.
    #[error("producer id {producer_id} with epoch {producer_epoch} and sequence {base_sequence}")]
    Producer {
        /// Producer id in the header.
        producer_id: i64,
        /// Producer epoch in the header.
        producer_epoch: i16,
        /// Base sequence in the header.
        base_sequence: i32,
    },
    /// A record that does not follow the layout.
    #[error("record {index}: {source}")]
    Record {
        /// Index of the record in the batch.
        index: u32,
        /// What is wrong with it.
        source: RecordError,
    },
    /// A record above the limit.
    #[error("record {index}: {size} bytes are above the limit of {limit}")]
    RecordTooLarge {
        /// Index of the record in the batch.
        index: u32,
        /// Its encoded size in bytes, with its length field.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Offset deltas that do not count 0, 1, 2, ...
    #[error("record {index}: offset delta is {found}, expected {index}")]
    OffsetDelta {
        /// Index of the record in the batch.
        index: u32,
        /// Its offset delta.
        found: i32,
    },
    /// A timestamp outside 64 bits.
    #[error("record {index}: timestamp {base_timestamp_ms} ms plus {delta_ms} ms overflows")]
    Timestamp {
        /// Index of the record in the batch.
        index: u32,
        /// The batch's base timestamp.
        base_timestamp_ms: i64,
        /// The record's timestamp delta.
        delta_ms: i64,
    },
    /// A max timestamp that is not the greatest of the records.
    #[error("batch max timestamp is {found} ms, the greatest of its records is {computed} ms")]
    MaxTimestamp {
        /// Max timestamp in the header.
        found: i64,
        /// The greatest timestamp of the records.
        computed: i64,
    },
    /// Records that do not decompress.
    #[error("records do not decompress as {codec}: {reason}")]
    Decompression {
        /// The batch's codec.
        codec: Compression,
        /// What the decompressor said.
        reason: String,
    },
    /// Records that grow above the limit when decompressed.
    #[error("decompressed records are above the limit of {limit} bytes")]
    DecompressedTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
}
