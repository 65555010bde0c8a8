//! Changes of topics: what happens where an answer of the metadata was lost, and what one that takes long holds up.

use std::time::Duration;

use millstream_batch::{Epoch, Offset};
use millstream_broker::{Acks, BrokerError, Kind, NewTopic, TopicChange, TopicConfig, WalKind};
use millstream_meta::Lease;
use uuid::Uuid;

use crate::support::{NOW_MS, World, batch, numbered, read_all, segment, topic, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_whose_deletion_nobody_heard_of_can_be_deleted_and_made_again() {
    let mut world = World::new();
    world.cache_ttl = Duration::from_secs(3_600);
    let broker = world.open(|_| {}).await;
    let first = topic(&broker, "t", TopicConfig::default()).await;
    broker.produce("t", 0, batch(5..10), Acks::Durable).await.unwrap();
    let metadata = world.metadata().await;
    metadata.delete_topic(first.id, NOW_MS).await.unwrap();
    broker.delete_topic("t").await.unwrap();
    assert_eq!(broker.delete_topic("t").await.unwrap_err().kind(), Kind::NotFound);
    until("its memory is given back", async || broker.tail_bytes() == 0).await;
    let second = topic(&broker, "t", TopicConfig::default()).await;
    broker.produce("t", 0, batch(0..10), Acks::Durable).await.unwrap();

    // Nor need it be deleted once more.
    metadata.delete_topic(second.id, NOW_MS).await.unwrap();
    topic(&broker, "t", TopicConfig::default()).await;
    until("its memory is given back", async || broker.tail_bytes() == 0).await;
    broker.produce("t", 0, batch(0..20), Acks::Durable).await.unwrap();
    assert_eq!(read_all(&broker, "t", 0).await, numbered(0..20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_nobody_heard_of_is_served_once_it_is_asked_for_again() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    let (metadata, config) = (world.metadata().await, TopicConfig::default());
    let id = Uuid::from_u128(77);
    metadata.create_topic(id, "t", 3, &config, NOW_MS).await.unwrap();
    let again = NewTopic {
        name: "t".to_owned(),
        partitions: 3,
        config,
    };
    assert_eq!(broker.create_topic(again).await.unwrap_err().kind(), Kind::Exists);
    assert_eq!(broker.topics().await[0].id, id);
    broker.produce("t", 2, batch(0..10), Acks::Durable).await.unwrap();
    assert_eq!(read_all(&broker, "t", 2).await, numbered(0..10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_start_that_moved_unheard_of_is_no_hole() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    let t = topic(&broker, "t", TopicConfig::default()).await;
    segment(&broker, "t", 0, 0..10).await;
    segment(&broker, "t", 0, 10..20).await;
    let lease = Lease {
        topic_id: t.id,
        partition: 0,
        epoch: Epoch(1),
        committed_end: Offset(0),
        log_start: Offset(0),
        wal: None,
    };
    let metadata = world.metadata().await;
    metadata.truncate(&lease, Offset(10), NOW_MS).await.unwrap();
    world.clock.advance(Duration::from_secs(1));
    broker.sweep().await.unwrap();
    assert_eq!(world.segments("t").await.len(), 1, "the object is gone");
    let query = millstream_broker::FetchQuery {
        topic: "t".to_owned(),
        partition: 0,
        offset: Offset(0),
        bytes_max: 1_000,
        bytes_min: 0,
        wait: Duration::ZERO,
        stage: None,
    };
    let error = broker.fetch(query).await.unwrap_err();
    assert!(
        matches!(error, BrokerError::OffsetOutOfRange { start: Offset(10), .. }),
        "{error}"
    );
    assert_eq!(read_all(&broker, "t", 0).await.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_waits_for_the_log_holds_up_no_other_topic() {
    let mut world = World::new();
    world.wal = WalKind::Object;
    let broker = world.open(|_| {}).await;
    topic(&broker, "stuck", TopicConfig::default()).await;
    broker.produce("stuck", 0, batch(0..10), Acks::Durable).await.unwrap();
    world.objects.close("_wal");
    // As many as may be on their way into the log: until one is there the partition hears nothing.
    for n in 1..=64 {
        let values = batch(n * 10..n * 10 + 10);
        broker.produce("stuck", 0, values, Acks::Memory).await.unwrap();
    }
    let alter = |retention_ms| {
        let (broker, change) = (
            broker.clone(),
            TopicChange {
                retention_ms: Some(Some(retention_ms)),
                ..TopicChange::default()
            },
        );
        tokio::spawn(async move { broker.alter_topic("stuck", change).await })
    };
    let first = alter(1_000_000);
    until("the change is made", async || {
        broker.topics().await[0].config.retention_ms == Some(1_000_000)
    })
    .await;
    let second = alter(2_000_000);
    let others = async {
        topic(&broker, "t", TopicConfig::default()).await;
        broker.delete_topic("t").await.unwrap();
    };
    tokio::time::timeout(Duration::from_secs(30), others)
        .await
        .expect("others have their turn");
    assert!(!first.is_finished());
    world.objects.open("_wal");
    first.await.unwrap().unwrap();
    let altered = second.await.unwrap().unwrap();
    assert_eq!(altered.config.retention_ms, Some(2_000_000));
    assert_eq!(broker.topics().await, [altered]);
    // Answered in order: what was only in memory is durable with it.
    broker
        .produce("stuck", 0, batch(650..660), Acks::Durable)
        .await
        .unwrap();
    assert_eq!(read_all(&broker, "stuck", 0).await, numbered(0..660));
}
