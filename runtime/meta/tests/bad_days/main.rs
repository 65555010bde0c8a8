//! Bad days of PostgreSQL: what becomes of calls and data, and what the message tells whoever runs the database.

mod access;
mod given_up;
mod load;
mod migrations;
mod outages;
mod pooler;
mod tls;

use std::time::Duration;

use millstream_batch::Offset;
use millstream_meta::{Lease, MetaError, Metadata, MetadataSettings, NewIncarnation, NewSegment, TopicConfig, WalKind};
use millstream_postgres::PASSWORD;
use sqlx::{ConnectOptions as _, PgConnection, postgres::PgConnectOptions};
use uuid::Uuid;

const NOW_MS: i64 = 1_700_000_000_000;
/// No test takes so long.
const LEASE: Duration = Duration::from_secs(3600);

/// Of the one agent.
const INCARNATION: Uuid = Uuid::from_u128(100);

fn settings(url: &str) -> MetadataSettings {
    MetadataSettings {
        connect_patience: Duration::ZERO,
        ..MetadataSettings::at(url)
    }
}

/// Opens a database that is to be refused.
async fn refused(url: &str) -> MetaError {
    match Metadata::open(url).await {
        Ok(metadata) => panic!("{} was opened", metadata.place()),
        Err(error) => error,
    }
}

/// Holds the message to what it must say, and to what it must not.
#[track_caller]
fn says(error: &MetaError, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    println!("{text}");
    keeps_the_password(&format!("{error} {error:?}"));
}

#[track_caller]
fn keeps_the_password(text: &str) {
    let (_, rest) = PASSWORD.split_once('@').unwrap();
    assert!(!text.contains(rest), "it tells the password: {text}");
}

/// A topic `orders`, and a lease on each of its partitions.
async fn leases(metadata: &Metadata, partitions: u32) -> Vec<Lease> {
    let topic_id = Uuid::from_u128(1);
    let config = TopicConfig::default();
    metadata
        .create_topic(topic_id, "orders", partitions, &config, NOW_MS)
        .await
        .unwrap();
    let new = NewIncarnation {
        agent_name: "agent",
        address: "host:7070",
        incarnation: INCARNATION,
        wal_kind: WalKind::Disk,
        lease: LEASE,
    };
    metadata.register_incarnation(&new, NOW_MS).await.unwrap();
    let mut leases = Vec::new();
    for partition in 0..partitions {
        leases.push(metadata.acquire_lease(topic_id, partition, INCARNATION).await.unwrap());
    }
    leases
}

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

/// A session beside those of what is tested.
async fn session(url: &str) -> PgConnection {
    let options: PgConnectOptions = url.parse().unwrap();
    options.application_name("test").connect().await.unwrap()
}
