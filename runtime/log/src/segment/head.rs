//! What a segment says about itself, from the end of its object: for whoever has the objects and no metadata.

use super::SegmentReader;
use super::format::{BlockHeader, FOOTER_BYTES, Footer, HEADER_BYTES, SegmentIdentity, damaged};
use super::index::BlockEntry;
use super::notes::Notes;
use super::reader::{TAIL_BYTES, decode_sections};
use crate::error::{LogError, Result};
use crate::store::Store;

/// The identity and the sums of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentHead {
    /// Whose offsets it holds, and who wrote it when.
    pub identity: SegmentIdentity,
    /// How much it holds.
    pub footer: Footer,
    /// Bytes of its object.
    pub stored_bytes: u64,
    /// About how many bytes its batches had before blocks were compressed: exact for a segment of at most 64 KiB, for
    /// others counted by the blocks and what one aims at.
    pub raw_bytes: u64,
    /// The greatest pipeline version that a record went through; 0 for none, `None` where the notes are damaged.
    pub pipeline_version: Option<u64>,
    /// The object's etag, where the store's etags mean content.
    pub etag: Option<String>,
    /// Whether its index was damaged, and everything was read from its blocks.
    pub rebuilt: bool,
}

impl SegmentHead {
    /// Reads the end of the segment under `key`, which has `stored_bytes`: one ranged get, or two where index and notes
    /// are large. Where they are damaged the whole segment is read. `block_bytes` is what its blocks aim at.
    ///
    /// Errors: as [`SegmentReader::open`].
    pub async fn read(store: &Store, key: &str, stored_bytes: u64, block_bytes: u64) -> Result<SegmentHead> {
        match read_head(store, key, stored_bytes, block_bytes).await {
            Err(LogError::SegmentCrc { .. } | LogError::SegmentDamaged { .. }) => {
                let reader = SegmentReader::open(store, key, stored_bytes, None).await?;
                let (_, etag) = store.get_range_with_etag(key, 0..1).await?;
                Ok(SegmentHead {
                    identity: *reader.identity(),
                    footer: *reader.footer(),
                    stored_bytes,
                    raw_bytes: raw_bytes(reader.blocks(), &[], stored_bytes, block_bytes),
                    pipeline_version: reader.notes().map(greatest_version),
                    etag,
                    rebuilt: true,
                })
            }
            head => head,
        }
    }
}

async fn read_head(store: &Store, key: &str, stored_bytes: u64, block_bytes: u64) -> Result<SegmentHead> {
    if stored_bytes < (HEADER_BYTES + FOOTER_BYTES) as u64 {
        return Err(damaged(
            key,
            "footer",
            0,
            format!("the segment has {stored_bytes} bytes"),
        ));
    }
    let mut tail_at = stored_bytes.saturating_sub(TAIL_BYTES);
    let (mut tail, etag) = store.get_range_with_etag(key, tail_at..stored_bytes).await?;
    let foot = tail.last_chunk::<FOOTER_BYTES>();
    let foot = foot.expect("the segment is longer than a footer");
    let (footer, sections_crc) = Footer::decode(key, foot, stored_bytes)?;
    if footer.index_position < tail_at {
        tail_at = footer.index_position;
        tail = store.get_range_of(key, etag.as_deref(), tail_at..stored_bytes).await?;
    }
    let sections_at = (footer.index_position - tail_at) as usize;
    let sections = &tail[sections_at..tail.len() - FOOTER_BYTES];
    let (identity, entries, notes) = decode_sections(key, &footer, sections_crc, sections)?;
    let blocks = &tail[..sections_at];
    Ok(SegmentHead {
        identity,
        footer,
        stored_bytes,
        raw_bytes: raw_bytes(&entries, blocks, footer.index_position, block_bytes),
        pipeline_version: Some(greatest_version(&notes)),
        etag,
        rebuilt: false,
    })
}

fn greatest_version(notes: &Notes) -> u64 {
    notes.pipelines.iter().map(|range| range.version).max().unwrap_or(0)
}

/// The raw lengths of the blocks: as their headers say where those are among `bytes`, which end at `bytes_end`; else what
/// a block aims at, for all but the last one, which may be short.
fn raw_bytes(entries: &[BlockEntry], bytes: &[u8], bytes_end: u64, block_bytes: u64) -> u64 {
    let bytes_at = bytes_end - bytes.len() as u64;
    let last = entries.len().saturating_sub(1);
    let raw = |(at, entry): (usize, &BlockEntry)| {
        let known = entry
            .position
            .checked_sub(bytes_at)
            .and_then(|start| bytes.get(start as usize..));
        let known = known.and_then(|block| BlockHeader::split("", entry.position, block).ok());
        match known {
            Some((header, _)) => u64::from(header.raw_len),
            None if at == last => u64::from(entry.length),
            None => u64::from(entry.length).max(block_bytes),
        }
    };
    entries.iter().enumerate().map(raw).sum()
}
