//! Taking segments from the front of a partition: retention by age and by bytes, and truncation.

use millstream_batch::Offset;
use uuid::Uuid;

use crate::database::{Tx, bigint, sql};
use crate::{Lease, MetaError, Metadata, Result};

/// How many segments one call of [`Metadata::expire_segments`] takes at most, so that it never holds up other writers
/// for long.
pub const EXPIRE_SEGMENTS_MAX: u32 = 1_000;

/// What was taken from the front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expired {
    /// The first offset that is left.
    pub log_start: Offset,
    /// The keys of the objects, recorded for deletion.
    pub keys: Vec<String>,
}

impl Metadata {
    /// The partitions of a topic, beyond `after` and in order, from which [`Metadata::expire_segments`] would take
    /// something; at most `limit` of them.
    pub async fn partitions_to_expire(
        &self,
        topic_id: Uuid,
        created_before_ms: Option<i64>,
        stored_bytes_max: Option<u64>,
        after: Option<u32>,
        limit: u32,
    ) -> Result<Vec<u32>> {
        let found = sql("SELECT s.partition FROM ( \
                 SELECT partition, MIN(base_offset) AS base_offset, CAST(SUM(stored_bytes) AS BIGINT) AS stored_bytes \
                 FROM segments WHERE topic_id = $1 AND partition > $4 GROUP BY partition) t \
             JOIN segments s ON s.topic_id = $1 AND s.partition = t.partition AND s.base_offset = t.base_offset \
             WHERE s.created_at_ms < $2 OR t.stored_bytes - s.stored_bytes >= $3 ORDER BY s.partition LIMIT $5");
        let found = found
            .bind(topic_id)
            .bind(created_before_ms)
            .bind(stored_bytes_max.map(at_most_bigint));
        let found = found.bind(after.map_or(-1, i64::from)).bind(limit);
        let rows = self.database.read_all(found).await?;
        rows.iter().map(|row| row.u32("partition")).collect()
    }

    /// Takes the segments at the front that were written before `created_before_ms`, and those without which
    /// `stored_bytes_max` bytes are left all the same; `None` where there are none.
    ///
    /// 1. It stops at the first segment that neither asks for, even where later ones are older: no hole appears.
    /// 2. Rows go, `log_start` moves to the end of the last one and the keys are recorded for deletion, at once, where
    ///    the epoch is ours.
    /// 3. It takes at most [`EXPIRE_SEGMENTS_MAX`]; a call that takes that many is to be followed by another.
    ///
    /// # Errors
    /// `Fenced`.
    pub async fn expire_segments(
        &self,
        lease: &Lease,
        created_before_ms: Option<i64>,
        stored_bytes_max: Option<u64>,
        now_ms: i64,
    ) -> Result<Option<Expired>> {
        let _forget = self
            .cache
            .forgetting(|cache| cache.forget_partition(lease.topic_id, lease.partition));
        let expire = self.database.transaction(|mut tx| async move {
            lock_partition(&mut tx, lease).await?;
            let excess = match stored_bytes_max {
                None => 0,
                Some(bytes_max) => stored_bytes(&mut tx, lease).await?.saturating_sub(bytes_max),
            };
            let Some(end) = front(&mut tx, lease, created_before_ms, excess).await? else {
                return Ok(None);
            };
            let expired = take_below(&mut tx, lease, end, now_ms).await?;
            tx.commit().await?;
            Ok(Some(expired))
        });
        expire.await
    }

    /// Moves the log start to `before`, and takes the segments that lie wholly below it.
    ///
    /// 1. The log start never moves back: where it is beyond `before` already nothing changes, and the answer says where
    ///    it is.
    /// 2. As [`Metadata::expire_segments`] otherwise, but without a bound.
    ///
    /// # Errors
    /// `Fenced`; `Conflict` where `before` is beyond the committed end.
    pub async fn truncate(&self, lease: &Lease, before: Offset, now_ms: i64) -> Result<Expired> {
        let _forget = self
            .cache
            .forgetting(|cache| cache.forget_partition(lease.topic_id, lease.partition));
        let truncate = self.database.transaction(|mut tx| async move {
            lock_partition(&mut tx, lease).await?;
            let found = sql("SELECT log_start, committed_end FROM partitions WHERE topic_id = $1 AND partition = $2");
            let found = found.bind(lease.topic_id).bind(lease.partition);
            let row = tx.one(found).await?.ok_or_else(|| lease.fenced())?;
            let (log_start, committed_end) = (row.offset("log_start")?, row.offset("committed_end")?);
            if before <= log_start {
                let keys = Vec::new();
                return Ok(Expired { log_start, keys });
            }
            if before > committed_end {
                return Err(MetaError::Conflict {
                    what: "the committed end",
                    expected: before.0,
                    found: committed_end.0,
                });
            }
            let expired = take_below(&mut tx, lease, before, now_ms).await?;
            tx.commit().await?;
            Ok(expired)
        });
        truncate.await
    }
}

