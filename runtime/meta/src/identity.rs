//! Which database this is: an id of its own, that is never changed.

use uuid::Uuid;

use crate::database::sql;
use crate::{MetaError, Metadata, Result};

impl Metadata {
    /// The database's id. The first call makes it `candidate`, and every later one gives that.
    pub async fn identity(&self, candidate: Uuid) -> Result<Uuid> {
        let identity = self.database.transaction(|mut tx| async move {
            let name = sql("INSERT INTO identity (one, id) VALUES (1, $1) ON CONFLICT DO NOTHING");
            tx.execute(name.bind(candidate)).await?;
            let row = tx.one(sql("SELECT id FROM identity")).await?;
            let id = row.ok_or_else(|| MetaError::NotFound {
                what: "identity",
                name: "of the database".to_owned(),
            })?;
            let id = id.uuid("id")?;
            tx.commit().await?;
            Ok(id)
        });
        identity.await
    }
}
