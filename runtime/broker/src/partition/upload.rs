//! Making a segment of a marked range of the tail: encode, PUT, commit.

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::{FutureExt, future::BoxFuture};
use millstream_log::{
    BlockSettings, EncodedSegment, LogError, SegmentIdentity, SegmentSummary, SegmentWriter,
    segment::ProducerCheckpoint, segment_key,
};
use millstream_meta::{CommitOutcome, Lease, MetaError, NewSegment, SegmentRow, Topic};
use tokio::time::Instant;

use super::{PartitionLog, Shared, TailBatch, producers::encode, uploads::LiveKey};
use crate::error::{BrokerError, Result};

/// Tries that follow each other at once, before the patient ones.
const QUICK_TRIES: usize = 3;
const QUICK_DELAY: Duration = Duration::from_millis(50);
const PATIENT_DELAY_MIN: Duration = Duration::from_millis(500);
const PATIENT_DELAY_MAX: Duration = Duration::from_secs(30);

/// One marked range on its way into the store. The range stays in the tail until the actor hears of the commit.
pub(super) struct Upload {
    pub(super) shared: Shared,
    pub(super) topic: Arc<Topic>,
    pub(super) lease: Lease,
    pub(super) log: Arc<PartitionLog>,
    pub(super) range: Vec<TailBatch>,
    /// The idempotent producers at its end, where there are any.
    pub(super) producers: Option<ProducerCheckpoint>,
}

/// Starts a task that goes on by itself: it must never end between a commit that it sent and the answer to it, which
/// tells whether its key may still be committed. It gives up between two steps when the partition has closed.
pub(super) fn start(upload: Upload) -> BoxFuture<'static, Result<SegmentRow>> {
    let task = tokio::spawn(upload.run());
    async move { task.await.unwrap_or(Err(BrokerError::Panicked { what: "an upload" })) }.boxed()
}

impl Upload {
    /// Trouble with the store or the database is retried for ever: the data is safe in the WAL meanwhile. What comes back
    /// as an error is final: the lease is no longer ours, the partition closed, or the range cannot be encoded.
    async fn run(self) -> Result<SegmentRow> {
        let (begun, mut delays) = (Instant::now(), patiently());
        let (key, segment) = loop {
            match self.try_to_store().await? {
                Ok(stored) => break stored,
                Err(error) => {
                    let delay = delays.next().unwrap_or(PATIENT_DELAY_MAX);
                    tracing::warn!(topic = self.topic.name, partition = self.lease.partition, %error, ?delay,
                        "a segment could not be stored; its records stay in memory and in the write-ahead log");
                    pause(&self.log, delay).await?;
                }
            }
        };
        // Metadata commits after the PUT: a crash between them leaves an orphan, never a hole.
        let row = self.commit(segment).await?;
        drop(key);
        self.shared.uploads.count_done();
        self.shared.measures.uploaded(begun, row.stored_bytes);
        Ok(row)
    }

    /// One turn: encodes, and makes a few quick tries. What was encoded is let go afterwards: while the store is down no
    /// memory is taken but the tail itself.
    async fn try_to_store(&self) -> Result<Result<(LiveKey, NewSegment)>> {
        // Whoever waits in line must not hold the range of a partition that is gone.
        let turn = tokio::select! {
            turn = self.shared.uploads.turn() => Some(turn),
            () = self.log.closed() => None,
        };
        still_open(&self.log)?;
        match self.shared.owner.confirm().await {
            Err(error @ BrokerError::StoreOwned { .. }) => return Err(error),
            Err(error) => return Ok(Err(error)),
            Ok(()) => {}
        }
        let created_at_ms = self.created_at_ms();
        let encoded = self.encode(created_at_ms).await?;
        let stored = put(&self.shared, &self.topic, &self.lease, encoded, created_at_ms).await;
        drop(turn);
        Ok(stored.map_err(BrokerError::from))
    }

    /// Now, or the last append where the clock has gone back since: whoever opens the partition next goes on from there.
    fn created_at_ms(&self) -> i64 {
        let appended_ms = self.range.iter().filter_map(|entry| entry.batch.append_time_ms()).max();
        self.shared.clock.now_ms().max(appended_ms.unwrap_or(i64::MIN))
    }

