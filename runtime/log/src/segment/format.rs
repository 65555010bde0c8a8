//! Header, block header and footer. The layouts are drawn in the parent.

use millstream_batch::{Compression, Epoch, Offset};
use uuid::Uuid;

use crate::error::{LogError, Result};
use crate::wire::Fields;

/// The most a block may hold before compression, and the most its stored bytes may take.
pub const BLOCK_RAW_BYTES_MAX: usize = 64 << 20;

pub(super) const HEADER_BYTES: usize = 64;
pub(super) const BLOCK_HEADER_BYTES: usize = 40;
pub(super) const FOOTER_BYTES: usize = 64;
pub(super) const BLOCK_MAGIC: [u8; 4] = *b"MSBK";

const HEADER_MAGIC: [u8; 8] = *b"MILLSSEG";
const FOOTER_MAGIC: [u8; 6] = *b"MSFOOT";
const VERSION: u16 = 1;
const HEADER_CRC_AT: usize = 60;
const BLOCK_CRC_AT: usize = 36;
const FOOTER_CRC_AT: usize = 52;

/// What a segment is: whose offsets it holds, and who wrote it when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentIdentity {
    /// The topic.
    pub topic_id: Uuid,
    /// The partition of the topic.
    pub partition: u32,
    /// The first offset.
    pub base_offset: Offset,
    /// The lease epoch of the leader that wrote it.
    pub epoch: Epoch,
    /// When it was written, in milliseconds since 1970.
    pub created_at_ms: i64,
}

impl SegmentIdentity {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&HEADER_MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_be_bytes());
        bytes[12..28].copy_from_slice(self.topic_id.as_bytes());
        bytes[28..32].copy_from_slice(&self.partition.to_be_bytes());
        bytes[32..40].copy_from_slice(&self.base_offset.0.to_be_bytes());
        bytes[40..48].copy_from_slice(&self.epoch.0.to_be_bytes());
        bytes[48..56].copy_from_slice(&self.created_at_ms.to_be_bytes());
        let crc = crc32fast::hash(&bytes[..HEADER_CRC_AT]);
        bytes[HEADER_CRC_AT..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    pub(super) fn decode(key: &str, bytes: &[u8; HEADER_BYTES]) -> Result<SegmentIdentity> {
        if bytes[..8] != HEADER_MAGIC {
            return Err(damaged(key, "header", 0, "this is no segment: the magic is missing"));
        }
        check_crc(
            key,
            "header",
            0,
            crc32fast::hash(&bytes[..HEADER_CRC_AT]),
            &bytes[HEADER_CRC_AT..],
        )?;
        check_version(key, [bytes[8], bytes[9]])?;
        check_reserved(key, "header", 0, &[&bytes[10..12], &bytes[56..HEADER_CRC_AT]].concat())?;
        let identity = || {
            let mut fields = Fields::new(&bytes[12..]);
            Some(SegmentIdentity {
                topic_id: fields.uuid()?,
                partition: fields.u32()?,
                base_offset: fields.offset()?,
                epoch: fields.epoch()?,
                created_at_ms: fields.i64()?,
            })
        };
        Ok(identity().expect("64 bytes hold every field"))
    }
}

/// The head of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockHeader {
    pub(super) raw_len: u32,
    pub(super) stored_len: u32,
    pub(super) codec: Compression,
    pub(super) batch_count: u32,
    pub(super) first_offset: Offset,
    pub(super) max_timestamp_ms: i64,
}

impl BlockHeader {
    /// The header of the block whose stored bytes are these pieces, one after the other.
    pub(super) fn encode<'a>(&self, stored: impl Iterator<Item = &'a [u8]>) -> [u8; BLOCK_HEADER_BYTES] {
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        bytes[..4].copy_from_slice(&BLOCK_MAGIC);
        bytes[4..8].copy_from_slice(&self.raw_len.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.stored_len.to_be_bytes());
        bytes[12] = self.codec.code();
        bytes[16..20].copy_from_slice(&self.batch_count.to_be_bytes());
        bytes[20..28].copy_from_slice(&self.first_offset.0.to_be_bytes());
        bytes[28..36].copy_from_slice(&self.max_timestamp_ms.to_be_bytes());
        let crc = block_crc(&bytes, stored);
        bytes[BLOCK_CRC_AT..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Takes a block apart into its header and its stored bytes, both checked. `bytes` starts with the block and may go
    /// on behind it.
    pub(super) fn split<'a>(key: &str, position: u64, bytes: &'a [u8]) -> Result<(BlockHeader, &'a [u8])> {
        let wrong = |reason: String| damaged(key, "block", position, reason);
        let head: &[u8; BLOCK_HEADER_BYTES] = bytes
            .first_chunk()
            .ok_or_else(|| wrong("its header is cut short".into()))?;
        if head[..4] != BLOCK_MAGIC {
            return Err(wrong("the magic is missing".into()));
        }
        let lengths = Fields::new(&head[4..12]).u64().expect("eight bytes");
        let (raw_len, stored_len) = ((lengths >> 32) as u32, lengths as u32);
        let stored = bytes[BLOCK_HEADER_BYTES..].get(..stored_len as usize);
        let stored = stored.ok_or_else(|| wrong(format!("{stored_len} stored bytes are cut short")))?;
        check_crc(
            key,
            "block",
            position,
            block_crc(head, [stored].into_iter()),
            &head[BLOCK_CRC_AT..],
        )?;
        if raw_len as usize > BLOCK_RAW_BYTES_MAX || stored_len > raw_len {
            return Err(wrong(format!(
                "{stored_len} bytes for {raw_len} raw ones are out of bounds"
            )));
        }
        let codec = codec_of(head[12]).ok_or_else(|| wrong(format!("codec {} is not understood", head[12])))?;
        check_reserved(key, "block", position, &head[13..16])?;
        let mut fields = Fields::new(&head[16..]);
        let mut rest = || Some((fields.u32()?, fields.offset()?, fields.i64()?));
        let (batch_count, first_offset, max_timestamp_ms) = rest().expect("40 bytes hold every field");
        Ok((
            BlockHeader {
                raw_len,
                stored_len,
                codec,
                batch_count,
                first_offset,
                max_timestamp_ms,
            },
            stored,
        ))
    }
}

