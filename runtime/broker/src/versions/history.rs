//! Which pipeline versions a topic has had, and which of them wrote which offsets.
//!
//! Each batch of the tail knows its version, and each segment has notes of them, which stand at its end beside the index:
//! no records are read.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt, stream};
use millstream_batch::Offset;
use millstream_meta::{PipelineRow, SegmentRow};
use uuid::Uuid;

use crate::{
    broker::Broker,
    error::{BrokerError, Result},
    pipeline::PipelineSpec,
    versions::plan::read_form,
};

/// Most pipeline versions in one answer.
pub const HISTORY_MAX: u32 = 1_000;
/// Most ranges in one answer.
pub const RANGES_MAX: usize = 10_000;
/// Segments whose rows are read at once.
const SEGMENTS_AT_ONCE: u32 = 1_000;
/// Segments whose notes are on their way at once.
const NOTES_AT_ONCE: usize = 16;

/// Offsets that went through one pipeline version; 0: none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The first.
    pub base_offset: Offset,
    /// Where they end.
    pub end_offset: Offset,
    /// The version.
    pub pipeline_version: u64,
}

/// Some of the ranges of a partition, in order of offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WrittenPage {
    /// The ranges.
    pub ranges: Vec<Written>,
    /// Where the next page begins; `None` where there is no more.
    pub next: Option<Offset>,
}

impl Broker {
    /// Versions that a topic's pipeline has had, the newest first: those before a version, at most `limit` and at most
    /// [`HISTORY_MAX`].
    pub async fn pipeline_history(
        &self,
        topic: &str,
        before: u64,
        limit: u32,
    ) -> Result<Vec<(PipelineRow, PipelineSpec)>> {
        let live = self.live(topic).await?;
        let metadata = &self.shared().metadata;
        let rows = metadata
            .pipeline_history(live.topic().id, before, limit.min(HISTORY_MAX))
            .await?;
        rows.into_iter().map(with_spec).collect()
    }

    /// One version of a topic's pipeline; `None` where it never had that.
    pub async fn pipeline_version(&self, topic: &str, version: u64) -> Result<Option<(PipelineRow, PipelineSpec)>> {
        let live = self.live(topic).await?;
        let metadata = &self.shared().metadata;
        let row = metadata.pipeline_at(live.topic().id, version).await?;
        row.map(with_spec).transpose()
    }

    /// Which pipeline versions wrote what of a partition, in order of offsets, from an offset or the log start on: at most
    /// `limit` ranges, at least one, at most [`RANGES_MAX`], and of at most [`HISTORY_MAX`] versions. Where a page ends within
    /// a range the next one goes on with it.
    pub async fn written(&self, topic: &str, partition: u32, from: Offset, limit: usize) -> Result<WrittenPage> {
        let live = self.live(topic).await?;
        let opened = self.partition(&live, partition).await?;
        // The tail first: what becomes a segment meanwhile is found in both, never in neither.
        let (log_start, tail, end) = opened.written();
        let tail_start = tail.first().map_or(end, |first| first.base_offset);
        let from = from.max(log_start);
        let limit = limit.clamp(1, RANGES_MAX);
        let mut page = Page {
            limit,
            ..Page::default()
        };
        self.written_below(live.topic().id, partition, from, tail_start, &mut page)
            .await?;
        for range in tail {
            let base_offset = range.base_offset.max(from);
            if base_offset < range.end_offset && !page.push(Written { base_offset, ..range }) {
                break;
            }
        }
        Ok(page.written)
    }

    /// The range that holds an offset: what one segment, or the tail, holds of it.
    pub async fn written_at(&self, topic: &str, partition: u32, offset: Offset) -> Result<Written> {
        let live = self.live(topic).await?;
        let opened = self.partition(&live, partition).await?;
        // The tail first: what becomes a segment meanwhile is found in both, never in neither.
        let (log_start, tail, end) = opened.written();
        let tail_start = tail.first().map_or(end, |first| first.base_offset);
        let topic_id = live.topic().id;
        let (start, holds) = (log_start, |range: &Written| {
            range.base_offset <= offset && offset < range.end_offset
        });
        if offset < start || offset >= end {
            let topic = topic.to_owned();
            return Err(BrokerError::OffsetOutOfRange {
                topic,
                partition,
                offset,
                start,
                end,
            });
        }
        let found = match offset >= tail_start {
            true => tail.into_iter().find(holds),
            false => {
                let rows = self.shared().metadata.segments(topic_id, partition, offset, 1).await?;
                match rows.first() {
                    Some(row) => self.noted(row).await?.into_iter().find(holds),
                    None => None,
                }
            }
        };
        let topic = topic.to_owned();
        found.ok_or(BrokerError::MissingSegment {
            topic,
            partition,
            offset,
        })
    }

