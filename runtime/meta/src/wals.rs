//! Agents, their incarnations, and the WAL of each incarnation.
//!
//! An incarnation has one WAL, and they share one id. A WAL is deleted in two steps: first it is marked here, which no
//! pointer may name afterwards, then its files or objects go.

use millstream_batch::Offset;
use sqlx::query;
use uuid::Uuid;

use crate::fields::{Fields, bigint};
use crate::topics::check_name;
use crate::{MetaError, Metadata, Result};

/// Where a WAL is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalKind {
    /// In files on the disk of its agent.
    Disk,
    /// In objects that every agent can read.
    Object,
}

impl WalKind {
    fn name(self) -> &'static str {
        match self {
            WalKind::Disk => "disk",
            WalKind::Object => "object",
        }
    }

    fn read(row: &Fields) -> Result<WalKind> {
        match row.text("kind")?.as_str() {
            "disk" => Ok(WalKind::Disk),
            "object" => Ok(WalKind::Object),
            other => Err(row.corrupt("kind", format!("is {other:?}"))),
        }
    }
}

/// A WAL, and where it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalStream {
    /// Its id, which is also that of its incarnation.
    pub id: Uuid,
    /// Where it is kept.
    pub kind: WalKind,
    /// The first part of it that is still there.
    pub trim_floor: u64,
}

/// A partition that has a WAL pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointedPartition {
    /// The partition's topic.
    pub topic_id: Uuid,
    /// The partition's number.
    pub partition: u32,
    /// The end of what is in committed segments.
    pub committed_end: Offset,
    /// The WAL that may hold its frames.
    pub wal: Uuid,
    /// Where that WAL is kept.
    pub kind: WalKind,
    /// The first part of that WAL that is still there.
    pub trim_floor: u64,
}

impl Metadata {
    /// Makes a new start of an agent known, with the WAL it is going to write.
    ///
    /// 1. `incarnation` is the agent's current one afterwards; the WALs of earlier ones stay until they are retired.
    /// 2. Asking again after a lost answer changes nothing.
    ///
    /// # Errors
    /// `AlreadyExists` for an incarnation that another agent or another kind of WAL used; `Invalid` for a name that is
    /// empty or too long.
    pub async fn register_incarnation(
        &self,
        agent_name: &str,
        incarnation: Uuid,
        wal_kind: WalKind,
        now_ms: i64,
    ) -> Result<()> {
        check_name("agent", agent_name)?;
        let id = incarnation.as_bytes().as_slice();
        let mut tx = self.database.begin().await?;
        let agent = query(
            "INSERT INTO agents (name, incarnation, registered_at_ms) VALUES ($1, $2, $3) ON CONFLICT (name) \
             DO UPDATE SET incarnation = excluded.incarnation, registered_at_ms = excluded.registered_at_ms",
        );
        tx.execute(agent.bind(agent_name).bind(id).bind(now_ms)).await?;
        let wal = query(
            "INSERT INTO wal_streams (id, agent, kind, created_at_ms) VALUES ($1, $2, $3, $4) ON CONFLICT (id) \
             DO UPDATE SET kind = excluded.kind WHERE wal_streams.agent = excluded.agent \
             AND wal_streams.kind = excluded.kind AND NOT wal_streams.deleted",
        );
        if tx
            .execute(wal.bind(id).bind(agent_name).bind(wal_kind.name()).bind(now_ms))
            .await?
            == 0
        {
            return Err(MetaError::AlreadyExists {
                what: "incarnation",
                name: incarnation.to_string(),
            });
        }
        tx.commit().await
    }

    /// Every partition that has a WAL pointer, by topic and number: these may have frames to recover.
    pub async fn pointed_partitions(&self) -> Result<Vec<PointedPartition>> {
        let found = query(
            "SELECT p.topic_id, p.partition, p.committed_end, p.wal_id, w.kind, w.trim_floor \
             FROM partitions p JOIN wal_streams w ON w.id = p.wal_id ORDER BY p.topic_id, p.partition",
        );
        self.database.read_all(found).await?.iter().map(pointed).collect()
    }

