//! Filling an empty database with what a rebuild found in an object store.

use millstream_batch::{Epoch, Offset};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::database::{Dialect, Tx, sql};
use crate::snapshot::insert_into;
use crate::{Identity, Metadata, Result, SegmentRow, Topic, WalStream};

/// Rows that are written at once.
const ROWS_AT_ONCE: usize = 1_000;

/// What an object store and the logs tell.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// Which database it becomes, after the one that owned the store; none where no database did.
    pub identity: Option<Identity>,
    /// The agent that is going to replay the WALs.
    pub agent: String,
    /// The WALs that partitions go on in.
    pub wals: Vec<WalStream>,
    /// The topics.
    pub topics: Vec<RestoredTopic>,
    /// Objects to delete, each with the time from which on its grace counts.
    pub deletions: Vec<(String, i64)>,
    /// When it happens.
    pub now_ms: i64,
}

/// A topic, and everything in it.
#[derive(Clone, Debug)]
pub struct RestoredTopic {
    /// Name, id, settings.
    pub topic: Topic,
    /// The number of these settings, from 1.
    pub config_version: u64,
    /// The object that describes it, and whether it does so with these settings.
    pub manifest: Option<(String, bool)>,
    /// The greatest pipeline version that is known of; 0 is a topic that never had a pipeline.
    pub pipeline_version: u64,
    /// What comes into force under that version, as JSON: nobody knows the stages that it had.
    pub pipeline_stages: String,
    /// Its partitions, from number 0 on.
    pub partitions: Vec<RestoredPartition>,
}

/// A partition with its segments, which lie end to end.
#[derive(Clone, Debug, Default)]
pub struct RestoredPartition {
    /// No former holder had a greater epoch.
    pub epoch: Epoch,
    /// The first offset that can be read.
    pub log_start: Offset,
    /// The end of the last segment.
    pub committed_end: Offset,
    /// The WAL that holds what is beyond the committed end.
    pub wal: Option<Uuid>,
    /// The segments, in order.
    pub segments: Vec<SegmentRow>,
    /// What the last one notes of the partition's producers.
    pub producers: Option<String>,
}

impl Metadata {
    /// Fails unless nothing was ever written to the database.
    ///
    /// # Errors
    /// `NotEmpty` with a table that has rows.
    pub async fn expect_empty(&self) -> Result<()> {
        let mut tx = self.database.begin_once().await?;
        self.check_empty(&mut tx).await
    }

    /// Fills an empty database. `progress` hears how many segments were written.
    ///
    /// 1. All or nothing: after an error, and after a crash, the database is as empty as before.
    /// 2. No lease is live, and every later holder of a partition gets a greater epoch than it has here.
    ///
    /// # Errors
    /// `NotEmpty`. After `Unavailable` it may have happened: look with [`Metadata::expect_empty`].
    pub async fn restore(&self, restored: &Restored, progress: &(dyn Fn(u64) + Send + Sync)) -> Result<()> {
        let _forget = self.cache.forgetting(|cache| cache.forget_all());
        let mut tx = self.database.begin_once().await?;
        if self.database.dialect() == Dialect::Postgres {
            // An agent that starts now waits, and then finds everything.
            tx.execute(sql("LOCK TABLE identity, agents IN SHARE ROW EXCLUSIVE MODE"))
                .await?;
        }
        self.check_empty(&mut tx).await?;
        if let Some(identity) = restored.identity {
            let former = identity.former.map(|former| former.to_string());
            let row = json!({"one": 1, "id": identity.id.to_string(), "former": former});
            insert(&mut tx, "identity", [row].into_iter()).await?;
        }
        wals(&mut tx, restored).await?;
        let topics = restored.topics.iter().map(topic_row);
        insert(&mut tx, "topics", topics).await?;
        pipelines(&mut tx, restored).await?;
        let mut written = 0;
        for topic in &restored.topics {
            let id = topic.topic.id.to_string();
            insert(
                &mut tx,
                "partitions",
                topic.partitions.iter().enumerate().map(partition_row(&id)),
            )
            .await?;
            let producers = topic.partitions.iter().enumerate().filter_map(producers_row(&id));
            insert(&mut tx, "partition_producers", producers).await?;
            for (number, partition) in topic.partitions.iter().enumerate() {
                for segments in partition.segments.chunks(ROWS_AT_ONCE) {
                    insert(&mut tx, "segments", segments.iter().map(segment_row(&id, number))).await?;
                    written += segments.len() as u64;
                    progress(written);
                }
            }
        }
        let deletions = restored.deletions.iter();
        let deletions = deletions.map(|(key, at_ms)| json!({"object_key": key, "recorded_at_ms": at_ms}));
        insert(&mut tx, "object_deletions", deletions).await?;
        tx.commit().await
    }
}

