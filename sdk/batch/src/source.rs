//! Where records are read from, and the one definition of their layout.
//!
//! ```text
//! record   length            varint i32, bytes after itself
//!          attributes        i8, unused: 0
//!          timestamp delta   varint i64, ms from the batch's base timestamp
//!          offset delta      varint i32, from the batch's base offset
//!          key length        varint i32, -1: null      key
//!          value length      varint i32, -1: null      value
//!          header count      varint i32
//!          header*           key length varint i32, key (UTF-8), value length varint i32 (-1: null), value
//! ```

use crate::error::RecordError;
use crate::varint;

/// Bytes of encoded records: a slice, whose fields are lent, or a stream, whose fields are passed over.
pub(crate) trait Source {
    /// What a field of bytes is read as.
    type Bytes;
    /// What a field of text is read as.
    type Text;
    /// What reading can fail with.
    type Error: From<RecordError>;

    /// Bytes read so far.
    fn position(&self) -> usize;
    /// True where no byte is left outside a record.
    #[cfg(feature = "codecs")]
    fn at_end(&mut self) -> Result<bool, Self::Error>;
    /// Begins a record of `bytes`, beyond which nothing can be read until [`Source::leave`]. False when they are known to
    /// be more than there are.
    fn enter(&mut self, bytes: usize) -> bool;
    /// Ends the record.
    fn leave(&mut self);
    /// Bytes left in the record; outside of one as many as are known, or `usize::MAX`.
    fn left(&self) -> usize;
    /// The next byte.
    fn byte(&mut self) -> Result<u8, Self::Error>;
    /// The next `bytes`, of which the caller knows that they are left.
    fn take(&mut self, bytes: usize) -> Result<Self::Bytes, Self::Error>;
    /// As [`Source::take`], checked to be UTF-8.
    fn take_text(&mut self, bytes: usize) -> Result<Self::Text, Self::Error>;
}

/// The fields of one record; positions count from the start of the source.
pub(crate) struct Fields<B> {
    pub(crate) timestamp_delta: i64,
    pub(crate) offset_delta: i32,
    /// Where the key's length starts: from here on nothing depends on the record's place in its batch.
    pub(crate) content_at: usize,
    pub(crate) key: Option<B>,
    pub(crate) value: Option<B>,
    pub(crate) header_count: u32,
    /// Where the first header starts.
    pub(crate) headers_at: usize,
}

/// Reads a record's length and enters it. Gives the whole record's size with the length field, which is checked against
/// nothing but what the source knows.
#[inline]
pub(crate) fn enter_record<S: Source>(source: &mut S) -> Result<usize, S::Error> {
    let position = source.position();
    let length = varint::read_i32(source)?;
    let available = source.left();
    match usize::try_from(length) {
        Ok(bytes) if source.enter(bytes) => Ok(source.position() - position + bytes),
        _ => Err(past_end("record length", position, length, available).into()),
    }
}

/// Reads the fields of the record entered, and leaves it.
#[inline]
pub(crate) fn read_fields<S: Source>(source: &mut S) -> Result<Fields<S::Bytes>, S::Error> {
    let position = source.position();
    let attributes = source.byte()?;
    if attributes != 0 {
        return Err(RecordError::Attributes {
            position,
            found: attributes,
        }
        .into());
    }
    let timestamp_delta = varint::read_i64(source)?;
    let offset_delta = varint::read_i32(source)?;
    let content_at = source.position();
    let key = read_nullable(source, "key length")?;
    let value = read_nullable(source, "value length")?;
    let header_count = read_length(source, "header count")?;
    let headers_at = source.position();
    // Out of line: few records have headers, and what has none reads without a loop.
    if header_count > 0 {
        pass_headers(source, header_count)?;
    }
    if source.left() > 0 {
        return Err(RecordError::Surplus {
            position: source.position(),
            bytes: source.left(),
        }
        .into());
    }
    source.leave();
    Ok(Fields {
        timestamp_delta,
        offset_delta,
        content_at,
        key,
        value,
        header_count: header_count as u32,
        headers_at,
    })
}

