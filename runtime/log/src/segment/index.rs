//! The index: where each block is and which offsets it starts with. The layout is drawn in the parent.

use millstream_batch::Offset;

use super::format::{BLOCK_HEADER_BYTES, BlockHeader, HEADER_BYTES, SegmentIdentity, damaged};
use crate::error::Result;
use crate::wire::Fields;

pub(super) const INDEX_MAGIC: [u8; 4] = *b"MSIX";
const ENTRY_BYTES: usize = 28;

/// One block, as the index knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockEntry {
    /// The block's first offset.
    pub first_offset: Offset,
    /// Where the block starts in the segment, in bytes.
    pub position: u64,
    /// Its length in bytes, header included.
    pub length: u32,
    /// The greatest timestamp of its records, in milliseconds since 1970.
    pub max_timestamp_ms: i64,
}

impl BlockEntry {
    pub(super) fn of(header: &BlockHeader, position: u64) -> BlockEntry {
        BlockEntry {
            first_offset: header.first_offset,
            position,
            length: header.stored_len + BLOCK_HEADER_BYTES as u32,
            max_timestamp_ms: header.max_timestamp_ms,
        }
    }

    pub(super) fn end_position(&self) -> u64 {
        self.position.saturating_add(u64::from(self.length))
    }
}

pub(super) fn encode_index(identity: &SegmentIdentity, entries: &[BlockEntry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + HEADER_BYTES + entries.len() * ENTRY_BYTES);
    out.extend_from_slice(&INDEX_MAGIC);
    out.extend_from_slice(&identity.encode());
    out.extend_from_slice(&(entries.len() as u32).to_be_bytes());
    for entry in entries {
        out.extend_from_slice(&entry.first_offset.0.to_be_bytes());
        out.extend_from_slice(&entry.position.to_be_bytes());
        out.extend_from_slice(&entry.length.to_be_bytes());
        out.extend_from_slice(&entry.max_timestamp_ms.to_be_bytes());
    }
    out
}

/// Reads an index of which the checksum was found right. `position` is where it starts, and where the blocks end.
pub(super) fn decode_index(key: &str, position: u64, bytes: &[u8]) -> Result<(SegmentIdentity, Vec<BlockEntry>)> {
    let wrong = |reason: &str| damaged(key, "index", position, reason);
    let mut fields = Fields::new(bytes);
    if fields.array() != Some(INDEX_MAGIC) {
        return Err(wrong("the magic is missing"));
    }
    let header = fields.array::<HEADER_BYTES>().ok_or_else(|| wrong("it is cut short"))?;
    let identity = SegmentIdentity::decode(key, &header)?;
    let count = fields.u32().ok_or_else(|| wrong("it is cut short"))? as usize;
    if count == 0 || count.checked_mul(ENTRY_BYTES) != Some(fields.rest().len()) {
        return Err(wrong("its length does not fit the number of blocks"));
    }
    let mut entries = Vec::with_capacity(count);
    while let Some(entry) = decode_entry(&mut fields) {
        entries.push(entry);
    }
    check_order(&identity, &entries, position).map_err(wrong)?;
    Ok((identity, entries))
}

fn decode_entry(fields: &mut Fields<'_>) -> Option<BlockEntry> {
    Some(BlockEntry {
        first_offset: fields.offset()?,
        position: fields.u64()?,
        length: fields.u32()?,
        max_timestamp_ms: fields.i64()?,
    })
}

/// Blocks stand one behind the other, between the header and the index, in the order of their offsets.
fn check_order(
    identity: &SegmentIdentity,
    entries: &[BlockEntry],
    blocks_end: u64,
) -> std::result::Result<(), &'static str> {
    let mut position = HEADER_BYTES as u64;
    let mut before = None;
    for entry in entries {
        if entry.position != position || (entry.length as usize) < BLOCK_HEADER_BYTES {
            return Err("its blocks do not stand one behind the other");
        }
        if before.is_some_and(|before| entry.first_offset <= before) {
            return Err("its blocks are not in the order of their offsets");
        }
        position = entry.end_position();
        before = Some(entry.first_offset);
    }
    if entries
        .first()
        .is_none_or(|first| first.first_offset != identity.base_offset)
    {
        return Err("its first block does not start at the base offset");
    }
    if position == blocks_end {
        Ok(())
    } else {
        Err("its blocks do not end where it starts")
    }
}
