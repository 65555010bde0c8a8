//! Objects to delete. They are recorded in the transaction that takes their segments away, and deleted after a grace
//! longer than any reader's index lives.

use uuid::Uuid;

use crate::database::{Fields, as_json, sql};
use crate::{Metadata, Result};

/// A topic that was deleted. Objects that no row ever named may still lie under its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedTopic {
    /// Its identity.
    pub id: Uuid,
    /// Its name, which another topic may have by now.
    pub name: String,
    /// When it was deleted.
    pub deleted_at_ms: i64,
}

impl Metadata {
    /// Keys recorded at or before `due_before_ms`, oldest first, at most `limit` of them.
    pub async fn pending_deletions(&self, due_before_ms: i64, limit: u32) -> Result<Vec<String>> {
        let due = sql("SELECT object_key FROM object_deletions WHERE recorded_at_ms <= $1 \
             ORDER BY recorded_at_ms, object_key LIMIT $2");
        let rows = self.database.read_all(due.bind(due_before_ms).bind(limit)).await?;
        rows.iter().map(|row| row.text("object_key")).collect()
    }

    /// Forgets keys whose objects are gone, all at once; those not recorded are ignored.
    pub async fn deletions_done(&self, keys: &[String]) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let forget = sql("DELETE FROM object_deletions WHERE object_key IN (SELECT e.value FROM json_each($1) e)").on_postgres(
            "DELETE FROM object_deletions WHERE object_key IN (SELECT e.value FROM jsonb_array_elements_text($1) e)",
        );
        self.database.write(forget.bind(as_json(keys))).await?;
        Ok(())
    }

    /// Deleted topics that are still remembered, oldest first, at most `limit` of them.
    pub async fn deleted_topics(&self, limit: u32) -> Result<Vec<DeletedTopic>> {
        let found = sql("SELECT id, name, deleted_at_ms FROM deleted_topics ORDER BY deleted_at_ms, id LIMIT $1");
        let rows = self.database.read_all(found.bind(limit)).await?;
        rows.iter().map(deleted_topic).collect()
    }

    /// Forgets a deleted topic, once nothing of it is left; one that is not remembered is ignored.
    pub async fn forget_deleted_topic(&self, id: Uuid) -> Result<()> {
        self.database
            .write(sql("DELETE FROM deleted_topics WHERE id = $1").bind(id))
            .await?;
        Ok(())
    }
}

fn deleted_topic(row: &Fields) -> Result<DeletedTopic> {
    Ok(DeletedTopic {
        id: row.uuid("id")?,
        name: row.text("name")?,
        deleted_at_ms: row.i64("deleted_at_ms")?,
    })
}
