//! Compressing and decompressing one block.

use std::sync::Arc;

use bytes::Bytes;
use millstream_batch::Compression;

use super::format::{BlockHeader, damaged};
use crate::error::{LogError, Result};

/// Level 3 is zstd's own default: beyond it, a block costs far more time than it saves room.
const ZSTD_LEVEL: i32 = 3;

/// Compresses block after block with one piece of scratch memory.
pub(super) struct Compressor {
    compression: Compression,
    scratch: Vec<u8>,
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl Compressor {
    pub(super) fn new(compression: Compression) -> Compressor {
        Compressor {
            compression,
            scratch: Vec::new(),
            zstd: None,
        }
    }

    /// The codec and the stored bytes for `raw`; nothing where it does not shrink.
    pub(super) fn compress(&mut self, raw: &[u8]) -> Result<Option<(Compression, &[u8])>> {
        let length = match self.compression {
            Compression::None => return Ok(None),
            Compression::Lz4 => self.lz4(raw)?,
            Compression::Zstd => self.zstd(raw)?,
        };
        Ok((length < raw.len()).then(|| (self.compression, &self.scratch[..length])))
    }

    fn lz4(&mut self, raw: &[u8]) -> Result<usize> {
        self.make_room(lz4_flex::block::get_maximum_output_size(raw.len()));
        lz4_flex::block::compress_into(raw, &mut self.scratch).map_err(|e| codec_error("lz4", e))
    }

    fn zstd(&mut self, raw: &[u8]) -> Result<usize> {
        self.make_room(zstd::zstd_safe::compress_bound(raw.len()));
        let compressor = match &mut self.zstd {
            Some(compressor) => compressor,
            empty => empty.insert(zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(|e| codec_error("zstd", e))?),
        };
        compressor
            .compress_to_buffer(raw, self.scratch.as_mut_slice())
            .map_err(|e| codec_error("zstd", e))
    }

    fn make_room(&mut self, length: usize) {
        if self.scratch.len() < length {
            self.scratch.resize(length, 0);
        }
    }
}

/// The batches of a block whose header and checksum were found right. Bytes stored raw are not copied.
pub(super) fn decompress(key: &str, position: u64, header: &BlockHeader, stored: Bytes) -> Result<Bytes> {
    let raw_len = header.raw_len as usize;
    let wrong = |reason: String| damaged(key, "block", position, reason);
    let raw = match header.codec {
        Compression::None => stored,
        Compression::Lz4 => lz4_flex::block::decompress(&stored, raw_len)
            .map_err(|e| wrong(format!("lz4: {e}")))?
            .into(),
        Compression::Zstd => zstd::bulk::decompress(&stored, raw_len)
            .map_err(|e| wrong(format!("zstd: {e}")))?
            .into(),
    };
    if raw.len() != raw_len {
        return Err(wrong(format!("{} raw bytes, expected {raw_len}", raw.len())));
    }
    Ok(raw)
}

fn codec_error(codec: &'static str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> LogError {
    LogError::Codec {
        codec,
        source: Arc::new(std::io::Error::other(error)),
    }
}
