//! The block that a writer is filling: room for its header, then batches back to back.

use bytes::Bytes;
use millstream_batch::{Batch, Compression, HEADER_BYTES, Offset};

use super::format::{BLOCK_HEADER_BYTES, BlockHeader};

/// The records of a batch that are at least so many bytes are not copied where nothing is done to them: the block refers to
/// them where they are.
const SHARED_BYTES_MIN: usize = 64 << 10;

/// A block in pieces. What is going to be compressed is one piece, and its memory is used again for the next block.
pub(super) struct OpenBlock {
    /// Whether records may stay where they are.
    shares: bool,
    /// Pieces before `own`, the header's first.
    pieces: Vec<Piece>,
    own: Vec<u8>,
    raw_len: usize,
    batch_count: u32,
    first_offset: Offset,
    max_timestamp_ms: i64,
}

enum Piece {
    Own(Vec<u8>),
    Shared(Bytes),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Piece::Own(bytes) => bytes,
            Piece::Shared(bytes) => bytes,
        }
    }
}

impl OpenBlock {
    pub(super) fn new(compression: Compression) -> OpenBlock {
        OpenBlock {
            shares: compression == Compression::None,
            pieces: Vec::new(),
            own: Vec::new(),
            raw_len: 0,
            batch_count: 0,
            first_offset: Offset(0),
            max_timestamp_ms: i64::MIN,
        }
    }

    pub(super) fn raw_len(&self) -> usize {
        self.raw_len
    }

    pub(super) fn batch_count(&self) -> u32 {
        self.batch_count
    }

    pub(super) fn first_offset(&self) -> Offset {
        self.first_offset
    }

    pub(super) fn max_timestamp_ms(&self) -> i64 {
        self.max_timestamp_ms
    }

    /// Adds a batch; a block is going to have `target` bytes, or as many as its only batch.
    pub(super) fn append(&mut self, batch: &Batch, target: usize) {
        let is_shared = self.shares && batch.records().len() >= SHARED_BYTES_MIN;
        if self.batch_count == 0 {
            let expected = match is_shared {
                true => HEADER_BYTES,
                false => target.max(batch.encoded_len()),
            };
            self.own.reserve(BLOCK_HEADER_BYTES + expected);
            self.own.resize(BLOCK_HEADER_BYTES, 0);
            self.first_offset = batch.base_offset();
            self.max_timestamp_ms = i64::MIN;
        }
        if is_shared {
            self.own.extend_from_slice(&batch.encode_header());
            // It stays until the segment is stored.
            self.own.shrink_to_fit();
            self.pieces.push(Piece::Own(std::mem::take(&mut self.own)));
            self.pieces.push(Piece::Shared(batch.records().clone()));
        } else {
            batch.encode_into(&mut self.own);
        }
        self.raw_len += batch.encoded_len();
        self.batch_count += 1;
        self.max_timestamp_ms = self.max_timestamp_ms.max(batch.header().max_timestamp_ms);
    }

    /// All batches in one piece, where they are to be compressed.
    pub(super) fn raw_piece(&self) -> Option<&[u8]> {
        (!self.shares).then(|| &self.own[BLOCK_HEADER_BYTES..])
    }

    /// The block with its batches as they are, and begins anew.
    pub(super) fn take_raw(&mut self, header: &BlockHeader) -> impl Iterator<Item = Bytes> + use<> {
        let mut own = std::mem::take(&mut self.own);
        own.shrink_to_fit();
        let mut pieces = std::mem::take(&mut self.pieces);
        if !own.is_empty() {
            pieces.push(Piece::Own(own));
        }
        let raw = pieces.iter().enumerate().map(|(at, piece)| match at {
            0 => &piece.bytes()[BLOCK_HEADER_BYTES..],
            _ => piece.bytes(),
        });
        let head = header.encode(raw);
        if let Some(Piece::Own(first)) = pieces.first_mut() {
            first[..BLOCK_HEADER_BYTES].copy_from_slice(&head);
        }
        self.clear();
        pieces.into_iter().map(|piece| match piece {
            Piece::Own(bytes) => bytes.into(),
            Piece::Shared(bytes) => bytes,
        })
    }

    /// Begins anew with the same memory.
    pub(super) fn clear(&mut self) {
        self.own.clear();
        (self.raw_len, self.batch_count) = (0, 0);
    }
}
