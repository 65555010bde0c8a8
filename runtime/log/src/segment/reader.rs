//! Reading a segment: its tail once, then the blocks that are needed.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use millstream_batch::Offset;

use super::codec::decompress;
use super::format::{
    BLOCK_HEADER_BYTES, BlockHeader, FOOTER_BYTES, Footer, HEADER_BYTES, SegmentIdentity, check_crc, damaged,
};
use super::index::{BlockEntry, decode_index};
use super::notes::Notes;
use super::scan::{footer_of, read_identity, scan_blocks};
use crate::error::{LogError, Result};
use crate::store::Store;

/// How much of the end of a segment is read at first: enough for the index of 2,000 blocks.
pub(super) const TAIL_BYTES: u64 = 64 << 10;

/// The index of one segment, in memory.
#[derive(Debug)]
pub struct SegmentReader {
    key: Arc<str>,
    etag: Option<Box<str>>,
    identity: SegmentIdentity,
    footer: Footer,
    entries: Vec<BlockEntry>,
    notes: Option<Notes>,
    weight_bytes: u32,
}

impl SegmentReader {
    /// Reads index, notes and footer of the segment under `key`, which has `stored_bytes`: with one ranged get, or two
    /// when they are large. Where they are damaged, the whole segment is read and the index is rebuilt from its blocks.
    /// Where the put gave an etag, this and every later read is of exactly that object.
    ///
    /// Errors: [`LogError::SegmentCrc`] and [`LogError::SegmentDamaged`] when a block is damaged too,
    /// [`LogError::SegmentVersion`], and those of [`Store::get_range_of`].
    pub async fn open(store: &Store, key: &str, stored_bytes: u64, etag: Option<&str>) -> Result<SegmentReader> {
        let object = StoredSegment {
            store,
            key,
            stored_bytes,
            etag,
        };
        let mut blocks_end = None;
        match object.read_tail(&mut blocks_end).await {
            Err(damage @ (LogError::SegmentCrc { .. } | LogError::SegmentDamaged { .. })) => {
                tracing::warn!(%damage, "the index of a segment is rebuilt from its blocks");
                object.rebuild(blocks_end).await
            }
            result => result,
        }
    }

    /// The segment's key.
    pub fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn shared_key(&self) -> Arc<str> {
        self.key.clone()
    }

    /// Whose offsets it holds, and who wrote it when.
    pub fn identity(&self) -> &SegmentIdentity {
        &self.identity
    }

    /// How much it holds. The lengths of index and notes are 0 when they were rebuilt.
    pub fn footer(&self) -> &Footer {
        &self.footer
    }

    /// What is known besides the batches; nothing when it was damaged.
    pub fn notes(&self) -> Option<&Notes> {
        self.notes.as_ref()
    }

    /// All blocks, in order.
    pub fn blocks(&self) -> &[BlockEntry] {
        &self.entries
    }

    /// How many blocks there are.
    pub fn block_count(&self) -> usize {
        self.entries.len()
    }

    /// The block that holds `offset`, if the segment does.
    pub fn find_block(&self, offset: Offset) -> Option<usize> {
        if offset >= self.footer.end_offset {
            return None;
        }
        self.entries
            .partition_point(|entry| entry.first_offset <= offset)
            .checked_sub(1)
    }

    /// The first block with a record at or after `timestamp_ms` (milliseconds since 1970), if there is one. Timestamps need
    /// not go up: blocks before it hold only earlier ones, those behind it may hold any.
    pub fn find_block_at(&self, timestamp_ms: i64) -> Option<usize> {
        let reaches = |entry: &BlockEntry| entry.max_timestamp_ms >= timestamp_ms;
        self.entries.iter().position(reaches)
    }

    /// About how many bytes of memory it takes.
    pub(super) fn weight_bytes(&self) -> u32 {
        self.weight_bytes
    }

    /// Reads one block with one ranged get: its batches back to back, as they travel.
    ///
    /// Errors: [`LogError::SegmentCrc`], [`LogError::SegmentDamaged`] (also when there is no such block), and those of
    /// [`Store::get_range_of`].
    pub async fn read_block(&self, store: &Store, block: usize) -> Result<Bytes> {
        let entry = self.entries.get(block).ok_or_else(|| {
            let reason = format!("there is no block {block}, it has {}", self.entries.len());
            damaged(&self.key, "index", self.footer.index_position, reason)
        })?;
        let range = entry.position..entry.end_position();
        let bytes = store.get_range_of(&self.key, self.etag.as_deref(), range).await?;
        decode_block(&self.key, entry, bytes)
    }

