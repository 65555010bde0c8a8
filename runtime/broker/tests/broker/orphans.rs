//! Objects that nothing names, and those that must never be taken for such.

use std::time::Duration;

use bytes::Bytes;
use millstream_batch::Offset;
use millstream_broker::{Acks, TopicConfig, WalKind};
use millstream_log::segment_key;

use crate::support::{NOW_MS, World, batch, numbered, read_all, segment, topic, until};

/// Before every object of a test was made.
const LONG_AGO_MS: i64 = 1_000_000_000_000;

async fn put(world: &World, key: &str) {
    world
        .store()
        .put_new(key, vec![Bytes::from_static(b"x")])
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orphan_is_deleted_and_what_is_named_or_young_or_foreign_stays() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    segment(&broker, "t", 0, 0..10).await;
    broker.sweep().await.unwrap();
    let named = world.store().list("t").await.unwrap();
    assert_eq!(named.len(), 2, "a segment and a manifest: {named:?}");
    let orphans = [0, 1].map(|partition| segment_key("t", partition, Offset(10), 77));
    let foreign = "t/notes.txt".to_owned();
    for key in orphans.iter().chain([&foreign]) {
        put(&world, key).await;
    }
    world.clock.set(LONG_AGO_MS);
    broker.sweep().await.unwrap();
    assert_eq!(world.store().list("t").await.unwrap().len(), 5, "they are too young");
    world.clock.set(NOW_MS);
    broker.sweep().await.unwrap();
    let mut expected = named;
    expected.push(foreign);
    expected.sort_unstable();
    assert_eq!(world.store().list("t").await.unwrap(), expected);
    assert_eq!(read_all(&broker, "t", 0).await, numbered(0..10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_takes_its_objects_along_and_leaves_those_of_its_successor() {
    let world = World::new();
    let broker = world
        .open(|settings| settings.deletion_grace = Duration::from_secs(60))
        .await;
    topic(&broker, "t", TopicConfig::default()).await;
    segment(&broker, "t", 0, 0..10).await;
    let old = world.segments("t").await;
    broker.delete_topic("t").await.unwrap();
    topic(&broker, "t", TopicConfig::default()).await;
    segment(&broker, "t", 0, 0..20).await;
    broker.sweep().await.unwrap();
    assert_eq!(
        world.segments("t").await.len(),
        2,
        "a reader may still hold the old index"
    );
    world.clock.advance(Duration::from_secs(61));
    broker.sweep().await.unwrap();
    let left = world.segments("t").await;
    assert!(left.len() == 1 && !old.contains(&left[0]), "{left:?}");
    assert_eq!(read_all(&broker, "t", 0).await, numbered(0..20));
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_under_the_name_of_a_deleted_topic_go_too() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    put(&world, &segment_key("t", 0, Offset(0), 77)).await;
    broker.delete_topic("t").await.unwrap();
    broker.sweep().await.unwrap();
    assert_eq!(world.segments("t").await, [""; 0]);
    let metadata = world.metadata().await;
    assert_eq!(metadata.deleted_topics(10).await.unwrap().len(), 1);
    world.clock.advance(Duration::from_secs(3 * 3_600));
    broker.sweep().await.unwrap();
    assert_eq!(metadata.deleted_topics(10).await.unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_describes_each_topic_as_it_is_and_fails_nobody() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    world.objects.close("t");
    let t = topic(&broker, "t", TopicConfig::default()).await;
    broker.sweep().await.unwrap_err();
    world.objects.open("t");
    broker.sweep().await.unwrap();
    let metadata = world.metadata().await;
    let key = metadata.manifest(t.id).await.unwrap().unwrap();
    let manifest = world.store().get(&key).await.unwrap();
    let text = std::str::from_utf8(&manifest).unwrap();
    assert!(
        text.contains(&t.id.to_string()) && text.contains("\"name\": \"t\""),
        "{text}"
    );

    let change = millstream_broker::TopicChange {
        retention_ms: Some(None),
        ..Default::default()
    };
    broker.alter_topic("t", change).await.unwrap();
    until("the manifest tells the change", async || {
        metadata.manifest(t.id).await.unwrap().unwrap() != key
    })
    .await;
    broker.sweep().await.unwrap();
    assert_eq!(
        world.store().list("t").await.unwrap().len(),
        1,
        "the old one is deleted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_of_partitions_that_the_topic_no_longer_has_go_too() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    segment(&broker, "t", 0, 0..10).await;
    // Put by an earlier topic of that name, which had more of them.
    put(&world, &segment_key("t", 5, Offset(0), 77)).await;
    broker.sweep().await.unwrap();
    assert_eq!(world.segments("t").await.len(), 1);
    assert_eq!(read_all(&broker, "t", 0).await, numbered(0..10));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manifest_of_a_topic_made_again_while_somebody_sweeps_stays() {
    let mut world = World::new();
    world.wal = WalKind::Object;
    let (a, b) = (world.agent("a", |_| {}).await, world.agent("b", |_| {}).await);
    topic(&a, "t", TopicConfig::default()).await;
    b.produce("t", 0, batch(0..10), Acks::Durable).await.unwrap();
    b.sweep().await.unwrap();
    world.objects.hold_lists();
    let sweeping = tokio::spawn(async move { b.sweep().await });
    // It has taken up by then what others changed about topics.
    world.objects.list_waits().await;
    a.delete_topic("t").await.unwrap();
    let again = topic(&a, "t", TopicConfig::default()).await;
    // Put, and not named yet.
    let manifest = format!("t/topic_{}_{:032x}.json", again.id, 77);
    put(&world, &manifest).await;
    world.objects.release_lists();
    sweeping.await.unwrap().unwrap();
    assert!(world.store().list("t").await.unwrap().contains(&manifest));
}
