//! Leases: who may append to a partition, and which WAL may hold what is not in segments yet.
//!
//! The fence is `partitions.epoch`. Acquiring raises it, releasing raises it too (so that nothing of the old holder
//! passes any more), and it never falls: not when a lease row goes, not when an incarnation does.

use millstream_batch::{Epoch, Offset};
use sqlx::query;
use uuid::Uuid;

use crate::database::Tx;
use crate::fields::bigint;
use crate::{MetaError, Metadata, Result};

/// The greatest epoch: batches carry it as an i32.
const EPOCH_MAX: i64 = i32::MAX as i64;

/// The right to append to one partition, as it was when it was acquired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The partition's topic.
    pub topic_id: Uuid,
    /// The partition's number.
    pub partition: u32,
    /// The holder's epoch, greater than every one before it.
    pub epoch: Epoch,
    /// The end of what was in committed segments.
    pub committed_end: Offset,
    /// The first offset that could be read.
    pub log_start: Offset,
    /// The WAL that may hold frames at or beyond `committed_end`. It must be replayed before the partition is served.
    pub wal: Option<Uuid>,
}

impl Lease {
    pub(crate) fn fenced(&self) -> MetaError {
        MetaError::Fenced {
            topic_id: self.topic_id,
            partition: self.partition,
            epoch: self.epoch,
        }
    }
}

impl Metadata {
    /// Makes `incarnation` the holder of a partition.
    ///
    /// 1. The epoch is greater than any given for this partition before, also for an incarnation that holds it already.
    /// 2. From now on every earlier lease is fenced.
    /// 3. `committed_end`, `log_start` and `wal` are what the last holder left: nobody can change them but by this
    ///    lease.
    /// 4. The WAL pointer stays where it is until [`Metadata::move_wal_pointer`].
    ///
    /// Asking again after a lost answer gives a still greater epoch.
    ///
    /// # Errors
    /// `NotFound` for the partition or the incarnation, `EpochsExhausted`.
    pub async fn acquire_lease(&self, topic_id: Uuid, partition: u32, incarnation: Uuid) -> Result<Lease> {
        let mut tx = self.database.begin().await?;
        let known = query("SELECT deleted FROM wal_streams WHERE id = $1").bind(incarnation.as_bytes().as_slice());
        if tx.one(known).await?.is_none() {
            return Err(MetaError::NotFound {
                what: "incarnation",
                name: incarnation.to_string(),
            });
        }
        let raise = query(
            "UPDATE partitions SET epoch = epoch + 1 WHERE topic_id = $1 AND partition = $2 AND epoch < $3 \
             RETURNING epoch, committed_end, log_start, wal_id",
        );
        let raise = raise
            .bind(topic_id.as_bytes().as_slice())
            .bind(i64::from(partition))
            .bind(EPOCH_MAX);
        let Some(row) = tx.one(raise).await? else {
            return Err(no_epoch(&mut tx, topic_id, partition).await?);
        };
        let lease = Lease {
            topic_id,
            partition,
            epoch: row.epoch("epoch")?,
            committed_end: row.offset("committed_end")?,
            log_start: row.offset("log_start")?,
            wal: row.uuid_or_null("wal_id")?,
        };
        let hold = query(
            "INSERT INTO partition_leases (topic_id, partition, epoch, incarnation) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (topic_id, partition) DO UPDATE SET epoch = excluded.epoch, incarnation = excluded.incarnation",
        );
        let hold = hold.bind(topic_id.as_bytes().as_slice()).bind(i64::from(partition));
        let hold = hold
            .bind(bigint("epoch", lease.epoch.0)?)
            .bind(incarnation.as_bytes().as_slice());
        tx.execute(hold).await?;
        tx.commit().await?;
        Ok(lease)
    }

