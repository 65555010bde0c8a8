//! Consumer groups: who reads together, and how far they have read.
//!
//! Who the members are and what each of them reads is one document, which the broker alone understands. Whoever changes it
//! names the version that it read, so nothing that others changed meanwhile is lost; and so does whoever commits: what was
//! true of the members when the document was read is true of them when the offsets are stored.

use std::num::NonZeroU32;

use millstream_batch::Offset;
use serde_json::json as value;
use uuid::Uuid;

use crate::database::{Fields, Tx, as_json, bigint, json, sql};
use crate::topics::check_name;
use crate::{MetaError, Metadata, Result};

/// The most groups that there can be.
pub const GROUPS_MAX: u64 = 10_000;
/// The most bytes of what goes with a committed offset.
pub const OFFSET_METADATA_BYTES_MAX: usize = 4_096;

/// A group as it stands in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRow {
    /// Its name.
    pub name: String,
    /// Never falls.
    pub generation: u64,
    /// Grows with each change of the generation and the members.
    pub version: u64,
    /// The document about its members, JSON.
    pub members_json: String,
}

/// A group, where there is one, at a time of the database's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupNow {
    /// When it was read, by the database's clock, ms since 1970.
    pub now_ms: i64,
    /// The group.
    pub group: Option<GroupRow>,
}

/// How far a group has read one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The partition's topic.
    pub topic_id: Uuid,
    /// That topic's name. Not looked at when it is stored.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The next offset to read.
    pub offset: Offset,
    /// What was stored beside it.
    pub metadata: String,
    /// When it was stored.
    pub committed_at_ms: i64,
}

/// Where a partition begins, and where its segments end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionEnds {
    /// The partition's topic.
    pub topic_id: Uuid,
    /// The partition.
    pub partition: u32,
    /// The first offset that can be read.
    pub log_start: Offset,
    /// The end of what is in committed segments.
    pub committed_end: Offset,
}

impl Metadata {
    /// The group of this name, with the time of the database.
    pub async fn group(&self, name: &str) -> Result<GroupNow> {
        let found = sql("SELECT {now_ms} AS now_ms, g.name, g.generation, g.version, g.members \
             FROM (SELECT 1 AS one) o LEFT JOIN consumer_groups g ON g.name = $1");
        let row = self.database.read_one(found.bind(name)).await?;
        let row = row.expect("the left side of the join has one row");
        let group = match row.text_or_null("name")? {
            None => None,
            Some(_) => Some(group(&row)?),
        };
        let now_ms = row.i64("now_ms")?;
        Ok(GroupNow { now_ms, group })
    }

    /// The groups whose names come after `after`, in order of name, at most `limit` of them, with the time of the database.
    pub async fn groups_after(&self, after: &str, limit: NonZeroU32) -> Result<(i64, Vec<GroupRow>)> {
        let mut tx = self.database.snapshot().await?;
        let now = tx.one(sql("SELECT {now_ms} AS now_ms")).await?;
        let now_ms = now.expect("the statement gives one row").i64("now_ms")?;
        let found = sql(
            "SELECT name, generation, version, members FROM consumer_groups WHERE name > $1 \
             ORDER BY name LIMIT $2",
        );
        let rows = tx.all(found.bind(after).bind(limit.get())).await?;
        Ok((now_ms, rows.iter().map(group).collect::<Result<_>>()?))
    }

    /// The names of groups from `first` to `last`, each with the name of a topic that it has committed offsets of.
    pub async fn committed_topics(&self, first: &str, last: &str) -> Result<Vec<(String, String)>> {
        let found = sql(
            "SELECT DISTINCT o.group_name, t.name FROM consumer_offsets o JOIN topics t ON t.id = o.topic_id \
             WHERE o.group_name >= $1 AND o.group_name <= $2 ORDER BY o.group_name, t.name",
        );
        let rows = self.database.read_all(found.bind(first).bind(last)).await?;
        rows.iter()
            .map(|row| Ok((row.text("group_name")?, row.text("name")?)))
            .collect()
    }

