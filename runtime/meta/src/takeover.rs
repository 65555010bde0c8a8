//! Taking over what other incarnations left, a whole WAL at a time: a start asks a few times, however many partitions
//! there are.

use uuid::Uuid;

use crate::agents::own_agent;
use crate::database::{Fields, Tx, sql};
use crate::leases::{EPOCH_MAX, check_not_deleted};
use crate::wals::{WalKind, stream, unknown_wal};
use crate::{Lease, MetaError, Metadata, Result, WalStream};

impl Metadata {
    /// Makes `incarnation` the holder of every partition whose pointer names `wal` and that no other live incarnation
    /// holds; their leases, by topic and number.
    ///
    /// 1. For each of them as [`Metadata::acquire_lease`]; for all of them at once.
    /// 2. Partitions that another live incarnation holds or has because it writes that WAL, or that have no epoch left,
    ///    are left out.
    ///
    /// # Errors
    /// `WalElsewhere` where the WAL is on the disk of another agent; `Superseded` where ours is over; `NotFound` for the
    /// WAL or the incarnation.
    pub async fn take_over_wal(&self, wal: Uuid, incarnation: Uuid) -> Result<Vec<Lease>> {
        let _forget = self.cache.forgetting(|cache| cache.forget_partitions());
        let taken = self.database.transaction(|mut tx| async move {
            let agent = own_agent(&mut tx, incarnation).await?;
            check_reachable(&mut tx, wal, &agent).await?;
            // The lease rows go first: by their epoch, one ahead of the partition's, it is known which were taken.
            let hold = sql(
                "INSERT INTO partition_leases (topic_id, partition, epoch, incarnation) \
                 SELECT p.topic_id, p.partition, p.epoch + 1, $2 FROM partitions p \
                 WHERE p.wal_id = $1 AND p.epoch < $3 AND NOT EXISTS ( \
                     SELECT 1 FROM partition_leases l JOIN agents a ON a.incarnation = l.incarnation \
                     WHERE l.topic_id = p.topic_id AND l.partition = p.partition AND l.epoch = p.epoch \
                     AND l.incarnation <> $2 AND a.lease_expires_at_ms > {now_ms}) \
                 AND (EXISTS ( \
                     SELECT 1 FROM partition_leases l WHERE l.topic_id = p.topic_id AND l.partition = p.partition \
                     AND l.epoch = p.epoch AND l.incarnation = $2) \
                 OR NOT EXISTS ( \
                     SELECT 1 FROM agents a WHERE a.incarnation = $1 AND a.incarnation <> $2 \
                     AND a.lease_expires_at_ms > {now_ms})) \
                 ON CONFLICT (topic_id, partition) DO UPDATE SET epoch = excluded.epoch, incarnation = excluded.incarnation",
            );
            tx.execute(hold.bind(wal).bind(incarnation).bind(EPOCH_MAX)).await?;
            let raise = sql(
                "UPDATE partitions SET epoch = epoch + 1 WHERE wal_id = $1 AND EXISTS ( \
                     SELECT 1 FROM partition_leases l WHERE l.topic_id = partitions.topic_id \
                     AND l.partition = partitions.partition AND l.epoch = partitions.epoch + 1 AND l.incarnation = $2) \
                 RETURNING topic_id, partition, epoch, committed_end, log_start, wal_id",
            );
            let rows = tx.all(raise.bind(wal).bind(incarnation)).await?;
            let mut leases = rows.iter().map(lease).collect::<Result<Vec<_>>>()?;
            leases.sort_by_key(|lease| (lease.topic_id, lease.partition));
            tx.commit().await?;
            Ok(leases)
        });
        taken.await
    }

    /// Moves every WAL pointer from `from` to `to`, the WAL of an incarnation, where that incarnation holds the
    /// partition; how many it moved.
    ///
    /// 1. For each of them as [`Metadata::move_wal_pointer`]; for all of them at once.
    ///
    /// Asking again after a lost answer moves nothing more.
    ///
    /// # Errors
    /// `WalDeleted`, `NotFound` for the WAL `to`.
    pub async fn move_wal_pointers(&self, from: Uuid, to: Uuid) -> Result<u64> {
        let _forget = self.cache.forgetting(|cache| cache.forget_partitions());
        let moved = self.database.transaction(|mut tx| async move {
            check_not_deleted(&mut tx, to).await?;
            let point = sql("UPDATE partitions SET wal_id = $2 WHERE wal_id = $1 AND EXISTS ( \
                     SELECT 1 FROM partition_leases l WHERE l.topic_id = partitions.topic_id \
                     AND l.partition = partitions.partition AND l.epoch = partitions.epoch AND l.incarnation = $2)");
            let moved = tx.execute(point.bind(from).bind(to)).await?;
            tx.commit().await?;
            Ok(moved)
        });
        moved.await
    }

    /// The WALs of earlier incarnations of the agent of `incarnation` that some pointer names, oldest first: what its
    /// start takes over.
    pub async fn own_wals(&self, incarnation: Uuid) -> Result<Vec<WalStream>> {
        let found = sql(
            "SELECT w.id, w.kind, w.trim_floor FROM wal_streams ours JOIN wal_streams w ON w.agent = ours.agent \
             WHERE ours.id = $1 AND w.id <> $1 AND EXISTS (SELECT 1 FROM partitions p WHERE p.wal_id = w.id) \
             ORDER BY w.created_at_ms, w.id",
        );
        let rows = self.database.read_all(found.bind(incarnation)).await?;
        rows.iter().map(stream).collect()
    }

    /// The WALs that are not marked deleted and not of a live incarnation, nor of `except`, oldest first.
    pub async fn dead_wals(&self, except: Uuid) -> Result<Vec<WalStream>> {
        let found = sql(
            "SELECT w.id, w.kind, w.trim_floor FROM wal_streams w WHERE NOT w.deleted AND w.id <> $1 AND NOT EXISTS ( \
                 SELECT 1 FROM agents a WHERE a.incarnation = w.id AND a.lease_expires_at_ms > {now_ms}) \
             ORDER BY w.created_at_ms, w.id",
        );
        let rows = self.database.read_all(found.bind(except)).await?;
        rows.iter().map(stream).collect()
    }
}

/// Fails where the WAL is on the disk of another agent than ours and something points to it.
async fn check_reachable(tx: &mut Tx, wal: Uuid, agent: &str) -> Result<()> {
    let found = sql(
        "SELECT w.kind, a.name, a.address, p.topic_id, p.partition FROM wal_streams w JOIN agents a ON a.name = w.agent \
         LEFT JOIN partitions p ON p.wal_id = w.id WHERE w.id = $1 LIMIT 1",
    );
    let row = tx.one(found.bind(wal)).await?.ok_or_else(|| unknown_wal(wal))?;
    if WalKind::read(&row)? == WalKind::Object || row.text("name")? == agent {
        return Ok(());
    }
    match row.uuid_or_null("topic_id")? {
        // It holds nothing that anybody wants.
        None => Ok(()),
        Some(topic_id) => Err(MetaError::WalElsewhere {
            topic_id,
            partition: row.u32("partition")?,
            wal,
            agent: row.text("name")?,
            address: row.text("address")?,
        }),
    }
}

fn lease(row: &Fields) -> Result<Lease> {
    Ok(Lease {
        topic_id: row.uuid("topic_id")?,
        partition: row.u32("partition")?,
        epoch: row.epoch("epoch")?,
        committed_end: row.offset("committed_end")?,
        log_start: row.offset("log_start")?,
        wal: row.uuid_or_null("wal_id")?,
    })
}
