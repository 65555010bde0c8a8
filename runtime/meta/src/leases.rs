//! Leases: who may append to a partition, and which WAL may hold what is not in segments yet.
//!
//! The fence is `partitions.epoch`. Acquiring raises it, releasing raises it too (so that nothing of the old holder
//! passes any more), and it never falls: not when a lease row goes, not when an incarnation does.
//!
//! A lease is live while its incarnation is the current one of its agent and that agent's lease time is not over, by the
//! database's clock: only then it keeps others off. Safety never depends on it; that is the epoch's.

use std::collections::HashSet;

use millstream_batch::{Epoch, Offset};
use uuid::Uuid;

use crate::agents::own_agent;
use crate::database::{Tx, as_json, bigint, sql};
use crate::partitions::standing;
use crate::{MetaError, Metadata, Result};

/// The greatest epoch: batches carry it as an i32.
pub(crate) const EPOCH_MAX: i64 = i32::MAX as i64;

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
    /// 5. The lease of another incarnation is taken only when it is not live. Where the time of ours is over it is
    ///    renewed, for as long as it was given last.
    /// 6. Where the pointer names the WAL of another live incarnation, that one alone can acquire it: whoever took it
    ///    over would have to seal the log of an agent that writes it. Only the live holder goes on with what it began
    ///    while that one was not live: were it refused too, each of the two would be told to ask the other, for ever.
    ///
    /// Asking again after a lost answer gives a still greater epoch.
    ///
    /// # Errors
    /// After each of these nothing has changed: `LeaseHeld` where another live incarnation holds it or has it by 6;
    /// `WalElsewhere` where the pointer names a WAL on the disk of another agent; `Superseded` where ours is over or has
    /// left; `NotFound` for the partition or the incarnation; `EpochsExhausted`.
    pub async fn acquire_lease(&self, topic_id: Uuid, partition: u32, incarnation: Uuid) -> Result<Lease> {
        let _forget = self
            .cache
            .forgetting(|cache| cache.forget_partition(topic_id, partition));
        let acquire = self.database.transaction(|mut tx| async move {
            let agent = own_agent(&mut tx, incarnation).await?;
            let found = standing(&mut tx, topic_id, partition).await?;
            found.check_free_for(&agent, incarnation)?;
            let raise = sql("UPDATE partitions SET epoch = epoch + 1 WHERE topic_id = $1 AND partition = $2 RETURNING epoch");
            let row = tx.one(raise.bind(topic_id).bind(partition)).await?;
            let row = row.expect("the transaction has just read the partition");
            let lease = Lease {
                topic_id,
                partition,
                epoch: row.epoch("epoch")?,
                committed_end: found.committed_end,
                log_start: found.log_start,
                wal: found.wal,
            };
            let hold = sql(
                "INSERT INTO partition_leases (topic_id, partition, epoch, incarnation) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (topic_id, partition) DO UPDATE SET epoch = excluded.epoch, incarnation = excluded.incarnation",
            );
            let hold = hold.bind(topic_id).bind(partition).bind(bigint("epoch", lease.epoch.0)?);
            tx.execute(hold.bind(incarnation)).await?;
            tx.commit().await?;
            Ok(lease)
        });
        acquire.await
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
        let _forget = self
            .cache
            .forgetting(|cache| cache.forget_partition(lease.topic_id, lease.partition));
        let moved = self.database.transaction(|mut tx| async move {
            check_not_deleted(&mut tx, to).await?;
            let point = sql("UPDATE partitions SET wal_id = $4 WHERE topic_id = $1 AND partition = $2 AND epoch = $3");
            let point = point.bind(lease.topic_id).bind(lease.partition);
            let point = point.bind(bigint("epoch", lease.epoch.0)?).bind(to);
            if tx.execute(point).await? == 0 {
                return Err(lease.fenced());
            }
            tx.commit().await
        });
        moved.await
    }

    /// Which of these leases are still their partitions' last ones.
    ///
    /// 1. Asked by their holder after a renewal: nobody takes over any more those that are still its own, as long as it
    ///    renews in time. Who wanted to take one over and had seen the lease time of before has either done so, and it is
    ///    seen here, or cannot commit: it would come before the renewal, and after this, which has seen the renewal.
    pub async fn holds_leases(&self, leases: &[Lease]) -> Result<Vec<bool>> {
        let asked: Vec<_> = leases
            .iter()
            .map(|lease| (lease.topic_id.simple().to_string(), lease.partition, lease.epoch.0))
            .collect();
        let found = sql(
            "SELECT e.key AS position FROM json_each($1) e JOIN partitions p ON p.topic_id = unhex(e.value ->> 0) \
             AND p.partition = e.value ->> 1 AND p.epoch = e.value ->> 2",
        )
        .on_postgres(
            // The agents are read for the first guarantee alone: so this comes after what renewed them.
            "SELECT e.position - 1 AS position, a.lease_expires_at_ms \
             FROM jsonb_array_elements($1) WITH ORDINALITY AS e (value, position) \
             JOIN partitions p ON p.topic_id = CAST(e.value ->> 0 AS UUID) \
             AND p.partition = CAST(e.value ->> 1 AS BIGINT) AND p.epoch = CAST(e.value ->> 2 AS BIGINT) \
             LEFT JOIN partition_leases l ON l.topic_id = p.topic_id AND l.partition = p.partition \
             LEFT JOIN agents a ON a.incarnation = l.incarnation",
        );
        let mut held = vec![false; leases.len()];
        for row in self.database.read_urgent(found.bind(as_json(&asked))).await? {
            if let Some(held) = held.get_mut(row.u32("position")? as usize) {
                *held = true;
            }
        }
        Ok(held)
    }

    /// Gives partitions back, each with the caller's log end offset: no holder, no WAL pointer. Whether it was done, for each
    /// of them.
    ///
    /// 1. It is done only where the epoch is ours and everything up to exactly that end is in committed segments; any other
    ///    stays as it is.
    /// 2. Pointer and holder go at once, for all of them, and each lease is fenced from then on.
    ///
    /// Asked again after a lost answer none is done any more.
    pub async fn release_leases(&self, leases: &[(Lease, Offset)]) -> Result<Vec<bool>> {
        let asked: Vec<_> = leases
            .iter()
            .map(|(lease, end)| {
                let topic_id = lease.topic_id.simple().to_string();
                (topic_id, lease.partition, lease.epoch.0, end.0)
            })
            .collect();
        let asked = &as_json(&asked);
        let _forget = self.cache.forgetting(|cache| cache.forget_partitions());
        let release = self.database.transaction(|mut tx| async move {
            let leave = sql(
                "DELETE FROM partition_leases WHERE (topic_id, partition) IN (SELECT p.topic_id, p.partition \
                 FROM json_each($1) e JOIN partitions p ON p.topic_id = unhex(e.value ->> 0) AND p.partition = e.value ->> 1 \
                 AND p.epoch = e.value ->> 2 AND p.committed_end = e.value ->> 3)",
            )
            .on_postgres(
                "DELETE FROM partition_leases WHERE (topic_id, partition) IN (SELECT p.topic_id, p.partition \
                 FROM jsonb_array_elements($1) e (value) JOIN partitions p ON p.topic_id = CAST(e.value ->> 0 AS UUID) \
                 AND p.partition = CAST(e.value ->> 1 AS BIGINT) AND p.epoch = CAST(e.value ->> 2 AS BIGINT) \
                 AND p.committed_end = CAST(e.value ->> 3 AS BIGINT))",
            );
            tx.execute(leave.bind(asked.clone())).await?;
            // The last epoch of all is not raised any more; without its holder the partition can never be acquired again
            // anyway.
            let clear = sql(
                "UPDATE partitions SET wal_id = NULL, epoch = CASE WHEN epoch < $2 THEN epoch + 1 ELSE epoch END \
                 FROM json_each($1) e WHERE topic_id = unhex(e.value ->> 0) AND partition = e.value ->> 1 \
                 AND epoch = e.value ->> 2 AND committed_end = e.value ->> 3 RETURNING topic_id, partition",
            )
            .on_postgres(
                "UPDATE partitions SET wal_id = NULL, epoch = CASE WHEN epoch < $2 THEN epoch + 1 ELSE epoch END \
                 FROM jsonb_array_elements($1) e (value) WHERE topic_id = CAST(e.value ->> 0 AS UUID) \
                 AND partition = CAST(e.value ->> 1 AS BIGINT) AND epoch = CAST(e.value ->> 2 AS BIGINT) \
                 AND committed_end = CAST(e.value ->> 3 AS BIGINT) RETURNING topic_id, partition",
            );
            let rows = tx.all(clear.bind(asked.clone()).bind(EPOCH_MAX)).await?;
            let released = rows.iter().map(|row| Ok((row.uuid("topic_id")?, row.u32("partition")?)));
            let released = released.collect::<Result<HashSet<_>>>()?;
            tx.commit().await?;
            Ok(released)
        });
        let released = release.await?;
        let ids = leases.iter().map(|(lease, _)| (lease.topic_id, lease.partition));
        Ok(ids.map(|id| released.contains(&id)).collect())
    }
}

/// Fails where no pointer may go to this WAL. It stays so until the transaction ends.
pub(crate) async fn check_not_deleted(tx: &mut Tx, wal: Uuid) -> Result<()> {
    let found = tx
        .one(sql("SELECT deleted FROM wal_streams WHERE id = $1").bind(wal))
        .await?;
    match found {
        None => Err(MetaError::NotFound {
            what: "WAL",
            name: wal.to_string(),
        }),
        Some(row) if row.bool("deleted")? => Err(MetaError::WalDeleted { wal }),
        Some(_) => Ok(()),
    }
}
