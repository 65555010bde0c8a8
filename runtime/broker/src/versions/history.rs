//! Which pipeline versions a topic has had, and which of them wrote which offsets.
//!
//! Each batch of the tail knows its version, and each segment has notes of them, which stand at its end beside the index:
//! no records are read.

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

/// Most pipeline versions in one answer: the newest ones.
pub const HISTORY_MAX: u32 = 1_000;
/// Most ranges in one answer: those of the lowest offsets.
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

impl Broker {
    /// The versions that a topic's pipeline has had, the newest first, at most [`HISTORY_MAX`].
    pub async fn pipeline_history(&self, topic: &str) -> Result<Vec<(PipelineRow, PipelineSpec)>> {
        let live = self.live(topic).await?;
        let metadata = &self.shared().metadata;
        let rows = metadata
            .pipeline_history(live.topic().id, u64::MAX, HISTORY_MAX)
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

    /// Which pipeline versions wrote what of a partition, in order of offsets, from the log start on; at most [`RANGES_MAX`]
    /// ranges. With an offset only a range that holds it: what one segment, or the tail, holds of it.
    pub async fn written(&self, topic: &str, partition: u32, offset: Option<Offset>) -> Result<Vec<Written>> {
        let live = self.live(topic).await?;
        let opened = self.partition(&live, partition).await?;
        // The tail first: what becomes a segment meanwhile is found in both, never in neither.
        let (log_start, tail, end) = opened.written();
        let tail_start = tail.first().map_or(end, |first| first.base_offset);
        let topic_id = live.topic().id;
        let Some(offset) = offset else {
            let mut ranges = Vec::new();
            self.written_below(topic_id, partition, log_start, tail_start, &mut ranges)
                .await?;
            tail.into_iter().for_each(|range| push(&mut ranges, range));
            ranges.truncate(RANGES_MAX);
            return Ok(ranges);
        };
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
        let found = found.ok_or(BrokerError::MissingSegment {
            topic,
            partition,
            offset,
        })?;
        Ok(vec![found])
    }

    /// The ranges of the segments from an offset up to another one.
    async fn written_below(
        &self,
        topic_id: Uuid,
        partition: u32,
        mut from: Offset,
        end: Offset,
        ranges: &mut Vec<Written>,
    ) -> Result<()> {
        let log_start = from;
        while from < end && ranges.len() < RANGES_MAX {
            let metadata = &self.shared().metadata;
            let rows = metadata.segments(topic_id, partition, from, SEGMENTS_AT_ONCE).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            from = last.end_offset;
            let noted = stream::iter(rows).map(|row| async move { self.noted(&row).await });
            let noted = noted.buffered(NOTES_AT_ONCE);
            let mut noted = std::pin::pin!(noted);
            while let Some(of_segment) = noted.try_next().await? {
                for range in of_segment {
                    let base_offset = range.base_offset.max(log_start);
                    let end_offset = range.end_offset.min(end);
                    if base_offset < end_offset {
                        push(
                            ranges,
                            Written {
                                base_offset,
                                end_offset,
                                ..range
                            },
                        );
                    }
                }
                if ranges.len() >= RANGES_MAX {
                    return Ok(());
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
