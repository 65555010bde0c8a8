//! Making a segment of a marked range of the tail: encode, PUT, commit.

use std::{sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use futures::{FutureExt, future::BoxFuture};
use millstream_log::{
    BlockSettings, EncodedSegment, LogError, SegmentIdentity, SegmentSummary, SegmentWriter, segment_key,
};
use millstream_meta::{CommitOutcome, Lease, MetaError, NewSegment, SegmentRow, Topic};
use tokio::task::JoinSet;

use super::{Shared, TailBatch};
use crate::error::{BrokerError, Result};

const RETRY_DELAY_MIN: Duration = Duration::from_millis(100);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(30);

/// Starts [`upload`] as a task of its own, which ends with the future. While it holds a connection to the metadata store
/// the actor may ask for one too, and must not be the one that lets the upload go on.
pub(super) fn start(
    shared: Shared,
    topic: Arc<Topic>,
    lease: Lease,
    range: Vec<TailBatch>,
) -> BoxFuture<'static, Result<SegmentRow>> {
    let mut task = JoinSet::new();
    task.spawn(upload(shared, topic, lease, range));
    async move {
        let ended = task.join_next().await.expect("a task was spawned");
        ended.unwrap_or(Err(BrokerError::Panicked { what: "an upload" }))
    }
    .boxed()
}

/// Uploads one marked range of the tail and commits it. The range stays in the tail until the actor hears of the
/// commit. Trouble with the store or the database is retried for ever: the data is safe in the WAL meanwhile. What
/// comes back as an error is final: the lease is no longer ours, or the range cannot be encoded.
async fn upload(shared: Shared, topic: Arc<Topic>, lease: Lease, range: Vec<TailBatch>) -> Result<SegmentRow> {
    let created_at_ms = shared.clock.now_ms();
    let segment = encode(&shared, &topic, &lease, range, created_at_ms).await?;
    let (key, etag) = put(&shared, &topic, &lease, &segment).await?;
    // Metadata commits after the PUT: a crash between them leaves an orphan, never a hole.
    let segment = new_segment(key, etag, &segment.summary, created_at_ms);
    commit(&shared, &lease, segment).await
}

async fn encode(
    shared: &Shared,
    topic: &Topic,
    lease: &Lease,
    range: Vec<TailBatch>,
    created_at_ms: i64,
) -> Result<EncodedSegment> {
    let first = range
        .first()
        .expect("a range is marked only where the tail has batches");
    let identity = SegmentIdentity {
        topic_id: topic.id,
        partition: lease.partition,
        base_offset: first.batch.base_offset(),
        epoch: lease.epoch,
        created_at_ms,
    };
    let blocks = BlockSettings {
        compression: topic.config.compression,
        raw_bytes_target: topic.config.block_bytes as usize,
    };
    shared
        .pool
        .run("encoding a segment", move || {
            let mut writer = SegmentWriter::new(identity, blocks);
            for entry in &range {
                writer.append(&entry.batch, entry.pipeline_version)?;
            }
            Ok(writer.finish()?)
        })
        .await?
}

/// Stores the segment under a key that was never used before; returns the key and the store's etag. Every try has a key
/// of its own: an earlier one that succeeded without an answer leaves an orphan, and is not taken for durable unseen.
async fn put(
    shared: &Shared,
    topic: &Topic,
    lease: &Lease,
    segment: &EncodedSegment,
) -> Result<(String, Option<String>)> {
    let base = segment.summary.base_offset;
    let stored = (|| async {
        let key = segment_key(&topic.name, lease.partition, base, shared.clock.random_id());
        let etag = shared.store.put_new(&key, segment.parts.clone()).await?;
        Ok::<_, LogError>((key, etag))
    })
    .retry(patiently())
    .notify(|error, delay| tracing::warn!(%error, ?delay, "a segment upload failed and is tried again"))
    .await?;
    Ok(stored)
}

fn new_segment(key: String, etag: Option<String>, summary: &SegmentSummary, created_at_ms: i64) -> NewSegment {
    NewSegment {
        key,
        base_offset: summary.base_offset,
        end_offset: summary.end_offset,
        record_count: summary.record_count,
        raw_bytes: summary.raw_bytes,
        stored_bytes: summary.stored_bytes,
        min_timestamp_ms: summary.min_timestamp_ms,
        max_timestamp_ms: summary.max_timestamp_ms,
        created_at_ms,
        etag,
    }
}

async fn commit(shared: &Shared, lease: &Lease, segment: NewSegment) -> Result<SegmentRow> {
    (|| async { shared.metadata.commit_segment(lease, &segment).await })
        .retry(patiently())
        .when(|error| !matches!(error, MetaError::Fenced { .. }))
        .notify(|error, delay| {
            tracing::warn!(key = segment.key, %error, ?delay, "committing a segment failed and is tried again");
        })
        .await
        // An answer that was lost makes the second try find its own row: that is success too.
        .map(|_: CommitOutcome| row(lease, segment))
        .map_err(BrokerError::from)
}

fn row(lease: &Lease, segment: NewSegment) -> SegmentRow {
    SegmentRow {
        key: segment.key,
        base_offset: segment.base_offset,
        end_offset: segment.end_offset,
        epoch: lease.epoch,
        record_count: segment.record_count,
        raw_bytes: segment.raw_bytes,
        stored_bytes: segment.stored_bytes,
        min_timestamp_ms: segment.min_timestamp_ms,
        max_timestamp_ms: segment.max_timestamp_ms,
        created_at_ms: segment.created_at_ms,
        etag: segment.etag,
    }
}

/// Quick tries, then patient ones, for ever.
fn patiently() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(RETRY_DELAY_MIN)
        .with_max_delay(RETRY_DELAY_MAX)
        .without_max_times()
        .with_jitter()
}