    /// One WAL, marked deleted or not.
    pub async fn wal(&self, id: Uuid) -> Result<Option<WalStream>> {
        let found = query("SELECT id, kind, trim_floor FROM wal_streams WHERE id = $1");
        let row = self.database.read_one(found.bind(id.as_bytes().as_slice())).await?;
        row.as_ref().map(stream).transpose()
    }

    /// Moves a WAL's trim floor up: what lies below it is not read any more, and can be deleted afterwards.
    ///
    /// 1. It never moves down: asked for less than it is, nothing changes.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn move_trim_floor(&self, wal: Uuid, floor: u64) -> Result<()> {
        let mut tx = self.database.begin().await?;
        let raise = query(
            "UPDATE wal_streams SET trim_floor = CASE WHEN trim_floor < $2 THEN $2 ELSE trim_floor END WHERE id = $1",
        );
        let raise = raise.bind(wal.as_bytes().as_slice()).bind(bigint("trim floor", floor)?);
        if tx.execute(raise).await? == 0 {
            return Err(unknown_wal(wal));
        }
        tx.commit().await
    }

    /// Marks a WAL deleted unless a pointer names it; whether it is marked now.
    ///
    /// 1. After `true` no pointer names it, and none ever will again: what is stored of it can go.
    /// 2. After `false` nothing has changed.
    ///
    /// Asking again after a lost answer gives `true`.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn retire_wal(&self, wal: Uuid) -> Result<bool> {
        let id = wal.as_bytes().as_slice();
        let mut tx = self.database.begin().await?;
        // The mark is set before the pointers are looked at: it locks the row, so that no pointer comes between.
        if tx
            .execute(query("UPDATE wal_streams SET deleted = TRUE WHERE id = $1").bind(id))
            .await?
            == 0
        {
            return Err(unknown_wal(wal));
        }
        if tx
            .one(query("SELECT partition FROM partitions WHERE wal_id = $1 LIMIT 1").bind(id))
            .await?
            .is_some()
        {
            return Ok(false);
        }
        tx.commit().await?;
        Ok(true)
    }

    /// The WALs of all other incarnations than `except` that are not marked deleted, oldest first.
    pub async fn dead_wals(&self, except: Uuid) -> Result<Vec<WalStream>> {
        let found = query(
            "SELECT id, kind, trim_floor FROM wal_streams WHERE NOT deleted AND id <> $1 ORDER BY created_at_ms, id",
        );
        let rows = self.database.read_all(found.bind(except.as_bytes().as_slice())).await?;
        rows.iter().map(stream).collect()
    }

    /// Which of these WALs are marked deleted: what is stored of them can go.
    pub async fn retired_wals(&self, among: &[Uuid]) -> Result<Vec<Uuid>> {
        let mut retired = Vec::new();
        for id in among {
            let found = query("SELECT id FROM wal_streams WHERE id = $1 AND deleted");
            let found = found.bind(id.as_bytes().as_slice());
            if self.database.read_one(found).await?.is_some() {
                retired.push(*id);
            }
        }
        Ok(retired)
    }
}

fn pointed(row: &Fields) -> Result<PointedPartition> {
    Ok(PointedPartition {
        topic_id: row.uuid("topic_id")?,
        partition: row.u32("partition")?,
        committed_end: row.offset("committed_end")?,
        wal: row.uuid("wal_id")?,
        kind: WalKind::read(row)?,
        trim_floor: row.u64("trim_floor")?,
    })
}

fn stream(row: &Fields) -> Result<WalStream> {
    Ok(WalStream {
        id: row.uuid("id")?,
        kind: WalKind::read(row)?,
        trim_floor: row.u64("trim_floor")?,
    })
}

fn unknown_wal(wal: Uuid) -> MetaError {
    MetaError::NotFound {
        what: "WAL",
        name: wal.to_string(),
    }
}
