//! Whose object store it is.
//!
//! Two databases over one store would take each other's segments for orphans. So the first one leaves its id there, in an
//! object that is made create-only; any other is refused, before it writes or deletes anything.

use std::sync::Arc;

use bytes::Bytes;
use millstream_log::{LogError, Store};
use millstream_meta::Metadata;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::error::{BrokerError, Result};

const KEY: &str = "_owner/database.json";
const FORMAT: u32 = 1;

/// What the object holds, as JSON.
#[derive(Deserialize, Serialize)]
struct Mark {
    format: u32,
    database: String,
}

/// The id of the database that the store belongs to; `None` where none ever used it.
pub(crate) async fn owner_of(store: &Store) -> Result<Option<Uuid>> {
    let found = match store.get(KEY).await {
        Err(LogError::NotFound { .. }) => return Ok(None),
        found => found?,
    };
    let what = "owner's mark in the object store";
    let stored = |source| BrokerError::StoredForm { what, source };
    let mark: Mark = serde_json::from_slice(&found).map_err(stored)?;
    let id = Uuid::try_parse(&mark.database);
    id.map(Some).map_err(|error| stored(serde::de::Error::custom(error)))
}

/// Whether the store is ours, asked until it is known. Clones share the answer.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    store: Store,
    metadata: Metadata,
    /// The database's id where it has none yet.
    candidate: Uuid,
    confirmed: Arc<OnceCell<()>>,
}

impl Owner {
    pub(crate) fn new(store: Store, metadata: Metadata, candidate: Uuid) -> Owner {
        Owner {
            store,
            metadata,
            candidate,
            confirmed: Arc::default(),
        }
    }

    /// Makes the store ours where it is nobody's. Fails where it is another database's, or cannot be asked.
    pub(crate) async fn confirm(&self) -> Result<()> {
        self.confirmed.get_or_try_init(|| self.ask()).await.copied()
    }

    async fn ask(&self) -> Result<()> {
        let database = self.metadata.identity(self.candidate).await?;
        let mark = Mark {
            format: FORMAT,
            database: database.to_string(),
        };
        let json = serde_json::to_vec(&mark).expect("a number and an id always become JSON");
        let found = match self.store.get(KEY).await {
            Err(LogError::NotFound { .. }) => match self.store.put_new(KEY, vec![Bytes::from(json)]).await {
                Ok(_) => return Ok(()),
                // Another was quicker.
                Err(LogError::AlreadyExists { .. }) => self.store.get(KEY).await?,
                Err(error) => return Err(error.into()),
            },
            found => found?,
        };
        match serde_json::from_slice(&found) {
            Ok(Mark { database: owner, .. }) if owner == mark.database => Ok(()),
            Ok(Mark { database: owner, .. }) => Err(BrokerError::StoreOwned {
                owner,
                database: mark.database,
            }),
            Err(source) => Err(BrokerError::StoredForm {
                what: "owner's mark in the object store",
                source,
            }),
        }
    }
}
