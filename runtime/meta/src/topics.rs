//! Topics: name, id, number of partitions, configuration.

use std::fmt;

use millstream_batch::Compression;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::database::{Fields, Statement, as_json, sql};
use crate::{MetaError, Metadata, Result};

/// The greatest number of partitions a topic can have.
pub const PARTITIONS_MAX: u32 = 100_000;

/// What can be set for each topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TopicConfig {
    /// Segments are deleted this long after they were written, ms; `None` keeps them for ever.
    pub retention_ms: Option<u64>,
    /// The oldest segments of a partition are deleted as long as so many bytes of objects are left without them; `None`
    /// sets no bound.
    pub retention_bytes: Option<u64>,
    /// How blocks of segments are compressed.
    #[serde(with = "compression_by_name")]
    pub compression: Compression,
    /// The largest record accepted, bytes as encoded.
    pub record_bytes_max: u32,
    /// A segment is written when this many bytes of batches are waiting for it.
    pub segment_bytes: u64,
    /// A segment is written when its first batch has waited this long, ms.
    pub segment_age_ms: u64,
    /// Raw bytes a block of a segment aims at.
    pub block_bytes: u32,
    /// What the timestamps of records tell.
    pub timestamp_type: TimestampType,
    /// When producers that do not say otherwise are answered.
    pub default_acks: Acks,
}

/// What the timestamps of records tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestampType {
    /// When they were made, as their producer says.
    #[default]
    Create,
    /// When their batch was appended, by the clock of the agent that leads the partition.
    Append,
}

/// When a producer is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Acks {
    /// After the write-ahead log has the batch on stable storage.
    #[default]
    Durable,
    /// Once the batch is appended in memory.
    Memory,
}

impl Default for TopicConfig {
    fn default() -> TopicConfig {
        TopicConfig {
            retention_ms: Some(7 * 24 * 3_600_000),
            retention_bytes: None,
            compression: Compression::Lz4,
            record_bytes_max: 1 << 20,
            segment_bytes: 64 << 20,
            segment_age_ms: 10 * 60_000,
            block_bytes: 1 << 20,
            timestamp_type: TimestampType::Create,
            default_acks: Acks::Durable,
        }
    }
}

/// A topic as it stands in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its identity: a topic deleted and made again under the same name has another.
    pub id: Uuid,
    /// Its name, unique.
    pub name: String,
    /// How many partitions it has, numbered from 0.
    pub partitions: u32,
    /// Its settings.
    pub config: TopicConfig,
    /// When it was created.
    pub created_at_ms: i64,
}

impl Metadata {
    /// Creates a topic with all its partitions, empty, at offset 0.
    ///
    /// 1. The topic and every partition of it appear at once.
    /// 2. Of several calls with one name exactly one succeeds; the others get `AlreadyExists`, as does an id used
    ///    before.
    ///
    /// # Errors
    /// `Invalid` unless there are 1 to [`PARTITIONS_MAX`] partitions and the name has 1 to 249 characters.
    pub async fn create_topic(
        &self,
        id: Uuid,
        name: &str,
        partitions: u32,
        config: &TopicConfig,
        now_ms: i64,
    ) -> Result<Topic> {
        check_partitions(partitions)?;
        check_name("topic", name)?;
        let _forget = self.cache.forgetting(|cache| {
            cache.forget_topic(name);
            cache.forget_partitions();
        });
        let create = self.database.transaction(|mut tx| async move {
            let topic = sql(
                "INSERT INTO topics (id, name, partitions, config, created_at_ms) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT DO NOTHING",
            );
            let topic = topic.bind(id).bind(name).bind(partitions);
            if tx.execute(topic.bind(as_json(config)).bind(now_ms)).await? == 0 {
                return Err(MetaError::AlreadyExists {
                    what: "topic",
                    name: name.to_string(),
                });
            }
            tx.execute(partition_rows(id, 0, partitions)).await?;
            tx.commit().await?;
            Ok(Topic {
                id,
                name: name.to_string(),
                partitions,
                config: config.clone(),
                created_at_ms: now_ms,
            })
        });
        create.await
    }

