//! Splits bytes into lines, whatever pieces they arrive in.
//!
//! A line ends with `\n` or `\r\n`; neither belongs to it. The last one may have no end. Everything else stays as it is.

use bytes::BytesMut;
use thiserror::Error;

/// A line that is longer than any record may be.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("the line is longer than {bytes_max} bytes")]
pub struct LineTooLong {
    /// The limit in bytes.
    pub bytes_max: usize,
}

/// Bytes that arrive in pieces and leave in lines.
#[derive(Debug)]
pub struct LineSplitter {
    buffer: BytesMut,
    /// There is no end of line before this position.
    searched: usize,
    line_bytes_max: usize,
}

impl LineSplitter {
    /// A splitter for lines of at most `line_bytes_max` bytes.
    pub fn new(line_bytes_max: usize) -> LineSplitter {
        LineSplitter {
            buffer: BytesMut::new(),
            searched: 0,
            line_bytes_max,
        }
    }

    /// Where the next piece goes; only appending is allowed.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next whole line.
    ///
    /// # Errors
    /// As soon as the line is known to be too long, so that the buffer stays bounded.
    pub fn next_line(&mut self) -> Result<Option<BytesMut>, LineTooLong> {
        let Some(length) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') else {
            self.searched = self.buffer.len();
            // One byte more may be a `\r` that belongs to the end of the line.
            return match self.searched > self.line_bytes_max + 1 {
                true => Err(LineTooLong {
                    bytes_max: self.line_bytes_max,
                }),
                false => Ok(None),
            };
        };
        let end = self.searched + length;
        let mut line = self.buffer.split_to(end + 1);
        self.searched = 0;
        let carriage_return = usize::from(line[..end].ends_with(b"\r"));
        line.truncate(end - carriage_return);
        self.checked(line).map(Some)
    }

    /// What is left at the end of the input: a last line without an end, or none.
    ///
    /// # Errors
    /// Where it is too long.
    pub fn finish(&mut self) -> Result<Option<BytesMut>, LineTooLong> {
        self.searched = 0;
        match self.buffer.is_empty() {
            true => Ok(None),
            false => {
                let line = self.buffer.split();
                self.checked(line).map(Some)
            }
        }
    }

    fn checked(&self, line: BytesMut) -> Result<BytesMut, LineTooLong> {
        match line.len() > self.line_bytes_max {
            true => Err(LineTooLong {
                bytes_max: self.line_bytes_max,
            }),
            false => Ok(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(input: &[u8], piece_bytes: usize) -> Vec<Vec<u8>> {
        let mut splitter = LineSplitter::new(100);
        let mut lines = Vec::new();
        for piece in input.chunks(piece_bytes) {
            splitter.buffer().extend_from_slice(piece);
            while let Some(line) = splitter.next_line().unwrap() {
                lines.push(line.to_vec());
            }
        }
        lines.extend(splitter.finish().unwrap().map(|line| line.to_vec()));
        lines
    }

    #[test]
    fn lines_do_not_depend_on_the_pieces_they_arrive_in() {
        let input = b"one\r\n\ntwo\xff\x00\rthree\n\r\nlast\r";
        let lines: [&[u8]; 5] = [b"one", b"", b"two\xff\x00\rthree", b"", b"last\r"];
        for piece_bytes in 1..=input.len() {
            assert_eq!(split(input, piece_bytes), lines, "pieces of {piece_bytes}");
        }
    }

    #[test]
    fn the_last_line_needs_no_end_and_an_end_begins_no_line() {
        assert_eq!(split(b"a\nb", 9), [b"a", b"b"]);
        assert_eq!(split(b"a\nb\n", 9), [b"a", b"b"]);
        assert_eq!(split(b"\n", 9), [b""]);
        assert!(split(b"", 9).is_empty());
    }

    #[test]
    fn a_line_above_the_limit_is_an_error_before_it_is_whole() {
        let too_long = LineTooLong { bytes_max: 4 };
        let mut splitter = LineSplitter::new(4);
        splitter.buffer().extend_from_slice(b"12345");
        assert_eq!(
            splitter.next_line(),
            Ok(None),
            "it may be a carriage return that comes next"
        );
        splitter.buffer().extend_from_slice(b"6");
        assert_eq!(splitter.next_line(), Err(too_long));

        let mut splitter = LineSplitter::new(4);
        splitter.buffer().extend_from_slice(b"1234\r\n12345\n");
        assert_eq!(splitter.next_line().unwrap().unwrap(), &b"1234"[..]);
        assert!(splitter.next_line().is_err());
        splitter.buffer().extend_from_slice(b"12345");
        assert!(splitter.finish().is_err());
    }
}
