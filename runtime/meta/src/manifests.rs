//! Manifests: for each topic the key of the object that describes it, so that a bucket can be understood alone.

use uuid::Uuid;

use crate::database::{bigint, sql};
use crate::topics::topic;
use crate::{Metadata, Result, Topic};

impl Metadata {
    /// Topics whose manifest does not tell their settings as they are, with the number of these settings; at most
    /// `limit` of them.
    pub async fn topics_without_manifest(&self, limit: u32) -> Result<Vec<(Topic, u64)>> {
        let found = sql(
            "SELECT id, name, partitions, config, created_at_ms, config_version FROM topics \
             WHERE manifest_version <> config_version ORDER BY name LIMIT $1",
        );
        let rows = self.database.read_all(found.bind(limit)).await?;
        rows.iter()
            .map(|row| Ok((topic(row)?, row.u64("config_version")?)))
            .collect()
    }

    /// Names the object that describes a topic with these settings; whether it does now.
    ///
    /// 1. In the same transaction the key of the manifest before it is recorded for deletion.
    /// 2. Where the topic is gone, its settings have changed since, or an object describes them already, nothing happens:
    ///    another object is an orphan, and can never be named any more.
    pub async fn set_manifest(&self, topic_id: Uuid, config_version: u64, key: &str, now_ms: i64) -> Result<bool> {
        let version = bigint("settings", config_version)?;
        let set = self.database.transaction(|mut tx| async move {
            let record = sql(
                "INSERT INTO object_deletions (object_key, recorded_at_ms) SELECT manifest_key, $3 FROM topics \
                 WHERE id = $1 AND config_version = $2 AND manifest_version <> $2 AND manifest_key IS NOT NULL \
                 AND manifest_key <> $4 ON CONFLICT DO NOTHING",
            );
            let record = record.bind(topic_id).bind(version).bind(now_ms);
            tx.execute(record.bind(key)).await?;
            let set = sql(
                "UPDATE topics SET manifest_key = $3, manifest_version = config_version \
                 WHERE id = $1 AND config_version = $2 AND (manifest_version <> $2 OR manifest_key = $3)",
            );
            let set = tx.execute(set.bind(topic_id).bind(version).bind(key)).await?;
            tx.commit().await?;
            Ok(set > 0)
        });
        set.await
    }

    /// The key of a topic's manifest, where it has one.
    pub async fn manifest(&self, topic_id: Uuid) -> Result<Option<String>> {
        let found = sql("SELECT manifest_key FROM topics WHERE id = $1");
        let row = self.database.read_one(found.bind(topic_id)).await?;
        row.map_or(Ok(None), |row| row.text_or_null("manifest_key"))
    }
}
