//! Decompressing a batch's records: always as a stream, so that whoever reads decides how much of it to hold.
//!
//! Invariant: what a decompressor allocates is bounded by the codec's block size (LZ4: 4 MiB) or by
//! [`ZSTD_WINDOW_LOG_MAX`], whatever the input says.

use std::io::{self, Read};

use lz4_flex::frame::FrameDecoder;

use crate::compression::Compression;
use crate::error::BatchError;

/// A zstd window of 8 MiB: what RFC 8878 asks every decoder to take, and no more.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// First bytes of an LZ4 frame. The libraries know legacy and skippable frames too, which have no place in a batch.
const LZ4_MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
/// First bytes of a Zstandard frame.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Room made at first for each compressed byte; more is made as bytes really arrive.
const EXPECTED_RATIO: usize = 4;

/// Reads the one compressed frame that a batch's records are.
pub(crate) enum Decompressor<'a> {
    Lz4(Box<FrameDecoder<Frame<'a>>>),
    Zstd(zstd::Decoder<'static, &'a [u8]>),
}

impl<'a> Decompressor<'a> {
    pub(crate) fn lz4(frame: &'a [u8]) -> Result<Self, BatchError> {
        check_magic(Compression::Lz4, frame, LZ4_MAGIC)?;
        Ok(Decompressor::Lz4(Box::new(FrameDecoder::new(Frame {
            rest: frame,
            ran_dry: false,
        }))))
    }

    pub(crate) fn zstd(frame: &'a [u8]) -> Result<Self, BatchError> {
        check_magic(Compression::Zstd, frame, ZSTD_MAGIC)?;
        let failed = |error| failed(Compression::Zstd, error);
        let mut decoder = zstd::Decoder::with_buffer(frame).map_err(failed)?.single_frame();
        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(failed)?;
        Ok(Decompressor::Zstd(decoder))
    }

    /// Checks, once nothing more is read, that the frame was whole and that nothing follows it.
    pub(crate) fn finish(&self) -> Result<(), BatchError> {
        let (rest, ran_dry) = match self {
            Decompressor::Lz4(decoder) => (decoder.get_ref().rest, decoder.get_ref().ran_dry),
            // zstd itself fails on a frame that is cut short.
            Decompressor::Zstd(decoder) => (*decoder.get_ref(), false),
        };
        let codec = self.codec();
        if ran_dry {
            return Err(BatchError::Decompression {
                codec,
                reason: "the frame is cut short".to_owned(),
            });
        }
        if !rest.is_empty() {
            return Err(BatchError::Decompression {
                codec,
                reason: format!("{} bytes follow the frame", rest.len()),
            });
        }
        Ok(())
    }

    /// The whole content, when it is at most `bytes_max`.
    pub(crate) fn content(mut self, compressed_bytes: usize, bytes_max: usize) -> Result<Vec<u8>, BatchError> {
        let mut content = Vec::with_capacity(compressed_bytes.saturating_mul(EXPECTED_RATIO).min(bytes_max));
        let enough = (bytes_max as u64).saturating_add(1);
        let read = (&mut self).take(enough).read_to_end(&mut content);
        read.map_err(|error| self.failed(error))?;
        if content.len() > bytes_max {
            return Err(BatchError::DecompressedTooLarge { limit: bytes_max });
        }
        self.finish()?;
        Ok(content)
    }

    /// The error for the batch, where reading failed.
    #[cold]
    pub(crate) fn failed(&self, error: io::Error) -> BatchError {
        failed(self.codec(), error)
    }

    fn codec(&self) -> Compression {
        match self {
            Decompressor::Lz4(_) => Compression::Lz4,
            Decompressor::Zstd(_) => Compression::Zstd,
        }
    }
}

impl Read for Decompressor<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Decompressor::Lz4(decoder) => decoder.read(out),
            Decompressor::Zstd(decoder) => decoder.read(out),
        }
    }
}

fn check_magic(codec: Compression, frame: &[u8], magic: [u8; 4]) -> Result<(), BatchError> {
    if frame.starts_with(&magic) {
        return Ok(());
    }
    Err(BatchError::Decompression {
        codec,
        reason: "the records do not begin with a frame".to_owned(),
    })
}

fn failed(codec: Compression, error: io::Error) -> BatchError {
    BatchError::Decompression {
        codec,
        reason: error.to_string(),
    }
}

/// Compressed bytes that remember whether more was asked for than there was: the LZ4 decoder takes a frame without an
/// end mark for one that has ended.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    rest: &'a [u8],
    ran_dry: bool,
}

impl Read for Frame<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.ran_dry |= self.rest.len() < out.len();
        self.rest.read(out)
    }
}