    async fn encode(&self, created_at_ms: i64) -> Result<EncodedSegment> {
        let (range, producers) = (self.range.clone(), self.producers.clone());
        let first = range
            .first()
            .expect("a range is marked only where the tail has batches");
        let identity = SegmentIdentity {
            topic_id: self.topic.id,
            partition: self.lease.partition,
            base_offset: first.batch.base_offset(),
            epoch: self.lease.epoch,
            created_at_ms,
        };
        let blocks = block_settings(&self.topic);
        self.shared
            .pool
            .run("encoding a segment", move || {
                let mut writer = SegmentWriter::new(identity, blocks);
                for entry in &range {
                    writer.append(&entry.batch, entry.pipeline_version)?;
                }
                writer.set_producers(producers.unwrap_or_default());
                Ok(writer.finish()?)
            })
            .await?
    }

    async fn commit(&self, segment: NewSegment) -> Result<SegmentRow> {
        let (shared, lease) = (&self.shared, &self.lease);
        let producers = self.producers.as_ref().map(encode);
        let mut delays = patiently();
        loop {
            let turn = shared.uploads.commit_turn().await;
            let noting = shared
                .metadata
                .commit_segment_noting(lease, &segment, producers.as_deref());
            let committed = noting.await;
            drop(turn);
            match committed {
                // An answer that was lost makes the next try find its own row: that is success too.
                Ok(CommitOutcome::Committed | CommitOutcome::AlreadyCommitted) => return Ok(row(lease, segment)),
                Err(error @ MetaError::Fenced { .. }) => return Err(error.into()),
                Err(error) => {
                    let delay = delays.next().unwrap_or(PATIENT_DELAY_MAX);
                    tracing::warn!(key = segment.key, %error, ?delay, "committing a segment failed and is tried again");
                    pause(&self.log, delay).await?;
                }
            }
        }
    }
}

pub(super) fn block_settings(topic: &Topic) -> BlockSettings {
    BlockSettings {
        compression: topic.config.compression,
        raw_bytes_target: topic.config.block_bytes as usize,
    }
}

/// Stores the segment under a key that was never used before, in a few quick tries. Every try has a key of its own: an
/// earlier one that succeeded without an answer leaves an orphan, and is not taken for durable unseen.
pub(super) async fn put(
    shared: &Shared,
    topic: &Topic,
    lease: &Lease,
    segment: EncodedSegment,
    created_at_ms: i64,
) -> Result<(LiveKey, NewSegment), LogError> {
    let base = segment.summary.base_offset;
    let mut tries_left = QUICK_TRIES;
    loop {
        let key = segment_key(&topic.name, lease.partition, base, shared.clock.random_id());
        let key = shared.uploads.live_key(key);
        match shared.store.put_new(key.as_str(), segment.parts.clone()).await {
            Ok(etag) => {
                let new = new_segment(&key, etag, &segment.summary, created_at_ms);
                return Ok((key, new));
            }
            Err(error) => {
                shared.uploads.count_retry();
                tries_left -= 1;
                if tries_left == 0 {
                    return Err(error);
                }
            }
        }
        tokio::time::sleep(QUICK_DELAY).await;
    }
}

fn new_segment(key: &LiveKey, etag: Option<String>, summary: &SegmentSummary, created_at_ms: i64) -> NewSegment {
    NewSegment {
        key: key.as_str().to_owned(),
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

pub(super) fn row(lease: &Lease, segment: NewSegment) -> SegmentRow {
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

/// Patient delays for ever, none twice the same for two who began together.
pub(super) fn patiently() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(PATIENT_DELAY_MIN)
        .with_max_delay(PATIENT_DELAY_MAX)
        .without_max_times()
        .with_jitter()
        .build()
}

/// Waits before the next try; fails where the partition has closed, which ends the wait.
pub(super) async fn pause(log: &PartitionLog, delay: Duration) -> Result<()> {
    tokio::select! {
        () = tokio::time::sleep(delay) => {}
        () = log.closed() => {}
    }
    still_open(log)
}

fn still_open(log: &PartitionLog) -> Result<()> {
    log.closed_error().map_or(Ok(()), Err)
}
