//! Several agents on one database and one store.

use millstream_broker::{Acks, BrokerError, Kind, TopicConfig, WalKind};

use crate::support::{NOW_MS, World, batch, numbered, read_all, segment, topic, until};

fn world() -> World {
    let mut world = World::new();
    world.wal = WalKind::Object;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_living_agent_is_not_disturbed_by_one_that_starts_and_sweeps() {
    for kind in [WalKind::Disk, WalKind::Object] {
        let mut world = World::new();
        world.wal = kind;
        let a = world.agent("a", |_| {}).await;
        let t = topic(&a, "t", TopicConfig::default()).await;
        a.produce("t", 0, batch(0..10), Acks::Durable).await.unwrap();
        let metadata = world.metadata().await;
        let row = metadata.partition(t.id, 0).await.unwrap().unwrap();
        let b = world.agent("b", |_| {}).await;
        b.sweep().await.unwrap();
        let refused = b.produce("t", 0, batch(10..20), Acks::Durable).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Unavailable);
        assert!(
            refused.to_string().contains("agent \"a\" at a.example:7070"),
            "{refused}"
        );
        b.produce("t", 1, batch(0..10), Acks::Durable).await.unwrap();
        a.sweep().await.unwrap();
        a.produce("t", 0, batch(10..20), Acks::Durable).await.unwrap();
        assert_eq!(metadata.partition(t.id, 0).await.unwrap().unwrap(), row);
        b.stop().await;
        a.produce("t", 0, batch(20..30), Acks::Durable).await.unwrap();
        assert_eq!(read_all(&a, "t", 0).await, numbered(0..30));
        assert_eq!(
            read_all(&a, "t", 1).await,
            numbered(0..10),
            "what was given back is free"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_agent_left_is_taken_over_once_its_lease_time_is_over() {
    let world = world();
    let a = world.agent("a", |_| {}).await;
    topic(&a, "t", TopicConfig::default()).await;
    segment(&a, "t", 0, 0..10).await;
    for partition in 0..2 {
        let from = if partition == 0 { 10 } else { 0 };
        a.produce("t", partition, batch(from..20), Acks::Durable).await.unwrap();
    }
    drop(a);
    let b = world.agent("b", |_| {}).await;
    let refused = b.produce("t", 0, batch(20..30), Acks::Durable).await.unwrap_err();
    assert!(matches!(refused, BrokerError::LedElsewhere { .. }), "{refused}");
    world.expire("a").await;
    until("it is taken over", async || {
        b.produce("t", 0, batch(20..30), Acks::Durable).await.is_ok()
    })
    .await;
    assert_eq!(read_all(&b, "t", 0).await, numbered(0..30));
    // What the same log held of others came with it.
    until("the rest follows", async || b.stats().open_partitions == 2).await;
    assert_eq!(read_all(&b, "t", 1).await, numbered(0..20));
    // Nothing needs the dead one's log any more.
    b.sweep().await.unwrap();
    let left = world.wals().object.list().await.unwrap();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_taken_over_without_knowing_acknowledges_nothing_more() {
    let world = world();
    let a = world.agent("a", |_| {}).await;
    topic(&a, "t", TopicConfig::default()).await;
    a.produce("t", 0, batch(0..10), Acks::Durable).await.unwrap();
    let b = world.agent("b", |_| {}).await;
    world.expire("a").await;
    b.produce("t", 0, batch(10..20), Acks::Durable).await.unwrap();
    for partition in 0..2 {
        let refused = a
            .produce("t", partition, batch(90..95), Acks::Durable)
            .await
            .unwrap_err();
        assert_eq!(refused.kind(), Kind::Unavailable, "{refused}");
    }
    assert!(a.failure().borrow().is_some(), "its log was sealed");
    a.topic("t", true).await.unwrap_err();
    a.sweep().await.unwrap_or_default();
    segment(&b, "t", 0, 20..30).await;
    assert_eq!(read_all(&b, "t", 0).await, numbered(0..30));
    // It starts again, and leads what is free.
    drop(a);
    let a = world.agent("a", |_| {}).await;
    let refused = a.produce("t", 0, batch(30..40), Acks::Durable).await.unwrap_err();
    assert!(matches!(refused, BrokerError::LedElsewhere { .. }), "{refused}");
    b.produce("t", 0, batch(30..40), Acks::Durable).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_on_a_disk_waits_for_its_agent() {
    let world = World::new();
    let a = world.agent("a", |_| {}).await;
    let t = topic(&a, "t", TopicConfig::default()).await;
    a.produce("t", 0, batch(0..10), Acks::Durable).await.unwrap();
    drop(a);
    let b = world.agent("b", |_| {}).await;
    world.expire("a").await;
    let metadata = world.metadata().await;
    let epoch = metadata.partition(t.id, 0).await.unwrap().unwrap().epoch;
    let refused = b.produce("t", 0, batch(10..20), Acks::Durable).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Unavailable);
    assert!(refused.to_string().contains("on the disk of agent \"a\""), "{refused}");
    b.sweep().await.unwrap();
    assert_eq!(metadata.partition(t.id, 0).await.unwrap().unwrap().epoch, epoch);
    let a = world.agent("a", |_| {}).await;
    assert_eq!(read_all(&a, "t", 0).await, numbered(0..10));
}

#[tokio::test(flavor = "multi_thread")]
async fn fresh_objects_of_a_partition_that_another_leads_are_no_orphans() {
    let world = world();
    let a = world.agent("a", |_| {}).await;
    topic(&a, "t", TopicConfig::default()).await;
    let b = world
        .agent("b", |settings| settings.orphan_grace = std::time::Duration::ZERO)
        .await;
    a.produce("t", 0, batch(0..10), Acks::Durable).await.unwrap();
    // Put, and not committed yet.
    world.refuse_segments().await;
    let flush = {
        let a = a.clone();
        tokio::spawn(async move { a.topic("t", true).await.map(drop) })
    };
    until("it is put", async || world.segments("t").await.len() == 1).await;
    b.sweep().await.unwrap();
    assert_eq!(world.segments("t").await.len(), 1);
    world.relent().await;
    flush.await.unwrap().unwrap();
    b.sweep().await.unwrap();
    assert_eq!(read_all(&a, "t", 0).await, numbered(0..10));
    let metadata = world.metadata().await;
    assert_eq!(
        metadata.pending_deletions(NOW_MS * 2, 10).await.unwrap(),
        Vec::<String>::new()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_agents_that_describe_a_topic_leave_one_description() {
    let world = world();
    let a = world.agent("a", |_| {}).await;
    let b = world.agent("b", |_| {}).await;
    let t = topic(&a, "t", TopicConfig::default()).await;
    let (of_a, of_b) = tokio::join!(a.sweep(), b.sweep());
    of_a.and(of_b).unwrap();
    world.clock.advance(std::time::Duration::from_secs(1));
    a.sweep().await.unwrap();
    let named = world.metadata().await.manifest(t.id).await.unwrap().unwrap();
    let stored = world.store().list("t").await.unwrap();
    assert!(stored.contains(&named), "{named} of {stored:?}");
}
