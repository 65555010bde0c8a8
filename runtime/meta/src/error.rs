//! What can go wrong, in few kinds that carry their facts.

use millstream_batch::Epoch;
use uuid::Uuid;

/// Why a call of [`Metadata`](crate::Metadata) failed.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    /// An argument that no state of the database would accept.
    #[error("{reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// The thing named does not exist.
    #[error("{what} {name} does not exist")]
    NotFound {
        /// Its kind: topic, partition, incarnation, WAL.
        what: &'static str,
        /// How the caller named it.
        name: String,
    },
    /// The name or id is taken.
    #[error("{what} {name} exists already")]
    AlreadyExists {
        /// Its kind.
        what: &'static str,
        /// The name that is taken.
        name: String,
    },
    /// The state is not the one the caller based the change on.
    #[error("{what} is {found}, not {expected}: read it again and decide anew")]
    Conflict {
        /// What was compared.
        what: &'static str,
        /// What the caller expected.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// The epoch is not (or no longer) the partition's: the caller must step down and serve nothing of it.
    #[error(
        "partition {topic_id}/{partition}: epoch {epoch} is fenced off, another holder or state has taken its place"
    )]
    Fenced {
        /// The partition's topic.
        topic_id: Uuid,
        /// The partition's number.
        partition: u32,
        /// The epoch that was refused.
        epoch: Epoch,
    },
    /// A pointer may not go to a WAL that is marked deleted.
    #[error("WAL {wal} is marked deleted, no partition can point to it")]
    WalDeleted {
        /// The WAL.
        wal: Uuid,
    },
    /// The partition has used up its epochs (2^31 - 1 of them).
    #[error("partition {topic_id}/{partition} has no epochs left: move its records to a new topic")]
    EpochsExhausted {
        /// The partition's topic.
        topic_id: Uuid,
        /// The partition's number.
        partition: u32,
    },
    /// A newer millstream has migrated this database.
    #[error(
        "metadata {database}: its schema is version {found}, this millstream knows up to {known}: start the newer millstream, or restore a backup from before the update"
    )]
    SchemaNewer {
        /// Where the database is.
        database: String,
        /// The version found.
        found: i64,
        /// The greatest version this binary knows.
        known: i64,
    },
    /// The schema could not be brought up to date; nothing of it was changed.
    #[error("metadata {database}: cannot bring the schema up to date: {source}; is it a database of millstream?")]
    Migration {
        /// Where the database is.
        database: String,
        /// What the migrator says.
        source: Box<sqlx::migrate::MigrateError>,
    },
    /// There can be no database file at this place.
    #[error("metadata {database}: cannot open: {reason}")]
    CannotOpen {
        /// Where the database should be.
        database: String,
        /// What is in the way and what to do.
        reason: String,
    },
    /// The database did not answer in time. The change may have happened; asking again is safe.
    #[error("metadata {database} is not available: {reason}")]
    Unavailable {
        /// Where the database is.
        database: String,
        /// What keeps it and what to do.
        reason: String,
    },
    /// The disk under the database is full; nothing was changed.
    #[error("metadata {database}: no space left on its disk: free some, then try again")]
    DiskFull {
        /// Where the database is.
        database: String,
    },
    /// The database cannot be written.
    #[error(
        "metadata {database} is read-only: make the file, its -wal and -shm and its directory writable for this user"
    )]
    ReadOnly {
        /// Where the database is.
        database: String,
    },
    /// The database, or a value in it, is not what was written.
    #[error("metadata {database} is damaged: {reason}")]
    Corrupt {
        /// Where the database is.
        database: String,
        /// What was found and what to do.
        reason: String,
    },
    /// Anything else the database reports.
    #[error("metadata {database}: {source}")]
    Database {
        /// Where the database is.
        database: String,
        /// What it said.
        source: sqlx::Error,
    },
}

/// SQLite's primary result codes (<https://www.sqlite.org/rescode.html>); the extended code carries them in its lowest
/// byte.
mod code {
    pub const BUSY: i32 = 5;
    pub const LOCKED: i32 = 6;
    pub const READONLY: i32 = 8;
    pub const IOERR: i32 = 10;
    pub const CORRUPT: i32 = 11;
    pub const FULL: i32 = 13;
    pub const CANTOPEN: i32 = 14;
    pub const NOTADB: i32 = 26;
}

impl MetaError {
    /// Names what `source` means for whoever runs the database at the place `database`.
    pub(crate) fn from_database(database: &str, source: sqlx::Error) -> MetaError {
        let database = database.to_string();
        match &source {
            sqlx::Error::Database(error) => {
                let code = error.code().and_then(|code| code.parse::<i32>().ok());
                MetaError::from_sqlite(database, code.unwrap_or(0) & 0xff, source)
            }
            sqlx::Error::PoolTimedOut => MetaError::Unavailable {
                database,
                reason: "all connections are busy: its disk is slow, or too much is asked of it".into(),
            },
            sqlx::Error::PoolClosed => MetaError::Unavailable {
                database,
                reason: "it was closed".into(),
            },
            sqlx::Error::WorkerCrashed => MetaError::Unavailable {
                database,
                reason: "the connection broke down".into(),
            },
            _ => MetaError::Database { database, source },
        }
    }

    fn from_sqlite(database: String, code: i32, source: sqlx::Error) -> MetaError {
        match code {
            code::BUSY | code::LOCKED => MetaError::Unavailable {
                database,
                reason: "another process keeps it locked: stop that process, or wait until it is done".into(),
            },
            code::READONLY => MetaError::ReadOnly { database },
            code::FULL => MetaError::DiskFull { database },
            code::CORRUPT => MetaError::Corrupt {
                database,
                reason: format!("{source}: restore a backup"),
            },
            code::NOTADB => MetaError::Corrupt {
                database,
                reason: "the file is no SQLite database: name another file, or restore a backup".into(),
            },
            code::CANTOPEN => MetaError::CannotOpen {
                database,
                reason: format!("{source}: it must be a file, in a directory, that this user may read and write"),
            },
            code::IOERR => MetaError::Unavailable {
                database,
                reason: format!("{source}: look at the disk it is on"),
            },
            _ => MetaError::Database { database, source },
        }
    }
}
