//! What closed by itself opens again without a request, and takes nothing from those who are open meanwhile.

use std::sync::Arc;

use millstream_batch::Offset;
use millstream_broker::{Acks, Broker, TopicConfig, WalKind};
use uuid::Uuid;

use crate::support::{NOW_MS, World, another, batch, numbered, read_all, status, topic, until};

const MISSING: &str = r#"{"produce":[{"module":"gone","version":1}],"fetch":[]}"#;
const NONE: &str = r#"{"produce":[],"fetch":[]}"#;

/// A broker that cannot open "shut", whose records take four fifths of its memory. "open" is there beside it.
async fn cramped(world: &World) -> (Arc<Broker>, Uuid) {
    let first = world.open(|_| {}).await;
    let shut = topic(&first, "shut", TopicConfig::default()).await;
    topic(&first, "open", TopicConfig::default()).await;
    for n in 0..6 {
        let values = batch(n * 1_000..n * 1_000 + 1_000);
        first.produce("shut", 0, values, Acks::Durable).await.unwrap();
    }
    let left = first.tail_bytes();
    let metadata = world.metadata().await;
    metadata.activate_pipeline(shut.id, 0, MISSING, NOW_MS).await.unwrap();
    let broker = world.open(|settings| settings.tail_bytes_max = left + left / 4).await;
    assert_eq!(broker.tail_bytes(), left);
    (broker, shut.id)
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_topic_whose_module_comes_back_become_segments_without_a_request() {
    let world = World::new();
    let (broker, shut) = cramped(&world).await;
    let closed = status(&broker, "shut", 0).await;
    assert_eq!(
        (closed.high_watermark, closed.committed_end),
        (Offset(6_000), Offset(0))
    );
    for n in 0..20 {
        broker.produce("open", 0, batch(n..n + 1), Acks::Durable).await.unwrap();
    }
    let metadata = world.metadata().await;
    metadata.activate_pipeline(shut, 1, NONE, NOW_MS).await.unwrap();
    until("they are in segments", async || {
        status(&broker, "shut", 0).await.committed_end == Offset(6_000)
    })
    .await;
    assert_eq!(status(&broker, "open", 0).await.segment_count, 0, "no small segments");
    assert_eq!(read_all(&broker, "shut", 0).await, numbered(0..6_000));
    assert_eq!(read_all(&broker, "open", 0).await, numbered(0..20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_makes_segments_of_what_is_closed_where_it_can() {
    let world = World::new();
    let (broker, shut) = cramped(&world).await;
    let metadata = world.metadata().await;
    metadata.activate_pipeline(shut, 1, NONE, NOW_MS).await.unwrap();
    broker.stop().await;
    assert_eq!(broker.tail_bytes(), 0);
    assert_eq!(metadata.pointed_partitions().await.unwrap(), []);
    assert_eq!(world.segments("shut").await.len(), 1);

    let (broker, _) = cramped(&World::new()).await;
    broker.stop().await;
    assert!(broker.tail_bytes() > 0, "the next start finds it in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_another_leads_gives_its_memory_back_and_the_other_is_left_alone() {
    let mut world = World::new();
    world.wal = WalKind::Object;
    let broker = world.open(|_| {}).await;
    let t = topic(&broker, "t", TopicConfig::default()).await;
    broker.produce("t", 0, batch(0..10), Acks::Durable).await.unwrap();
    let metadata = world.metadata().await;
    let other = another(&metadata).await;
    world.expire("test").await;
    let lease = metadata.acquire_lease(t.id, 0, other).await.unwrap();
    metadata.move_wal_pointer(&lease, other).await.unwrap();
    broker.topic("t", true).await.unwrap_err();
    until("the memory is given back", async || broker.tail_bytes() == 0).await;
    assert_eq!(metadata.holds_leases(&[lease]).await.unwrap(), [true]);
}