/// Fails unless the epoch is ours; what is read afterwards stays as it is until the transaction ends.
pub(crate) async fn lock_partition(tx: &mut Tx, lease: &Lease) -> Result<()> {
    let lock = sql("UPDATE partitions SET epoch = epoch WHERE topic_id = $1 AND partition = $2 AND epoch = $3");
    let lock = lock.bind(lease.topic_id).bind(lease.partition);
    match tx.execute(lock.bind(bigint("epoch", lease.epoch.0)?)).await? {
        0 => Err(lease.fenced()),
        _ => Ok(()),
    }
}

async fn stored_bytes(tx: &mut Tx, lease: &Lease) -> Result<u64> {
    let sum = sql(
        "SELECT CAST(COALESCE(SUM(stored_bytes), 0) AS BIGINT) AS stored_bytes FROM segments \
         WHERE topic_id = $1 AND partition = $2",
    );
    let sum = sum.bind(lease.topic_id).bind(lease.partition);
    tx.one(sum).await?.map_or(Ok(0), |row| row.u64("stored_bytes"))
}

/// Where the run of segments ends that are too old, or of which `excess` bytes are too many; `None` where there is none.
async fn front(tx: &mut Tx, lease: &Lease, created_before_ms: Option<i64>, excess: u64) -> Result<Option<Offset>> {
    let front = sql(
        "SELECT end_offset, created_at_ms, stored_bytes FROM segments WHERE topic_id = $1 AND partition = $2 \
         ORDER BY base_offset LIMIT $3",
    );
    let front = front.bind(lease.topic_id).bind(lease.partition);
    let (mut end, mut excess) = (None, excess);
    for row in tx.all(front.bind(EXPIRE_SEGMENTS_MAX)).await? {
        let bytes = row.u64("stored_bytes")?;
        let old = match created_before_ms {
            Some(before_ms) => row.i64("created_at_ms")? < before_ms,
            None => false,
        };
        if !old && excess < bytes {
            break;
        }
        excess = excess.saturating_sub(bytes);
        end = Some(row.offset("end_offset")?);
    }
    Ok(end)
}

/// Moves the log start to `new_start` and takes what lies wholly below it.
async fn take_below(tx: &mut Tx, lease: &Lease, new_start: Offset, now_ms: i64) -> Result<Expired> {
    let (topic_id, partition) = (lease.topic_id, lease.partition);
    let end = bigint("offset", new_start.0)?;
    let advance = sql("UPDATE partitions SET log_start = $3 WHERE topic_id = $1 AND partition = $2");
    tx.execute(advance.bind(topic_id).bind(partition).bind(end)).await?;
    let below = sql(
        "SELECT object_key FROM segments WHERE topic_id = $1 AND partition = $2 AND end_offset <= $3 \
         ORDER BY base_offset",
    );
    let rows = tx.all(below.bind(topic_id).bind(partition).bind(end)).await?;
    let keys = rows.iter().map(|row| row.text("object_key")).collect::<Result<_>>()?;
    let record = sql("INSERT INTO object_deletions (object_key, recorded_at_ms) \
         SELECT object_key, $4 FROM segments WHERE topic_id = $1 AND partition = $2 AND end_offset <= $3 \
         ON CONFLICT DO NOTHING");
    tx.execute(record.bind(topic_id).bind(partition).bind(end).bind(now_ms))
        .await?;
    let delete = sql("DELETE FROM segments WHERE topic_id = $1 AND partition = $2 AND end_offset <= $3");
    tx.execute(delete.bind(topic_id).bind(partition).bind(end)).await?;
    Ok(Expired {
        log_start: new_start,
        keys,
    })
}

/// A bound that no column can pass is the greatest that one can hold.
fn at_most_bigint(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
