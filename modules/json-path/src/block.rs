//! Several bytes looked at together, so that no branch is taken for a single one: 16 with vectors in a module, 8 as one
//! number elsewhere.
//!
//! In a number each byte is marked by its highest bit. A borrow can mark a byte wrongly, but only above one that is marked
//! rightly, so the lowest mark is always true, and only that is looked at.

/// Bytes in which digits are looked for.
const WORD_BYTES: usize = size_of::<u64>();

const HIGHEST: u64 = repeat(0x80);

const fn repeat(byte: u8) -> u64 {
    u64::from_le_bytes([byte; WORD_BYTES])
}

/// The word that begins at a position.
#[inline(always)]
fn word(bytes: &[u8], position: usize) -> Option<u64> {
    let word = bytes.get(position..)?.first_chunk::<WORD_BYTES>()?;
    Some(u64::from_le_bytes(*word))
}

/// Marks in the block at a position what a string cannot hold as it is: the quote, the backslash and control characters.
/// `None` where less than a block is left.
#[inline(always)]
pub(crate) fn ends_plain_text(bytes: &[u8], position: usize) -> Option<Marks> {
    plain_text::marks(bytes, position)
}

pub(crate) use plain_text::Marks;

#[cfg(target_feature = "simd128")]
mod plain_text {
    use std::arch::wasm32::{u8x16_bitmask, u8x16_eq, u8x16_le, u8x16_splat, u64x2, v128_or};

    /// One bit a byte, for what is marked and for what is no ASCII.
    #[derive(Clone, Copy)]
    pub(crate) struct Marks {
        marks: u32,
        foreign: u32,
    }

    const BLOCK_BYTES: usize = 16;

    #[inline(always)]
    pub(super) fn marks(bytes: &[u8], position: usize) -> Option<Marks> {
        let block = bytes.get(position..)?.first_chunk::<BLOCK_BYTES>()?;
        let halves = u128::from_le_bytes(*block);
        let block = u64x2(halves as u64, (halves >> 64) as u64);
        let quote = u8x16_eq(block, u8x16_splat(b'"'));
        let backslash = u8x16_eq(block, u8x16_splat(b'\\'));
        let control = u8x16_le(block, u8x16_splat(b' ' - 1));
        let marks = v128_or(v128_or(quote, backslash), control);
        Some(Marks {
            marks: u32::from(u8x16_bitmask(marks)),
            foreign: u32::from(u8x16_bitmask(block)),
        })
    }

    impl Marks {
        #[inline(always)]
        pub(crate) fn any(self) -> bool {
            self.marks != 0
        }

        /// Bytes before the first mark; all of the block where there is none.
        #[inline(always)]
        pub(crate) fn bytes_before(self) -> usize {
            (self.marks | 1 << BLOCK_BYTES).trailing_zeros() as usize
        }

        /// Whether what stands before the first mark is ASCII.
        #[inline(always)]
        pub(crate) fn is_ascii_before(self) -> bool {
            self.foreign & !self.marks & self.marks.wrapping_sub(1) == 0
        }
    }
}

#[cfg(not(target_feature = "simd128"))]
mod plain_text {
    use super::{HIGHEST, repeat, word};

    /// The highest bit of each byte, for what is marked and for what is no ASCII.
    #[derive(Clone, Copy)]
    pub(crate) struct Marks {
        marks: u64,
        foreign: u64,
    }

    #[inline(always)]
    pub(super) fn marks(bytes: &[u8], position: usize) -> Option<Marks> {
        let word = word(bytes, position)?;
        let quote = word ^ repeat(b'"');
        let backslash = word ^ repeat(b'\\');
        let is_zero = |word: u64| word.wrapping_sub(repeat(1)) & !word;
        let control = word.wrapping_sub(repeat(b' ')) & !word;
        Some(Marks {
            marks: (is_zero(quote) | is_zero(backslash) | control) & HIGHEST,
            foreign: word & HIGHEST,
        })
    }

    impl Marks {
        #[inline(always)]
        pub(crate) fn any(self) -> bool {
            self.marks != 0
        }

