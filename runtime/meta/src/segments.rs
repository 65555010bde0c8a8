//! Committed segments: what they hold, in which order, and when they go.
//!
//! A partition's segments lie end to end: the first begins at or before `log_start`, each begins where the one before
//! ends, and the last ends at `committed_end`. Committing adds one at that end, [retention](crate::Expired) takes from
//! the front, and merging puts one in the place of several neighbours.

use std::collections::HashSet;

use millstream_batch::{Epoch, Offset};
use uuid::Uuid;

use crate::database::{Dialect, Fields, Statement, as_json, bigint, sql};
use crate::producers::write_state;
use crate::{Lease, MetaError, Metadata, Result};

/// A segment whose object is stored and that is to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSegment {
    /// Its object's key.
    pub key: String,
    /// Its first offset.
    pub base_offset: Offset,
    /// The offset after its last.
    pub end_offset: Offset,
    /// Records in it.
    pub record_count: u64,
    /// Bytes of its batches before blocks were compressed.
    pub raw_bytes: u64,
    /// Bytes of its object.
    pub stored_bytes: u64,
    /// The least timestamp of its records.
    pub min_timestamp_ms: i64,
    /// The greatest timestamp of its records.
    pub max_timestamp_ms: i64,
    /// When it was written: retention goes by this.
    pub created_at_ms: i64,
    /// The object's etag, where the store gives one.
    pub etag: Option<String>,
}

impl NewSegment {
    pub(crate) fn check(&self) -> Result<()> {
        if self.base_offset < self.end_offset && self.stored_bytes > 0 && !self.key.is_empty() {
            return Ok(());
        }
        let (key, base, end) = (&self.key, self.base_offset, self.end_offset);
        let reason = format!("segment {key:?} from {base} to {end}: it is empty or has no key");
        Err(MetaError::Invalid { reason })
    }
}

/// A committed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentRow {
    /// Its object's key.
    pub key: String,
    /// Its first offset.
    pub base_offset: Offset,
    /// The offset after its last.
    pub end_offset: Offset,
    /// The epoch of the lease it was committed under.
    pub epoch: Epoch,
    /// Records in it.
    pub record_count: u64,
    /// Bytes of its batches before blocks were compressed.
    pub raw_bytes: u64,
    /// Bytes of its object.
    pub stored_bytes: u64,
    /// The least timestamp of its records.
    pub min_timestamp_ms: i64,
    /// The greatest timestamp of its records.
    pub max_timestamp_ms: i64,
    /// When it was written.
    pub created_at_ms: i64,
    /// The object's etag, where the store gives one.
    pub etag: Option<String>,
}

/// What a commit came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// The segment is committed now.
    Committed,
    /// It was committed before and the answer was lost.
    AlreadyCommitted,
}

/// What a partition holds in segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionTotals {
    /// The partition's number.
    pub partition: u32,
    /// Its segments.
    pub segment_count: u64,
    /// Bytes of their batches before blocks were compressed.
    pub raw_bytes: u64,
    /// Bytes of their objects.
    pub stored_bytes: u64,
    /// The end of what is in segments.
    pub committed_end: Offset,
    /// The first offset that can be read.
    pub log_start: Offset,
}

impl Metadata {
    /// Commits a stored segment.
    ///
    /// 1. The row appears and `committed_end` moves from exactly its base to exactly its end, at once, and only where
    ///    the lease's epoch is the partition's. Of several segments at one base at most one is ever committed.
    /// 2. Asked again for a segment that was committed, by key, it answers `AlreadyCommitted` and changes nothing.
    ///
    /// # Errors
    /// `Fenced` for everything else: another epoch, another committed end, a deleted topic. The caller steps down and
    /// its object is an orphan. `Invalid` for a segment without offsets, bytes or key.
    pub async fn commit_segment(&self, lease: &Lease, segment: &NewSegment) -> Result<CommitOutcome> {
        self.commit_segment_noting(lease, segment, None).await
    }

    /// Commits a stored segment and, in the same transaction, what the partition knows of its producers at the segment's end.
    /// `None` leaves that as it is.
    ///
    /// # Errors
    /// As [`Metadata::commit_segment`].
    pub async fn commit_segment_noting(
        &self,
        lease: &Lease,
        segment: &NewSegment,
        producers: Option<&str>,
    ) -> Result<CommitOutcome> {
        segment.check()?;
        let _forget = self
            .cache
            .forgetting(|cache| cache.forget_partition(lease.topic_id, lease.partition));
        match (self.database.dialect(), producers) {
            (Dialect::Postgres, None) => self.commit_in_one(lease, segment).await,
            _ => self.commit_in_several(lease, segment, producers).await,
        }
    }

