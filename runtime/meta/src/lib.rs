//! The metadata store: what exists, who may write it, and which objects hold it.
//!
//! One [`Metadata`] stands for one database. It never sees a record: it keeps names, ids, offsets, epochs and object
//! keys.
//!
//! Every method is one whole transaction; after an error nothing of it has happened, except where the database did not
//! answer ([`MetaError::Unavailable`]): then it may have happened, and the method's docs say what asking again does.
//! Methods that change something are serialised by the database, those that read see only what is committed.
//!
//! **The fence.** A partition's row keeps the greatest epoch ever given away. [`Metadata::acquire_lease`] raises it,
//! and everything that only the holder may do compares it in the same statement that does it. So at most one
//! incarnation can change a partition, whatever the lease rows, clocks or networks say.
//!
//! | file | owns |
//! |---|---|
//! | `database` | connections, transactions, migrations |
//! | `fields` | the way between Rust values and columns |
//! | `topics` | topics and their configuration |
//! | `leases` | the fence, the holder and the WAL pointer of a partition |
//! | `segments` | committed segments, totals |
//! | `retention` | taking segments from the front |
//! | `merging` | one segment in the place of several |
//! | `wals` | agents, their incarnations and WALs |
//! | `deletions` | objects to delete, topics that were deleted |
//! | `manifests` | which object describes a topic |
//! | `modules` | module versions |
//! | `pipelines` | pipeline versions and activations |
//!
//! Times are milliseconds since 1970 (UTC) and come in as arguments, like every new id: nothing here reads a clock or
//! draws randomness.

mod database;
mod deletions;
mod error;
mod fields;
mod identity;
mod leases;
mod manifests;
mod merging;
mod modules;
mod pipelines;
mod retention;
mod segments;
mod topics;
mod wals;

pub use deletions::DeletedTopic;
pub use error::MetaError;
pub use leases::Lease;
pub use modules::ModuleVersion;
pub use pipelines::PipelineRow;
pub use retention::{EXPIRE_SEGMENTS_MAX, Expired};
pub use segments::{CommitOutcome, NewSegment, PartitionTotals, SegmentRow};
pub use topics::{PARTITIONS_MAX, Topic, TopicConfig};
pub use wals::{PointedPartition, WalKind, WalStream};

use database::Database;

type Result<T> = std::result::Result<T, MetaError>;

/// A handle on the metadata; clones share one pool of connections.
#[derive(Clone, Debug)]
pub struct Metadata {
    database: Database,
}

impl Metadata {
    /// Opens the database that `url` names, `sqlite:PATH`, creates the file when there is none, and brings its schema
    /// up to date.
    ///
    /// 1. A schema newer than this binary knows is refused ([`MetaError::SchemaNewer`]) and not touched.
    /// 2. Migrations are applied all or none; several processes may open the same new file at once.
    /// 3. What is committed from now on survives the loss of power (`synchronous=FULL`).
    ///
    /// # Errors
    /// `Invalid` for a URL of another kind, `CannotOpen` for a place where no file can be, `Corrupt`, `ReadOnly`,
    /// `Unavailable` for what the file is. None of them repeats the URL, which may carry a password.
    pub async fn open(url: &str) -> Result<Metadata> {
        Ok(Metadata {
            database: Database::open(url).await?,
        })
    }

    /// Waits for running transactions and closes the connections of all clones. Later calls fail with `Unavailable`.
    pub async fn close(&self) {
        self.database.close().await;
    }
}