fn codec_of(code: u8) -> Option<Compression> {
    [Compression::None, Compression::Lz4, Compression::Zstd]
        .into_iter()
        .find(|codec| codec.code() == code)
}

fn block_crc<'a>(head: &[u8; BLOCK_HEADER_BYTES], stored: impl Iterator<Item = &'a [u8]>) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head[..BLOCK_CRC_AT]);
    stored.for_each(|piece| hasher.update(piece));
    hasher.finalize()
}

/// The end of a segment: where the index is, and what the segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footer {
    /// Where the index starts, in bytes; the blocks end there.
    pub index_position: u64,
    /// Length of the index in bytes.
    pub index_len: u32,
    /// Length of the notes in bytes.
    pub notes_len: u32,
    /// The offset behind the last record.
    pub end_offset: Offset,
    /// How many records there are.
    pub record_count: u64,
    /// The least base timestamp of a batch, in milliseconds since 1970.
    pub min_timestamp_ms: i64,
    /// The greatest timestamp of a record, in milliseconds since 1970.
    pub max_timestamp_ms: i64,
}

impl Footer {
    /// The footer behind this index and these notes.
    pub(super) fn encode(&self, sections_crc: u32) -> [u8; FOOTER_BYTES] {
        let mut bytes = [0; FOOTER_BYTES];
        bytes[..8].copy_from_slice(&self.index_position.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.index_len.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.notes_len.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.end_offset.0.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.record_count.to_be_bytes());
        bytes[32..40].copy_from_slice(&self.min_timestamp_ms.to_be_bytes());
        bytes[40..48].copy_from_slice(&self.max_timestamp_ms.to_be_bytes());
        bytes[48..52].copy_from_slice(&sections_crc.to_be_bytes());
        bytes[56..58].copy_from_slice(&VERSION.to_be_bytes());
        bytes[58..].copy_from_slice(&FOOTER_MAGIC);
        let crc = footer_crc(&bytes);
        bytes[FOOTER_CRC_AT..56].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Reads the footer of a segment of `segment_bytes`, and the checksum of index and notes.
    pub(super) fn decode(key: &str, bytes: &[u8; FOOTER_BYTES], segment_bytes: u64) -> Result<(Footer, u32)> {
        let position = segment_bytes.saturating_sub(FOOTER_BYTES as u64);
        if bytes[58..] != FOOTER_MAGIC {
            return Err(damaged(key, "footer", position, "the magic is missing"));
        }
        check_crc(key, "footer", position, footer_crc(bytes), &bytes[FOOTER_CRC_AT..56])?;
        check_version(key, [bytes[56], bytes[57]])?;
        let footer = || {
            let mut fields = Fields::new(bytes);
            let footer = Footer {
                index_position: fields.u64()?,
                index_len: fields.u32()?,
                notes_len: fields.u32()?,
                end_offset: fields.offset()?,
                record_count: fields.u64()?,
                min_timestamp_ms: fields.i64()?,
                max_timestamp_ms: fields.i64()?,
            };
            Some((footer, fields.u32()?))
        };
        let (footer, sections_crc) = footer().expect("64 bytes hold every field");
        let ends_at = footer.index_position.checked_add(footer.sections_len());
        if ends_at != Some(position) || footer.index_position < HEADER_BYTES as u64 {
            return Err(damaged(
                key,
                "footer",
                position,
                "index and notes do not end where the footer starts",
            ));
        }
        Ok((footer, sections_crc))
    }

    /// Length of index and notes together.
    pub(super) fn sections_len(&self) -> u64 {
        u64::from(self.index_len) + u64::from(self.notes_len)
    }
}

fn footer_crc(bytes: &[u8; FOOTER_BYTES]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..FOOTER_CRC_AT]);
    hasher.update(&bytes[FOOTER_CRC_AT + 4..]);
    hasher.finalize()
}

fn check_version(key: &str, version: [u8; 2]) -> Result<()> {
    match u16::from_be_bytes(version) {
        VERSION => Ok(()),
        found => Err(LogError::SegmentVersion {
            key: key.to_string(),
            found,
            supported: VERSION,
        }),
    }
}

fn check_reserved(key: &str, part: &'static str, position: u64, reserved: &[u8]) -> Result<()> {
    if reserved.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    Err(damaged(
        key,
        part,
        position,
        "fields that are reserved are not 0: it is not understood",
    ))
}

/// Compares a checksum with the stored one, of which `expected` holds the bytes.
pub(super) fn check_crc(key: &str, part: &'static str, position: u64, found: u32, expected: &[u8]) -> Result<()> {
    let expected = u32::from_be_bytes(expected.try_into().expect("a stored checksum has four bytes"));
    if found == expected {
        return Ok(());
    }
    Err(LogError::SegmentCrc {
        key: key.to_string(),
        part,
        position,
        found,
        expected,
    })
}

pub(super) fn damaged(key: &str, part: &'static str, position: u64, reason: impl Into<String>) -> LogError {
    LogError::SegmentDamaged {
        key: key.to_string(),
        part,
        position,
        reason: reason.into(),
    }
}
