//! What stands about one partition: its offsets, its WAL pointer and its holder.

use millstream_batch::{Epoch, Offset};
use uuid::Uuid;

use crate::database::{Fields, Tx, sql};
use crate::leases::EPOCH_MAX;
use crate::wals::WalKind;
use crate::{MetaError, Metadata, Result};

/// A partition as it stands in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionRow {
    /// The greatest epoch ever given.
    pub epoch: Epoch,
    /// The first offset that can be read.
    pub log_start: Offset,
    /// The end of what is in committed segments.
    pub committed_end: Offset,
    /// The WAL that may hold frames at or beyond `committed_end`.
    pub wal: Option<Uuid>,
    /// Who holds its lease.
    pub holder: Option<Holder>,
}

/// The incarnation that holds a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its agent's name.
    pub agent: String,
    /// HOST:PORT at which its agent answers, or a later incarnation of it.
    pub address: String,
    /// Its id.
    pub incarnation: Uuid,
    /// Whether the lease keeps others off: the incarnation is its agent's current one, and its time is not over.
    pub live: bool,
}

impl Metadata {
    /// One partition; `None` where there is no such topic or partition.
    pub async fn partition(&self, topic_id: Uuid, partition: u32) -> Result<Option<PartitionRow>> {
        let found = sql(
            "SELECT p.epoch, p.log_start, p.committed_end, p.wal_id, l.incarnation, a.name, a.address, \
                    (a.incarnation = l.incarnation AND a.lease_expires_at_ms > {now_ms}) AS live \
             FROM partitions p \
             LEFT JOIN partition_leases l ON l.topic_id = p.topic_id AND l.partition = p.partition AND l.epoch = p.epoch \
             LEFT JOIN wal_streams w ON w.id = l.incarnation LEFT JOIN agents a ON a.name = w.agent \
             WHERE p.topic_id = $1 AND p.partition = $2",
        );
        let row = self.database.read_one(found.bind(topic_id).bind(partition)).await?;
        row.as_ref().map(partition_row).transpose()
    }
}

fn partition_row(row: &Fields) -> Result<PartitionRow> {
    let holder = match row.uuid_or_null("incarnation")? {
        None => None,
        Some(incarnation) => Some(Holder {
            agent: row.text("name")?,
            address: row.text("address")?,
            incarnation,
            live: row.bool("live")?,
        }),
    };
    Ok(PartitionRow {
        epoch: row.epoch("epoch")?,
        log_start: row.offset("log_start")?,
        committed_end: row.offset("committed_end")?,
        wal: row.uuid_or_null("wal_id")?,
        holder,
    })
}

/// What decides whether a partition can be acquired.
pub(crate) struct Standing {
    topic_id: Uuid,
    partition: u32,
    epoch: Epoch,
    pub(crate) committed_end: Offset,
    pub(crate) log_start: Offset,
    pub(crate) wal: Option<Uuid>,
    /// Who has it while it lives.
    holder: Option<Live>,
    /// Who writes the WAL that the pointer names.
    writer: Option<Live>,
    /// Whose disk that WAL is on: agent, address.
    disk: Option<(String, String)>,
}

/// An incarnation that lives.
struct Live {
    incarnation: Uuid,
    agent: String,
    address: String,
    expires_in_ms: u64,
}

impl Live {
    /// The one in the columns of this prefix, where it is there and its time is not over.
    fn read(row: &Fields, prefix: &str) -> Result<Option<Live>> {
        let column = |name| format!("{prefix}_{name}");
        let ms = row.i64_or_null(&column("expires_in_ms"))?;
        let Some(expires_in_ms) = ms.and_then(|ms| u64::try_from(ms).ok()).filter(|ms| *ms > 0) else {
            return Ok(None);
        };
        Ok(Some(Live {
            incarnation: row.uuid(&column("incarnation"))?,
            agent: row.text(&column("agent"))?,
            address: row.text(&column("address"))?,
            expires_in_ms,
        }))
    }
}

impl Standing {
    /// Whether this incarnation of this agent may have it.
    pub(crate) fn check_free_for(&self, agent: &str, incarnation: Uuid) -> Result<()> {
        let (topic_id, partition) = (self.topic_id, self.partition);
        // Who holds it goes on, whoever writes the WAL: it began while that one was not live. Were both refused because
        // of the other, nobody could ever have it.
        if let Some(live) = self.holder.as_ref().or(self.writer.as_ref())
            && live.incarnation != incarnation
        {
            return Err(MetaError::LeaseHeld {
                topic_id,
                partition,
                agent: live.agent.clone(),
                address: live.address.clone(),
                expires_in_ms: live.expires_in_ms,
            });
        }
        match (&self.disk, self.wal) {
            (Some((of, address)), Some(wal)) if of != agent => Err(MetaError::WalElsewhere {
                topic_id,
                partition,
                wal,
                agent: of.clone(),
                address: address.clone(),
            }),
            _ if self.epoch.0 >= EPOCH_MAX as u64 => Err(MetaError::EpochsExhausted { topic_id, partition }),
            _ => Ok(()),
        }
    }
}

/// How a partition stands; it stays so until the transaction ends.
pub(crate) async fn standing(tx: &mut Tx, topic_id: Uuid, partition: u32) -> Result<Standing> {
    // An agent names its current incarnation: joined by that, a holder that was superseded is none.
    let found = sql("SELECT p.epoch, p.committed_end, p.log_start, p.wal_id, \
                l.incarnation AS holder_incarnation, h.name AS holder_agent, h.address AS holder_address, \
                h.lease_expires_at_ms - {now_ms} AS holder_expires_in_ms, \
                w.kind, p.wal_id AS writer_incarnation, d.name AS writer_agent, d.address AS writer_address, \
                CASE WHEN d.incarnation = p.wal_id THEN d.lease_expires_at_ms - {now_ms} END AS writer_expires_in_ms \
         FROM partitions p \
         LEFT JOIN partition_leases l ON l.topic_id = p.topic_id AND l.partition = p.partition AND l.epoch = p.epoch \
         LEFT JOIN agents h ON h.incarnation = l.incarnation \
         LEFT JOIN wal_streams w ON w.id = p.wal_id LEFT JOIN agents d ON d.name = w.agent \
         WHERE p.topic_id = $1 AND p.partition = $2");
    let row = tx.one(found.bind(topic_id).bind(partition)).await?;
    let row = row.ok_or_else(|| MetaError::NotFound {
        what: "partition",
        name: format!("{topic_id}/{partition}"),
    })?;
    let wal = row.uuid_or_null("wal_id")?;
    let disk = match wal {
        Some(_) if WalKind::read(&row)? == WalKind::Disk => {
            Some((row.text("writer_agent")?, row.text("writer_address")?))
        }
        _ => None,
    };
    Ok(Standing {
        topic_id,
        partition,
        epoch: row.epoch("epoch")?,
        committed_end: row.offset("committed_end")?,
        log_start: row.offset("log_start")?,
        wal,
        holder: Live::read(&row, "holder")?,
        writer: Live::read(&row, "writer")?,
        disk,
    })
}
