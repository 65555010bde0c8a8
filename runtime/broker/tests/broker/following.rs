//! What another agent changes about topics and pipelines is seen here.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use millstream_batch::Offset;
use millstream_broker::{Acks, Kind, TopicChange, TopicConfig, WalKind};
use millstream_meta::Metadata;

use crate::support::{NOW_MS, World, batch, numbered, read_all, topic, until};

fn world() -> World {
    let mut world = World::new();
    world.wal = WalKind::Object;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_another_agent_made_is_served() {
    let world = world();
    let (a, b) = (world.agent("a", |_| {}).await, world.agent("b", |_| {}).await);
    assert_eq!(b.offsets("t", 0).await.unwrap_err().kind(), Kind::NotFound);
    let t = topic(&a, "t", TopicConfig::default()).await;
    until("it is served", async || {
        b.produce("t", 0, batch(0..10), Acks::Durable).await.is_ok()
    })
    .await;
    assert_eq!(read_all(&b, "t", 0).await, numbered(0..10));
    assert_eq!(b.topics().await, [t]);
    let u = topic(&a, "u", TopicConfig::default()).await;
    assert_eq!(b.topics().await[1], u, "whoever lists sees it at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_another_agent_altered_reach_open_partitions() {
    let world = world();
    let (a, b) = (world.agent("a", |_| {}).await, world.agent("b", |_| {}).await);
    topic(&a, "t", TopicConfig::default()).await;
    b.produce("t", 0, batch(0..10), Acks::Durable).await.unwrap();
    let change = TopicChange {
        segment_bytes: Some(1_024),
        ..TopicChange::default()
    };
    a.alter_topic("t", change).await.unwrap();
    until("it is seen", async || {
        b.offsets("t", 0).await.unwrap();
        b.topic("t", false).await.unwrap().0.config.segment_bytes == 1_024
    })
    .await;
    // A tail of so many bytes becomes a segment by itself.
    b.produce("t", 0, batch(10..100), Acks::Durable).await.unwrap();
    until("it rolls", async || !world.segments("t").await.is_empty()).await;
    // What the one altered the other does not undo.
    let change = TopicChange {
        retention_bytes: Some(Some(5)),
        ..TopicChange::default()
    };
    let altered = b.alter_topic("t", change).await.unwrap();
    assert_eq!(altered.config.segment_bytes, 1_024);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_agents_alter_at_once_is_all_there_in_the_end() {
    let world = world();
    let (a, b) = (world.agent("a", |_| {}).await, world.agent("b", |_| {}).await);
    topic(&a, "t", TopicConfig::default()).await;
    for round in 0..50 {
        let bytes = TopicChange {
            retention_bytes: Some(Some(round)),
            ..TopicChange::default()
        };
        let age = TopicChange {
            segment_age_ms: Some(round + 1),
            ..TopicChange::default()
        };
        let (bytes, age) = tokio::join!(a.alter_topic("t", bytes), b.alter_topic("t", age));
        bytes.unwrap();
        age.unwrap();
        let stored = world.metadata().await.topic("t").await.unwrap().unwrap().config;
        assert_eq!(
            (stored.retention_bytes, stored.segment_age_ms),
            (Some(round), round + 1)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_another_agent_deleted_is_forgotten_and_a_new_one_takes_its_place() {
    let world = world();
    let (a, b) = (world.agent("a", |_| {}).await, world.agent("b", |_| {}).await);
    for name in ["gone", "again"] {
        topic(&a, name, TopicConfig::default()).await;
        b.produce(name, 0, batch(0..10), Acks::Durable).await.unwrap();
        a.delete_topic(name).await.unwrap();
    }
    topic(&a, "again", TopicConfig::default()).await;
    until("it is gone", async || {
        b.offsets("gone", 0)
            .await
            .is_err_and(|error| error.kind() == Kind::NotFound)
    })
    .await;
    until("it is a new one", async || {
        b.offsets("again", 0)
            .await
            .is_ok_and(|offsets| offsets == (Offset(0), Offset(0)))
    })
    .await;
    until("its memory is given back", async || b.tail_bytes() == 0).await;
    b.produce("again", 0, batch(0..5), Acks::Durable).await.unwrap();
    assert_eq!(read_all(&b, "again", 0).await, numbered(0..5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_that_nobody_asks_for_is_forgotten_by_a_sweep() {
    let world = world();
    let (a, b) = (world.agent("a", |_| {}).await, world.agent("b", |_| {}).await);
    topic(&a, "t", TopicConfig::default()).await;
    b.produce("t", 0, batch(0..10), Acks::Durable).await.unwrap();
    a.delete_topic("t").await.unwrap();
    b.sweep().await.unwrap();
    until("its memory is given back", async || b.tail_bytes() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_cannot_be_loaded_leaves_the_one_in_force() {
    let world = world();
    let metadata = world.metadata().await;
    let b = world
        .open_over(metadata.clone(), "b", "wal-of-b", |_| {})
        .await
        .unwrap();
    let t = topic(&b, "t", TopicConfig::default()).await;
    b.produce("t", 0, batch(0..10), Acks::Durable).await.unwrap();
    let missing = r#"{"produce":[{"module":"gone","version":1}],"fetch":[]}"#;
    // By another agent: this one hears of it from its cache.
    let other = world.metadata().await;
    other
        .activate_pipeline(t.id, 0, missing, "a test", NOW_MS)
        .await
        .unwrap();
    let (before, next) = (looks_at_pipelines(&metadata), AtomicU64::new(10));
    until("it has looked, tried, and looked again", async || {
        let at = next.fetch_add(1, Ordering::Relaxed);
        let receipt = b.produce("t", 0, batch(at..at + 1), Acks::Durable).await.unwrap();
        assert_eq!(receipt.pipeline_version, 0);
        looks_at_pipelines(&metadata) >= before + 2
    })
    .await;
    let next = next.into_inner();
    let none = r#"{"produce":[],"fetch":[]}"#;
    other.activate_pipeline(t.id, 1, none, "a test", NOW_MS).await.unwrap();
    // It is tried again after a while; whoever shows or changes the pipeline asks for the newest.
    assert_eq!(b.pipeline("t").await.unwrap().0, 2);
    let receipt = b.produce("t", 0, batch(next..next + 10), Acks::Durable).await.unwrap();
    assert_eq!(receipt.pipeline_version, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_another_agent_activated_is_switched_to() {
    let world = world();
    let (a, b) = (world.agent("a", |_| {}).await, world.agent("b", |_| {}).await);
    let t = topic(&a, "t", TopicConfig::default()).await;
    b.produce("t", 0, batch(0..10), Acks::Durable).await.unwrap();
    let none = r#"{"produce":[],"fetch":[]}"#;
    let metadata = world.metadata().await;
    metadata
        .activate_pipeline(t.id, 0, none, "a test", NOW_MS)
        .await
        .unwrap();
    let end = AtomicU64::new(10);
    until("it is switched to", async || {
        let next = end.fetch_add(1, Ordering::Relaxed);
        let receipt = b.produce("t", 0, batch(next..next + 1), Acks::Durable).await.unwrap();
        receipt.pipeline_version == 1
    })
    .await;
    assert_eq!(read_all(&b, "t", 0).await, numbered(0..end.into_inner()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_opens_runs_what_others_activated_before() {
    let mut world = world();
    world.cache_ttl = Duration::from_secs(3_600);
    let b = world.agent("b", |_| {}).await;
    let t = topic(&b, "t", TopicConfig::default()).await;
    let none = r#"{"produce":[],"fetch":[]}"#;
    let metadata = world.metadata().await;
    metadata
        .activate_pipeline(t.id, 0, none, "a test", NOW_MS)
        .await
        .unwrap();
    // The second one remembers what it read of it.
    for _ in 0..2 {
        let receipt = b.produce("t", 0, batch(0..5), Acks::Durable).await.unwrap();
        assert_eq!(receipt.pipeline_version, 1);
    }
    metadata
        .activate_pipeline(t.id, 1, none, "a test", NOW_MS)
        .await
        .unwrap();
    for partition in [1, 0] {
        let receipt = b.produce("t", partition, batch(0..5), Acks::Durable).await.unwrap();
        assert_eq!(receipt.pipeline_version, 2, "of partition {partition}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_keeps_nobody_from_a_topic_that_is_known() {
    let world = world();
    let metadata = world.metadata().await;
    let b = world
        .open_over(metadata.clone(), "b", "wal-of-b", |_| {})
        .await
        .unwrap();
    topic(&b, "t", TopicConfig::default()).await;
    b.produce("t", 0, batch(0..10), Acks::Durable).await.unwrap();
    world.execute("ALTER TABLE topics RENAME TO topics_away").await;
    let (before, end) = (metadata.stats().queries, AtomicU64::new(10));
    until("it has asked in vain a few times", async || {
        let at = end.fetch_add(10, Ordering::Relaxed);
        b.produce("t", 0, batch(at..at + 10), Acks::Durable).await.unwrap();
        metadata.stats().queries >= before + 4
    })
    .await;
    assert_eq!(read_all(&b, "t", 0).await, numbered(0..end.into_inner()));
    let asked = tokio::time::timeout(Duration::from_secs(30), b.topics()).await.unwrap();
    assert_eq!(asked.len(), 1);
}

/// How often the cache has read a pipeline.
fn looks_at_pipelines(metadata: &Metadata) -> u64 {
    let stats = metadata.stats();
    let pipelines = stats.cache.iter().filter(|kind| kind.kind == "pipeline");
    pipelines.map(|kind| kind.misses + kind.refreshes).sum()
}
