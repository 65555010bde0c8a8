//! Merging: adjacent small segments become one, block by block, and one metadata transaction puts it in their place.
//!
//! The old objects stay for the deletion grace, so readers that hold the old index go on. Nothing is decided by size
//! alone: a segment is merged again only where its neighbours together are as large as it is, so that every byte is
//! copied a number of times that grows with the logarithm of the segment's size.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use millstream_batch::{Batch, Offset};
use millstream_log::{
    SegmentIdentity, SegmentReader, SegmentWriter,
    segment::{Notes, PipelineRange},
};
use millstream_meta::{Lease, MetaError, NewSegment, SegmentRow, Topic, TopicConfig};

use super::{
    PartitionLog, Shared,
    upload::{block_settings, patiently, pause, put, row},
};
use crate::error::{BrokerError, Result};

/// Fewer segments than this are merged only where they make a whole one.
pub(crate) const SOURCES_MIN: usize = 4;
/// Rows looked at together.
const PAGE: u32 = 1_000;
/// Rows of a page that are looked at again with the next: a run may begin in the one and end in the other.
const OVERLAP: usize = 100;
/// No merged segment is larger.
const MERGED_BYTES_MAX: u64 = 64 << 20;
/// A merged segment is as young as its youngest source, so what it adds to retention is bounded: one eighth.
const RETENTION_SHARE: u64 = 8;

/// One scan of a partition's segments, and the merge that it finds.
pub(super) struct Merge {
    pub(super) shared: Shared,
    pub(super) topic: Arc<Topic>,
    pub(super) lease: Lease,
    pub(super) log: Arc<PartitionLog>,
    /// Where the scan begins.
    pub(super) from: Offset,
}

/// What a scan came to.
pub(super) enum Scan {
    /// A segment that has taken the place of others.
    Merged(SegmentRow),
    /// There is nothing to merge, and below this offset there never will be.
    Nothing { below: Offset },
}

/// As an upload, a task that goes on by itself.
pub(super) fn start(merge: Merge) -> BoxFuture<'static, Result<Scan>> {
    let task = tokio::spawn(merge.run());
    async move { task.await.unwrap_or(Err(BrokerError::Panicked { what: "a merge" })) }.boxed()
}

impl Merge {
    async fn run(self) -> Result<Scan> {
        let (topic_id, partition) = (self.topic.id, self.lease.partition);
        let mut from = self.from;
        loop {
            let rows = self.shared.metadata.segments(topic_id, partition, from, PAGE).await?;
            if let Some(run) = run_to_merge(&rows, &self.topic.config) {
                return self.merge(&rows[run]).await.map(Scan::Merged);
            }
            if rows.len() < PAGE as usize {
                let below = settled(&rows, &self.topic.config).unwrap_or(from);
                return Ok(Scan::Nothing { below });
            }
            from = rows[rows.len() - OVERLAP].base_offset;
        }
    }

    async fn merge(&self, sources: &[SegmentRow]) -> Result<SegmentRow> {
        let (key, segment) = self.store(sources).await?;
        let bases: Vec<Offset> = sources.iter().map(|source| source.base_offset).collect();
        let mut delays = patiently();
        loop {
            let now_ms = self.shared.clock.now_ms();
            let turn = self.shared.uploads.commit_turn().await;
            let merged = self
                .shared
                .metadata
                .merge_segments(&self.lease, &bases, &segment, now_ms)
                .await;
            drop(turn);
            match merged {
                Ok(_) => break,
                Err(error @ (MetaError::Fenced { .. } | MetaError::Conflict { .. })) => return Err(error.into()),
                // It may have happened. Until that is known the readers here would look for objects that will be gone.
                Err(error) => {
                    tracing::warn!(key = segment.key, %error, "committing a merge failed and is tried again");
                    pause(&self.log, delays.next().unwrap_or_default()).await?;
                }
            }
        }
        drop(key);
        self.shared.uploads.count_merge();
        tracing::info!(
            topic = self.topic.name,
            partition = self.lease.partition,
            sources = sources.len(),
            base = segment.base_offset.0,
            end = segment.end_offset.0,
            "merged small segments"
        );
        Ok(row(&self.lease, segment))
    }

