//! What a module writes: changes to a record, made in buffers that are used again for the next one.

use millstream_batch::{Headers, RecordView, encode_record};

use crate::record::Record;

/// One part of a record that may be left, set or removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Change {
    #[default]
    Inherit,
    Set,
    Remove,
}

/// A key or value to come.
#[derive(Debug, Default)]
struct Part {
    change: Change,
    bytes: Vec<u8>,
}

impl Part {
    fn reset(&mut self) {
        self.change = Change::Inherit;
        self.bytes.clear();
    }

    fn buffer(&mut self) -> &mut Vec<u8> {
        self.change = Change::Set;
        &mut self.bytes
    }

    fn remove(&mut self) {
        self.change = Change::Remove;
        self.bytes.clear();
    }

    fn resolve<'a>(&'a self, inherited: Option<&'a [u8]>) -> Option<&'a [u8]> {
        match self.change {
            Change::Inherit => inherited,
            Change::Set => Some(&self.bytes),
            Change::Remove => None,
        }
    }
}

/// An added header, as ends within the shared buffer: the name reaches from the previous header's end to `name_end`, the
/// value from there to `value_end`.
#[derive(Clone, Copy, Debug)]
struct Added {
    name_start: usize,
    name_end: usize,
    value_end: Option<usize>,
}

/// What a record is to become. Everything that is not touched stays as it is in the record it is made from.
#[derive(Debug, Default)]
pub struct Output {
    key: Part,
    value: Part,
    timestamp_ms: Option<i64>,
    headers_cleared: bool,
    added: Vec<Added>,
    header_names: String,
    header_values: Vec<u8>,
}

impl Output {
    /// The new value, to be written to: empty at first.
    pub fn value_mut(&mut self) -> &mut Vec<u8> {
        self.value.buffer()
    }

    /// Sets the value.
    pub fn set_value(&mut self, value: impl AsRef<[u8]>) {
        let buffer = self.value.buffer();
        buffer.clear();
        buffer.extend_from_slice(value.as_ref());
    }

    /// Leaves the record without a value (a tombstone).
    pub fn remove_value(&mut self) {
        self.value.remove();
    }

    /// The new key, to be written to: empty at first.
    pub fn key_mut(&mut self) -> &mut Vec<u8> {
        self.key.buffer()
    }

    /// Sets the key.
    pub fn set_key(&mut self, key: impl AsRef<[u8]>) {
        let buffer = self.key.buffer();
        buffer.clear();
        buffer.extend_from_slice(key.as_ref());
    }

    /// Leaves the record without a key.
    pub fn remove_key(&mut self) {
        self.key.remove();
    }

    /// Sets the timestamp, in milliseconds since the Unix epoch.
    pub fn set_timestamp_ms(&mut self, timestamp_ms: i64) {
        self.timestamp_ms = Some(timestamp_ms);
    }

    /// Adds a header after those the record has.
    pub fn add_header(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let name_start = self.header_names.len();
        self.header_names.push_str(name);
        self.header_values.extend_from_slice(value.as_ref());
        let value_end = Some(self.header_values.len());
        self.added.push(Added {
            name_start,
            name_end: self.header_names.len(),
            value_end,
        });
    }

    /// Adds a header that has a name only.
    pub fn add_empty_header(&mut self, name: &str) {
        let name_start = self.header_names.len();
        self.header_names.push_str(name);
        self.added.push(Added {
            name_start,
            name_end: self.header_names.len(),
            value_end: None,
        });
    }

    /// Removes all headers, the record's own and those added so far.
    pub fn clear_headers(&mut self) {
        self.headers_cleared = true;
        self.forget_added();
    }

    fn forget_added(&mut self) {
        self.added.clear();
        self.header_names.clear();
        self.header_values.clear();
    }

    pub(crate) fn reset(&mut self) {
        self.key.reset();
        self.value.reset();
        self.timestamp_ms = None;
        self.headers_cleared = false;
        self.forget_added();
    }

