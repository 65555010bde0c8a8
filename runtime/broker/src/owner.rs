//! Whose object store it is.
//!
//! Two databases over one store would take each other's segments for orphans. So the first one leaves its id there, in an
//! object that is made create-only; any other is refused, before it writes or deletes anything.
//!
//! A database that was filled from another, by an import or a rebuild, follows it: it leaves a mark of its own under the next
//! number, and the mark of the greatest number rules. So of two databases with one former one only the first can follow it,
//! and the former one is refused from then on.

use std::sync::Arc;

use bytes::Bytes;
use millstream_log::{LogError, Store};
use millstream_meta::{Identity, Metadata};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::error::{BrokerError, Result};

const FOLDER: &str = "_owner";
const FORMAT: u32 = 1;
/// How often another may put a mark between our look and ours: each of them is that of another database.
const ATTEMPTS_MAX: usize = 10;

const CHOOSE: &str = "bring back the database that its segments are in, or choose another bucket, prefix or folder";
const LEFT: &str = "this database was left for that one by `millstream meta import` or `millstream meta rebuild`, and what has \
                    been written since is known there alone: start the agent with that one";

/// What the object holds, as JSON.
#[derive(Debug, Deserialize, Serialize)]
struct Mark {
    format: u32,
    database: String,
    /// The database that this one followed; none for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    former: Option<String>,
}

/// Where the mark of this number stands, from 0.
fn key_of(number: u64) -> String {
    match number {
        0 => format!("{FOLDER}/database.json"),
        number => format!("{FOLDER}/database_{number:06}.json"),
    }
}

/// The numbers of the marks, in order.
async fn numbers(store: &Store) -> Result<Vec<u64>> {
    let number = |key: String| {
        let name = key
            .strip_prefix(FOLDER)?
            .strip_prefix("/database")?
            .strip_suffix(".json")?;
        let number = match name.strip_prefix('_') {
            Some(digits) => digits.parse().ok()?,
            None => 0,
        };
        (key_of(number) == key).then_some(number)
    };
    let mut numbers: Vec<u64> = store.list(FOLDER).await?.into_iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

async fn read(store: &Store, number: u64) -> Result<Mark> {
    let found = store.get(&key_of(number)).await?;
    let mark = serde_json::from_slice::<Mark>(&found).and_then(|mark| match mark.format {
        FORMAT => Ok(mark),
        format => {
            let reason = format!("format {format} is not understood, this build knows {FORMAT}");
            Err(serde::de::Error::custom(reason))
        }
    });
    mark.map_err(not_understood)
}

fn not_understood(source: serde_json::Error) -> BrokerError {
    let what = "owner's mark in the object store";
    BrokerError::StoredForm { what, source }
}

/// The id of the database that the store belongs to; `None` where none ever used it.
pub(crate) async fn owner_of(store: &Store) -> Result<Option<Uuid>> {
    match numbers(store).await?.last() {
        Some(number) => {
            let id = Uuid::try_parse(&read(store, *number).await?.database);
            let id = id.map_err(|error| not_understood(serde::de::Error::custom(error)))?;
            Ok(Some(id))
        }
        None => Ok(None),
    }
}

/// Whether the store is ours, asked until it is known. Clones share the answer.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    store: Store,
    metadata: Metadata,
    /// The database's id where it has none yet.
    candidate: Uuid,
    /// The number of our mark.
    confirmed: Arc<OnceCell<u64>>,
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

    /// Makes the store ours where it is nobody's, or that of the database that ours followed. Once it was, it is believed to
    /// stay so.
    ///
    /// # Errors
    /// `StoreOwned` where it is another database's; those of the store and the database.
    pub(crate) async fn confirm(&self) -> Result<()> {
        self.confirmed.get_or_try_init(|| self.claim()).await.map(drop)
    }

    /// As `confirm`, and asks again whether it is ours still: for whoever deletes there.
    pub(crate) async fn confirm_again(&self) -> Result<()> {
        let ours = *self.confirmed.get_or_try_init(|| self.claim()).await?;
        // Marks never change.
        if numbers(&self.store).await?.last() == Some(&ours) {
            return Ok(());
        }
        self.claim().await.map(drop)
    }

    /// The number of our mark, which is put where it may be.
    async fn claim(&self) -> Result<u64> {
        let Identity { id, former } = self.metadata.identity(self.candidate).await?;
        let (id, former) = (id.to_string(), former.map(|former| former.to_string()));
        let mut refused = None;
        for _ in 0..ATTEMPTS_MAX {
            let numbers = numbers(&self.store).await?;
            let (next, follows) = match numbers.last() {
                None => (0, None),
                Some(last) => match read(&self.store, *last).await?.database {
                    owner if owner == id => return Ok(*last),
                    owner if Some(&owner) == former.as_ref() => (last + 1, Some(owner)),
                    owner => return Err(self.owned(id, owner, &numbers).await),
                },
            };
            let mark = Mark {
                format: FORMAT,
                database: id.clone(),
                former: follows,
            };
            let json = serde_json::to_vec(&mark).expect("numbers and ids always become JSON");
            match self.store.put_new(&key_of(next), vec![Bytes::from(json)]).await {
                Ok(_) => return Ok(next),
                // Another was quicker; perhaps the one that ours follows.
                Err(error @ LogError::AlreadyExists { .. }) => refused = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        Err(refused.expect("it was tried at least once").into())
    }

    /// The error where it is another's.
    async fn owned(&self, database: String, owner: String, numbers: &[u64]) -> BrokerError {
        let mut advice = CHOOSE;
        for number in numbers {
            // One that cannot be read says nothing about us.
            let names_us = |mark: Mark| mark.database == database || mark.former.as_ref() == Some(&database);
            if read(&self.store, *number).await.is_ok_and(names_us) {
                advice = LEFT;
            }
        }
        BrokerError::StoreOwned {
            owner,
            database,
            advice,
        }
    }
}
