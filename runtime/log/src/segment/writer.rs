//! Writing a segment: batches in, the parts of an object out.

use bytes::Bytes;
use millstream_batch::{Batch, Compression, Offset};

use super::codec::Compressor;
use super::format::{BLOCK_HEADER_BYTES, BLOCK_RAW_BYTES_MAX, BlockHeader, Footer, HEADER_BYTES, SegmentIdentity};
use super::index::{BlockEntry, encode_index};
use super::notes::{Notes, PipelineRange, ProducerCheckpoint};
use super::open_block::OpenBlock;
use crate::error::{LogError, Result};

/// How blocks are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSettings {
    /// What blocks are compressed with; one that does not shrink is stored raw.
    pub compression: Compression,
    /// A block takes no further batch once it would grow beyond this many bytes before compression. A larger batch is a
    /// block of its own.
    pub raw_bytes_target: usize,
}

impl Default for BlockSettings {
    fn default() -> BlockSettings {
        BlockSettings {
            compression: Compression::Lz4,
            raw_bytes_target: 1 << 20,
        }
    }
}

/// A segment, ready to be put.
#[derive(Debug, Clone)]
pub struct EncodedSegment {
    /// The bytes of the object, one part after the other.
    pub parts: Vec<Bytes>,
    /// What they hold.
    pub summary: SegmentSummary,
}

/// What a segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentSummary {
    /// The first offset.
    pub base_offset: Offset,
    /// The offset behind the last record.
    pub end_offset: Offset,
    /// How many records.
    pub record_count: u64,
    /// The least base timestamp of a batch, in milliseconds since 1970.
    pub min_timestamp_ms: i64,
    /// The greatest timestamp of a record, in milliseconds since 1970.
    pub max_timestamp_ms: i64,
    /// Length of all batches as they travel.
    pub raw_bytes: u64,
    /// Length of the object.
    pub stored_bytes: u64,
    /// How many blocks.
    pub block_count: u32,
}

/// Makes one segment out of contiguous batches.
pub struct SegmentWriter {
    identity: SegmentIdentity,
    settings: BlockSettings,
    compressor: Compressor,
    block: OpenBlock,
    parts: Vec<Bytes>,
    position: u64,
    entries: Vec<BlockEntry>,
    notes: Notes,
    end_offset: Offset,
    record_count: u64,
    raw_bytes: u64,
    min_timestamp_ms: i64,
    max_timestamp_ms: i64,
}

impl SegmentWriter {
    /// A segment with no batch yet.
    pub fn new(identity: SegmentIdentity, settings: BlockSettings) -> SegmentWriter {
        SegmentWriter {
            identity,
            settings,
            compressor: Compressor::new(settings.compression),
            block: OpenBlock::new(settings.compression),
            parts: vec![Bytes::copy_from_slice(&identity.encode())],
            position: HEADER_BYTES as u64,
            entries: Vec::new(),
            notes: Notes::default(),
            end_offset: identity.base_offset,
            record_count: 0,
            raw_bytes: 0,
            min_timestamp_ms: i64::MAX,
            max_timestamp_ms: i64::MIN,
        }
    }

    /// Appends the next batch, written by this pipeline version.
    ///
    /// Errors: [`LogError::SegmentGap`], [`LogError::BatchTooLarge`], [`LogError::Codec`]. After the last one the
    /// segment is of no use.
    pub fn append(&mut self, batch: &Batch, pipeline_version: u64) -> Result<()> {
        let (length, header) = (batch.encoded_len(), batch.header());
        if batch.base_offset() != self.end_offset {
            return Err(LogError::SegmentGap {
                found: batch.base_offset(),
                expected: self.end_offset,
            });
        }
        if length > BLOCK_RAW_BYTES_MAX {
            return Err(LogError::BatchTooLarge {
                bytes: length,
                bytes_max: BLOCK_RAW_BYTES_MAX,
            });
        }
        if self.block.batch_count() > 0 && self.block.raw_len() + length > self.target() {
            self.finish_block()?;
        }
        let target = self.target();
        self.block.append(batch, target);
        if self
            .notes
            .pipelines
            .last()
            .is_none_or(|last| last.version != pipeline_version)
        {
            let range = PipelineRange {
                first_offset: batch.base_offset(),
                version: pipeline_version,
            };
            self.notes.pipelines.push(range);
        }
        self.end_offset = batch.next_offset();
        self.record_count += u64::from(batch.record_count());
        self.raw_bytes += length as u64;
        self.min_timestamp_ms = self.min_timestamp_ms.min(header.timestamp_ms(0));
        self.max_timestamp_ms = self.max_timestamp_ms.max(header.max_timestamp_ms);
        Ok(())
    }

