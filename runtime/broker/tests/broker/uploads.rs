//! On the way into segments nothing is lost, whatever the store does.

use std::time::Duration;

use millstream_batch::Offset;
use millstream_broker::{Acks, TopicConfig};

use crate::support::{World, batch, numbered, read_all, status, topic, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_taken_out_for_upload_is_not_lost_when_the_upload_fails() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    let config = TopicConfig {
        segment_bytes: 1_024,
        ..TopicConfig::default()
    };
    world.objects.close("t");
    topic(&broker, "t", config).await;
    for n in 0..20 {
        broker
            .produce("t", 0, batch(n * 10..n * 10 + 10), Acks::Durable)
            .await
            .unwrap();
    }
    until("an upload has failed", async || broker.stats().upload_retries >= 3).await;
    assert_eq!(read_all(&broker, "t", 0).await, numbered(0..200));
    assert_eq!(status(&broker, "t", 0).await.committed_end, Offset(0));
    world.objects.open("t");
    broker.topic("t", true).await.unwrap();
    assert_eq!(status(&broker, "t", 0).await.committed_end, Offset(200));
    assert_eq!(broker.tail_bytes(), 0);
    assert_eq!(read_all(&broker, "t", 0).await, numbered(0..200));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_keeps_what_could_not_be_uploaded() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    let config = TopicConfig {
        segment_bytes: 1_024,
        ..TopicConfig::default()
    };
    world.objects.close("down");
    for name in ["down", "up"] {
        topic(&broker, name, config.clone()).await;
    }
    // The log has files of 1 MiB; those of the topic that can be uploaded alone would all be trimmed.
    for n in 0..40 {
        for name in ["down", "up"] {
            broker
                .produce(name, 0, batch(n * 1_000..n * 1_000 + 1_000), Acks::Durable)
                .await
                .unwrap();
        }
    }
    broker.topic("up", true).await.unwrap();
    until("an upload has failed", async || broker.stats().upload_retries >= 3).await;
    let again = world.open(|_| {}).await;
    assert_eq!(read_all(&again, "down", 0).await, numbered(0..40_000));
    assert_eq!(read_all(&again, "up", 0).await, numbered(0..40_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_one_topic_does_not_keep_the_others_from_their_turn() {
    let world = World::new();
    let broker = world.open(|settings| settings.uploads_max = 1).await;
    world.objects.close("down");
    for name in ["down", "up"] {
        topic(&broker, name, TopicConfig::default()).await;
        broker.produce(name, 0, batch(0..10), Acks::Durable).await.unwrap();
    }
    let stuck = {
        let broker = broker.clone();
        tokio::spawn(async move { broker.topic("down", true).await.map(drop) })
    };
    until("an upload has failed", async || broker.stats().upload_retries >= 3).await;
    tokio::time::timeout(Duration::from_secs(30), broker.topic("up", true))
        .await
        .expect("the other has its turn")
        .unwrap();
    world.objects.open("down");
    stuck.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn near_the_bound_the_fullest_partition_alone_makes_room() {
    let world = World::new();
    let broker = world.open(|settings| settings.tail_bytes_max = 100_000).await;
    topic(&broker, "t", TopicConfig::default()).await;
    broker.produce("t", 1, batch(0..100), Acks::Durable).await.unwrap();
    let mut end = 0;
    while status(&broker, "t", 0).await.committed_end == Offset(0) {
        if broker
            .produce("t", 0, batch(end..end + 100), Acks::Durable)
            .await
            .is_ok()
        {
            end += 100;
        }
    }
    assert_eq!(status(&broker, "t", 1).await.committed_end, Offset(0));
    assert_eq!(read_all(&broker, "t", 0).await, numbered(0..end));
}

#[tokio::test(flavor = "multi_thread")]
async fn above_the_bound_of_the_log_whoever_keeps_its_oldest_part_makes_a_segment() {
    let world = World::new();
    let broker = world.open(|settings| settings.wal_bytes_max = 2 << 20).await;
    topic(&broker, "t", TopicConfig::default()).await;
    // One small record would keep the first file for ten minutes.
    broker.produce("t", 1, batch(0..1), Acks::Durable).await.unwrap();
    let mut end = 0;
    while end < 400_000 {
        broker
            .produce("t", 0, batch(end..end + 1_000), Acks::Durable)
            .await
            .unwrap();
        end += 1_000;
    }
    until("the small record is in a segment", async || {
        status(&broker, "t", 1).await.committed_end == Offset(1)
    })
    .await;
}
