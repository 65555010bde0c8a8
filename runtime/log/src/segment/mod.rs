//! Segments: immutable objects that hold a contiguous offset range of one partition.
//!
//! Whole batches are put together into *blocks*, and each block is compressed as one piece. Behind the blocks stands what
//! is needed to find one: a reader gets the tail of the object, and then exactly the blocks it needs. Which segment holds
//! an offset is in the [`SegmentDirectory`].
//!
//! All integers are big endian; reserved fields and flags are 0, anything else is refused. Offsets and positions are
//! unsigned, times are milliseconds since 1970.
//!
//! ```text
//! header, 64 B
//!    0   8  magic "MILLSSEG"
//!    8   2  version, 1
//!   10   2  flags, 0
//!   12  16  topic id
//!   28   4  partition
//!   32   8  base offset
//!   40   8  epoch of the lease it was written under
//!   48   8  created at
//!   56   4  reserved, 0
//!   60   4  crc32 of bytes 0..60
//!
//! block, one after the other
//!    0   4  magic "MSBK"
//!    4   4  raw length: of its batches back to back, as they travel
//!    8   4  stored length
//!   12   1  codec: 0 none, 3 lz4 (the block format: one piece, nothing around it), 4 zstd (one frame)
//!   13   3  reserved, 0
//!   16   4  number of batches
//!   20   8  first offset
//!   28   8  greatest timestamp
//!   36   4  crc32 of bytes 0..36 and of the stored bytes
//!   40      stored bytes
//!
//! index
//!    0   4  magic "MSIX"
//!    4  64  the header again, so that one read of the tail tells everything
//!   68   4  number of blocks
//!   72      for each: first offset 8, position 8, length with its header 4, greatest timestamp 8
//!
//! notes, right behind the index
//!    0   4  magic "MSNT"
//!    4   4  number of pipeline ranges
//!    8      for each: first offset 8, pipeline version 8; it holds up to the next one's first offset
//!        4  number of producers in the checkpoint
//!           for each: id 8, epoch 2, number of batches 1 (at most 5), then for each batch:
//!           first sequence 4, last sequence 4, base offset 8, length of the outcome 4, outcome
//!
//! footer, 64 B, at the very end
//!    0   8  position of the index
//!    8   4  length of the index
//!   12   4  length of the notes
//!   16   8  end offset: the offset behind the last record
//!   24   8  number of records
//!   32   8  least timestamp (the least base timestamp of a batch)
//!   40   8  greatest timestamp
//!   48   4  crc32 of index and notes
//!   52   4  crc32 of bytes 0..52 and 56..64
//!   56   2  version, 1
//!   58   6  magic "MSFOOT"
//! ```
//!
//! lz4 is the block format and not the frame format: the lengths and the checksum stand in the block's header already,
//! and a frame would add its own for nothing.
//!
//! Invariants:
//! 1. Offsets are contiguous within a segment: each block starts where the one before ended.
//! 2. A block is never longer than [`BLOCK_RAW_BYTES_MAX`], before and after compression; nothing longer is allocated for.
//! 3. The blocks alone are enough: index and footer are rebuilt from them when they are damaged. The notes are not; they
//!    are then missing.

mod cache;
mod codec;
mod directory;
mod format;
mod head;
mod index;
mod inspect;
mod notes;
mod open_block;
mod reader;
mod scan;
#[cfg(test)]
mod tests;
mod writer;

pub use cache::{CacheLooks, CacheSettings, READ_AHEAD_MAX, SegmentCache};
pub use directory::{SegmentDirectory, SegmentRef};
pub use format::{BLOCK_RAW_BYTES_MAX, Footer, SegmentIdentity};
pub use head::SegmentHead;
pub use index::BlockEntry;
pub use inspect::{BlockReport, SegmentReport, inspect};
pub use notes::{Notes, PRODUCER_BATCHES_MAX, PipelineRange, ProducerBatch, ProducerCheckpoint, ProducerState};
pub use reader::SegmentReader;
pub(crate) use scan::decode_lone_block;
pub use writer::{BlockSettings, EncodedSegment, SegmentSummary, SegmentWriter};

use millstream_batch::Offset;

/// The key of a segment. A new `random_id` for every attempt to write makes sure that no key is ever used twice.
pub fn segment_key(topic_prefix: &str, partition: u32, base: Offset, random_id: u128) -> String {
    format!("{topic_prefix}/{partition}/seg_{:020}_{random_id:032x}.bin", base.0)
}