    /// The topic of this name.
    pub async fn topic(&self, name: &str) -> Result<Option<Topic>> {
        let found = sql("SELECT id, name, partitions, config, created_at_ms FROM topics WHERE name = $1");
        self.database
            .read_one(found.bind(name))
            .await?
            .map(|row| topic(&row))
            .transpose()
    }

    /// All topics, by name.
    pub async fn topics(&self) -> Result<Vec<Topic>> {
        let found = sql("SELECT id, name, partitions, config, created_at_ms FROM topics ORDER BY name");
        self.database.read_all(found).await?.iter().map(topic).collect()
    }

    /// Gives a topic other settings, where it has those that the change is based on, and `partitions` of them.
    ///
    /// 1. Nothing changes unless the settings are `expected`: what another has changed meanwhile is not undone.
    /// 2. A topic of the same name that was made since is another one.
    /// 3. Partitions are added behind those that there are, empty, at offset 0, and appear at once; none is ever taken away.
    ///
    /// Asking again after a lost answer changes nothing more: a topic that is as wanted already is given.
    ///
    /// # Errors
    /// `SettingsChanged`; `NotFound`; `Invalid` where the topic has more partitions, or for more than [`PARTITIONS_MAX`].
    pub async fn alter_topic(
        &self,
        id: Uuid,
        expected: &TopicConfig,
        config: &TopicConfig,
        partitions: Option<u32>,
    ) -> Result<Topic> {
        partitions.map_or(Ok(()), check_partitions)?;
        // Nobody knows its name where the answer is lost; and settings change seldom.
        let _forget = self.cache.forgetting(|cache| {
            cache.forget_topics();
            if partitions.is_some() {
                cache.forget_partitions();
            }
        });
        let alter = self.database.transaction(|mut tx| async move {
            let found = sql("SELECT id, name, partitions, config, created_at_ms FROM topics WHERE id = $1");
            let row = tx.one(found.bind(id)).await?.ok_or_else(|| unknown_topic(id))?;
            let mut topic = topic(&row)?;
            let (before, after) = (topic.partitions, partitions.unwrap_or(topic.partitions));
            // Read, not as text: PostgreSQL has its own order of keys.
            if topic.config != *expected {
                return match topic.config == *config && before == after {
                    true => Ok(topic),
                    false => Err(MetaError::SettingsChanged { name: topic.name }),
                };
            }
            if after < before {
                let reason = format!("topic {} has {before} partitions, and none is taken away", topic.name);
                return Err(MetaError::Invalid { reason });
            }
            let set = sql(
                "UPDATE topics SET config = $2, partitions = $3, config_version = config_version + 1 WHERE id = $1",
            );
            tx.execute(set.bind(id).bind(as_json(config)).bind(after)).await?;
            if after > before {
                tx.execute(partition_rows(id, before, after)).await?;
            }
            tx.commit().await?;
            (topic.config, topic.partitions) = (config.clone(), after);
            Ok(topic)
        });
        alter.await
    }