    /// Lets the partition's WAL pointer name `to`: from now on that WAL holds everything beyond the committed end.
    ///
    /// 1. It moves only where the lease's epoch is the partition's.
    /// 2. It never names a WAL that is marked deleted, and [`Metadata::retire_wal`] never marks one that it names.
    ///
    /// Asking again after a lost answer succeeds.
    ///
    /// # Errors
    /// `Fenced`; `WalDeleted`; `NotFound` for the WAL.
    pub async fn move_wal_pointer(&self, lease: &Lease, to: Uuid) -> Result<()> {
        let mut tx = self.database.begin().await?;
        let wal = query("SELECT deleted FROM wal_streams WHERE id = $1").bind(to.as_bytes().as_slice());
        match tx.one(wal).await? {
            None => {
                return Err(MetaError::NotFound {
                    what: "WAL",
                    name: to.to_string(),
                });
            }
            Some(row) if row.bool("deleted")? => return Err(MetaError::WalDeleted { wal: to }),
            Some(_) => {}
        }
        let point = query("UPDATE partitions SET wal_id = $4 WHERE topic_id = $1 AND partition = $2 AND epoch = $3");
        let point = point
            .bind(lease.topic_id.as_bytes().as_slice())
            .bind(i64::from(lease.partition));
        let point = point
            .bind(bigint("epoch", lease.epoch.0)?)
            .bind(to.as_bytes().as_slice());
        if tx.execute(point).await? == 0 {
            return Err(lease.fenced());
        }
        tx.commit().await
    }

    /// Whether the lease is still the partition's last one.
    pub async fn holds_lease(&self, lease: &Lease) -> Result<bool> {
        let found = query("SELECT epoch FROM partitions WHERE topic_id = $1 AND partition = $2 AND epoch = $3");
        let found = found
            .bind(lease.topic_id.as_bytes().as_slice())
            .bind(i64::from(lease.partition));
        let found = found.bind(bigint("epoch", lease.epoch.0)?);
        Ok(self.database.read_one(found).await?.is_some())
    }

    /// Gives the partition back: no holder, no WAL pointer. `end` is the caller's log end offset.
    ///
    /// 1. It succeeds only where the epoch is ours and everything up to exactly `end` is in committed segments.
    /// 2. Pointer and holder go at once, and the lease is fenced from then on.
    ///
    /// # Errors
    /// `Fenced`, also when asked again after a lost answer; `Conflict` when the committed end is not `end`.
    pub async fn release_lease(&self, lease: &Lease, end: Offset) -> Result<()> {
        let mut tx = self.database.begin().await?;
        let topic_id = lease.topic_id.as_bytes().as_slice();
        let (partition, epoch) = (i64::from(lease.partition), bigint("epoch", lease.epoch.0)?);
        let found = query("SELECT committed_end FROM partitions WHERE topic_id = $1 AND partition = $2 AND epoch = $3");
        let found = tx.one(found.bind(topic_id).bind(partition).bind(epoch)).await?;
        let committed_end = found.ok_or_else(|| lease.fenced())?.u64("committed_end")?;
        if committed_end != end.0 {
            return Err(MetaError::Conflict {
                what: "the committed end",
                expected: end.0,
                found: committed_end,
            });
        }
        // The last epoch of all is not raised any more; without its holder the partition can never be acquired again
        // anyway.
        let clear = query(
            "UPDATE partitions SET wal_id = NULL, epoch = CASE WHEN epoch < $4 THEN epoch + 1 ELSE epoch END \
             WHERE topic_id = $1 AND partition = $2 AND epoch = $3 AND committed_end = $5",
        );
        let clear = clear
            .bind(topic_id)
            .bind(partition)
            .bind(epoch)
            .bind(EPOCH_MAX)
            .bind(bigint("offset", end.0)?);
        if tx.execute(clear).await? == 0 {
            return Err(lease.fenced());
        }
        let leave = query("DELETE FROM partition_leases WHERE topic_id = $1 AND partition = $2");
        tx.execute(leave.bind(topic_id).bind(partition)).await?;
        tx.commit().await
    }
}

/// Why a partition gave no epoch.
async fn no_epoch(tx: &mut Tx, topic_id: Uuid, partition: u32) -> Result<MetaError> {
    let exists = query("SELECT epoch FROM partitions WHERE topic_id = $1 AND partition = $2");
    let exists = exists.bind(topic_id.as_bytes().as_slice()).bind(i64::from(partition));
    Ok(match tx.one(exists).await? {
        Some(_) => MetaError::EpochsExhausted { topic_id, partition },
        None => MetaError::NotFound {
            what: "partition",
            name: format!("{topic_id}/{partition}"),
        },
    })
}
