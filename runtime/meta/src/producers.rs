//! Idempotent producers: the id and epoch of those that have a name, and what each partition knows of its producers.
//!
//! What a partition knows is bytes of the broker's making, as Base64. It belongs to the committed end: whatever the
//! partition's WAL holds at or beyond that comes on top.

use millstream_batch::Offset;

use crate::database::{Tx, as_json, bigint, sql};
use crate::{Lease, MetaError, Metadata, Result};

/// Named producers that are remembered; beyond it those go that were initialised longest ago.
pub const NAMED_PRODUCERS_MAX: u32 = 100_000;
/// The greatest epoch of a producer: batches carry it as an i16.
const PRODUCER_EPOCH_MAX: i64 = i16::MAX as i64;

/// The id and the epoch under which a producer numbers its batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerIdentity {
    /// 0 or more.
    pub id: i64,
    /// 0 or more.
    pub epoch: i16,
}

impl Metadata {
    /// Gives a named producer its id, and an epoch greater than all it had.
    ///
    /// 1. A name that is not known gets `fresh_id` and epoch 0; one whose epochs are used up does too.
    /// 2. No two calls give the same id and epoch.
    ///
    /// Asking again after a lost answer gives a still greater epoch.
    ///
    /// # Errors
    /// `Invalid` for a negative id.
    pub async fn init_producer(&self, name: &str, fresh_id: i64, now_ms: i64) -> Result<ProducerIdentity> {
        if fresh_id < 0 {
            let reason = format!("producer id {fresh_id} is negative");
            return Err(MetaError::Invalid { reason });
        }
        let init = self.database.transaction(|mut tx| async move {
            let known = sql("SELECT producer_id, producer_epoch FROM producers WHERE name = $1").bind(name);
            let (id, epoch) = match tx.one(known).await? {
                Some(row) => match row.i64("producer_epoch")? {
                    PRODUCER_EPOCH_MAX => (fresh_id, 0),
                    epoch => (row.i64("producer_id")?, epoch + 1),
                },
                None => {
                    make_room(&mut tx).await?;
                    (fresh_id, 0)
                }
            };
            let keep = sql(
                "INSERT INTO producers (name, producer_id, producer_epoch, initialized_at_ms) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (name) DO UPDATE SET producer_id = excluded.producer_id, \
                     producer_epoch = excluded.producer_epoch, initialized_at_ms = excluded.initialized_at_ms",
            );
            tx.execute(keep.bind(name).bind(id).bind(epoch).bind(now_ms)).await?;
            tx.commit().await?;
            let epoch = i16::try_from(epoch).expect("the table bounds epochs");
            Ok(ProducerIdentity { id, epoch })
        });
        init.await
    }

    /// What the partitions of these leases know of their producers, in the order of the leases; `None` where there never was one.
    ///
    /// 1. Read under a lease that was just acquired, nobody else changes it any more.
    pub async fn partition_producers(&self, leases: &[Lease]) -> Result<Vec<Option<String>>> {
        let asked: Vec<_> = leases
            .iter()
            .map(|lease| (lease.topic_id.simple().to_string(), lease.partition))
            .collect();
        let found = sql(
            "SELECT e.key AS position, s.state FROM json_each($1) e JOIN partition_producers s \
             ON s.topic_id = unhex(e.value ->> 0) AND s.partition = e.value ->> 1",
        )
        .on_postgres(
            "SELECT e.position - 1 AS position, s.state \
             FROM jsonb_array_elements($1) WITH ORDINALITY AS e (value, position) JOIN partition_producers s \
             ON s.topic_id = CAST(e.value ->> 0 AS UUID) AND s.partition = CAST(e.value ->> 1 AS BIGINT)",
        );
        let mut states = vec![None; leases.len()];
        for row in self.database.read_all(found.bind(as_json(&asked))).await? {
            if let Some(state) = states.get_mut(row.u32("position")? as usize) {
                *state = Some(row.text("state")?);
            }
        }
        Ok(states)
    }

    /// Keeps what a partition knows of its producers, between two segments.
    ///
    /// 1. It is kept only where the lease's epoch is the partition's, and `end` its committed end.
    ///
    /// Asking again after a lost answer succeeds.
    ///
    /// # Errors
    /// `Fenced` for another epoch or committed end.
    pub async fn keep_partition_producers(&self, lease: &Lease, end: Offset, state: &str) -> Result<()> {
        let keep = self.database.transaction(|mut tx| async move {
            let standing = sql("SELECT partition FROM partitions \
                 WHERE topic_id = $1 AND partition = $2 AND epoch = $3 AND committed_end = $4");
            let standing = standing.bind(lease.topic_id).bind(lease.partition);
            let standing = standing.bind(bigint("epoch", lease.epoch.0)?);
            if tx.one(standing.bind(bigint("offset", end.0)?)).await?.is_none() {
                return Err(lease.fenced());
            }
            write_state(&mut tx, lease, state).await?;
            tx.commit().await
        });
        keep.await
    }
}

/// Writes what a partition knows of its producers; the transaction has checked the lease.
pub(crate) async fn write_state(tx: &mut Tx, lease: &Lease, state: &str) -> Result<()> {
    let write = sql(
        "INSERT INTO partition_producers (topic_id, partition, state) VALUES ($1, $2, $3) \
         ON CONFLICT (topic_id, partition) DO UPDATE SET state = excluded.state",
    );
    let write = write.bind(lease.topic_id).bind(lease.partition).bind(state);
    tx.execute(write).await.map(drop)
}

/// Lets the producers go that were initialised longest ago, where there are too many.
async fn make_room(tx: &mut Tx) -> Result<()> {
    let beyond = sql("DELETE FROM producers WHERE name IN ( \
         SELECT name FROM producers ORDER BY initialized_at_ms DESC, name LIMIT 1000 OFFSET $1)");
    tx.execute(beyond.bind(NAMED_PRODUCERS_MAX - 1)).await.map(drop)
}