    /// Nothing was written: the record stays as it is.
    pub(crate) fn is_untouched(&self) -> bool {
        self.timestamp_ms.is_none() && self.is_content_inherited()
    }

    /// Nothing but the timestamp differs from the record it is made from.
    fn is_content_inherited(&self) -> bool {
        self.key.change == Change::Inherit
            && self.value.change == Change::Inherit
            && !self.headers_cleared
            && self.added.is_empty()
    }

    /// Writes the record that `from` becomes. Offset deltas of what a module returns mean nothing: they are zero.
    pub(crate) fn encode(&self, from: &RecordView<'_>, base_timestamp_ms: i64, into: &mut Vec<u8>) {
        let timestamp_delta = self.timestamp_ms.map_or(from.timestamp_delta, |timestamp_ms| {
            timestamp_ms.saturating_sub(base_timestamp_ms)
        });
        if self.is_content_inherited() {
            return from.encode_with(timestamp_delta, 0, into);
        }
        let key = self.key.resolve(from.key);
        let value = self.value.resolve(from.value);
        if !self.headers_cleared && self.added.is_empty() {
            return from.encode_replaced(timestamp_delta, 0, key, value, into);
        }
        let headers = OutputHeaders {
            inherited: (!self.headers_cleared).then(|| from.headers()),
            output: self,
            added: self.added.iter(),
            value_start: 0,
        };
        encode_record(into, timestamp_delta, 0, key, value, headers);
    }
}

/// The record's own headers, then the added ones; knows how many are left.
#[derive(Clone)]
struct OutputHeaders<'a> {
    inherited: Option<Headers<'a>>,
    output: &'a Output,
    added: std::slice::Iter<'a, Added>,
    value_start: usize,
}

impl<'a> Iterator for OutputHeaders<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(header) = self.inherited.as_mut().and_then(Iterator::next) {
            return Some(header);
        }
        let added = self.added.next()?;
        let name = &self.output.header_names[added.name_start..added.name_end];
        let value = added.value_end.map(|end| {
            let start = std::mem::replace(&mut self.value_start, end);
            &self.output.header_values[start..end]
        });
        Some((name, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.inherited.as_ref().map_or(0, ExactSizeIterator::len) + self.added.len();
        (left, Some(left))
    }
}

impl ExactSizeIterator for OutputHeaders<'_> {}

/// Where a `#[flat_map]` function puts the records that come of one.
#[derive(Debug)]
pub struct Outputs<'a> {
    record: &'a Record<'a>,
    base_timestamp_ms: i64,
    output: &'a mut Output,
    pending: bool,
    records: &'a mut Vec<u8>,
    count: u32,
}

impl<'a> Outputs<'a> {
    pub(crate) fn new(
        record: &'a Record<'a>,
        base_timestamp_ms: i64,
        output: &'a mut Output,
        records: &'a mut Vec<u8>,
    ) -> Self {
        Self {
            record,
            base_timestamp_ms,
            output,
            pending: false,
            records,
            count: 0,
        }
    }

    /// Adds a record: the one that came in, with what is then written to the output.
    pub fn push(&mut self) -> &mut Output {
        self.flush();
        self.output.reset();
        self.pending = true;
        self.output
    }

    /// Adds the record as it came.
    pub fn keep(&mut self) {
        self.push();
    }

    fn flush(&mut self) {
        if std::mem::take(&mut self.pending) {
            self.output
                .encode(&self.record.view, self.base_timestamp_ms, self.records);
            self.count += 1;
        }
    }

    /// Writes what is still open and says how many records came of this one; `None` when it is the record as it came.
    pub(crate) fn finish(mut self) -> Option<u32> {
        if self.pending && self.count == 0 && self.output.is_untouched() {
            return None;
        }
        self.flush();
        Some(self.count)
    }
}
