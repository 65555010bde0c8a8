//! Records read from a decompressor through bounded scratch: fields are passed over, not collected.

use std::io::Read;

use crate::decompress::Decompressor;
use crate::error::{BatchError, RecordError};
use crate::source::Source;

/// Decompressed bytes held at a time.
const SCRATCH_BYTES: usize = 64 << 10;

/// What walking records can fail with.
#[derive(Debug)]
pub(crate) enum WalkError {
    /// A record does not follow the layout.
    Record(RecordError),
    /// There are no further bytes to read.
    Stream(BatchError),
}

impl From<RecordError> for WalkError {
    fn from(error: RecordError) -> Self {
        WalkError::Record(error)
    }
}

impl WalkError {
    /// The error for the batch, where the record at `index` was being read.
    #[cold]
    pub(crate) fn at(self, index: u32) -> BatchError {
        match self {
            WalkError::Record(source) => BatchError::Record { index, source },
            WalkError::Stream(error) => error,
        }
    }
}

/// A decompressor's output as a source of records.
pub(crate) struct StreamSource<'a> {
    decompressor: Decompressor<'a>,
    bytes_max: usize,
    scratch: Box<[u8]>,
    /// Bytes of the scratch that hold something, and how many of them were read.
    filled: usize,
    read: usize,
    /// Bytes that came before what the scratch holds.
    passed: usize,
    /// End of the record entered.
    end: usize,
    /// The header key being checked; it grows by bytes that are there, up to the size of a record.
    text: Vec<u8>,
}

impl<'a> StreamSource<'a> {
    /// Reads at most `bytes_max` from `decompressor`.
    pub(crate) fn new(decompressor: Decompressor<'a>, bytes_max: usize) -> Self {
        StreamSource {
            decompressor,
            bytes_max,
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            filled: 0,
            read: 0,
            passed: 0,
            end: usize::MAX,
            text: Vec::new(),
        }
    }

    /// Checks what follows the last record: nothing.
    pub(crate) fn finish(self) -> Result<(), BatchError> {
        self.decompressor.finish()
    }

    /// Makes sure that a byte is there to read; false at the end.
    #[inline]
    fn fill(&mut self) -> Result<bool, WalkError> {
        if self.read < self.filled {
            return Ok(true);
        }
        self.refill()
    }

    #[cold]
    fn refill(&mut self) -> Result<bool, WalkError> {
        self.passed += self.filled;
        (self.filled, self.read) = (0, 0);
        self.filled = match self.decompressor.read(&mut self.scratch) {
            Ok(filled) => filled,
            Err(error) => return Err(WalkError::Stream(self.decompressor.failed(error))),
        };
        if self.filled > self.bytes_max - self.passed {
            return Err(WalkError::Stream(BatchError::DecompressedTooLarge {
                limit: self.bytes_max,
            }));
        }
        Ok(self.filled > 0)
    }

    /// Hands the next `bytes` to `visit`, as they come.
    #[inline]
    fn pass(&mut self, bytes: usize, mut visit: impl FnMut(&mut Vec<u8>, &[u8])) -> Result<(), WalkError> {
        let mut left = bytes;
        while left > 0 {
            if !self.fill()? {
                return Err(RecordError::CutShort {
                    position: self.position(),
                }
                .into());
            }
            let there = &self.scratch[self.read..self.filled];
            let chunk = &there[..left.min(there.len())];
            visit(&mut self.text, chunk);
            self.read += chunk.len();
            left -= chunk.len();
        }
        Ok(())
    }
}

impl Source for StreamSource<'_> {
    type Bytes = ();
    type Text = ();
    type Error = WalkError;

    #[inline]
    fn position(&self) -> usize {
        self.passed + self.read
    }

    fn at_end(&mut self) -> Result<bool, WalkError> {
        Ok(!self.fill()?)
    }

    fn enter(&mut self, bytes: usize) -> bool {
        let end = self.position().checked_add(bytes);
        self.end = end.unwrap_or(usize::MAX);
        end.is_some()
    }

    fn leave(&mut self) {
        self.end = usize::MAX;
    }

    #[inline]
    fn left(&self) -> usize {
        self.end - self.position()
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, WalkError> {
        if self.left() == 0 || !self.fill()? {
            return Err(RecordError::CutShort {
                position: self.position(),
            }
            .into());
        }
        let byte = self.scratch[self.read];
        self.read += 1;
        Ok(byte)
    }

    fn take(&mut self, bytes: usize) -> Result<(), WalkError> {
        self.pass(bytes, |_, _| ())
    }

    fn take_text(&mut self, bytes: usize) -> Result<(), WalkError> {
        let position = self.position();
        self.text.clear();
        self.pass(bytes, |text, chunk| text.extend_from_slice(chunk))?;
        match std::str::from_utf8(&self.text) {
            Ok(_) => Ok(()),
            Err(_) => Err(RecordError::HeaderKey { position }.into()),
        }
    }
}
