//! What a start finds of the incarnations before it.

use millstream_broker::{Acks, TopicConfig, WalKind};
use uuid::Uuid;

use crate::support::{NOW_MS, World, batch, numbered, read_all, register, segment, topic};

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_either_kind_is_recovered_by_a_start_with_the_other() {
    let mut world = World::new();
    let mut end = 0;
    for (round, kind) in [
        WalKind::Disk,
        WalKind::Object,
        WalKind::Object,
        WalKind::Disk,
        WalKind::Disk,
    ]
    .into_iter()
    .enumerate()
    {
        world.wal = kind;
        let broker = world.open(|_| {}).await;
        if round == 0 {
            topic(&broker, "t", TopicConfig::default()).await;
        }
        assert_eq!(read_all(&broker, "t", 0).await, numbered(0..end), "round {round}");
        for _ in 0..5 {
            broker
                .produce("t", 0, batch(end..end + 10), Acks::Durable)
                .await
                .unwrap();
            end += 10;
        }
        if round == 2 {
            broker.topic("t", true).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_incarnation_takes_over_and_the_first_acknowledges_nothing_more() {
    let mut world = World::new();
    world.wal = WalKind::Object;
    let first = world.open(|_| {}).await;
    topic(&first, "t", TopicConfig::default()).await;
    first.produce("t", 0, batch(0..10), Acks::Durable).await.unwrap();

    let second = world.open(|_| {}).await;
    assert!(first.produce("t", 0, batch(10..20), Acks::Durable).await.is_err());
    assert_eq!(read_all(&second, "t", 0).await, numbered(0..10));
    segment(&second, "t", 0, 10..20).await;
    // Neither may the first make a segment of what it still has in memory.
    assert!(first.topic("t", true).await.is_err());
    assert_eq!(read_all(&second, "t", 0).await, numbered(0..20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_cannot_be_loaded_keeps_its_topics_records_and_stops_nobody() {
    let world = World::new();
    let first = world.open(|_| {}).await;
    let broken = topic(&first, "broken", TopicConfig::default()).await;
    topic(&first, "whole", TopicConfig::default()).await;
    for name in ["broken", "whole"] {
        first.produce(name, 0, batch(0..10), Acks::Durable).await.unwrap();
    }
    let metadata = world.metadata().await;
    let gone = r#"{"produce":[{"module":"gone","version":1}],"fetch":[]}"#;
    metadata
        .activate_pipeline(broken.id, 0, gone, "a test", NOW_MS)
        .await
        .unwrap();

    // Twice: the records are copied from one log to the next though nobody serves them.
    for _ in 0..2 {
        let broker = world.open(|_| {}).await;
        assert_eq!(read_all(&broker, "whole", 0).await, numbered(0..10));
        let error = broker
            .produce("broken", 0, batch(10..11), Acks::Durable)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("gone"), "{error}");
        assert!(broker.offsets("broken", 0).await.is_err());
        assert!(broker.tail_bytes() > 0, "what is kept counts");
    }
    let broker = world.open(|_| {}).await;
    let none = r#"{"produce":[],"fetch":[]}"#;
    metadata
        .activate_pipeline(broken.id, 1, none, "a test", NOW_MS)
        .await
        .unwrap();
    assert_eq!(read_all(&broker, "broken", 0).await, numbered(0..10));
    segment(&broker, "broken", 0, 10..20).await;
    broker.stop().await;
    assert_eq!(broker.tail_bytes(), 0);
    assert_eq!(read_all(&*world.open(|_| {}).await, "broken", 0).await, numbered(0..20));
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_left_by_a_crash_between_mark_and_removal_go_and_foreign_ones_stay() {
    let world = World::new();
    let (metadata, wals) = (world.metadata().await, world.wals());
    let [marked, foreign] = [1001, 1002].map(Uuid::from_u128);
    register(&metadata, "test", marked).await;
    for id in [marked, foreign] {
        wals.disk.create(id).await.unwrap().close().await;
    }
    assert!(metadata.retire_wal(marked).await.unwrap());
    world.open(|_| {}).await;
    assert!(!wals.disk.exists(marked).await.unwrap());
    assert!(wals.disk.exists(foreign).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_stays_until_everything_of_it_was_copied() {
    let world = World::new();
    let first = world.open(|_| {}).await;
    topic(&first, "t", TopicConfig::default()).await;
    first.produce("t", 0, batch(0..10), Acks::Durable).await.unwrap();
    let (metadata, wals) = (world.metadata().await, world.wals());
    let old = metadata.pointed_partitions().await.unwrap()[0].wal;
    assert!(!metadata.retire_wal(old).await.unwrap(), "a pointer names it");
    first.sweep().await.unwrap();
    assert!(wals.disk.exists(old).await.unwrap());

    let second = world.open(|_| {}).await;
    assert_ne!(metadata.pointed_partitions().await.unwrap()[0].wal, old);
    assert!(!wals.disk.exists(old).await.unwrap());
    assert_eq!(read_all(&second, "t", 0).await, numbered(0..10));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_log_is_trimmed_below_a_floor_that_metadata_knows_first() {
    let mut world = World::new();
    world.wal = WalKind::Object;
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    for n in 0..100 {
        broker
            .produce("t", 0, batch(n * 10..n * 10 + 10), Acks::Durable)
            .await
            .unwrap();
    }
    broker.topic("t", true).await.unwrap();
    broker
        .produce("t", 0, batch(1_000..1_010), Acks::Durable)
        .await
        .unwrap();
    broker.sweep().await.unwrap();
    let pointed = world.metadata().await.pointed_partitions().await.unwrap();
    assert!(pointed[0].trim_floor > 0);
    assert_eq!(read_all(&*world.open(|_| {}).await, "t", 0).await, numbered(0..1_010));
}