async fn insert(tx: &mut Tx, table: &str, rows: impl Iterator<Item = Value>) -> Result<()> {
    let mut rows = rows.peekable();
    while rows.peek().is_some() {
        let some: Vec<Value> = rows.by_ref().take(ROWS_AT_ONCE).collect();
        tx.execute(insert_into(table, &some)).await?;
    }
    Ok(())
}

async fn wals(tx: &mut Tx, restored: &Restored) -> Result<()> {
    let Some(last) = restored.wals.last() else {
        return Ok(());
    };
    let agent = json!({
        "name": restored.agent, "incarnation": last.id.to_string(), "registered_at_ms": restored.now_ms,
        "address": "", "lease_ms": 0, "activation_reached": 0, "topics_behind": [],
    });
    insert(tx, "agents", [agent].into_iter()).await?;
    let wals = restored.wals.iter().map(|wal| {
        json!({
            "id": wal.id.to_string(), "agent": restored.agent, "kind": wal.kind.name(),
            "created_at_ms": restored.now_ms, "deleted": false, "trim_floor": wal.trim_floor,
        })
    });
    insert(tx, "wal_streams", wals).await
}

/// Why the pipelines of a restored database are in force.
const RESTORED: &str = "the metadata were rebuilt from the object store";

/// Without a row of its own the version in force could never be followed by another.
async fn pipelines(tx: &mut Tx, restored: &Restored) -> Result<()> {
    let had_one = || restored.topics.iter().filter(|topic| topic.pipeline_version > 0);
    let key = |topic: &RestoredTopic| (topic.topic.id.to_string(), topic.pipeline_version);
    let versions = had_one().map(|topic| {
        let (topic_id, version) = key(topic);
        json!({"topic_id": topic_id, "version": version, "stages": stages(topic)})
    });
    insert(tx, "pipelines", versions).await?;
    let activations = had_one().map(|topic| {
        let (topic_id, version) = key(topic);
        json!({
            "topic_id": topic_id, "version": version, "activated_at_ms": restored.now_ms, "reason": RESTORED,
            "activation": 0,
        })
    });
    insert(tx, "pipeline_activations", activations).await
}

fn stages(topic: &RestoredTopic) -> Value {
    serde_json::from_str(&topic.pipeline_stages).expect("a rebuild gives stages as JSON")
}

fn topic_row(restored: &RestoredTopic) -> Value {
    let RestoredTopic {
        topic, config_version, ..
    } = restored;
    let described = matches!(restored.manifest, Some((_, true)));
    json!({
        "id": topic.id.to_string(), "name": topic.name, "partitions": topic.partitions, "config": topic.config,
        "pipeline_version": restored.pipeline_version, "created_at_ms": topic.created_at_ms,
        "config_version": config_version, "manifest_version": if described { *config_version } else { 0 },
        "manifest_key": restored.manifest.as_ref().map(|(key, _)| key),
    })
}

fn partition_row(topic_id: &str) -> impl Fn((usize, &RestoredPartition)) -> Value {
    move |(number, partition)| {
        json!({
            "topic_id": topic_id, "partition": number, "epoch": partition.epoch.0, "log_start": partition.log_start.0,
            "committed_end": partition.committed_end.0, "wal_id": partition.wal.map(|wal| wal.to_string()),
        })
    }
}

fn producers_row(topic_id: &str) -> impl Fn((usize, &RestoredPartition)) -> Option<Value> {
    move |(number, partition)| {
        let state = partition.producers.as_ref()?;
        Some(json!({"topic_id": topic_id, "partition": number, "state": state}))
    }
}

fn segment_row(topic_id: &str, partition: usize) -> impl Fn(&SegmentRow) -> Value {
    move |row| {
        json!({
            "topic_id": topic_id, "partition": partition, "base_offset": row.base_offset.0,
            "end_offset": row.end_offset.0, "epoch": row.epoch.0, "object_key": row.key, "etag": row.etag,
            "record_count": row.record_count, "raw_bytes": row.raw_bytes, "stored_bytes": row.stored_bytes,
            "min_timestamp_ms": row.min_timestamp_ms, "max_timestamp_ms": row.max_timestamp_ms,
            "created_at_ms": row.created_at_ms,
        })
    }
}
