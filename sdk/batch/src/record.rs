//! One encoded record, read in place and written. The layout is drawn in `source`.

use std::iter::FusedIterator;

use crate::error::RecordError;
use crate::source::{SliceSource, Source, enter_record, read_fields, read_header};
use crate::varint::{self, Short};

/// Bytes of the attributes, which are always zero.
const ATTRIBUTES_BYTES: usize = 1;

/// Borrowed view of one encoded record, checked as a whole when it was read.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    /// Milliseconds from the batch's base timestamp.
    pub timestamp_delta: i64,
    /// Offset from the batch's base offset.
    pub offset_delta: i32,
    /// The key; null is not the same as empty.
    pub key: Option<&'a [u8]>,
    /// The value; null is not the same as empty.
    pub value: Option<&'a [u8]>,
    encoded: &'a [u8],
    /// Where the key's length starts in it: from here on nothing depends on the record's place in its batch.
    content_at: u32,
    /// Where the first header starts in it.
    headers_at: u32,
    header_count: u32,
}

impl<'a> RecordView<'a> {
    /// The headers in their order: key and value.
    pub fn headers(&self) -> Headers<'a> {
        Headers {
            source: SliceSource::new(self.encoded_headers()),
            left: self.header_count,
        }
    }

    /// Number of headers.
    pub fn header_count(&self) -> u32 {
        self.header_count
    }

    /// The whole record with its length field, as it lies in the batch.
    pub fn encoded(&self) -> &'a [u8] {
        self.encoded
    }

    fn content(&self) -> &'a [u8] {
        &self.encoded[self.content_at as usize..]
    }

    fn encoded_headers(&self) -> &'a [u8] {
        &self.encoded[self.headers_at as usize..]
    }

    /// Appends the same record with other deltas.
    pub fn encode_with(&self, timestamp_delta: i64, offset_delta: i32, out: &mut Vec<u8>) {
        let content = self.content();
        write_prefix(out, timestamp_delta, offset_delta, content.len());
        out.extend_from_slice(content);
    }

    /// Appends the same record with other deltas, another key and another value: what stays are its headers.
    pub fn encode_replaced(
        &self,
        timestamp_delta: i64,
        offset_delta: i32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) {
        if self.header_count == 0 && encode_common(timestamp_delta, offset_delta, key, value, out).is_some() {
            return;
        }
        let header_count = i64::from(self.header_count);
        let content_bytes =
            nullable_len(key) + nullable_len(value) + varint::len(header_count) + self.encoded_headers().len();
        write_prefix(out, timestamp_delta, offset_delta, content_bytes);
        write_nullable(out, key);
        write_nullable(out, value);
        varint::write(out, header_count);
        if header_count > 0 {
            out.extend_from_slice(self.encoded_headers());
        }
    }
}

/// Appends a record that is like nearly all: short lengths and deltas, and no headers. `None`, and nothing is written, for
/// any other.
#[inline(always)]
fn encode_common(
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    out: &mut Vec<u8>,
) -> Option<()> {
    const HEADER_COUNT_BYTES: usize = 1;
    let (key_length, value_length) = (short_length(key)?, short_length(value)?);
    let (key, value) = (key.unwrap_or_default(), value.unwrap_or_default());
    let content_bytes = key_length.len() + key.len() + value_length.len() + value.len() + HEADER_COUNT_BYTES;
    let prefix = short_prefix(timestamp_delta, offset_delta, content_bytes)?;
    out.reserve(content_bytes + 3 * Short::LEN_MAX);
    prefix.write(out);
    if key.is_empty() {
        key_length.then(value_length)?.write(out);
    } else {
        key_length.write(out);
        out.extend_from_slice(key);
        value_length.write(out);
    }
    out.extend_from_slice(value);
    out.push(0);
    Some(())
}

/// Everything before the key's length, where that is few bytes.
#[inline(always)]
fn short_prefix(timestamp_delta: i64, offset_delta: i32, content_bytes: usize) -> Option<Short> {
    let attributes = Short::default().varint(0)?;
    let rest = attributes.varint(timestamp_delta)?.varint(offset_delta.into())?;
    let length = (rest.len() + content_bytes) as i64;
    Short::default().varint(length)?.then(rest)
}

/// What stands before a key or value.
#[inline(always)]
fn short_length(bytes: Option<&[u8]>) -> Option<Short> {
    Short::default().varint(bytes.map_or(-1, |bytes| bytes.len() as i64))
}

/// Reads encoded, uncompressed records one by one, without allocating. Every length is checked before it is used; after
/// the first error there are no more items.
#[derive(Clone, Debug)]
pub struct RecordIter<'a> {
    records: &'a [u8],
    /// Where the next record starts.
    position: usize,
}

impl<'a> RecordIter<'a> {
    /// Reads `records`: the uncompressed records of a batch without its header.
    pub fn new(records: &'a [u8]) -> Self {
        RecordIter { records, position: 0 }
    }