    async fn store(&self, sources: &[SegmentRow]) -> Result<(super::LiveKey, NewSegment)> {
        let newest = sources.iter().map(|source| source.created_at_ms).max();
        let created_at_ms = newest.expect("a run has sources");
        let identity = SegmentIdentity {
            topic_id: self.topic.id,
            partition: self.lease.partition,
            base_offset: sources[0].base_offset,
            epoch: self.lease.epoch,
            created_at_ms,
        };
        let mut writer = SegmentWriter::new(identity, block_settings(&self.topic));
        for source in sources {
            writer = self.append(writer, source).await?;
        }
        let encode = move || Ok::<_, BrokerError>(writer.finish()?);
        let encoded = self.shared.pool.run("finishing a segment", encode).await??;
        let _turn = self.shared.uploads.turn().await;
        Ok(put(&self.shared, &self.topic, &self.lease, encoded, created_at_ms).await?)
    }

    /// Appends a source, one block after the other: not from the cache, which is for readers.
    async fn append(&self, mut writer: SegmentWriter, source: &SegmentRow) -> Result<SegmentWriter> {
        let store = &self.shared.store;
        let reader = SegmentReader::open(store, &source.key, source.stored_bytes, source.etag.as_deref()).await?;
        let notes = reader.notes().cloned().ok_or_else(|| BrokerError::NotesDamaged {
            key: source.key.clone(),
        })?;
        let notes = Arc::new(notes);
        for block in 0..reader.block_count() {
            let bytes = reader.read_block(store, block).await?;
            let notes = notes.clone();
            let append = move || append_block(writer, bytes, &notes);
            writer = self.shared.pool.run("merging a block", append).await??;
        }
        writer.set_producers(notes.producers.clone());
        Ok(writer)
    }
}

fn append_block(mut writer: SegmentWriter, mut block: Bytes, notes: &Notes) -> Result<SegmentWriter> {
    while !block.is_empty() {
        let batch = Batch::split_first(&mut block).map_err(BrokerError::StoredBatch)?;
        writer.append(&batch, version_at(&notes.pipelines, batch.base_offset()))?;
    }
    Ok(writer)
}

/// The pipeline version that wrote an offset.
fn version_at(ranges: &[PipelineRange], offset: Offset) -> u64 {
    let behind = ranges.partition_point(|range| range.first_offset <= offset);
    behind.checked_sub(1).map_or(0, |range| ranges[range].version)
}

/// What a merged segment aims at: it is in memory as a whole before it is put.
fn whole_bytes(config: &TopicConfig) -> u64 {
    config.segment_bytes.min(MERGED_BYTES_MAX)
}

/// Segments of less than half of a whole one can be merged.
fn is_small(row: &SegmentRow, config: &TopicConfig) -> bool {
    row.raw_bytes < whole_bytes(config) / 2
}

/// The first run of neighbours to merge.
fn run_to_merge(rows: &[SegmentRow], config: &TopicConfig) -> Option<Range<usize>> {
    (0..rows.len()).find_map(|first| {
        let run = first..first + run_length(&rows[first..], config);
        is_worth_it(&rows[run.clone()], config).then_some(run)
    })
}

/// How many small segments from the first one on fit into a whole one.
fn run_length(rows: &[SegmentRow], config: &TopicConfig) -> usize {
    let span_ms_max = config.retention_ms.map_or(u64::MAX, |ms| ms / RETENTION_SHARE);
    let (mut bytes, mut oldest_ms, mut newest_ms) = (0_u64, i64::MAX, i64::MIN);
    rows.iter()
        .take_while(|row| {
            bytes = bytes.saturating_add(row.raw_bytes);
            oldest_ms = oldest_ms.min(row.created_at_ms);
            newest_ms = newest_ms.max(row.created_at_ms);
            is_small(row, config) && bytes <= whole_bytes(config) && newest_ms.abs_diff(oldest_ms) <= span_ms_max
        })
        .count()
}

fn is_worth_it(run: &[SegmentRow], config: &TopicConfig) -> bool {
    let bytes: u64 = run.iter().map(|row| row.raw_bytes).sum();
    let largest = run.iter().map(|row| row.raw_bytes).max().unwrap_or(0);
    let enough = run.len() >= SOURCES_MIN || (run.len() > 1 && bytes >= whole_bytes(config) / 4 * 3);
    enough && largest <= bytes / 2
}