    /// Deletes a topic with its partitions, leases, segments and pipelines.
    ///
    /// 1. In the same transaction the object keys of its segments and of its manifest are recorded for deletion, and the
    ///    topic is remembered among the [deleted ones](Metadata::deleted_topics).
    /// 2. Every lease on it is fenced: no commit for it can succeed afterwards, not even when a topic of this name is
    ///    made again.
    ///
    /// # Errors
    /// `NotFound`, also when asked again after it was deleted: one of the same name that was made since stays.
    pub async fn delete_topic(&self, id: Uuid, now_ms: i64) -> Result<Topic> {
        // Its name, its partitions and its pipeline; and topics go seldom.
        let _forget = self.cache.forgetting(|cache| cache.forget_all());
        let delete = self.database.transaction(|mut tx| async move {
            // It locks the row: of two that delete it, the second finds none.
            let found = sql(
                "UPDATE topics SET name = name WHERE id = $1 RETURNING id, name, partitions, config, created_at_ms",
            );
            let row = tx.one(found.bind(id)).await?.ok_or_else(|| unknown_topic(id))?;
            let topic = topic(&row)?;
            let record = sql(
                "INSERT INTO object_deletions (object_key, recorded_at_ms) \
                 SELECT object_key, $2 FROM segments WHERE topic_id = $1 ON CONFLICT DO NOTHING",
            );
            tx.execute(record.bind(id).bind(now_ms)).await?;
            let record = sql(
                "INSERT INTO object_deletions (object_key, recorded_at_ms) \
                 SELECT manifest_key, $2 FROM topics WHERE id = $1 AND manifest_key IS NOT NULL ON CONFLICT DO NOTHING",
            );
            tx.execute(record.bind(id).bind(now_ms)).await?;
            let remember = sql(
                // Two that delete it at once: on PostgreSQL the later one is told so by this, not by a duplicate.
                "INSERT INTO deleted_topics (id, name, deleted_at_ms) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            );
            tx.execute(remember.bind(id).bind(&topic.name).bind(now_ms)).await?;
            tx.execute(sql("DELETE FROM segments WHERE topic_id = $1").bind(id))
                .await?;
            // Partitions, leases and pipelines go with the topic by their foreign keys.
            tx.execute(sql("DELETE FROM topics WHERE id = $1").bind(id)).await?;
            tx.commit().await?;
            Ok(topic)
        });
        delete.await
    }
}

fn unknown_topic(id: Uuid) -> MetaError {
    MetaError::NotFound {
        what: "topic",
        name: id.to_string(),
    }
}

fn check_partitions(partitions: u32) -> Result<()> {
    if (1..=PARTITIONS_MAX).contains(&partitions) {
        return Ok(());
    }
    let reason = format!("a topic has 1 to {PARTITIONS_MAX} partitions, not {partitions}");
    Err(MetaError::Invalid { reason })
}

/// Adds the partitions from `from` up to `to`, of which there is one at least.
fn partition_rows(topic_id: Uuid, from: u32, to: u32) -> Statement {
    sql("INSERT INTO partitions (topic_id, partition) \
         WITH RECURSIVE numbers (n) AS (SELECT CAST($2 AS BIGINT) UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < $3) \
         SELECT $1, n FROM numbers")
    .bind(topic_id)
    .bind(from)
    .bind(to)
}

/// Names are checked by whoever takes them in; this holds them to what the tables accept.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    let reason = match name.chars().count() {
        1..=249 if !name.contains('\0') => return Ok(()),
        1..=249 => format!("the name of a {what} has no character U+0000"),
        length => format!("the name of a {what} has 1 to 249 characters, not {length}"),
    };
    Err(MetaError::Invalid { reason })
}

pub(crate) fn topic(row: &Fields) -> Result<Topic> {
    let config = serde_json::from_str(&row.json("config")?);
    Ok(Topic {
        id: row.uuid("id")?,
        name: row.text("name")?,
        partitions: row.u32("partitions")?,
        config: config.map_err(|error| row.corrupt("config", format!("cannot be read: {error}")))?,
        created_at_ms: row.i64("created_at_ms")?,
    })
}

/// In JSON a compression is its name.
mod compression_by_name {
    use super::{Compression, fmt};
    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    pub fn serialize<S: Serializer>(compression: &Compression, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(compression)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Compression, D::Error> {
        deserializer.deserialize_str(Name)
    }

    struct Name;

    impl Visitor<'_> for Name {
        type Value = Compression;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("none, lz4 or zstd")
        }

        fn visit_str<E: Error>(self, name: &str) -> Result<Compression, E> {
            name.parse()
                .map_err(|_| E::invalid_value(serde::de::Unexpected::Str(name), &self))
        }
    }
}
