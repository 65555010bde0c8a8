//! Producing: what is acknowledged survives a crash at any time, and is in segments after a stop.

use std::time::Duration;

use millstream_batch::Offset;
use millstream_broker::{Acks, BrokerError, FetchQuery, Kind, TopicConfig};

use crate::support::{World, batch, numbered, read_all, topic};

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_records_survive_crash_after_crash_once_and_in_order() {
    let world = World::new();
    let config = TopicConfig {
        segment_bytes: 4_000,
        block_bytes: 1_000,
        retention_ms: None,
        ..TopicConfig::default()
    };
    let mut end = 0;
    for incarnation in 1..=5 {
        // Nothing of the former broker is told to stop: its actors end with their process, here with their runtime.
        let broker = world.open(|_| {}).await;
        if incarnation == 1 {
            topic(&broker, "t", config.clone()).await;
        }
        assert_eq!(read_all(&broker, "t", 1).await, numbered(0..end));
        for _ in 0..40 {
            let receipt = broker
                .produce("t", 1, batch(end..end + 25), Acks::Durable)
                .await
                .unwrap();
            assert_eq!((receipt.base_offset, receipt.record_count), (Offset(end), 25));
            end += 25;
        }
        assert_eq!(read_all(&broker, "t", 1).await, numbered(0..end));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_leaves_everything_in_segments_and_no_wal() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    broker.produce("t", 0, batch(0..100), Acks::Durable).await.unwrap();
    broker.produce("t", 0, batch(100..150), Acks::Memory).await.unwrap();
    broker.stop().await;
    assert_eq!(std::fs::read_dir(world.dir.path().join("wal")).unwrap().count(), 0);
    let late = broker
        .produce("t", 0, batch(150..151), Acks::Durable)
        .await
        .unwrap_err();
    assert_eq!(late.kind(), Kind::Unavailable, "{late}");

    let broker = world.open(|_| {}).await;
    let (_, partitions) = broker.topic("t", false).await.unwrap();
    assert_eq!(partitions[0].committed_end, Offset(150));
    assert_eq!(read_all(&broker, "t", 0).await, numbered(0..150));
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_beyond_either_end_are_out_of_range() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    broker.produce("t", 0, batch(0..3), Acks::Durable).await.unwrap();
    let fetch = |offset| {
        let (topic, wait) = ("t".to_owned(), Duration::ZERO);
        broker.fetch(FetchQuery {
            topic,
            partition: 0,
            offset: Offset(offset),
            bytes_max: 1,
            bytes_min: 0,
            wait,
            stage: None,
        })
    };
    assert!(fetch(3).await.unwrap().batches.is_empty());
    assert_eq!(fetch(4).await.unwrap_err().kind(), Kind::OutOfRange);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_tail_refuses_producers_until_it_is_in_segments() {
    let world = World::new();
    let broker = world.open(|settings| settings.tail_bytes_max = 2_000).await;
    topic(&broker, "t", TopicConfig::default()).await;
    let mut stored = 0;
    let error = loop {
        match broker.produce("t", 0, batch(stored..stored + 25), Acks::Durable).await {
            Ok(_) => stored += 25,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, BrokerError::TailFull { bytes_max: 2_000, .. }),
        "{error}"
    );
    assert_eq!(error.kind(), Kind::Exhausted);

    broker.topic("t", true).await.unwrap();
    broker
        .produce("t", 0, batch(stored..stored + 25), Acks::Durable)
        .await
        .unwrap();
    assert_eq!(read_all(&broker, "t", 0).await, numbered(0..stored + 25));
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_bound_the_tails_of_other_partitions_make_room() {
    let world = World::new();
    let broker = world.open(|settings| settings.tail_bytes_max = 2_000).await;
    topic(&broker, "t", TopicConfig::default()).await;
    while broker.produce("t", 0, batch(0..25), Acks::Durable).await.is_ok() {}
    // Nobody asks for a flush: the refusal alone must be enough, though partition 0 hears of nothing else.
    let room = async {
        while broker.produce("t", 1, batch(0..25), Acks::Durable).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), room)
        .await
        .expect("room is made");
    assert_eq!(read_all(&broker, "t", 1).await, numbered(0..25));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_deletions_at_once_one_finds_the_topic() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    for _ in 0..10 {
        topic(&broker, "t", TopicConfig::default()).await;
        let (first, second) = tokio::join!(broker.delete_topic("t"), broker.delete_topic("t"));
        let refused = [first, second]
            .into_iter()
            .filter_map(Result::err)
            .map(|error| error.kind());
        assert_eq!(refused.collect::<Vec<_>>(), [Kind::NotFound]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_at_the_end_is_woken_by_the_next_record() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    let (topic, wait) = ("t".to_owned(), Duration::from_secs(30));
    let query = FetchQuery {
        topic,
        partition: 0,
        offset: Offset(0),
        bytes_max: 1,
        bytes_min: 0,
        wait,
        stage: None,
    };
    let (fetched, produced) = tokio::join!(broker.fetch(query), broker.produce("t", 0, batch(0..2), Acks::Durable));
    produced.unwrap();
    assert_eq!(fetched.unwrap().next_offset, Offset(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_again_under_its_name_begins_empty() {
    let world = World::new();
    let broker = world.open(|settings| settings.tail_bytes_max = 2_000).await;
    for round in 0..10 {
        topic(&broker, "t", TopicConfig::default()).await;
        assert_eq!(read_all(&broker, "t", 0).await, []);
        let produced = broker.produce("t", 0, batch(0..50), Acks::Durable).await;
        assert!(
            produced.is_ok(),
            "round {round}: the deleted topic's tail still takes memory"
        );
        broker.topic("t", round % 2 == 0).await.unwrap();
        broker.delete_topic("t").await.unwrap();
        // The actor of the deleted topic gives its memory back on its own time.
        while broker.tail_bytes() > 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(broker.offsets("t", 0).await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_above_the_bound_of_all_tails_is_refused_for_good() {
    let world = World::new();
    let broker = world.open(|settings| settings.tail_bytes_max = 500).await;
    topic(&broker, "t", TopicConfig::default()).await;
    let error = broker.produce("t", 0, batch(0..100), Acks::Durable).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "{error}");
    broker.produce("t", 0, batch(0..1), Acks::Durable).await.unwrap();
}
