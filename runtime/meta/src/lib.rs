//! The metadata store: what exists, who may write it, and which objects hold it.
//!
//! One [`Metadata`] stands for one database. It never sees a record: it keeps names, ids, offsets, epochs and object
//! keys.
//!
//! Every method is one whole transaction; after an error nothing of it has happened, except where the database did not
//! answer ([`MetaError::Unavailable`]): then it may have happened, and the method's docs say what asking again does.
//! What methods that change something come to is as if they ran one after the other, on SQLite and on PostgreSQL (see
//! `database`); those that read see only what is committed, each of one moment.
//!
//! **The fence.** A partition's row keeps the greatest epoch ever given away. [`Metadata::acquire_lease`] raises it,
//! and everything that only the holder may do compares it in the same statement that does it. So at most one
//! incarnation can change a partition, whatever the lease rows, clocks or networks say.
//!
//! | file | owns |
//! |---|---|
//! | `settings` | what opening takes |
//! | `database` | connections, transactions, migrations, the dialects |
//! | `error` | what can go wrong |
//! | `cache` | the reads that repeat, from memory |
//! | `topics` | topics and their configuration |
//! | `leases` | the fence, the holder and the WAL pointer of a partition |
//! | `takeover` | the same for whole WALs at once |
//! | `partitions` | what stands about one partition |
//! | `segments` | committed segments, totals |
//! | `retention` | taking segments from the front |
//! | `merging` | one segment in the place of several |
//! | `agents` | agents, their incarnations, and their lease time |
//! | `wals` | the WALs of incarnations |
//! | `deletions` | objects to delete, topics that were deleted |
//! | `manifests` | which object describes a topic |
//! | `modules` | module versions |
//! | `pipelines` | pipeline versions and activations |
//! | `activations` | how far agents have followed activations |
//! | `producers` | named producers, and what partitions know of theirs |
//! | `groups` | consumer groups, and how far they have read |
//! | `snapshot` | all of it as lines of JSON, out of one database and into another |
//! | `restore` | all of it as a rebuild found it in an object store, into an empty database |
//! | `examine` | what a database promises, and how fast it is |
//!
//! Times are milliseconds since 1970 (UTC) and come in as arguments, like every new id: nothing here reads a clock or
//! draws randomness. The time of leases alone is that of the database's own clock.

mod activations;
mod agents;
mod cache;
mod database;
mod deletions;
mod error;
mod examine;
mod groups;
mod identity;
mod leases;
mod manifests;
mod merging;
mod modules;
mod partitions;
mod pipelines;
mod producers;
mod restore;
mod retention;
mod segments;
mod settings;
mod snapshot;
mod takeover;
mod topics;
mod wals;

use std::sync::Arc;
use std::time::Duration;

pub use activations::AgentBehind;
pub use agents::{AgentRow, AgentShare, NewIncarnation, Registered};
pub use cache::{CacheStats, Cached};
pub use deletions::DeletedTopic;
pub use error::MetaError;
pub use examine::{Examination, ServerFacts};
pub use groups::{CommittedOffset, GROUPS_MAX, GroupNow, GroupRow, OFFSET_METADATA_BYTES_MAX, PartitionEnds};
pub use identity::Identity;
pub use leases::Lease;
pub use modules::{ModuleState, ModuleVersion};
pub use partitions::{Holder, PartitionRow};
pub use pipelines::{
    HISTORY_PAGE_MAX, NewCurrent, NewPipeline, PipelineChanges, PipelineInForce, PipelineRow, PipelinesChanged,
};
pub use producers::{NAMED_PRODUCERS_MAX, ProducerIdentity};
pub use restore::{Restored, RestoredPartition, RestoredTopic};
pub use retention::{EXPIRE_SEGMENTS_MAX, Expired};
pub use segments::{CommitOutcome, NewSegment, PartitionTotals, SegmentRow};
pub use settings::MetadataSettings;
pub use snapshot::{ImportOptions, SnapshotHeader, SnapshotReport, TableCount};
pub use topics::{Acks, PARTITIONS_MAX, TimestampType, Topic, TopicConfig};
pub use wals::{PointedPartition, WalKind, WalStream};

use cache::Cache;
use database::Database;

type Result<T> = std::result::Result<T, MetaError>;

/// A handle on the metadata; clones share the connections and the cache.
#[derive(Clone, Debug)]
pub struct Metadata {
    database: Database,
    cache: Arc<Cache>,
}

/// What was counted since it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataStats {
    /// Statements sent to the database, those that begin and end transactions included.
    pub queries: u64,
    /// How often a call was run again, because of what others changed beside it or because a connection was lost.
    pub retries: u64,
    /// Connections that are open.
    pub connections: u32,
    /// Each kind of thing that is cached.
    pub cache: Vec<CacheStats>,
}

impl Metadata {
    /// Opens the database that `url` names, with the default settings and one try.
    ///
    /// # Errors
    /// As [`Metadata::open_with`].
    pub async fn open(url: &str) -> Result<Metadata> {
        let connect_patience = Duration::ZERO;
        let settings = MetadataSettings::at(url);
        Metadata::open_with(&MetadataSettings {
            connect_patience,
            ..settings
        })
        .await
    }

    /// Opens a database and brings its schema up to date. An SQLite file is created when there is none.
    ///
    /// 1. A schema newer than this binary knows is refused ([`MetaError::SchemaNewer`]) and not touched.
    /// 2. Migrations are applied all or none; several processes may open the same new database at once.
    /// 3. What is committed from now on survives the loss of power (`synchronous=FULL`, `synchronous_commit=on`).
    /// 4. A PostgreSQL server that is not there is waited for, as long as the settings say.
    ///
    /// # Errors
    /// `Invalid` for a URL of another kind; `CannotOpen` for a place where no file can be, and where the server refuses
    /// user, password or certificate or knows no such database; `Corrupt`, `ReadOnly`, `Migration`, `Unavailable` for
    /// what the database is. None of them repeats the URL, which may carry a password.
    pub async fn open_with(settings: &MetadataSettings) -> Result<Metadata> {
        Ok(Metadata {
            database: Database::open(settings).await?,
            cache: Arc::new(Cache::new(settings.cache_ttl)),
        })
    }

    /// Where the database is, for people: a path, or `postgres://USER@HOST:PORT/NAME`. Never a password.
    pub fn place(&self) -> &str {
        self.database.place()
    }

    /// What was counted since it was opened.
    pub fn stats(&self) -> MetadataStats {
        let (queries, retries) = self.database.counts();
        MetadataStats {
            queries,
            retries,
            connections: self.database.connections(),
            cache: self.cache.stats(),
        }
    }

    /// Waits for running transactions and closes the connections of all clones. Later calls fail with `Unavailable`.
    pub async fn close(&self) {
        self.database.close().await;
    }
}
