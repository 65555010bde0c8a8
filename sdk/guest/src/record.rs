//! What a module sees: one record, borrowed from the batch it arrived in, and where it came from.

use millstream_batch::RecordView;

pub use millstream_batch::Headers;

/// Where a module runs; the same for as long as it lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Name of the topic the stage is bound to.
    pub topic: String,
    /// True where the stage runs for readers, false where it runs before records are stored.
    pub on_fetch: bool,
}

/// The records of one call, as they travel: `count` uncompressed records of a version 2 record batch, without its header.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Partition of the topic.
    pub partition: u32,
    /// The offset that the records' offset deltas count from; known on fetch only.
    pub first_offset: Option<u64>,
    /// When the broker took the records in, in milliseconds since the Unix epoch.
    pub append_time_ms: i64,
    /// What the records' timestamp deltas count from, in milliseconds since the Unix epoch.
    pub base_timestamp_ms: i64,
    /// Number of records.
    pub count: u32,
    /// The encoded records, back to back.
    pub records: &'a [u8],
}

/// One record. A view: nothing is copied or allocated to read it.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub(crate) view: RecordView<'a>,
    batch: &'a Batch<'a>,
    context: &'a Context,
}

impl<'a> Record<'a> {
    pub(crate) fn new(view: RecordView<'a>, batch: &'a Batch<'a>, context: &'a Context) -> Self {
        Self { view, batch, context }
    }

    /// The key, `None` where the record has none.
    pub fn key(&self) -> Option<&'a [u8]> {
        self.view.key
    }

    /// The value, `None` where the record has none (a tombstone).
    pub fn value(&self) -> Option<&'a [u8]> {
        self.view.value
    }

    /// The headers in order: name and value.
    pub fn headers(&self) -> Headers<'a> {
        self.view.headers()
    }

    /// The value of the first header of that name; `Some(None)` is a header without a value.
    pub fn header(&self, name: &str) -> Option<Option<&'a [u8]>> {
        self.headers().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// The record's own time in milliseconds since the Unix epoch.
    pub fn timestamp_ms(&self) -> i64 {
        self.batch.base_timestamp_ms.saturating_add(self.view.timestamp_delta)
    }

    /// The record's offset. Known on fetch only: before it is stored a record has none.
    pub fn offset(&self) -> Option<u64> {
        let delta = u64::try_from(self.view.offset_delta).ok()?;
        self.batch.first_offset?.checked_add(delta)
    }

    /// When the broker took the record in, in milliseconds since the Unix epoch.
    pub fn append_time_ms(&self) -> i64 {
        self.batch.append_time_ms
    }

    /// The partition it is in.
    pub fn partition(&self) -> u32 {
        self.batch.partition
    }

    /// The topic, and whether the module runs for a reader.
    pub fn context(&self) -> &'a Context {
        self.context
    }
}