    /// Gives a group other members. With no version it is made.
    ///
    /// 1. Nothing changes unless the group has this version, or, where none is named, there is no group of the name.
    /// 2. The version afterwards is greater than any that a group of this name had, as long as the database's clock does not
    ///    go back.
    ///
    /// # Errors
    /// `Conflict` where the version is another one, also when asked again after a lost answer: read it again. `TooMany` for
    /// one more than [`GROUPS_MAX`]. `Invalid` for a name that no group can have, and for a document that is none.
    pub async fn write_group(
        &self,
        name: &str,
        version: Option<u64>,
        generation: u64,
        members_json: &str,
        now_ms: i64,
    ) -> Result<()> {
        check_name("group", name)?;
        let members = &json("the members of a group", members_json)?;
        let generation = bigint("generation", generation)?;
        let write = self.database.transaction(|mut tx| async move {
            if !expect_version(&mut tx, name, version).await? {
                make(&mut tx, name, now_ms).await?;
            }
            let set = sql(
                "UPDATE consumer_groups SET generation = $2, members = $3, version = version + 1 \
                 WHERE name = $1",
            );
            tx.execute(set.bind(name).bind(generation).bind(members.clone()))
                .await?;
            tx.commit().await
        });
        write.await
    }

    /// Stores how far a group has read. With no version the group is made.
    ///
    /// 1. All of it is stored, or nothing.
    /// 2. Nothing is stored unless the group has this version, or, where none is named, there is no group of the name.
    /// 3. What is stored goes with its partition: a topic that is deleted, and made again, has no committed offsets.
    ///
    /// Asking again after a lost answer stores the same again.
    ///
    /// # Errors
    /// `Conflict`, `TooMany` and `Invalid` as [`Metadata::write_group`]; `NotFound` where one of the partitions is gone.
    pub async fn commit_offsets(&self, name: &str, version: Option<u64>, offsets: &[CommittedOffset]) -> Result<()> {
        check_name("group", name)?;
        let now_ms = offsets.iter().map(|offset| offset.committed_at_ms).max().unwrap_or(0);
        let rows: Vec<_> = offsets.iter().map(offset_row).collect::<Result<_>>()?;
        let rows = &as_json(&rows);
        let commit = self.database.transaction(|mut tx| async move {
            if !expect_version(&mut tx, name, version).await? {
                make(&mut tx, name, now_ms).await?;
            }
            let insert = sql(
                "INSERT INTO consumer_offsets (group_name, topic_id, partition, next_offset, metadata, committed_at_ms) \
                 SELECT $1, p.topic_id, p.partition, e.value ->> 'o', e.value ->> 'm', e.value ->> 'c' \
                 FROM json_each($2) e JOIN partitions p \
                      ON p.topic_id = unhex(e.value ->> 't') AND p.partition = e.value ->> 'p' WHERE TRUE \
                 ON CONFLICT (group_name, topic_id, partition) DO UPDATE SET next_offset = excluded.next_offset, \
                     metadata = excluded.metadata, committed_at_ms = excluded.committed_at_ms",
            )
            .on_postgres(
                "INSERT INTO consumer_offsets (group_name, topic_id, partition, next_offset, metadata, committed_at_ms) \
                 SELECT $1, p.topic_id, p.partition, e.o, e.m, e.c \
                 FROM jsonb_to_recordset($2) AS e (t UUID, p BIGINT, o BIGINT, m TEXT, c BIGINT) \
                 JOIN partitions p ON p.topic_id = e.t AND p.partition = e.p \
                 ON CONFLICT (group_name, topic_id, partition) DO UPDATE SET next_offset = excluded.next_offset, \
                     metadata = excluded.metadata, committed_at_ms = excluded.committed_at_ms",
            );
            let stored = tx.execute(insert.bind(name).bind(rows.clone())).await?;
            if stored != offsets.len() as u64 {
                return Err(MetaError::NotFound {
                    what: "partition",
                    name: "one of those to commit".to_owned(),
                });
            }
            tx.commit().await
        });
        commit.await
    }

    /// What a group has committed, in order of topic and partition. Nothing of a group that there is not.
    pub async fn committed_offsets(&self, name: &str) -> Result<Vec<CommittedOffset>> {
        let found = sql(
            "SELECT o.topic_id, t.name, o.partition, o.next_offset, o.metadata, o.committed_at_ms \
             FROM consumer_offsets o JOIN topics t ON t.id = o.topic_id WHERE o.group_name = $1 \
             ORDER BY t.name, o.partition",
        );
        let rows = self.database.read_all(found.bind(name)).await?;
        rows.iter().map(committed_offset).collect()
    }

