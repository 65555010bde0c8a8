//! A partition that steps down is opened again, with everything that was acknowledged.

use std::time::Duration;

use millstream_batch::Offset;
use millstream_broker::{Acks, FetchQuery, Kind, TopicConfig, WalKind};
use millstream_meta::NewSegment;

use crate::support::{NOW_MS, World, another, batch, numbered, read_all, read_from, segment, topic, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_partition_opens_again_with_its_tail() {
    let mut world = World::new();
    world.wal = WalKind::Object;
    let broker = world.open(|_| {}).await;
    let t = topic(&broker, "t", TopicConfig::default()).await;
    segment(&broker, "t", 0, 0..10).await;
    broker.produce("t", 0, batch(10..20), Acks::Durable).await.unwrap();
    let tail_bytes = broker.tail_bytes();

    // Another took the lease, and was gone before it did anything with it.
    let metadata = world.metadata().await;
    let other = another(&metadata).await;
    world.expire("test").await;
    metadata.acquire_lease(t.id, 0, other).await.unwrap();
    metadata.leave(other).await.unwrap();
    broker.topic("t", true).await.unwrap_err();

    assert_eq!(read_all(&broker, "t", 0).await, numbered(0..20));
    assert_eq!(broker.tail_bytes(), tail_bytes, "it counts once");
    broker.produce("t", 0, batch(20..30), Acks::Durable).await.unwrap();
    assert_eq!(read_all(&broker, "t", 0).await, numbered(0..30));
    let again = world.open(|_| {}).await;
    assert_eq!(read_all(&again, "t", 0).await, numbered(0..30));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_partition_that_was_committed_by_another_goes_on_behind_that() {
    let mut world = World::new();
    world.wal = WalKind::Object;
    let broker = world.open(|_| {}).await;
    let t = topic(&broker, "t", TopicConfig::default()).await;
    broker.produce("t", 0, batch(0..10), Acks::Durable).await.unwrap();

    // Another made a segment of the tail, and gave the partition back.
    let metadata = world.metadata().await;
    let other = another(&metadata).await;
    world.expire("test").await;
    let lease = metadata.acquire_lease(t.id, 0, other).await.unwrap();
    let segment = NewSegment {
        key: "elsewhere".to_owned(),
        base_offset: Offset(0),
        end_offset: Offset(10),
        record_count: 10,
        raw_bytes: 10,
        stored_bytes: 10,
        min_timestamp_ms: 0,
        max_timestamp_ms: 0,
        created_at_ms: NOW_MS,
        etag: None,
    };
    metadata.commit_segment(&lease, &segment).await.unwrap();
    assert_eq!(metadata.release_leases(&[(lease, Offset(10))]).await.unwrap(), [true]);
    broker.topic("t", true).await.unwrap_err();
    assert_eq!(broker.offsets("t", 0).await.unwrap(), (Offset(0), Offset(10)));
    until("the tail is dropped", async || broker.tail_bytes() == 0).await;
    let receipt = broker.produce("t", 0, batch(10..20), Acks::Durable).await.unwrap();
    assert_eq!(receipt.base_offset, Offset(10));
    assert_eq!(read_from(&broker, "t", 0, Offset(10)).await, numbered(10..20));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incarnation_whose_log_was_taken_over_serves_nothing_more() {
    let world = World::new();
    let first = world.open(|_| {}).await;
    topic(&first, "t", TopicConfig::default()).await;
    first.produce("t", 0, batch(0..10), Acks::Durable).await.unwrap();
    let second = world.open(|_| {}).await;
    second.stop().await;
    first.topic("t", true).await.unwrap_err();
    assert_eq!(first.offsets("t", 0).await.unwrap_err().kind(), Kind::Unavailable);
    let failure = first.failure().borrow().clone();
    assert!(failure.is_some_and(|reason| reason.contains("another start of this agent")));
    assert_eq!(read_all(&*world.open(|_| {}).await, "t", 0).await, numbered(0..10));
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_wait_at_the_end_hear_that_the_partition_closed() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    broker.offsets("t", 0).await.unwrap();
    let waiting = broker.fetch(FetchQuery {
        topic: "t".to_owned(),
        partition: 0,
        offset: Offset(0),
        bytes_max: 100,
        bytes_min: 1,
        wait: Duration::from_secs(600),
        stage: None,
    });
    let delete = async {
        tokio::task::yield_now().await;
        broker.delete_topic("t").await.unwrap();
    };
    let (fetched, ()) = tokio::time::timeout(Duration::from_secs(30), async { tokio::join!(waiting, delete) })
        .await
        .expect("the reader is woken");
    assert!(fetched.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_that_had_stepped_down_gives_its_memory_back() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    let t = topic(&broker, "t", TopicConfig::default()).await;
    broker.produce("t", 0, batch(0..10), Acks::Durable).await.unwrap();
    let metadata = world.metadata().await;
    let wal = metadata.pointed_partitions().await.unwrap()[0].wal;
    metadata.acquire_lease(t.id, 0, wal).await.unwrap();
    broker.topic("t", true).await.unwrap_err();
    broker.delete_topic("t").await.unwrap();
    until("the memory is given back", async || broker.tail_bytes() == 0).await;
}
