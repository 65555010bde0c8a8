//! Which segment of a partition holds an offset, in memory.
//!
//! The directory is bounded, so it may have holes: where it does not know an offset, the caller asks the metadata.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use millstream_batch::Offset;

/// A committed segment: which offsets it holds, and how to read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentRef {
    /// The object's key.
    pub key: Arc<str>,
    /// The first offset.
    pub base_offset: Offset,
    /// The offset behind the last record.
    pub end_offset: Offset,
    /// Length of the object.
    pub stored_bytes: u64,
    /// The etag it was put with, where the store's etags follow the content.
    pub etag: Option<Arc<str>>,
    /// The greatest timestamp of a record, in milliseconds since 1970.
    pub max_timestamp_ms: i64,
}

/// The known segments of one partition, in the order of their offsets.
///
/// Invariant: no two of them hold the same offset.
#[derive(Debug)]
pub struct SegmentDirectory {
    entries_max: usize,
    // Apart from the segments, so that a search stays within few cache lines.
    bases: VecDeque<Offset>,
    ends: VecDeque<Offset>,
    segments: VecDeque<Arc<SegmentRef>>,
}

impl SegmentDirectory {
    /// An empty directory of at most `entries_max` segments, at least one.
    pub fn new(entries_max: usize) -> SegmentDirectory {
        SegmentDirectory {
            entries_max: entries_max.max(1),
            bases: VecDeque::new(),
            ends: VecDeque::new(),
            segments: VecDeque::new(),
        }
    }

    /// The segment that holds `offset`; nothing where it is not known.
    pub fn find(&self, offset: Offset) -> Option<&Arc<SegmentRef>> {
        let index = self.first_behind(offset).checked_sub(1)?;
        (self.ends[index] > offset).then(|| &self.segments[index])
    }

    /// Adds a segment. It takes the place of smaller ones whose offsets it holds, and is not taken where a larger one holds
    /// its own: a merge makes segments only larger, so the larger one is the later. At the bound the oldest one goes:
    /// readers are mostly near the end.
    pub fn insert(&mut self, segment: SegmentRef) {
        let (base, end) = (segment.base_offset, segment.end_offset);
        let held = self
            .find(base)
            .is_some_and(|known| known.end_offset >= end && (known.base_offset, known.end_offset) != (base, end));
        if base < end && !held {
            self.replace(base..end, segment);
        }
    }

    /// Puts a segment in the place of all those that have an offset of `range`.
    pub fn replace(&mut self, range: Range<Offset>, segment: SegmentRef) {
        let first = match self.first_behind(range.start).checked_sub(1) {
            Some(before) if self.ends[before] > range.start => before,
            Some(before) => before + 1,
            None => 0,
        };
        let last = self.bases.partition_point(|base| *base < range.end).max(first);
        self.bases.drain(first..last);
        self.ends.drain(first..last);
        self.segments.drain(first..last);
        self.bases.insert(first, segment.base_offset);
        self.ends.insert(first, segment.end_offset);
        self.segments.insert(first, Arc::new(segment));
        if self.bases.len() > self.entries_max {
            self.pop_first();
        }
    }

    /// Forgets the segments that end at or below `log_start`.
    pub fn drop_below(&mut self, log_start: Offset) {
        while self.ends.front().is_some_and(|end| *end <= log_start) {
            self.pop_first();
        }
    }

    /// All that are known, in the order of their offsets.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<SegmentRef>> {
        self.segments.iter()
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.bases.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.bases.is_empty()
    }

    /// The index of the first segment that starts behind `offset`.
    fn first_behind(&self, offset: Offset) -> usize {
        self.bases.partition_point(|base| *base <= offset)
    }

    fn pop_first(&mut self) {
        self.bases.pop_front();
        self.ends.pop_front();
        self.segments.pop_front();
    }
}