    async fn commit_in_several(
        &self,
        lease: &Lease,
        segment: &NewSegment,
        producers: Option<&str>,
    ) -> Result<CommitOutcome> {
        let commit = self.database.transaction(|mut tx| async move {
            let advance = sql("UPDATE partitions SET committed_end = $5 \
                 WHERE topic_id = $1 AND partition = $2 AND epoch = $3 AND committed_end = $4");
            let advance = advance.bind(lease.topic_id).bind(lease.partition);
            let advance = advance
                .bind(bigint("epoch", lease.epoch.0)?)
                .bind(bigint("offset", segment.base_offset.0)?)
                .bind(bigint("offset", segment.end_offset.0)?);
            if tx.execute(advance).await? == 0 {
                return outcome_before(tx.one(committed_before(lease, segment)?).await?, lease);
            }
            tx.execute(insert_segment(lease, segment)?).await?;
            if let Some(state) = producers {
                write_state(&mut tx, lease, state).await?;
            }
            tx.commit().await?;
            Ok(CommitOutcome::Committed)
        });
        commit.await
    }

    /// The same as one statement, which is a transaction by itself and costs one round trip.
    async fn commit_in_one(&self, lease: &Lease, segment: &NewSegment) -> Result<CommitOutcome> {
        let commit = sql("WITH advanced AS ( \
                 UPDATE partitions SET committed_end = $4 \
                 WHERE topic_id = $1 AND partition = $2 AND epoch = $5 AND committed_end = $3 \
                 RETURNING topic_id, partition) \
             INSERT INTO segments (topic_id, partition, base_offset, end_offset, epoch, object_key, etag, record_count, \
                                   raw_bytes, stored_bytes, min_timestamp_ms, max_timestamp_ms, created_at_ms) \
             SELECT topic_id, partition, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13 FROM advanced");
        if self.database.write(bind_segment(commit, lease, segment)?).await? > 0 {
            return Ok(CommitOutcome::Committed);
        }
        // What it tells does not change any more: the key was committed once, or never will be under this lease.
        let before = committed_before(lease, segment)?;
        outcome_before(self.database.read_one(before).await?, lease)
    }

    /// The committed segments that end beyond `from`, in order, at most `limit` of them.
    ///
    /// 1. The first one holds `from` where that offset is committed and not expired; there is no gap between them.
    pub async fn segments(&self, topic_id: Uuid, partition: u32, from: Offset, limit: u32) -> Result<Vec<SegmentRow>> {
        // The segment that may hold `from` is found by its base in the primary key, however many lie before it.
        let found = sql(
            "SELECT object_key, base_offset, end_offset, epoch, record_count, raw_bytes, stored_bytes, \
                    min_timestamp_ms, max_timestamp_ms, created_at_ms, etag \
             FROM segments WHERE topic_id = $1 AND partition = $2 AND end_offset > $3 AND base_offset >= COALESCE( \
                 (SELECT MAX(base_offset) FROM segments WHERE topic_id = $1 AND partition = $2 AND base_offset <= $3), 0) \
             ORDER BY base_offset LIMIT $4",
        );
        let found = found.bind(topic_id).bind(partition);
        let found = found.bind(bigint("offset", from.0)?).bind(limit);
        self.database.read_all(found).await?.iter().map(segment).collect()
    }

    /// What each partition of a topic holds, by number; empty for a topic that does not exist.
    pub async fn partition_totals(&self, topic_id: Uuid) -> Result<Vec<PartitionTotals>> {
        let found = sql(
            "SELECT p.partition, p.committed_end, p.log_start, COALESCE(s.segment_count, 0) AS segment_count, \
                    COALESCE(s.raw_bytes, 0) AS raw_bytes, COALESCE(s.stored_bytes, 0) AS stored_bytes \
             FROM partitions p LEFT JOIN ( \
                 SELECT partition, COUNT(*) AS segment_count, CAST(SUM(raw_bytes) AS BIGINT) AS raw_bytes, \
                        CAST(SUM(stored_bytes) AS BIGINT) AS stored_bytes \
                 FROM segments WHERE topic_id = $1 GROUP BY partition) s ON s.partition = p.partition \
             WHERE p.topic_id = $1 ORDER BY p.partition",
        );
        let rows = self.database.read_all(found.bind(topic_id)).await?;
        rows.iter().map(totals).collect()
    }

    /// The first segment, in order of offset, whose greatest timestamp is at or after `timestamp_ms`; none of those that
    /// lie wholly below the log start.
    pub async fn first_segment_at(
        &self,
        topic_id: Uuid,
        partition: u32,
        timestamp_ms: i64,
    ) -> Result<Option<SegmentRow>> {
        let found = sql(
            "SELECT s.object_key, s.base_offset, s.end_offset, s.epoch, s.record_count, s.raw_bytes, s.stored_bytes, \
                    s.min_timestamp_ms, s.max_timestamp_ms, s.created_at_ms, s.etag \
             FROM segments s JOIN partitions p ON p.topic_id = s.topic_id AND p.partition = s.partition \
             WHERE s.topic_id = $1 AND s.partition = $2 AND s.max_timestamp_ms >= $3 AND s.end_offset > p.log_start \
             ORDER BY s.base_offset LIMIT 1",
        );
        let found = found.bind(topic_id).bind(partition);
        let found = self.database.read_one(found.bind(timestamp_ms)).await?;
        found.as_ref().map(segment).transpose()
    }