    /// Forgets a group, and what it has committed.
    ///
    /// 1. Nothing is forgotten unless the group has this version.
    ///
    /// # Errors
    /// `Conflict`; `NotFound`, also when asked again after a lost answer.
    pub async fn delete_group(&self, name: &str, version: u64) -> Result<()> {
        let delete = self.database.transaction(|mut tx| async move {
            if found_version(&mut tx, name).await?.is_none() {
                return Err(MetaError::NotFound {
                    what: "group",
                    name: name.to_owned(),
                });
            }
            expect_version(&mut tx, name, Some(version)).await?;
            // What it has committed goes with it by its foreign key.
            tx.execute(sql("DELETE FROM consumer_groups WHERE name = $1").bind(name))
                .await?;
            tx.commit().await
        });
        delete.await
    }

    /// Where these partitions begin and where their segments end; nothing of one that there is not.
    pub async fn partition_ends(&self, partitions: &[(Uuid, u32)]) -> Result<Vec<PartitionEnds>> {
        let asked: Vec<_> = partitions
            .iter()
            .map(|(topic_id, partition)| value!({"t": topic_id.simple().to_string(), "p": partition}))
            .collect();
        let found = sql("SELECT p.topic_id, p.partition, p.log_start, p.committed_end \
             FROM json_each($1) e JOIN partitions p \
                  ON p.topic_id = unhex(e.value ->> 't') AND p.partition = e.value ->> 'p'")
        .on_postgres(
            "SELECT p.topic_id, p.partition, p.log_start, p.committed_end \
             FROM jsonb_to_recordset($1) AS e (t UUID, p BIGINT) JOIN partitions p ON p.topic_id = e.t AND p.partition = e.p",
        );
        let rows = self.database.read_all(found.bind(as_json(&asked))).await?;
        let ends = rows.iter().map(|row| {
            Ok(PartitionEnds {
                topic_id: row.uuid("topic_id")?,
                partition: row.u32("partition")?,
                log_start: row.offset("log_start")?,
                committed_end: row.offset("committed_end")?,
            })
        });
        ends.collect()
    }
}

async fn found_version(tx: &mut Tx, name: &str) -> Result<Option<u64>> {
    let found = sql("SELECT version FROM consumer_groups WHERE name = $1");
    let row = tx.one(found.bind(name)).await?;
    row.map(|row| row.u64("version")).transpose()
}

/// Whether the group is there; fails unless it has the version that the caller read.
async fn expect_version(tx: &mut Tx, name: &str, expected: Option<u64>) -> Result<bool> {
    let found = found_version(tx, name).await?;
    if found == expected {
        return Ok(found.is_some());
    }
    Err(MetaError::Conflict {
        what: "the version of the group",
        expected: expected.unwrap_or(0),
        found: found.unwrap_or(0),
    })
}

async fn make(tx: &mut Tx, name: &str, now_ms: i64) -> Result<()> {
    let count = tx.one(sql("SELECT COUNT(*) AS count FROM consumer_groups")).await?;
    if count.expect("an aggregate without groups has one row").u64("count")? >= GROUPS_MAX {
        return Err(MetaError::TooMany {
            what: "groups",
            most: GROUPS_MAX,
        });
    }
    let insert =
        sql("INSERT INTO consumer_groups (name, generation, created_at_ms, version) VALUES ($1, 0, $2, {now_ms})");
    tx.execute(insert.bind(name).bind(now_ms)).await.map(drop)
}

fn offset_row(offset: &CommittedOffset) -> Result<serde_json::Value> {
    let invalid = |reason: String| Err(MetaError::Invalid { reason });
    if offset.metadata.len() > OFFSET_METADATA_BYTES_MAX {
        let bytes = offset.metadata.len();
        return invalid(format!(
            "{bytes} bytes of metadata are too many, allowed are {OFFSET_METADATA_BYTES_MAX}"
        ));
    }
    if offset.metadata.contains('\0') {
        return invalid("the metadata of an offset have no character U+0000".to_owned());
    }
    Ok(value!({
        "t": offset.topic_id.simple().to_string(), "p": offset.partition, "o": bigint("offset", offset.offset.0)?,
        "m": offset.metadata, "c": offset.committed_at_ms,
    }))
}

fn group(row: &Fields) -> Result<GroupRow> {
    Ok(GroupRow {
        name: row.text("name")?,
        generation: row.u64("generation")?,
        version: row.u64("version")?,
        members_json: row.json("members")?,
    })
}

fn committed_offset(row: &Fields) -> Result<CommittedOffset> {
    Ok(CommittedOffset {
        topic_id: row.uuid("topic_id")?,
        topic: row.text("name")?,
        partition: row.u32("partition")?,
        offset: row.offset("next_offset")?,
        metadata: row.text("metadata")?,
        committed_at_ms: row.i64("committed_at_ms")?,
    })
}