/// Where the last run of small segments begins: what comes later can only be merged with it.
fn settled(rows: &[SegmentRow], config: &TopicConfig) -> Option<Offset> {
    let last_whole = rows.iter().rposition(|row| !is_small(row, config));
    let first_of_run = last_whole.map_or(0, |at| at + 1);
    let row = rows.get(first_of_run).map(|row| row.base_offset);
    row.or_else(|| rows.last().map(|row| row.end_offset))
}

#[cfg(test)]
mod tests {
    use millstream_batch::Epoch;

    use super::*;

    /// Segments of these raw bytes, one offset each.
    fn rows(raw_bytes: &[u64]) -> Vec<SegmentRow> {
        let row = |(n, raw_bytes): (usize, &u64)| SegmentRow {
            key: n.to_string(),
            base_offset: Offset(n as u64),
            end_offset: Offset(n as u64 + 1),
            epoch: Epoch(1),
            record_count: 1,
            raw_bytes: *raw_bytes,
            stored_bytes: 1,
            min_timestamp_ms: 0,
            max_timestamp_ms: 0,
            created_at_ms: n as i64,
            etag: None,
        };
        raw_bytes.iter().enumerate().map(row).collect()
    }

    fn config() -> TopicConfig {
        TopicConfig {
            segment_bytes: 100,
            ..TopicConfig::default()
        }
    }

    fn run(raw_bytes: &[u64]) -> Option<Range<usize>> {
        run_to_merge(&rows(raw_bytes), &config())
    }

    #[test]
    fn four_small_neighbours_are_merged_and_whole_segments_are_left_alone() {
        assert_eq!(run(&[10, 10, 10]), None);
        assert_eq!(run(&[10, 10, 10, 10]), Some(0..4));
        assert_eq!(run(&[100, 10, 10, 10, 10, 60, 10]), Some(1..5));
        assert_eq!(run(&[10, 10, 60, 10, 10]), None);
    }

    #[test]
    fn a_run_is_no_larger_than_a_segment() {
        assert_eq!(run(&[30, 30, 30, 30]), Some(0..3));
        assert_eq!(run(&[49, 49]), Some(0..2));
        assert_eq!(run(&[30, 30]), None);
    }

    #[test]
    fn a_merged_segment_waits_until_its_neighbours_are_as_large() {
        assert_eq!(run(&[40, 10, 10, 10]), None);
        assert_eq!(run(&[40, 10, 10, 10, 10]), Some(0..5));
    }

    #[test]
    fn every_byte_is_copied_a_few_times_only() {
        let config = TopicConfig {
            segment_bytes: 1 << 20,
            ..config()
        };
        let (mut sizes, mut copied) = (Vec::new(), 0);
        for _ in 0..10_000 {
            sizes.extend([100]);
            while let Some(run) = run_to_merge(&rows(&sizes), &config) {
                let merged: u64 = sizes[run.clone()].iter().sum();
                copied += merged;
                sizes.splice(run, [merged]);
            }
        }
        assert!(sizes.len() < 40, "{sizes:?}");
        assert!(copied < 10 * 10_000 * 100, "{copied}");
    }

    #[test]
    fn segments_that_expire_far_from_each_other_stay_apart() {
        let config = TopicConfig {
            retention_ms: Some(16),
            ..config()
        };
        assert_eq!(run_to_merge(&rows(&[10; 8]), &config), None);
    }

    #[test]
    fn a_scan_begins_again_with_the_last_run_of_small_ones() {
        assert_eq!(settled(&rows(&[100, 10, 10]), &config()), Some(Offset(1)));
        assert_eq!(settled(&rows(&[10, 100]), &config()), Some(Offset(2)));
        assert_eq!(settled(&[], &config()), None);
    }

    #[test]
    fn the_version_of_an_offset_is_that_of_the_range_that_holds_it() {
        let ranges = [(0, 1), (10, 3)].map(|(first, version)| PipelineRange {
            first_offset: Offset(first),
            version,
        });
        assert_eq!([0, 9, 10, 99].map(|at| version_at(&ranges, Offset(at))), [1, 1, 3, 3]);
    }
}
