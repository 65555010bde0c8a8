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
    /// There are as many as there can be.
    #[error("there are {most} {what} already, which is the most: delete some")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there can be.
        most: u64,
    },
    /// The settings of a topic are not those the caller based the change on.
    #[error("topic {name} has other settings than the change was based on: read them again and decide anew")]
    SettingsChanged {
        /// The topic.
        name: String,
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
    /// Another live incarnation holds the partition.
    #[error(
        "partition {topic_id}/{partition} is held by agent {agent} at {address} for another {expires_in_ms} ms: ask that agent, or wait until it has left"
    )]
    LeaseHeld {
        /// The partition's topic.
        topic_id: Uuid,
        /// The partition's number.
        partition: u32,
        /// The agent that holds it.
        agent: String,
        /// HOST:PORT at which that agent answers.
        address: String,
        /// After so long its lease is over, unless it renews it. Agents renew long before.
        expires_in_ms: u64,
    },
    /// What is not in segments yet lies on another agent's disk.
    #[error(
        "partition {topic_id}/{partition}: its last records are in WAL {wal} on the disk of agent {agent} (last at {address}): start that agent again"
    )]
    WalElsewhere {
        /// The partition's topic.
        topic_id: Uuid,
        /// The partition's number.
        partition: u32,
        /// The WAL.
        wal: Uuid,
        /// The agent whose disk it is on.
        agent: String,
        /// HOST:PORT at which that agent answered last.
        address: String,
    },
    /// A later incarnation of the same agent has been registered, or this one has left: it must hold nothing any more.
    #[error(
        "incarnation {incarnation} is over, it has left or its agent was started again: two agents must not have one name"
    )]
    Superseded {
        /// The incarnation that is over.
        incarnation: Uuid,
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
    #[error("metadata {database}: cannot bring the schema up to date: {reason}")]
    Migration {
        /// Where the database is.
        database: String,
        /// What is in the way and what to do.
        reason: String,
    },
    /// There can be no database at this place, or not for us.
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
    #[error("metadata {database} is read-only: {reason}")]
    ReadOnly {
        /// Where the database is.
        database: String,
        /// What to do.
        reason: &'static str,
    },
    /// The database, or a value in it, is not what was written.
    #[error("metadata {database} is damaged: {reason}")]
    Corrupt {
        /// Where the database is.
        database: String,
        /// What was found and what to do.
        reason: String,
    },
    /// A snapshot that is not imported; nothing of it was.
    #[error("snapshot, line {line}: {reason}")]
    Snapshot {
        /// The line that is at fault, from 1.
        line: u64,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// A snapshot could not be read or written on.
    #[error("snapshot: {source}")]
    SnapshotFile {
        /// What the file's system says.
        source: std::io::Error,
    },
    /// The database holds something already.
    #[error("metadata {database} is not empty (table {table} has rows): name a database on which no agent has run yet")]
    NotEmpty {
        /// Where the database is.
        database: String,
        /// A table that has rows.
        table: &'static str,
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