    /// The next record if it is like nearly all: short lengths and deltas, and no headers. Nothing but locals is written
    /// on the way, which the compiler keeps in registers: that is worth twice the speed, in WebAssembly above all.
    #[inline(always)]
    fn read_common(&self) -> Option<RecordView<'a>> {
        let rest = self.records.get(self.position..)?;
        let (Some(length), attributes_at) = varint::read_short_length(rest, 0)? else {
            return None;
        };
        let encoded = rest.get(..attributes_at + length)?;
        let (0, deltas_at) = (*encoded.get(attributes_at)?, attributes_at + ATTRIBUTES_BYTES) else {
            return None;
        };
        let (timestamp_delta, at) = varint::read_short(encoded, deltas_at)?;
        let (offset_delta, content_at) = varint::read_short(encoded, at)?;
        let (key, at) = nullable_short(encoded, content_at)?;
        let (value, header_count_at) = nullable_short(encoded, at)?;
        let [0] = encoded.get(header_count_at..)? else {
            return None;
        };
        Some(RecordView {
            timestamp_delta: timestamp_delta.into(),
            offset_delta,
            key,
            value,
            encoded,
            content_at: content_at as u32,
            headers_at: encoded.len() as u32,
            header_count: 0,
        })
    }

    /// The next record, whatever it is like, or what is wrong with it.
    #[inline(never)]
    fn read_any(&self) -> Result<RecordView<'a>, RecordError> {
        let start = self.position;
        let mut source = SliceSource::at(self.records, start);
        enter_record(&mut source)?;
        let fields = read_fields(&mut source)?;
        Ok(RecordView {
            timestamp_delta: fields.timestamp_delta,
            offset_delta: fields.offset_delta,
            key: fields.key,
            value: fields.value,
            encoded: &self.records[start..source.position()],
            content_at: (fields.content_at - start) as u32,
            headers_at: (fields.headers_at - start) as u32,
            header_count: fields.header_count,
        })
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<RecordView<'a>, RecordError>;

    // Inlined wherever it is called, and the fields of a record from a call one by one: else each record goes through
    // memory, at twice the cost of reading it.
    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.position == self.records.len() {
            return None;
        }
        let record = match self.read_common() {
            Some(record) => record,
            None => match self.read_any() {
                Ok(read) => RecordView {
                    timestamp_delta: read.timestamp_delta,
                    offset_delta: read.offset_delta,
                    key: read.key,
                    value: read.value,
                    encoded: read.encoded,
                    content_at: read.content_at,
                    headers_at: read.headers_at,
                    header_count: read.header_count,
                },
                Err(error) => {
                    self.position = self.records.len();
                    return Some(Err(error));
                }
            },
        };
        self.position += record.encoded.len();
        Some(Ok(record))
    }
}

impl FusedIterator for RecordIter<'_> {}

/// The headers of a record: key and value, of which null is not the same as empty.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    source: SliceSource<'a>,
    left: u32,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some(read_header(&mut self.source).expect("a view's headers were read once when it was made"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Headers<'_> {}
impl FusedIterator for Headers<'_> {}

/// Appends one record with its length field.
///
/// Nothing is checked here: a key, value or count above `i32::MAX` is written as it is, and refused when it is read.
pub fn encode_record<'h>(
    out: &mut Vec<u8>,
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: impl ExactSizeIterator<Item = (&'h str, Option<&'h [u8]>)> + Clone,
) {
    let header_count = headers.len() as i64;
    let headers_bytes: usize = headers
        .clone()
        .map(|(key, value)| nullable_len(Some(key.as_bytes())) + nullable_len(value))
        .sum();
    let content_bytes = nullable_len(key) + nullable_len(value) + varint::len(header_count) + headers_bytes;
    write_prefix(out, timestamp_delta, offset_delta, content_bytes);
    write_nullable(out, key);
    write_nullable(out, value);
    varint::write(out, header_count);
    for (key, value) in headers {
        write_nullable(out, Some(key.as_bytes()));
        write_nullable(out, value);
    }
}

/// A key or value with its length, and where it ends; `None` where the length is not short or too great.
#[inline(always)]
fn nullable_short(record: &[u8], at: usize) -> Option<(Option<&[u8]>, usize)> {
    let (length, at) = varint::read_short_length(record, at)?;
    let Some(length) = length else {
        return Some((None, at));
    };
    let end = at + length;
    Some((Some(record.get(at..end)?), end))
}

/// Appends everything before the key's length, and makes room for the `content_bytes` that follow.
#[inline]
fn write_prefix(out: &mut Vec<u8>, timestamp_delta: i64, offset_delta: i32, content_bytes: usize) {
    let deltas_bytes = varint::len(timestamp_delta) + varint::len(offset_delta.into());
    let length = (ATTRIBUTES_BYTES + deltas_bytes + content_bytes) as i64;
    out.reserve(varint::len(length) + length as usize);
    varint::write(out, length);
    out.push(0);
    varint::write(out, timestamp_delta);
    varint::write(out, offset_delta.into());
}

fn nullable_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varint::len(bytes.len() as i64) + bytes.len())
}

fn write_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => varint::write(out, -1),
        Some(bytes) => {
            varint::write(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
    }
}
