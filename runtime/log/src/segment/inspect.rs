//! Taking a whole segment apart, for people to look at.

use bytes::Bytes;
use millstream_batch::{Compression, Offset};

use super::format::{FOOTER_BYTES, Footer, SegmentIdentity, damaged};
use super::notes::Notes;
use super::reader::decode_sections;
use super::scan::{ScannedBlock, footer_of, read_identity, scan_blocks};
use crate::error::Result;

/// Everything a segment says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentReport {
    /// Whose offsets it holds, and who wrote it when.
    pub header: SegmentIdentity,
    /// How much it holds.
    pub footer: Footer,
    /// Its blocks, in order.
    pub blocks: Vec<BlockReport>,
    /// What is known besides the batches.
    pub notes: Notes,
}

/// One block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockReport {
    /// Where it starts, in bytes.
    pub position: u64,
    /// Length of its batches, in bytes.
    pub raw_len: u32,
    /// Length of its stored bytes, without its header.
    pub stored_len: u32,
    /// What the stored bytes are compressed with.
    pub codec: Compression,
    /// How many batches.
    pub batch_count: u32,
    /// The first offset.
    pub first_offset: Offset,
    /// The greatest timestamp of a record, in milliseconds since 1970.
    pub max_timestamp_ms: i64,
}

/// Takes the bytes of a whole segment apart and checks every checksum, those of the batches included. `name` is what
/// errors call it.
///
/// Errors: the first thing that is wrong, as [`LogError::SegmentCrc`](crate::LogError::SegmentCrc),
/// [`LogError::SegmentDamaged`](crate::LogError::SegmentDamaged), [`LogError::SegmentVersion`](crate::LogError::SegmentVersion)
/// or [`LogError::Batch`](crate::LogError::Batch).
pub fn inspect(name: &str, bytes: Bytes) -> Result<SegmentReport> {
    let header = read_identity(name, &bytes)?;
    let segment_bytes = bytes.len() as u64;
    let foot = bytes
        .last_chunk::<FOOTER_BYTES>()
        .expect("a segment with a header is as long as a footer");
    let (footer, sections_crc) = Footer::decode(name, foot, segment_bytes)?;
    let sections = &bytes[footer.index_position as usize..bytes.len() - FOOTER_BYTES];
    let (identity, entries, notes) = decode_sections(name, &footer, sections_crc, sections)?;
    let blocks = scan_blocks(name, &bytes, header.base_offset, Some(footer.index_position))?;
    let scanned = footer_of(header.base_offset, &blocks);
    let scanned = Footer {
        index_len: footer.index_len,
        notes_len: footer.notes_len,
        ..scanned
    };
    if identity != header || !entries.iter().eq(blocks.iter().map(|block| &block.entry)) {
        return Err(damaged(
            name,
            "index",
            footer.index_position,
            "it does not describe the blocks",
        ));
    }
    if scanned != footer {
        let position = segment_bytes - FOOTER_BYTES as u64;
        return Err(damaged(name, "footer", position, "it does not describe the blocks"));
    }
    Ok(SegmentReport {
        header,
        footer,
        blocks: blocks.iter().map(report_block).collect(),
        notes,
    })
}

fn report_block(block: &ScannedBlock) -> BlockReport {
    BlockReport {
        position: block.entry.position,
        raw_len: block.header.raw_len,
        stored_len: block.header.stored_len,
        codec: block.header.codec,
        batch_count: block.header.batch_count,
        first_offset: block.header.first_offset,
        max_timestamp_ms: block.header.max_timestamp_ms,
    }
}
