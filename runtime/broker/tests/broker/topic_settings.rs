//! What a topic's settings do: the time of an append as timestamp, the acknowledgement that is its default, more partitions.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use millstream_batch::{Batch, BatchBuilder, Compression, Offset, RecordIter};
use millstream_broker::{
    Acks, Broker, BrokerError, FetchQuery, Kind, OnError, Side, TimestampType, TopicChange, TopicConfig, WalKind,
};

use crate::{
    modules::{bind, deploy, each_becomes},
    support::{NOW_MS, World, batch, numbered, read_all, segment, status, topic, until},
};

const HOUR: Duration = Duration::from_secs(3_600);
const HOUR_MS: i64 = 3_600_000;

fn append_time() -> TopicConfig {
    TopicConfig {
        timestamp_type: TimestampType::Append,
        ..TopicConfig::default()
    }
}

fn to(timestamp_type: TimestampType) -> TopicChange {
    TopicChange {
        timestamp_type: Some(timestamp_type),
        ..TopicChange::default()
    }
}

fn partitions(count: u32) -> TopicChange {
    TopicChange {
        partitions: Some(count),
        ..TopicChange::default()
    }
}

/// The timestamps of a partition's records as a reader sees them, each once.
async fn times(broker: &Broker) -> Vec<i64> {
    let batches = stored(broker).await;
    let times = batches.iter().flat_map(|batch| {
        let records = batch.decompressed(1 << 20).unwrap();
        let times =
            RecordIter::new(&records).map(|record| batch.header().timestamp_ms(record.unwrap().timestamp_delta));
        times.collect::<BTreeSet<_>>()
    });
    times.collect()
}

async fn stored(broker: &Broker) -> Vec<Batch> {
    let query = FetchQuery {
        topic: "t".to_owned(),
        partition: 0,
        offset: broker.offsets("t", 0).await.unwrap().0,
        bytes_max: 1 << 20,
        bytes_min: 0,
        wait: Duration::ZERO,
        stage: None,
    };
    broker.fetch(query).await.unwrap().read.batches
}

