//! Objects to delete. They are recorded in the transaction that takes their segments away, and deleted after a grace
//! longer than any reader's index lives.

use sqlx::query;

use crate::{Metadata, Result};

impl Metadata {
    /// Keys recorded at or before `due_before_ms`, oldest first, at most `limit` of them.
    pub async fn pending_deletions(&self, due_before_ms: i64, limit: u32) -> Result<Vec<String>> {
        let due = query(
            "SELECT object_key FROM object_deletions WHERE recorded_at_ms <= $1 \
             ORDER BY recorded_at_ms, object_key LIMIT $2",
        );
        let rows = self
            .database
            .read_all(due.bind(due_before_ms).bind(i64::from(limit)))
            .await?;
        rows.iter().map(|row| row.text("object_key")).collect()
    }

    /// Forgets keys whose objects are gone, all at once; those not recorded are ignored.
    pub async fn deletions_done(&self, keys: &[String]) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut tx = self.database.begin().await?;
        for key in keys {
            tx.execute(query("DELETE FROM object_deletions WHERE object_key = $1").bind(key))
                .await?;
        }
        tx.commit().await
    }
}