    fn new(
        object: &StoredSegment<'_>,
        identity: SegmentIdentity,
        footer: Footer,
        entries: Vec<BlockEntry>,
        notes: Option<Notes>,
    ) -> SegmentReader {
        let bytes = size_of::<SegmentReader>()
            + object.key.len()
            + object.etag.map_or(0, str::len)
            + entries.len() * size_of::<BlockEntry>()
            + notes.as_ref().map_or(0, Notes::memory_bytes);
        let weight_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        SegmentReader {
            key: object.key.into(),
            etag: object.etag.map(Box::from),
            identity,
            footer,
            entries,
            notes,
            weight_bytes,
        }
    }
}

/// The batches of the block the index speaks of.
pub(super) fn decode_block(key: &str, entry: &BlockEntry, bytes: Bytes) -> Result<Bytes> {
    let (header, stored) = BlockHeader::split(key, entry.position, &bytes)?;
    if BlockEntry::of(&header, entry.position) != *entry || stored.len() + BLOCK_HEADER_BYTES != bytes.len() {
        return Err(damaged(
            key,
            "block",
            entry.position,
            "it is not the one the index speaks of",
        ));
    }
    let stored = bytes.slice_ref(stored);
    decompress(key, entry.position, &header, stored)
}

/// A segment that is to be opened.
struct StoredSegment<'a> {
    store: &'a Store,
    key: &'a str,
    stored_bytes: u64,
    etag: Option<&'a str>,
}

impl StoredSegment<'_> {
    async fn range(&self, range: Range<u64>) -> Result<Bytes> {
        self.store.get_range_of(self.key, self.etag, range).await
    }

    /// Reads the end of the segment. `blocks_end` is set as soon as a whole footer tells it.
    async fn read_tail(&self, blocks_end: &mut Option<u64>) -> Result<SegmentReader> {
        let (key, stored_bytes) = (self.key, self.stored_bytes);
        if stored_bytes < (HEADER_BYTES + FOOTER_BYTES) as u64 {
            let reason = format!("the segment has {stored_bytes} bytes");
            return Err(damaged(key, "footer", 0, reason));
        }
        let tail_at = stored_bytes.saturating_sub(TAIL_BYTES);
        let tail = self.range(tail_at..stored_bytes).await?;
        let footer = tail
            .last_chunk::<FOOTER_BYTES>()
            .expect("the segment is longer than a footer");
        let (footer, sections_crc) = Footer::decode(key, footer, stored_bytes)?;
        *blocks_end = Some(footer.index_position);
        let sections = match footer.index_position.checked_sub(tail_at) {
            Some(start) => tail.slice(start as usize..tail.len() - FOOTER_BYTES),
            None => {
                let before = self.range(footer.index_position..tail_at).await?;
                let mut sections = BytesMut::with_capacity(before.len() + tail.len() - FOOTER_BYTES);
                sections.extend_from_slice(&before);
                sections.extend_from_slice(&tail[..tail.len() - FOOTER_BYTES]);
                sections.freeze()
            }
        };
        let (identity, entries, notes) = decode_sections(key, &footer, sections_crc, &sections)?;
        Ok(SegmentReader::new(self, identity, footer, entries, Some(notes)))
    }

    async fn rebuild(&self, blocks_end: Option<u64>) -> Result<SegmentReader> {
        let bytes = self.range(0..self.stored_bytes).await?;
        let identity = read_identity(self.key, &bytes)?;
        let blocks = scan_blocks(self.key, &bytes, identity.base_offset, blocks_end)?;
        let footer = footer_of(identity.base_offset, &blocks);
        let entries = blocks.iter().map(|block| block.entry).collect();
        Ok(SegmentReader::new(self, identity, footer, entries, None))
    }
}

/// Takes index and notes apart, checked.
pub(super) fn decode_sections(
    key: &str,
    footer: &Footer,
    sections_crc: u32,
    sections: &[u8],
) -> Result<(SegmentIdentity, Vec<BlockEntry>, Notes)> {
    let position = footer.index_position;
    check_crc(
        key,
        "index and notes",
        position,
        crc32fast::hash(sections),
        &sections_crc.to_be_bytes(),
    )?;
    let split = sections.split_at_checked(footer.index_len as usize);
    let (index, notes) = split.ok_or_else(|| damaged(key, "index", position, "it is cut short"))?;
    let (identity, entries) = decode_index(key, position, index)?;
    let notes = Notes::decode(key, position + index.len() as u64, notes)?;
    if entries.last().is_none_or(|last| last.first_offset >= footer.end_offset) {
        return Err(damaged(
            key,
            "index",
            position,
            "its last block starts behind the end offset",
        ));
    }
    Ok((identity, entries, notes))
}
