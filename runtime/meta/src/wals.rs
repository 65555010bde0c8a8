//! The write-ahead logs, one of each incarnation.
//!
//! An incarnation has one WAL, and they share one id. A WAL is deleted in two steps: first it is marked here, which no
//! pointer may name afterwards, then its files or objects go.

use millstream_batch::Offset;
use uuid::Uuid;

use crate::database::{Fields, as_json, bigint, sql};
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
    pub(crate) fn name(self) -> &'static str {
        match self {
            WalKind::Disk => "disk",
            WalKind::Object => "object",
        }
    }

    pub(crate) fn read(row: &Fields) -> Result<WalKind> {
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
    /// Every partition that has a WAL pointer, by topic and number: these may have frames to recover.
    pub async fn pointed_partitions(&self) -> Result<Vec<PointedPartition>> {
        let found = sql(
            "SELECT p.topic_id, p.partition, p.committed_end, p.wal_id, w.kind, w.trim_floor \
             FROM partitions p JOIN wal_streams w ON w.id = p.wal_id ORDER BY p.topic_id, p.partition",
        );
        self.database.read_all(found).await?.iter().map(pointed).collect()
    }

    /// One WAL, marked deleted or not.
    pub async fn wal(&self, id: Uuid) -> Result<Option<WalStream>> {
        let found = sql("SELECT id, kind, trim_floor FROM wal_streams WHERE id = $1");
        let row = self.database.read_one(found.bind(id)).await?;
        row.as_ref().map(stream).transpose()
    }

    /// Moves a WAL's trim floor up: what lies below it is not read any more, and can be deleted afterwards.
    ///
    /// 1. It never moves down: asked for less than it is, nothing changes.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn move_trim_floor(&self, wal: Uuid, floor: u64) -> Result<()> {
        let raise = sql(
            "UPDATE wal_streams SET trim_floor = CASE WHEN trim_floor < $2 THEN $2 ELSE trim_floor END WHERE id = $1",
        );
        let raise = raise.bind(wal).bind(bigint("trim floor", floor)?);
        match self.database.write(raise).await? {
            0 => Err(unknown_wal(wal)),
            _ => Ok(()),
        }
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
        let retire = self.database.transaction(|mut tx| async move {
            let mark = sql("UPDATE wal_streams SET deleted = TRUE WHERE id = $1");
            if tx.execute(mark.bind(wal)).await? == 0 {
                return Err(unknown_wal(wal));
            }
            let pointed = sql("SELECT partition FROM partitions WHERE wal_id = $1 LIMIT 1");
            if tx.one(pointed.bind(wal)).await?.is_some() {
                return Ok(false);
            }
            tx.commit().await?;
            Ok(true)
        });
        retire.await
    }

    /// Which of these WALs are marked deleted: what is stored of them can go.
    pub async fn retired_wals(&self, among: &[Uuid]) -> Result<Vec<Uuid>> {
        let asked: Vec<_> = among.iter().map(|id| id.simple().to_string()).collect();
        let found = sql(
            "SELECT id FROM wal_streams WHERE deleted AND id IN (SELECT unhex(e.value) FROM json_each($1) e) ORDER BY id",
        )
        .on_postgres(
            "SELECT id FROM wal_streams WHERE deleted \
             AND id IN (SELECT CAST(e.value AS UUID) FROM jsonb_array_elements_text($1) e) ORDER BY id",
        );
        let rows = self.database.read_all(found.bind(as_json(&asked))).await?;
        rows.iter().map(|row| row.uuid("id")).collect()
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

pub(crate) fn stream(row: &Fields) -> Result<WalStream> {
    Ok(WalStream {
        id: row.uuid("id")?,
        kind: WalKind::read(row)?,
        trim_floor: row.u64("trim_floor")?,
    })
}

pub(crate) fn unknown_wal(wal: Uuid) -> MetaError {
    MetaError::NotFound {
        what: "WAL",
        name: wal.to_string(),
    }
}
