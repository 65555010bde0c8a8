//! Goes over the bytes of a document and checks them against the grammar of RFC 8259, without taking values out.
//!
//! Every method takes the position it begins at and returns the one it ends at, so that positions stay in registers; a
//! `None` says that this is not JSON, and `serde_json` is asked why only then. The common case of a short string or
//! number runs without a loop, since in a module each round of a loop also looks at the deadline.
//!
//! What is skipped is checked as strictly as what is read, but for two things that need decoding: whether text is UTF-8
//! and whether `\u` names a character. Whoever takes text out checks those.

use std::borrow::Cow;
use std::num::NonZero;
use std::ops::Range;

use crate::block;

/// Where something ended. Nothing ends where the document begins, so this is one number.
pub(crate) type End = Option<NonZero<usize>>;

/// What stands for the end of the document: no token begins with it.
const NOTHING: u8 = 0;

/// The bytes of a document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scanner<'a> {
    pub(crate) bytes: &'a [u8],
}

impl<'a> Scanner<'a> {
    #[inline(always)]
    fn byte(self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(NOTHING)
    }

    /// The next byte that is no space, and where it stands.
    #[inline(always)]
    pub(crate) fn peek(self, at: usize) -> (u8, usize) {
        let byte = self.byte(at);
        if byte > b' ' {
            return (byte, at);
        }
        let at = self.behind_spaces(at);
        (self.byte(at), at)
    }

    #[inline(never)]
    fn behind_spaces(self, mut at: usize) -> usize {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.bytes.get(at) {
            at += 1;
        }
        at
    }

    /// Nothing but spaces is left.
    pub(crate) fn is_end(self, at: usize) -> bool {
        self.behind_spaces(at) == self.bytes.len()
    }

    /// The end of the value that begins with this byte, here.
    #[inline(always)]
    pub(crate) fn value(self, first: u8, at: usize) -> End {
        match first {
            b'"' => self.string(at),
            b'{' | b'[' => self.nested(first, at),
            _ => self.scalar(first, at),
        }
    }

    /// An object or array, however deep, without recursion.
    #[inline(never)]
    fn nested(self, first: u8, start: usize) -> End {
        let (mut byte, mut at) = (first, start);
        let mut nest = Nest::default();
        loop {
            let end = match byte {
                b'"' => self.string(at)?,
                b'{' => {
                    let (inside, position) = self.peek(at + 1);
                    if inside != b'}' {
                        nest.enter(true);
                        let end = self.name(inside, position)?;
                        (byte, at) = self.peek(end.get());
                        continue;
                    }
                    behind(position)?
                }
                b'[' => {
                    let (inside, position) = self.peek(at + 1);
                    if inside != b']' {
                        nest.enter(false);
                        (byte, at) = (inside, position);
                        continue;
                    }
                    behind(position)?
                }
                _ => self.scalar(byte, at)?,
            };
            if nest.depth == 0 {
                return Some(end);
            }
            (byte, at) = self.peek(end.get());
            while byte != b',' {
                if byte != if nest.in_object() { b'}' } else { b']' } {
                    return None;
                }
                nest.leave();
                if nest.depth == 0 {
                    return behind(at);
                }
                (byte, at) = self.peek(at + 1);
            }
            (byte, at) = self.peek(at + 1);
            if nest.in_object() {
                let end = self.name(byte, at)?;
                (byte, at) = self.peek(end.get());
            }
        }
    }

    /// The end of an object's name and the colon behind it.
    #[inline(always)]
    pub(crate) fn name(self, first: u8, at: usize) -> End {
        if first != b'"' {
            return None;
        }
        let (colon, at) = self.peek(self.string(at)?.get());
        if colon == b':' { behind(at) } else { None }
    }

    /// The end of a string that begins here.
    #[inline(always)]
    pub(crate) fn string(self, at: usize) -> End {
        let at = at + 1;
        if let Some(marks) = block::ends_plain_text(self.bytes, at) {
            let end = at + marks.bytes_before();
            if self.byte(end) == b'"' {
                return behind(end);
            }
        }
        self.long_string(at)
    }

    /// As `string`, and whether it reads as it is written: as ASCII without escapes does.
    #[inline(always)]
    pub(crate) fn plain_string(self, at: usize) -> (End, bool) {
        if let Some(marks) = block::ends_plain_text(self.bytes, at + 1) {
            let end = at + 1 + marks.bytes_before();
            if self.byte(end) == b'"' {
                return (behind(end), marks.is_ascii_before());
            }
        }
        let end = self.long_string(at + 1);
        (
            end,
            end.is_some_and(|end| block::is_plain(&self.bytes[at + 1..end.get() - 1])),
        )
    }