    /// Notes the state of the idempotent producers at the end of the segment.
    pub fn set_producers(&mut self, producers: ProducerCheckpoint) {
        self.notes.producers = producers;
    }

    /// How many bytes of batches were appended.
    pub fn raw_bytes(&self) -> u64 {
        self.raw_bytes
    }

    /// Adds index, notes and footer. Errors: [`LogError::SegmentEmpty`], [`LogError::Codec`].
    pub fn finish(mut self) -> Result<EncodedSegment> {
        if self.block.batch_count() == 0 {
            return Err(LogError::SegmentEmpty);
        }
        self.finish_block()?;
        let mut tail = encode_index(&self.identity, &self.entries);
        let index_len = tail.len() as u32;
        tail.extend_from_slice(&self.notes.encode());
        let footer = Footer {
            index_position: self.position,
            index_len,
            notes_len: tail.len() as u32 - index_len,
            end_offset: self.end_offset,
            record_count: self.record_count,
            min_timestamp_ms: self.min_timestamp_ms,
            max_timestamp_ms: self.max_timestamp_ms,
        };
        let footer = footer.encode(crc32fast::hash(&tail));
        tail.extend_from_slice(&footer);
        let summary = self.summary(tail.len() as u64);
        self.parts.push(tail.into());
        Ok(EncodedSegment {
            parts: self.parts,
            summary,
        })
    }

    fn summary(&self, tail_bytes: u64) -> SegmentSummary {
        SegmentSummary {
            base_offset: self.identity.base_offset,
            end_offset: self.end_offset,
            record_count: self.record_count,
            min_timestamp_ms: self.min_timestamp_ms,
            max_timestamp_ms: self.max_timestamp_ms,
            raw_bytes: self.raw_bytes,
            stored_bytes: self.position + tail_bytes,
            block_count: self.entries.len() as u32,
        }
    }

    fn target(&self) -> usize {
        self.settings.raw_bytes_target.min(BLOCK_RAW_BYTES_MAX)
    }

    fn finish_block(&mut self) -> Result<()> {
        let mut header = BlockHeader {
            raw_len: self.block.raw_len() as u32,
            stored_len: self.block.raw_len() as u32,
            codec: Compression::None,
            batch_count: self.block.batch_count(),
            first_offset: self.block.first_offset(),
            max_timestamp_ms: self.block.max_timestamp_ms(),
        };
        let compressed = match self.block.raw_piece() {
            Some(raw) => self.compressor.compress(raw)?,
            None => None,
        };
        let position = self.position;
        match compressed {
            // Copied out of the scratch memory into exactly as much as it needs: it is little, and a segment waits in memory
            // for its upload.
            Some((codec, stored)) => {
                (header.codec, header.stored_len) = (codec, stored.len() as u32);
                let head = header.encode([stored].into_iter());
                self.parts.push(Bytes::from([&head, stored].concat()));
                self.block.clear();
            }
            None => self.parts.extend(self.block.take_raw(&header)),
        }
        self.entries.push(BlockEntry::of(&header, position));
        self.position += (BLOCK_HEADER_BYTES + header.stored_len as usize) as u64;
        Ok(())
    }
}
