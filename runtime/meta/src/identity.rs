//! Which database this is: an id of its own, that is never changed.

use uuid::Uuid;

use crate::database::sql;
use crate::{MetaError, Metadata, Result};

/// Which database this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its id.
    pub id: Uuid,
    /// The database whose object store this one goes on with.
    pub former: Option<Uuid>,
}

impl Metadata {
    /// Which database this is. The first call gives it the id `candidate`, and every later one finds that.
    pub async fn identity(&self, candidate: Uuid) -> Result<Identity> {
        let identity = self.database.transaction(|mut tx| async move {
            let name = sql("INSERT INTO identity (one, id) VALUES (1, $1) ON CONFLICT DO NOTHING");
            tx.execute(name.bind(candidate)).await?;
            let row = tx.one(sql("SELECT id, former FROM identity")).await?;
            let row = row.ok_or_else(|| MetaError::NotFound {
                what: "identity",
                name: "of the database".to_owned(),
            })?;
            let identity = Identity {
                id: row.uuid("id")?,
                former: row.uuid_or_null("former")?,
            };
            tx.commit().await?;
            Ok(identity)
        });
        identity.await
    }
}
