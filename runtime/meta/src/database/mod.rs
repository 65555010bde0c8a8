//! The one room that knows which database stands behind, and how it is spoken to.
//!
//! Everywhere else a method is a few [`Statement`]s in a [`transaction`](Database::transaction). Three pools serve them:
//! writers, readers, and what is urgent, which is what the time of leases depends on: it waits behind no writer.
//!
//! | | SQLite | PostgreSQL |
//! |---|---|---|
//! | writers | one connection, `BEGIN IMMEDIATE`: one after the other | `SERIALIZABLE`: the outcome is as if one after the other |
//! | urgent | the same connection, ahead of all who wait for it | one connection of its own, `SERIALIZABLE` |
//! | readers | some, each statement sees one moment, never blocked | `READ COMMITTED`, read only: the same |
//! | durable | `synchronous=FULL` | `synchronous_commit=on` |
//!
//! So what holds of a method when writers come one after the other, holds on both. On PostgreSQL a writer that cannot be
//! given a place in that order is rolled back and run again, which its caller does not notice. A refusal, which ends a
//! transaction without a commit, rests on one moment that was committed.
//!
//! | file | owns |
//! |---|---|
//! | `url` | which database a URL names, without ever repeating a password |
//! | `sqlite`, `postgres` | opening, pools, the settings of a session |
//! | `migrate` | the schema |
//! | `statement` | a statement and its arguments, for either |
//! | `fields` | a row of either |
//! | `connection` | a connection of either |
//! | `fate` | what an error leaves behind |
//! | `report` | what an error means for whoever runs the database |
//! | `transaction` | transactions, and how often they are tried |

mod connection;
mod fate;
mod fields;
mod migrate;
mod postgres;
mod report;
mod sqlite;
mod statement;
mod transaction;
mod url;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use connection::{Gauge, Pool};
pub(crate) use fields::Fields;
pub(crate) use statement::{Statement, as_json, bigint, json, sql};
pub(crate) use transaction::Tx;
pub(crate) use url::Location;

use crate::{MetadataSettings, Result};

/// The connections to one database.
#[derive(Clone)]
pub(crate) struct Database {
    writers: Pool,
    urgent: Pool,
    readers: Pool,
    /// Where it is, for people. Never a URL: it could carry a password.
    place: Arc<str>,
    gauge: Arc<Gauge>,
}

/// What the databases are called where it matters which one it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

impl Database {
    pub(crate) async fn open(settings: &MetadataSettings) -> Result<Database> {
        match Location::of(&settings.url)? {
            Location::Sqlite(path) => sqlite::open(&path, sqlite::BUSY_TIMEOUT).await,
            Location::Postgres(options) => postgres::open(&options, settings).await,
        }
    }

    fn new(writers: Pool, urgent: Pool, readers: Pool, place: Arc<str>, patience: Duration) -> Database {
        let gauge = Arc::new(Gauge {
            statements: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            patience,
        });
        Database {
            writers,
            urgent,
            readers,
            place,
            gauge,
        }
    }

    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writers.close().await;
        self.urgent.close().await;
    }

    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    pub(crate) fn dialect(&self) -> Dialect {
        match self.writers {
            Pool::Sqlite(_) | Pool::InLine(..) => Dialect::Sqlite,
            Pool::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Statements sent so far, and how often a call was run again.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        (count(&self.gauge.statements), count(&self.gauge.retries))
    }

    /// Connections that are open.
    pub(crate) fn connections(&self) -> u32 {
        let urgent = match self.urgent {
            // It is the writers' own.
            Pool::Sqlite(_) | Pool::InLine(..) => 0,
            Pool::Postgres(_) => self.urgent.size(),
        };
        self.writers.size() + urgent + self.readers.size()
    }
}

/// Nothing of the connections, which know passwords.
impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}