async fn append_time_of(broker: &Broker, values: std::ops::Range<u64>) -> i64 {
    let receipt = broker.produce("t", 0, batch(values), Acks::Durable).await.unwrap();
    receipt.append_time_ms
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_an_append_time_topic_have_the_agents_time_wherever_they_are_read() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", append_time()).await;
    assert_eq!(append_time_of(&broker, 0..10).await, NOW_MS);
    world.clock.advance(Duration::from_millis(7));
    assert_eq!(append_time_of(&broker, 10..20).await, NOW_MS + 7);
    assert_eq!(times(&broker).await, [NOW_MS, NOW_MS + 7], "from the tail");
    assert_eq!(broker.offset_at("t", 0, NOW_MS + 1).await.unwrap(), Some(Offset(10)));

    broker.topic("t", true).await.unwrap();
    assert_eq!(times(&broker).await, [NOW_MS, NOW_MS + 7], "from a segment");
    assert_eq!(broker.offset_at("t", 0, NOW_MS + 1).await.unwrap(), Some(Offset(10)));
    assert_eq!(broker.offset_at("t", 0, NOW_MS + 8).await.unwrap(), None);
    let rows = world.metadata().await;
    let rows = rows
        .segments(broker.topics().await[0].id, 0, Offset(0), 1)
        .await
        .unwrap();
    assert_eq!(
        (rows[0].min_timestamp_ms, rows[0].max_timestamp_ms),
        (NOW_MS, NOW_MS + 7)
    );
    assert_eq!(read_all(&broker, "t", 0).await, numbered(0..20));

    append_time_of(&broker, 20..30).await;
    let again = world.open(|_| {}).await;
    assert_eq!(
        read_all(&again, "t", 0).await,
        numbered(0..30),
        "what the log holds is whole"
    );
    assert_eq!(times(&again).await, [NOW_MS, NOW_MS + 7, NOW_MS + 7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_keeps_its_timestamps_when_the_type_changes() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    append_time_of(&broker, 5..6).await;
    broker.alter_topic("t", to(TimestampType::Append)).await.unwrap();
    append_time_of(&broker, 6..7).await;
    broker.alter_topic("t", to(TimestampType::Create)).await.unwrap();
    append_time_of(&broker, 7..8).await;
    assert_eq!(times(&broker).await, [5, NOW_MS, 7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_is_never_before_the_last_one_when_the_clock_jumps_back_an_hour() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", append_time()).await;
    append_time_of(&broker, 0..10).await;
    world.clock.set(NOW_MS - HOUR_MS);
    assert_eq!(append_time_of(&broker, 10..20).await, NOW_MS);

    // Nor for whoever finds them in the log,
    let broker = world.open(|_| {}).await;
    assert_eq!(append_time_of(&broker, 20..30).await, NOW_MS);
    // or in a segment, which was made after the jump.
    broker.topic("t", true).await.unwrap();
    broker.stop().await;
    let broker = world.open(|_| {}).await;
    assert_eq!(append_time_of(&broker, 30..40).await, NOW_MS);
    world.clock.set(NOW_MS + 1);
    assert_eq!(
        append_time_of(&broker, 40..50).await,
        NOW_MS + 1,
        "it goes on once the clock is there again"
    );
    assert_eq!(times(&broker).await, [NOW_MS, NOW_MS, NOW_MS, NOW_MS, NOW_MS + 1]);
    assert_eq!(read_all(&broker, "t", 0).await, numbered(0..50));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_back_an_hour_makes_retention_wait_and_nothing_go_early() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    let config = TopicConfig {
        retention_ms: Some(HOUR_MS as u64),
        ..append_time()
    };
    topic(&broker, "t", config).await;
    segment(&broker, "t", 0, 0..10).await;
    world.clock.set(NOW_MS - HOUR_MS);
    segment(&broker, "t", 0, 10..20).await;
    // By the clock of now the second one is an hour old here; by the time of its appends it is not.
    world.clock.set(NOW_MS + 1);
    broker.sweep().await.unwrap();
    assert_eq!(status(&broker, "t", 0).await.log_start, Offset(0));
    world.clock.advance(HOUR);
    broker.sweep().await.unwrap();
    assert_eq!(status(&broker, "t", 0).await.log_start, Offset(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_on_fetch_sees_the_time_of_the_append() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", append_time()).await;
    append_time_of(&broker, 0..10).await;
    broker.topic("t", true).await.unwrap();
    append_time_of(&broker, 10..20).await;
    // Records made anew count their timestamps from the base that the stage is given.
    deploy(&broker, "sevens", each_becomes(&["7"; 10])).await;
    bind(&broker, "t", Side::Fetch, "sevens", OnError::Halt).await.unwrap();
    assert_eq!(times(&broker).await, [NOW_MS, NOW_MS]);
    let sevens: Vec<_> = (0..20).map(|offset| (offset, 7)).collect();
    assert_eq!(read_all(&broker, "t", 0).await, sevens);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_say_when_to_be_answered_is_answered_as_the_topic_says() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    let config = TopicConfig {
        default_acks: Acks::Memory,
        ..TopicConfig::default()
    };
    topic(&broker, "t", config).await;
    let encoded: Bytes = batch(0..10);
    broker.produce("t", 0, encoded, None).await.unwrap();
    let change = TopicChange {
        default_acks: Some(Acks::Durable),
        ..TopicChange::default()
    };
    let altered = broker.alter_topic("t", change).await.unwrap();
    assert_eq!(altered.config.default_acks, Acks::Durable);
    broker.produce("t", 0, batch(10..20), None).await.unwrap();
    assert_eq!(
        broker.offsets("t", 0).await.unwrap().1,
        Offset(20),
        "durable when it was answered"
    );
    assert_eq!(read_all(&broker, "t", 0).await, numbered(0..20));
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_added_while_records_come_and_are_never_fewer() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    broker.produce("t", 1, batch(0..10), Acks::Durable).await.unwrap();
    let unknown = broker.produce("t", 4, batch(0..10), Acks::Durable).await.unwrap_err();
    assert!(
        matches!(unknown, BrokerError::UnknownPartition { last: 1, .. }),
        "{unknown}"
    );
    assert_eq!(broker.alter_topic("t", partitions(5)).await.unwrap().partitions, 5);
    broker.produce("t", 4, batch(0..10), Acks::Durable).await.unwrap();
    assert_eq!(read_all(&broker, "t", 4).await, numbered(0..10));
    assert_eq!(read_all(&broker, "t", 1).await, numbered(0..10));

    for (count, words) in [
        (4, "5 partitions, not 4"),
        (0, "1 to 100,000"),
        (100_001, "1 to 100,000"),
    ] {
        let error = broker.alter_topic("t", partitions(count)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(broker.alter_topic("t", partitions(5)).await.unwrap().partitions, 5);
    let again = world.open(|_| {}).await;
    assert_eq!(read_all(&again, "t", 4).await, numbered(0..10));
    assert_eq!(again.topic("t", false).await.unwrap().1.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_another_agent_added_are_served_at_once() {
    let mut world = World::new();
    world.wal = WalKind::Object;
    // Long, so that nothing is heard of by itself.
    world.cache_ttl = HOUR;
    let (a, b) = (world.agent("a", |_| {}).await, world.agent("b", |_| {}).await);
    topic(&a, "t", TopicConfig::default()).await;
    b.produce("t", 0, batch(0..10), Acks::Durable).await.unwrap();
    a.alter_topic("t", partitions(3)).await.unwrap();
    b.produce("t", 2, batch(0..10), Acks::Durable).await.unwrap();
    assert_eq!(read_all(&b, "t", 2).await, numbered(0..10));
    assert_eq!(b.describe("t").await.unwrap().partitions, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_and_partitions_are_in_the_manifest() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    let change = TopicChange {
        partitions: Some(3),
        default_acks: Some(Acks::Memory),
        ..to(TimestampType::Append)
    };
    broker.alter_topic("t", change).await.unwrap();
    broker.sweep().await.unwrap();
    // One of before the change may still be there: it is deleted later.
    let described = async || {
        let mut manifests = Vec::new();
        for key in world.store().list("t").await.unwrap() {
            let manifest = world.store().get(&key).await.unwrap_or_default();
            manifests.extend(serde_json::from_slice::<serde_json::Value>(&manifest));
        }
        manifests
    };
    until("it is there", async || {
        described().await.iter().any(|manifest| {
            manifest["partitions"] == 3
                && manifest["config"]["timestamp_type"] == "append"
                && manifest["config"]["default_acks"] == "memory"
        })
    })
    .await;
}

#[test]
fn a_batch_with_the_time_of_its_append_is_whole_and_says_so() {
    let mut builder = BatchBuilder::new();
    builder.push(1, None, Some(b"a"), [].into_iter());
    builder.push(5, None, Some(b"b"), [].into_iter());
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let batch = builder.clone().build(compression).with_append_time(77);
        assert_eq!(batch.append_time_ms(), Some(77));
        let mut bytes = batch.to_bytes();
        let read = Batch::split_first(&mut bytes).unwrap();
        assert_eq!((read.header().timestamp_ms(0), read.header().timestamp_ms(4)), (77, 77));
        assert_eq!(read.compression(), compression);
    }
}