        /// Bytes before the first mark; all of the block where there is none.
        #[inline(always)]
        pub(crate) fn bytes_before(self) -> usize {
            self.marks.trailing_zeros() as usize / 8
        }

        /// Whether what stands before the first mark is ASCII.
        #[inline(always)]
        pub(crate) fn is_ascii_before(self) -> bool {
            self.foreign & !self.marks & self.marks.wrapping_sub(1) == 0
        }
    }
}

/// Whether text reads as it is written, as ASCII without escapes does.
#[inline(always)]
pub(crate) fn is_plain(text: &[u8]) -> bool {
    text.iter()
        .fold(true, |plain, &byte| plain & (byte < 0x80) & (byte != b'\\'))
}

/// Bytes of a [`head`].
pub(crate) const HEAD_BYTES: usize = WORD_BYTES;

/// What a name and the quote behind it begin with.
pub(crate) fn head(name: &[u8]) -> u64 {
    let mut head = [0; HEAD_BYTES];
    let bytes = name.iter().chain(b"\"");
    head.iter_mut().zip(bytes).for_each(|(head, &byte)| *head = byte);
    u64::from_le_bytes(head)
}

/// As [`head`], of the name without escapes that begins at a position; what follows its quote is in it, too.
#[inline(always)]
pub(crate) fn head_at(document: &[u8], position: usize) -> u64 {
    match word(document, position) {
        Some(word) => word,
        None => head(document.get(position..).unwrap_or_default()),
    }
}

/// How many digits a block begins with.
#[derive(Clone, Copy)]
pub(crate) struct Digits(usize);

impl Digits {
    #[inline(always)]
    pub(crate) fn count(self) -> usize {
        self.0
    }

    /// There may be more behind them.
    #[inline(always)]
    pub(crate) fn is_whole_block(self) -> bool {
        self.0 == WORD_BYTES
    }
}

/// The digits that stand at a position.
#[inline(always)]
pub(crate) fn digits(bytes: &[u8], position: usize) -> Digits {
    let Some(word) = word(bytes, position) else {
        return Digits(last_digits(bytes, position));
    };
    let digits = word ^ repeat(b'0');
    // Nothing carries over: the greatest byte without its highest bit, plus this, still fits.
    let others = ((digits & !HIGHEST).wrapping_add(repeat(0x80 - 10)) | digits) & HIGHEST;
    Digits(others.trailing_zeros() as usize / 8)
}

/// Digits at a position with less than a word behind it.
#[inline(never)]
fn last_digits(bytes: &[u8], position: usize) -> usize {
    let rest = bytes.get(position..).unwrap_or_default();
    rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_mark_is_right_for_every_byte_at_every_place() {
        for filler in [b'5', b'~', 0x80, 0xff] {
            for byte in 0..=u8::MAX {
                for place in 0..WORD_BYTES {
                    let mut bytes = [filler; WORD_BYTES];
                    bytes[place] = byte;
                    let first = |stops: fn(u8) -> bool| bytes.iter().position(|&b| stops(b)).unwrap_or(WORD_BYTES);
                    let marks = ends_plain_text(&bytes, 0).unwrap();
                    let expected = first(|b| b == b'"' || b == b'\\' || b < b' ');
                    assert_eq!(marks.bytes_before(), expected, "{bytes:?}");
                    assert_eq!(marks.any(), expected < WORD_BYTES, "{bytes:?}");
                    assert_eq!(marks.is_ascii_before(), bytes[..expected].is_ascii(), "{bytes:?}");
                    assert_eq!(digits(&bytes, 0).count(), first(|b| !b.is_ascii_digit()), "{bytes:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_left_at_the_end_is_no_block() {
        for position in [1, WORD_BYTES, usize::MAX] {
            assert!(ends_plain_text(&[0; WORD_BYTES], position).is_none());
        }
        assert_eq!(digits(b"a1234567", 1).count(), 7);
        assert_eq!(digits(b"12", 2).count(), 0);
        assert_eq!(digits(b"12", usize::MAX).count(), 0);
    }
}