    /// As `string`, from its first byte on, with everything that a string can hold.
    #[inline(never)]
    fn long_string(self, mut at: usize) -> End {
        loop {
            while let Some(marks) = block::ends_plain_text(self.bytes, at) {
                at += marks.bytes_before();
                if marks.any() {
                    break;
                }
            }
            match *self.bytes.get(at)? {
                b'"' => return behind(at),
                b'\\' => at = self.escape(at)?.get(),
                b' '.. => at += 1,
                _ => return None,
            }
        }
    }

    fn escape(self, at: usize) -> End {
        match *self.bytes.get(at + 1)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => behind(at + 1),
            b'u' => {
                let digits = self.bytes.get(at + 2..)?.first_chunk::<4>()?;
                digits.iter().all(u8::is_ascii_hexdigit).then(|| behind(at + 5))?
            }
            _ => None,
        }
    }

    /// A number or a word.
    #[inline(always)]
    fn scalar(self, first: u8, at: usize) -> End {
        match first {
            b'-' | b'0'..=b'9' => self.number(first, at),
            b't' => self.word(b"true", at),
            b'f' => self.word(b"false", at),
            b'n' => self.word(b"null", at),
            _ => None,
        }
    }

    #[inline(always)]
    fn word<const LEN: usize>(self, word: &[u8; LEN], at: usize) -> End {
        let found = self.bytes.get(at..)?.first_chunk::<LEN>()? == word;
        if found { behind(at + LEN - 1) } else { None }
    }

    #[inline(always)]
    fn number(self, first: u8, at: usize) -> End {
        let at = if first == b'-' { at + 1 } else { at };
        let end = self.digits(at)?;
        // A zero stands alone.
        if self.byte(at) == b'0' && end.get() != at + 1 {
            return None;
        }
        match self.byte(end.get()) {
            b'.' | b'e' | b'E' => self.fraction(end.get()),
            _ => Some(end),
        }
    }

    /// What follows the whole part of a number.
    #[inline(never)]
    fn fraction(self, mut at: usize) -> End {
        if self.byte(at) == b'.' {
            at = self.digits(at + 1)?.get();
        }
        if let b'e' | b'E' = self.byte(at) {
            let sign = matches!(self.byte(at + 1), b'+' | b'-');
            at = self.digits(at + 1 + usize::from(sign))?.get();
        }
        NonZero::new(at)
    }

    /// One digit at least.
    #[inline(always)]
    fn digits(self, at: usize) -> End {
        let digits = block::digits(self.bytes, at);
        if digits.is_whole_block() {
            return self.many_digits(at);
        }
        if digits.count() == 0 {
            None
        } else {
            NonZero::new(at + digits.count())
        }
    }

    #[inline(never)]
    fn many_digits(self, mut at: usize) -> End {
        loop {
            let digits = block::digits(self.bytes, at);
            at += digits.count();
            if !digits.is_whole_block() {
                return NonZero::new(at);
            }
        }
    }

    /// A part of the document as text; `None` where it is not UTF-8.
    #[inline(always)]
    pub(crate) fn text(self, range: Range<usize>) -> Option<&'a str> {
        std::str::from_utf8(&self.bytes[range]).ok()
    }

    /// What the string in a range, with its quotes, reads as.
    #[inline(never)]
    pub(crate) fn decoded(self, range: Range<usize>) -> Option<Cow<'a, str>> {
        let text = self.text(range.start + 1..range.end - 1)?;
        if text.contains('\\') {
            serde_json::from_slice(&self.bytes[range]).map(Cow::Owned).ok()
        } else {
            Some(Cow::Borrowed(text))
        }
    }

    /// A string or number that was skipped could also be read: its text is text, and its number fits.
    #[cold]
    pub(crate) fn is_readable(self, range: Range<usize>) -> bool {
        serde_json::from_slice::<serde_json::Value>(&self.bytes[range]).is_ok()
    }
}

/// The position behind a byte.
#[inline(always)]
pub(crate) fn behind(at: usize) -> End {
    NonZero::new(at.wrapping_add(1))
}

/// Which of the levels that were entered are objects: a bit each, the innermost lowest.
#[derive(Debug, Default)]
struct Nest {
    depth: usize,
    objects: u64,
    /// What no longer fits, 64 levels each.
    outer: Vec<u64>,
}

impl Nest {
    const LEVELS: usize = u64::BITS as usize;

    #[inline(always)]
    fn enter(&mut self, object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(Self::LEVELS) {
            self.outer.push(self.objects);
        }
        self.objects = self.objects << 1 | u64::from(object);
        self.depth += 1;
    }

    #[inline(always)]
    fn leave(&mut self) {
        self.objects >>= 1;
        self.depth -= 1;
        if self.depth > 0 && self.depth.is_multiple_of(Self::LEVELS) {
            self.objects = self.outer.pop().unwrap_or(self.objects);
        }
    }

    #[inline(always)]
    fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }
}