    /// The ranges of the segments from an offset up to another one, as far as there is room.
    async fn written_below(
        &self,
        topic_id: Uuid,
        partition: u32,
        mut from: Offset,
        end: Offset,
        page: &mut Page,
    ) -> Result<()> {
        let start = from;
        while from < end && page.written.next.is_none() {
            let metadata = &self.shared().metadata;
            let rows = metadata.segments(topic_id, partition, from, SEGMENTS_AT_ONCE).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            from = last.end_offset;
            let noted = stream::iter(rows).map(|row| async move { self.noted(&row).await });
            let noted = noted.buffered(NOTES_AT_ONCE);
            let mut noted = std::pin::pin!(noted);
            while let Some(of_segment) = noted.try_next().await? {
                for range in of_segment {
                    let within = Written {
                        base_offset: range.base_offset.max(start),
                        end_offset: range.end_offset.min(end),
                        ..range
                    };
                    if within.base_offset < within.end_offset && !page.push(within) {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// What a segment notes of its offsets.
    async fn noted(&self, row: &SegmentRow) -> Result<Vec<Written>> {
        let segments = &self.shared().segments;
        let reader = segments.open(&row.key, row.stored_bytes, row.etag.as_deref()).await?;
        let notes = reader
            .notes()
            .ok_or_else(|| BrokerError::NotesDamaged { key: row.key.clone() })?;
        let ends = notes.pipelines.iter().skip(1).map(|next| next.first_offset);
        let ranges = notes.pipelines.iter().zip(ends.chain([row.end_offset]));
        Ok(ranges
            .map(|(range, end_offset)| Written {
                base_offset: range.first_offset,
                end_offset,
                pipeline_version: range.version,
            })
            .collect())
    }
}

/// A page in the making.
#[derive(Default)]
struct Page {
    written: WrittenPage,
    versions: BTreeSet<u64>,
    limit: usize,
}

impl Page {
    /// Appends a range; where there is no room for it the next page begins with it.
    fn push(&mut self, range: Written) -> bool {
        let WrittenPage { ranges, next } = &mut self.written;
        if next.is_some() {
            return false;
        }
        let goes_on = ranges
            .last()
            .is_some_and(|last| last.pipeline_version == range.pipeline_version);
        self.versions.insert(range.pipeline_version);
        if !goes_on && (ranges.len() >= self.limit || self.versions.len() > HISTORY_MAX as usize) {
            *next = Some(range.base_offset);
            return false;
        }
        push(ranges, range);
        true
    }
}

/// Appends a range; one that goes on with the version before it becomes one with that.
pub(crate) fn push(ranges: &mut Vec<Written>, range: Written) {
    match ranges.last_mut() {
        Some(last) if last.pipeline_version == range.pipeline_version => last.end_offset = range.end_offset,
        _ => ranges.push(range),
    }
}

fn with_spec(row: PipelineRow) -> Result<(PipelineRow, PipelineSpec)> {
    let spec = read_form(&row.stages_json)?;
    Ok((row, spec))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(offset: u64, pipeline_version: u64) -> Written {
        Written {
            base_offset: Offset(offset),
            end_offset: Offset(offset + 1),
            pipeline_version,
        }
    }

    #[test]
    fn a_page_ends_with_its_ranges_or_its_versions_and_says_where_the_next_begins() {
        let page = |limit, versions: &mut dyn Iterator<Item = u64>| {
            let mut page = Page {
                limit,
                ..Page::default()
            };
            for (offset, version) in (0..).zip(versions) {
                if !page.push(range(offset, version)) {
                    break;
                }
            }
            page.written
        };
        let two = page(2, &mut [5, 5, 6, 6, 5].into_iter());
        assert_eq!((two.ranges.len(), two.next), (2, Some(Offset(4))));
        assert_eq!(two.ranges[0].end_offset, Offset(2), "what goes on is one range");
        let all = page(3, &mut [5, 5, 6, 6, 5].into_iter());
        assert_eq!((all.ranges.len(), all.next), (3, None));
        let many = page(RANGES_MAX, &mut (0..2_000));
        assert_eq!((many.ranges.len(), many.next), (1_000, Some(Offset(1_000))));
    }
}
