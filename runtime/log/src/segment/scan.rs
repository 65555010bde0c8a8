//! Reading the blocks of a whole segment without its index: to rebuild a damaged one, and to inspect a file.

use std::sync::Arc;

use bytes::Bytes;
use millstream_batch::{Batch, Offset};

use super::codec::decompress;
use super::format::{BlockHeader, Footer, HEADER_BYTES, SegmentIdentity, damaged};
use super::index::{BlockEntry, INDEX_MAGIC};
use crate::error::{LogError, Result};

/// One block, and what its batches say.
pub(super) struct ScannedBlock {
    pub(super) header: BlockHeader,
    pub(super) entry: BlockEntry,
    pub(super) end_offset: Offset,
    pub(super) record_count: u64,
    pub(super) min_timestamp_ms: i64,
}

/// The identity in front of a whole segment.
pub(super) fn read_identity(key: &str, bytes: &[u8]) -> Result<SegmentIdentity> {
    let head = bytes.first_chunk::<HEADER_BYTES>();
    let head = head.ok_or_else(|| damaged(key, "header", 0, format!("the segment has {} bytes", bytes.len())))?;
    SegmentIdentity::decode(key, head)
}

/// The batches of a block that stands alone.
pub(crate) fn decode_lone_block(bytes: &Bytes) -> Result<Bytes> {
    let (header, stored) = BlockHeader::split("block", 0, bytes)?;
    decompress("block", 0, &header, bytes.slice_ref(stored))
}

/// Reads every block, every checksum of blocks and batches included. They end at `blocks_end`, or, where that is not
/// known, where an index starts.
pub(super) fn scan_blocks(
    key: &str,
    bytes: &Bytes,
    base_offset: Offset,
    blocks_end: Option<u64>,
) -> Result<Vec<ScannedBlock>> {
    let mut blocks: Vec<ScannedBlock> = Vec::new();
    let mut position = HEADER_BYTES as u64;
    let mut next_offset = base_offset;
    loop {
        let rest = usize::try_from(position)
            .ok()
            .and_then(|position| bytes.get(position..))
            .unwrap_or_default();
        let at_end = match blocks_end {
            Some(end) => position >= end,
            None => rest.starts_with(&INDEX_MAGIC),
        };
        if at_end {
            break;
        }
        let block = scan_block(key, position, next_offset, bytes, rest)?;
        position = block.entry.end_position();
        next_offset = block.end_offset;
        blocks.push(block);
    }
    if blocks.is_empty() || blocks_end.is_some_and(|end| end != position) {
        return Err(damaged(
            key,
            "block",
            position,
            "the blocks do not end where the index starts",
        ));
    }
    Ok(blocks)
}

fn scan_block(key: &str, position: u64, first_offset: Offset, whole: &Bytes, rest: &[u8]) -> Result<ScannedBlock> {
    let (header, stored) = BlockHeader::split(key, position, rest)?;
    let mut raw = decompress(key, position, &header, whole.slice_ref(stored))?;
    let mut block = ScannedBlock {
        header,
        entry: BlockEntry::of(&header, position),
        end_offset: first_offset,
        record_count: 0,
        min_timestamp_ms: i64::MAX,
    };
    let mut batch_count = 0;
    while !raw.is_empty() {
        let batch = Batch::split_first(&mut raw).map_err(|source| LogError::Batch {
            place: format!("segment {key}: block at {position}: batch {batch_count}"),
            source: Arc::new(source),
        })?;
        if batch.base_offset() != block.end_offset {
            let (found, expected) = (batch.base_offset(), block.end_offset);
            return Err(damaged(
                key,
                "block",
                position,
                format!("a batch at offset {found}, expected {expected}"),
            ));
        }
        block.end_offset = batch.next_offset();
        block.record_count += u64::from(batch.record_count());
        block.min_timestamp_ms = block.min_timestamp_ms.min(batch.header().timestamp_ms(0));
        batch_count += 1;
    }
    if header.first_offset != first_offset || header.batch_count != batch_count || batch_count == 0 {
        let reason = format!("{batch_count} batches from {first_offset} on, its header says otherwise");
        return Err(damaged(key, "block", position, reason));
    }
    Ok(block)
}

/// The footer of these blocks, without index and notes.
pub(super) fn footer_of(base_offset: Offset, blocks: &[ScannedBlock]) -> Footer {
    let last = blocks.last();
    Footer {
        index_position: last.map_or(HEADER_BYTES as u64, |block| block.entry.end_position()),
        index_len: 0,
        notes_len: 0,
        end_offset: last.map_or(base_offset, |block| block.end_offset),
        record_count: blocks.iter().map(|block| block.record_count).sum(),
        min_timestamp_ms: blocks
            .iter()
            .map(|block| block.min_timestamp_ms)
            .min()
            .unwrap_or(i64::MAX),
        max_timestamp_ms: blocks
            .iter()
            .map(|block| block.header.max_timestamp_ms)
            .max()
            .unwrap_or(i64::MIN),
    }
}