/// Reads over the headers. A count greater than there are bytes ends at the first header that is not there.
#[inline(never)]
fn pass_headers<S: Source>(source: &mut S, count: usize) -> Result<(), S::Error> {
    for _ in 0..count {
        read_header(source)?;
    }
    Ok(())
}

/// Key and value of a header.
pub(crate) type Header<S> = (<S as Source>::Text, Option<<S as Source>::Bytes>);

/// Reads one header of a record.
#[inline]
pub(crate) fn read_header<S: Source>(source: &mut S) -> Result<Header<S>, S::Error> {
    let key_bytes = read_length(source, "header key length")?;
    let key = source.take_text(key_bytes)?;
    let value = read_nullable(source, "header value length")?;
    Ok((key, value))
}

#[inline]
fn read_nullable<S: Source>(source: &mut S, field: &'static str) -> Result<Option<S::Bytes>, S::Error> {
    let position = source.position();
    let length = varint::read_i32(source)?;
    if length == -1 {
        return Ok(None);
    }
    let bytes = within(source, field, position, length)?;
    source.take(bytes).map(Some)
}

#[inline]
fn read_length<S: Source>(source: &mut S, field: &'static str) -> Result<usize, S::Error> {
    let position = source.position();
    let length = varint::read_i32(source)?;
    Ok(within(source, field, position, length)?)
}

#[inline]
fn within<S: Source>(source: &S, field: &'static str, position: usize, length: i32) -> Result<usize, RecordError> {
    let available = source.left();
    match usize::try_from(length) {
        Ok(bytes) if bytes <= available => Ok(bytes),
        _ => Err(past_end(field, position, length, available)),
    }
}

#[cold]
fn past_end(field: &'static str, position: usize, length: i32, available: usize) -> RecordError {
    RecordError::Length {
        field,
        position,
        length: length.into(),
        available,
    }
}

/// Records that lie in memory.
#[derive(Clone, Debug)]
pub(crate) struct SliceSource<'a> {
    bytes: &'a [u8],
    /// `bytes` up to the end of the record entered.
    window: &'a [u8],
    position: usize,
}

impl<'a> SliceSource<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        SliceSource::at(bytes, 0)
    }

    /// Begins behind so many bytes, of which the caller knows that they are there.
    pub(crate) fn at(bytes: &'a [u8], position: usize) -> Self {
        SliceSource {
            bytes,
            window: bytes,
            position,
        }
    }
}

impl<'a> Source for SliceSource<'a> {
    type Bytes = &'a [u8];
    type Text = &'a str;
    type Error = RecordError;

    #[inline]
    fn position(&self) -> usize {
        self.position
    }

    #[cfg(feature = "codecs")]
    #[inline]
    fn at_end(&mut self) -> Result<bool, RecordError> {
        Ok(self.position == self.bytes.len())
    }

    #[inline]
    fn enter(&mut self, bytes: usize) -> bool {
        let end = self.position.checked_add(bytes);
        match end.and_then(|end| self.bytes.get(..end)) {
            Some(window) => {
                self.window = window;
                true
            }
            None => false,
        }
    }

    #[inline]
    fn leave(&mut self) {
        self.window = self.bytes;
    }

    #[inline]
    fn left(&self) -> usize {
        self.window.len() - self.position
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, RecordError> {
        match self.window.get(self.position) {
            Some(&byte) => {
                self.position += 1;
                Ok(byte)
            }
            None => Err(RecordError::CutShort {
                position: self.position,
            }),
        }
    }

    #[inline]
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], RecordError> {
        let rest = &self.window[self.position..];
        let taken = rest.get(..bytes).ok_or(RecordError::CutShort {
            position: self.window.len(),
        })?;
        self.position += bytes;
        Ok(taken)
    }

    #[inline]
    fn take_text(&mut self, bytes: usize) -> Result<&'a str, RecordError> {
        let position = self.position;
        std::str::from_utf8(self.take(bytes)?).map_err(|_| RecordError::HeaderKey { position })
    }
}
