//! Snapshots of both databases, into both, and files that are no snapshots.

mod amounts;
mod refusals;
mod round_trips;
mod schema;

use std::io::Cursor;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millstream_batch::{Epoch, Offset};
use millstream_postgres::Server;
use uuid::Uuid;

use super::ImportOptions;
use crate::{Metadata, NewIncarnation, NewSegment, Result, SnapshotReport, TopicConfig, WalKind};

const NOW_MS: i64 = 1_700_000_000_000;

/// A database of its own, and what has to outlive it.
struct World {
    metadata: Metadata,
    database: Option<millstream_postgres::Database>,
    _directory: tempfile::TempDir,
}

async fn sqlite() -> World {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("meta.db").display());
    World {
        metadata: Metadata::open(&url).await.unwrap(),
        database: None,
        _directory: directory,
    }
}

async fn postgres() -> World {
    let database = Server::shared().database();
    World {
        metadata: Metadata::open(database.url()).await.unwrap(),
        database: Some(database),
        _directory: tempfile::tempdir().unwrap(),
    }
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

async fn register(metadata: &Metadata, agent_name: &str, incarnation: Uuid) {
    let incarnation = NewIncarnation {
        agent_name,
        address: "a.example:7070",
        incarnation,
        wal_kind: WalKind::Object,
        lease: Duration::from_secs(3_600),
    };
    metadata.register_incarnation(&incarnation, NOW_MS).await.unwrap();
}

/// Something of everything; the incarnation `id(9)` of the agent `a` has left.
async fn fill(metadata: &Metadata) {
    metadata.identity(id(1)).await.unwrap();
    register(metadata, "a", id(9)).await;
    register(metadata, "Z ü", id(8)).await;
    let config = TopicConfig::default();
    for (number, name) in [(2, "b-topic"), (3, "A-topic"), (4, "gone")] {
        metadata
            .create_topic(id(number), name, 3, &config, NOW_MS)
            .await
            .unwrap();
    }
    let lease = metadata.acquire_lease(id(2), 1, id(9)).await.unwrap();
    metadata.move_wal_pointer(&lease, id(9)).await.unwrap();
    for base in [0, 10] {
        let segment = NewSegment {
            base_offset: Offset(base),
            end_offset: Offset(base + 10),
            key: format!("t/1/seg_{base}"),
            etag: (base > 0).then(|| "\"e\\tag\"".to_owned()),
            record_count: 10,
            raw_bytes: 1 << 40,
            stored_bytes: 7,
            min_timestamp_ms: -5,
            max_timestamp_ms: NOW_MS,
            created_at_ms: NOW_MS,
        };
        metadata.commit_segment(&lease, &segment).await.unwrap();
    }
    metadata.delete_topic(id(4), NOW_MS).await.unwrap();
    rows(
        metadata,
        &[
            "INSERT INTO object_deletions (object_key, recorded_at_ms) VALUES ('k/ü', 5), ('K', 6)",
            "INSERT INTO modules (name, latest_version, created_at_ms) VALUES ('m', 4294967295, 7)",
            "INSERT INTO activation_counter (one, last) VALUES (1, 5)",
            r#"UPDATE agents SET activation_reached = 3, topics_behind = '["0"]' WHERE name = 'a'"#,
            r#"INSERT INTO consumer_groups (name, generation, created_at_ms, version, members)
               VALUES ('g', 3, 8, 9, '{"members": {"m": [1]}}')"#,
            "INSERT INTO producers (name, producer_id, producer_epoch, initialized_at_ms) VALUES ('p', 5, 32767, 8)",
        ],
    )
    .await;
    let info = crate::database::json("info", r#"{"z": [1, 2.5, null, true], "a": "ü\"\\\n"}"#).unwrap();
    let module = "INSERT INTO module_versions (name, version, sha256, size_bytes, info, deployed_at_ms) \
                  VALUES ('m', 2, $1, 9, $2, 10)";
    let module = crate::database::sql(module).bind(&"0".repeat(64)).bind(info);
    metadata.database.write(module).await.unwrap();
    let stages = crate::database::json(
        "stages",
        r#"{"produce": [{"module": "m", "params": {"b": "1", "a": ""}}]}"#,
    );
    let pipeline = "INSERT INTO pipelines (topic_id, version, stages) VALUES ($1, 1, $2)";
    let pipeline = crate::database::sql(pipeline).bind(id(2)).bind(stages.unwrap());
    metadata.database.write(pipeline).await.unwrap();
    for more in [
        "INSERT INTO pipeline_activations (topic_id, version, activated_at_ms, activation) VALUES ($1, 1, 11, 4)",
        "INSERT INTO consumer_offsets (group_name, topic_id, partition, next_offset, committed_at_ms, metadata) \
         VALUES ('g', $1, 2, 9223372036854775807, 12, 'ü')",
        "INSERT INTO partition_producers (topic_id, partition, state) VALUES ($1, 1, 'AAAA')",
    ] {
        let more = crate::database::sql(more).bind(id(2));
        metadata.database.write(more).await.unwrap();
    }
    metadata.leave(id(9)).await.unwrap();
    metadata.leave(id(8)).await.unwrap();
}

async fn rows(metadata: &Metadata, statements: &[&'static str]) {
    for statement in statements {
        metadata.database.write(crate::database::sql(*statement)).await.unwrap();
    }
}

async fn exported(metadata: &Metadata) -> String {
    let mut out = Cursor::new(Vec::new());
    metadata.export(&mut out, NOW_MS, &|_| {}).await.unwrap();
    String::from_utf8(out.into_inner()).unwrap()
}

async fn import(metadata: &Metadata, snapshot: &str) -> Result<SnapshotReport> {
    static IMPORTS: AtomicU64 = AtomicU64::new(0);
    let number = IMPORTS.fetch_add(1, Ordering::Relaxed);
    let options = ImportOptions {
        database: id(1_000 + u128::from(number)),
        running: false,
    };
    metadata.import(&mut snapshot.as_bytes(), options, &|_| {}).await
}

/// The rows but for the identity, which an import changes: the first line tells where they come from, and the last one sums
/// that up.
fn body(snapshot: &str) -> &str {
    let (_, rest) = snapshot.split_once('\n').expect("a snapshot has lines");
    let end = rest.rfind("{\"end\"").expect("a snapshot has an end");
    let rows = &rest[..end];
    match rows.split_once('\n') {
        Some((identity, others)) if identity.contains(r#""table":"identity""#) => others,
        _ => rows,
    }
}

async fn epoch(metadata: &Metadata, topic: Uuid, partition: u32) -> Epoch {
    metadata.partition(topic, partition).await.unwrap().unwrap().epoch
}
