//! Which segment holds an offset: an ordered map in memory, backed by the metadata store below its bound.

use std::collections::BTreeMap;

use millstream_batch::Offset;
use millstream_meta::SegmentRow;

/// Most segments of one partition kept in memory.
const ENTRIES_MAX: usize = 10_000;

/// The known segments of one partition by base offset. It may have holes, which a miss fills from the metadata store.
#[derive(Debug, Default)]
pub(crate) struct SegmentIndex {
    by_base: BTreeMap<Offset, SegmentRow>,
}

impl SegmentIndex {
    pub(crate) fn find(&self, offset: Offset) -> Option<&SegmentRow> {
        let (_, row) = self.by_base.range(..=offset).next_back()?;
        (row.end_offset > offset).then_some(row)
    }

    /// At the bound the oldest entry makes room: readers are mostly near the end.
    pub(crate) fn insert(&mut self, row: SegmentRow) {
        self.by_base.insert(row.base_offset, row);
        if self.by_base.len() > ENTRIES_MAX {
            self.by_base.pop_first();
        }
    }

    /// Forgets the segments that end at or below `log_start`.
    pub(crate) fn drop_below(&mut self, log_start: Offset) {
        while self
            .by_base
            .first_key_value()
            .is_some_and(|(_, row)| row.end_offset <= log_start)
        {
            self.by_base.pop_first();
        }
    }
}