    /// Which of these object keys a segment, a topic's manifest or the list of deletions names.
    ///
    /// 1. A key moves to the list of deletions at once, so one that is named all the time is never missed.
    pub async fn named_keys(&self, keys: &[String]) -> Result<HashSet<String>> {
        let named = sql(
            "SELECT object_key FROM segments WHERE object_key IN (SELECT e.value FROM json_each($1) e) \
             UNION ALL SELECT object_key FROM object_deletions WHERE object_key IN (SELECT e.value FROM json_each($1) e) \
             UNION ALL SELECT manifest_key FROM topics WHERE manifest_key IN (SELECT e.value FROM json_each($1) e)",
        )
        .on_postgres(
            "SELECT object_key FROM segments WHERE object_key IN (SELECT jsonb_array_elements_text($1)) \
             UNION ALL SELECT object_key FROM object_deletions WHERE object_key IN (SELECT jsonb_array_elements_text($1)) \
             UNION ALL SELECT manifest_key FROM topics WHERE manifest_key IN (SELECT jsonb_array_elements_text($1))",
        );
        let rows = self.database.read_all(named.bind(as_json(keys))).await?;
        rows.iter().map(|row| row.text("object_key")).collect()
    }
}

/// Finds a row where this segment was committed before.
pub(crate) fn committed_before(lease: &Lease, segment: &NewSegment) -> Result<Statement> {
    // Only a key that was committed gets onto the list of deletions: it was merged or expired before the answer was
    // asked for again.
    let found = sql("SELECT object_key FROM segments \
         WHERE topic_id = $1 AND partition = $2 AND base_offset = $3 AND end_offset = $4 AND object_key = $5 \
         UNION ALL SELECT object_key FROM object_deletions WHERE object_key = $5");
    let found = found.bind(lease.topic_id).bind(lease.partition);
    let found = found.bind(bigint("offset", segment.base_offset.0)?);
    Ok(found.bind(bigint("offset", segment.end_offset.0)?).bind(&segment.key))
}

/// What a commit that moved nothing came to.
fn outcome_before(committed: Option<Fields>, lease: &Lease) -> Result<CommitOutcome> {
    match committed {
        Some(_) => Ok(CommitOutcome::AlreadyCommitted),
        None => Err(lease.fenced()),
    }
}

pub(crate) fn insert_segment(lease: &Lease, segment: &NewSegment) -> Result<Statement> {
    let insert = sql(
        "INSERT INTO segments (topic_id, partition, base_offset, end_offset, epoch, object_key, etag, record_count, \
                               raw_bytes, stored_bytes, min_timestamp_ms, max_timestamp_ms, created_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    );
    bind_segment(insert, lease, segment)
}

fn bind_segment(statement: Statement, lease: &Lease, segment: &NewSegment) -> Result<Statement> {
    Ok(statement
        .bind(lease.topic_id)
        .bind(lease.partition)
        .bind(bigint("offset", segment.base_offset.0)?)
        .bind(bigint("offset", segment.end_offset.0)?)
        .bind(bigint("epoch", lease.epoch.0)?)
        .bind(&segment.key)
        .bind(&segment.etag)
        .bind(bigint("record count", segment.record_count)?)
        .bind(bigint("raw bytes", segment.raw_bytes)?)
        .bind(bigint("stored bytes", segment.stored_bytes)?)
        .bind(segment.min_timestamp_ms)
        .bind(segment.max_timestamp_ms)
        .bind(segment.created_at_ms))
}

fn segment(row: &Fields) -> Result<SegmentRow> {
    Ok(SegmentRow {
        key: row.text("object_key")?,
        base_offset: row.offset("base_offset")?,
        end_offset: row.offset("end_offset")?,
        epoch: row.epoch("epoch")?,
        record_count: row.u64("record_count")?,
        raw_bytes: row.u64("raw_bytes")?,
        stored_bytes: row.u64("stored_bytes")?,
        min_timestamp_ms: row.i64("min_timestamp_ms")?,
        max_timestamp_ms: row.i64("max_timestamp_ms")?,
        created_at_ms: row.i64("created_at_ms")?,
        etag: row.text_or_null("etag")?,
    })
}

fn totals(row: &Fields) -> Result<PartitionTotals> {
    Ok(PartitionTotals {
        partition: row.u32("partition")?,
        segment_count: row.u64("segment_count")?,
        raw_bytes: row.u64("raw_bytes")?,
        stored_bytes: row.u64("stored_bytes")?,
        committed_end: row.offset("committed_end")?,
        log_start: row.offset("log_start")?,
    })
}
