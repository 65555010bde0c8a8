//! Merging: one segment in the place of several neighbours.

use millstream_batch::Offset;
use uuid::Uuid;

use crate::database::{bigint, sql};
use crate::retention::lock_partition;
use crate::segments::{committed_before, insert_segment};
use crate::{CommitOutcome, Lease, MetaError, Metadata, NewSegment, Result};

impl Metadata {
    /// The partitions of a topic that have at least `count_min` segments of fewer than `raw_bytes_max` bytes, in order
    /// and beyond `after`; at most `limit` of them.
    pub async fn partitions_with_small_segments(
        &self,
        topic_id: Uuid,
        raw_bytes_max: u64,
        count_min: u32,
        after: Option<u32>,
        limit: u32,
    ) -> Result<Vec<u32>> {
        let found = sql(
            "SELECT partition FROM segments WHERE topic_id = $1 AND partition > $4 AND raw_bytes < $2 \
             GROUP BY partition HAVING COUNT(*) >= $3 ORDER BY partition LIMIT $5",
        );
        let found = found
            .bind(topic_id)
            .bind(bigint("bytes", raw_bytes_max)?)
            .bind(count_min);
        let found = found.bind(after.map_or(-1, i64::from)).bind(limit);
        let rows = self.database.read_all(found).await?;
        rows.iter().map(|row| row.u32("partition")).collect()
    }

    /// Puts a stored segment in the place of those at these bases.
    ///
    /// 1. It happens only where the epoch is ours, and where what lies between its base and its end are exactly the
    ///    segments at `sources`, in order: no offset is lost or doubled.
    /// 2. The rows of the sources go, the new one appears and the keys of the sources are recorded for deletion, at once.
    /// 3. Asked again for a segment that has taken their place, by key, it answers `AlreadyCommitted`.
    ///
    /// # Errors
    /// `Fenced`; `Conflict` where other segments lie there: the caller's object is an orphan. `Invalid` as for
    /// [`Metadata::commit_segment`].
    pub async fn merge_segments(
        &self,
        lease: &Lease,
        sources: &[Offset],
        merged: &NewSegment,
        now_ms: i64,
    ) -> Result<CommitOutcome> {
        merged.check()?;
        let _forget = self
            .cache
            .forgetting(|cache| cache.forget_partition(lease.topic_id, lease.partition));
        let merge = self.database.transaction(|mut tx| async move {
            lock_partition(&mut tx, lease).await?;
            let (topic_id, partition) = (lease.topic_id, lease.partition);
            let (base, end) = (
                bigint("offset", merged.base_offset.0)?,
                bigint("offset", merged.end_offset.0)?,
            );
            let found = sql(
                "SELECT base_offset, end_offset FROM segments \
                 WHERE topic_id = $1 AND partition = $2 AND base_offset >= $3 AND base_offset < $4 ORDER BY base_offset",
            );
            let rows = tx
                .all(found.bind(topic_id).bind(partition).bind(base).bind(end))
                .await?;
            let mut expected = merged.base_offset;
            let mut matches = rows.len() == sources.len();
            for (row, source) in rows.iter().zip(sources) {
                matches &= row.offset("base_offset")? == *source && *source == expected;
                expected = row.offset("end_offset")?;
            }
            if !matches || expected != merged.end_offset {
                if tx.one(committed_before(lease, merged)?).await?.is_some() {
                    return Ok(CommitOutcome::AlreadyCommitted);
                }
                return Err(MetaError::Conflict {
                    what: "the number of segments to merge",
                    expected: sources.len() as u64,
                    found: rows.len() as u64,
                });
            }
            let record = sql(
                "INSERT INTO object_deletions (object_key, recorded_at_ms) SELECT object_key, $5 FROM segments \
                 WHERE topic_id = $1 AND partition = $2 AND base_offset >= $3 AND base_offset < $4 ON CONFLICT DO NOTHING",
            );
            let record = record.bind(topic_id).bind(partition).bind(base).bind(end);
            tx.execute(record.bind(now_ms)).await?;
            let delete = sql(
                "DELETE FROM segments WHERE topic_id = $1 AND partition = $2 AND base_offset >= $3 AND base_offset < $4",
            );
            tx.execute(delete.bind(topic_id).bind(partition).bind(base).bind(end))
                .await?;
            tx.execute(insert_segment(lease, merged)?).await?;
            tx.commit().await?;
            Ok(CommitOutcome::Committed)
        });
        merge.await
    }
}
