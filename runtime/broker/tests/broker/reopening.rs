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
    metadata
        .activate_pipeline(shut.id, 0, MISSING, "a test", NOW_MS)
        .await
        .unwrap();
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
    metadata
        .activate_pipeline(shut, 1, NONE, "a test", NOW_MS)
        .await
        .unwrap();
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
    metadata
        .activate_pipeline(shut, 1, NONE, "a test", NOW_MS)
        .await
        .unwrap();
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

/// A broker named "b" that holds a copy of partition 0, which a dead agent left, and could not move the pointer to it.
async fn cut_short(world: &mut World) -> (Arc<Broker>, Uuid) {
    world.wal = WalKind::Object;
    let a = world.agent("a", |_| {}).await;
    let t = topic(&a, "t", TopicConfig::default()).await;
    a.produce("t", 0, batch(0..10), Acks::Durable).await.unwrap();
    drop(a);
    let b = world.agent("b", |_| {}).await;
    world.expire("a").await;
    world.refuse_pointers_to("b").await;
    b.produce("t", 0, batch(10..20), Acks::Durable).await.unwrap_err();
    assert!(b.tail_bytes() > 0);
    (b, t.id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_take_over_that_was_cut_short_goes_on_without_a_request() {
    let mut world = World::new();
    let (b, _) = cut_short(&mut world).await;
    world.relent().await;
    until("it is open", async || b.stats().open_partitions == 1).await;
    assert_eq!(read_all(&b, "t", 0).await, numbered(0..10));
    b.topic("t", true).await.unwrap();
    assert_eq!(b.tail_bytes(), 0, "it counted once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_take_over_that_was_cut_short_gives_its_memory_back_once_another_leads() {
    let mut world = World::new();
    let (b, t) = cut_short(&mut world).await;
    let metadata = world.metadata().await;
    let other = another(&metadata).await;
    until("the other gets it", async || {
        world.expire("b").await;
        metadata.acquire_lease(t, 0, other).await.is_ok()
    })
    .await;
    let lease = metadata.acquire_lease(t, 0, other).await.unwrap();
    metadata.move_wal_pointer(&lease, other).await.unwrap();
    until("the memory is given back", async || b.tail_bytes() == 0).await;
    assert_eq!(metadata.holds_leases(&[lease]).await.unwrap(), [true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_took_while_a_start_copied_it_is_let_go_of() {
    let mut world = World::new();
    world.wal = WalKind::Object;
    let first = world.open(|_| {}).await;
    topic(&first, "t", TopicConfig::default()).await;
    for partition in 0..2 {
        first
            .produce("t", partition, batch(0..10), Acks::Durable)
            .await
            .unwrap();
    }
    let tails = first.tail_bytes();
    drop(first);
    let other = another(&world.metadata().await).await.simple();
    // The pointer moves, and the other takes the partition right behind that.
    world
        .execute(&format!(
            "CREATE TRIGGER quicker AFTER UPDATE OF wal_id ON partitions WHEN NEW.partition = 1 BEGIN \
             UPDATE partitions SET epoch = epoch + 1, wal_id = x'{other}' \
             WHERE topic_id = NEW.topic_id AND partition = NEW.partition; \
             UPDATE partition_leases SET epoch = epoch + 1, incarnation = x'{other}' \
             WHERE topic_id = NEW.topic_id AND partition = NEW.partition; END"
        ))
        .await;
    let again = world.open(|_| {}).await;
    assert_eq!(again.stats().open_partitions, 1);
    until("the memory is given back", async || again.tail_bytes() == tails / 2).await;
    let refused = again.produce("t", 1, batch(10..20), Acks::Durable).await.unwrap_err();
    assert!(refused.to_string().contains("led by agent \"other\""), "{refused}");
    assert_eq!(read_all(&again, "t", 0).await, numbered(0..10));
}
