//! What goes from the front of a partition, and what stays.

use std::time::Duration;

use bytes::Bytes;
use millstream_batch::{BatchBuilder, Compression, Offset};
use millstream_broker::{Acks, Kind, TopicChange, TopicConfig};

use crate::support::{World, batch, numbered, read_all, read_from, segment, status, topic};

const HOUR: Duration = Duration::from_secs(3_600);

fn one_hour() -> TopicConfig {
    TopicConfig {
        retention_ms: Some(HOUR.as_millis() as u64),
        ..TopicConfig::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_line_of_2015_is_not_deleted_on_arrival() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", one_hour()).await;
    let old: Bytes = {
        let mut builder = BatchBuilder::new();
        builder.push(1_430_000_000_000, None, Some(b"0"), [].into_iter());
        builder.build(Compression::None).to_bytes()
    };
    broker.produce("t", 0, old, Acks::Durable).await.unwrap();
    broker.topic("t", true).await.unwrap();
    world.clock.advance(HOUR);
    broker.sweep().await.unwrap();
    assert_eq!(read_all(&broker, "t", 0).await, numbered(0..1));
    world.clock.advance(Duration::from_millis(1));
    broker.sweep().await.unwrap();
    assert_eq!(read_all(&broker, "t", 0).await, []);
    assert_eq!(broker.offsets("t", 0).await.unwrap(), (Offset(1), Offset(1)));
    assert_eq!(world.segments("t").await.len(), 0, "its object is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_reaches_partitions_that_nobody_opened_since_the_start() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", one_hour()).await;
    segment(&broker, "t", 0, 0..10).await;
    broker.stop().await;
    world.clock.advance(2 * HOUR);
    let broker = world.open(|_| {}).await;
    assert_eq!(broker.stats().open_partitions, 0);
    broker.sweep().await.unwrap();
    assert_eq!(broker.stats().open_partitions, 1, "only the one with something old");
    assert_eq!(status(&broker, "t", 0).await.log_start, Offset(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_by_bytes_leaves_at_least_so_many() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    for n in 0..3 {
        segment(&broker, "t", 0, n * 10..n * 10 + 10).await;
    }
    let stored = status(&broker, "t", 0).await.stored_bytes;
    let change = TopicChange {
        retention_bytes: Some(Some(stored / 3 * 2)),
        ..TopicChange::default()
    };
    // Altered while the partition is open, and in force at once.
    broker.alter_topic("t", change).await.unwrap();
    broker.sweep().await.unwrap();
    assert_eq!(status(&broker, "t", 0).await.log_start, Offset(10));
    assert_eq!(read_all(&broker, "t", 0).await, numbered(10..30));
}

#[tokio::test(flavor = "multi_thread")]
async fn truncation_cuts_segments_and_tail_and_never_moves_back() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    segment(&broker, "t", 0, 0..10).await;
    broker.produce("t", 0, batch(10..20), Acks::Durable).await.unwrap();
    broker.produce("t", 0, batch(20..30), Acks::Durable).await.unwrap();
    let truncate = async |before| broker.truncate("t", 0, Offset(before)).await;

    assert_eq!(truncate(5).await.unwrap(), Offset(5));
    assert_eq!(read_from(&broker, "t", 0, Offset(5)).await, numbered(5..30));
    assert_eq!(
        truncate(15).await.unwrap(),
        Offset(15),
        "what it cuts off is in segments first"
    );
    assert_eq!(read_all(&broker, "t", 0).await, numbered(15..30));
    assert_eq!(truncate(3).await.unwrap(), Offset(15));
    let beyond = truncate(31).await.unwrap_err();
    assert_eq!(beyond.kind(), Kind::OutOfRange, "{beyond}");
    assert_eq!(truncate(30).await.unwrap(), Offset(30));
    broker.produce("t", 0, batch(30..40), Acks::Durable).await.unwrap();

    let again = world.open(|_| {}).await;
    assert_eq!(read_all(&again, "t", 0).await, numbered(30..40));
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_be_are_refused_and_change_nothing() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    let before = topic(&broker, "t", TopicConfig::default()).await;
    for change in [
        TopicChange {
            record_bytes_max: Some(0),
            ..TopicChange::default()
        },
        TopicChange {
            segment_bytes: Some(1),
            ..TopicChange::default()
        },
        TopicChange {
            segment_age_ms: Some(0),
            ..TopicChange::default()
        },
    ] {
        let error = broker.alter_topic("t", change).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
    }
    assert_eq!(broker.topics().await, [before]);
}
