//! What every database behind `Metadata` must hold, told through the public methods alone.

mod leases;
mod merging;
mod modules;
mod pipelines;
mod retention;
mod segments;
mod topics;
mod wals;

use std::path::Path;

use millstream_batch::{Epoch, Offset};
use millstream_meta::{Lease, MetaError, Metadata, NewSegment, Topic, TopicConfig, WalKind};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tempfile::TempDir;
use uuid::Uuid;

const NOW_MS: i64 = 1_700_000_000_000;
const TASKS: u64 = 16;

/// A database of its own for one test.
struct Fixture {
    metadata: Metadata,
    directory: TempDir,
}

impl Fixture {
    async fn new() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let metadata = open(directory.path()).await.unwrap();
        Fixture { metadata, directory }
    }

    /// A topic whose id is made of `id`.
    async fn topic(&self, id: u128, name: &str, partitions: u32) -> Topic {
        let config = TopicConfig::default();
        self.metadata
            .create_topic(Uuid::from_u128(id), name, partitions, &config, NOW_MS)
            .await
            .unwrap()
    }

    /// A registered incarnation whose id is made of `id`.
    async fn incarnation(&self, id: u128) -> Uuid {
        let id = Uuid::from_u128(id);
        self.metadata
            .register_incarnation("agent", id, WalKind::Disk, NOW_MS)
            .await
            .unwrap();
        id
    }

    /// A lease on partition 0 of a new topic.
    async fn lease(&self) -> Lease {
        let topic = self.topic(1, "orders", 1).await;
        let incarnation = self.incarnation(100).await;
        self.metadata.acquire_lease(topic.id, 0, incarnation).await.unwrap()
    }

    /// Does something to the tables that no method does.
    async fn sql(&self, statement: &'static str) {
        let file = SqliteConnectOptions::new().filename(self.directory.path().join("meta.db"));
        let pool = SqlitePool::connect_with(file).await.unwrap();
        sqlx::query(statement).execute(&pool).await.unwrap();
        pool.close().await;
    }
}

async fn open(directory: &Path) -> Result<Metadata, MetaError> {
    Metadata::open(&format!("sqlite:{}", directory.join("meta.db").display())).await
}

/// A segment of 10 bytes stored.
fn new_segment(key: &str, base: u64, end: u64) -> NewSegment {
    NewSegment {
        key: key.to_string(),
        base_offset: Offset(base),
        end_offset: Offset(end),
        record_count: end - base,
        raw_bytes: 20,
        stored_bytes: 10,
        min_timestamp_ms: -5,
        max_timestamp_ms: 5,
        created_at_ms: NOW_MS,
        etag: None,
    }
}

fn is_fenced(error: &MetaError, epoch: Epoch) -> bool {
    matches!(error, MetaError::Fenced { epoch: found, .. } if *found == epoch)
}
