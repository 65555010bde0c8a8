//! A client that knows one agent, where several lead partitions.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use millstream_client::{
    Admin, Connection, Consumer, ConsumerSettings, GroupConsumer, GroupConsumerSettings, NewRecord, Producer,
    ProducerSettings, Start,
};
use millstream_proto::v1;
use millstream_tests::{Agent, record, values};
use tokio::time::timeout;

use crate::several_agents::Shared;

/// How long a state may take to come on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two agents and a topic, of which the second one leads the odd partitions. Each has one record.
async fn two_agents(shared: &Shared, wal: &str) -> (Agent, Agent) {
    let (a, b) = (shared.agent("a", wal).start(), shared.agent("b", wal).start());
    a.grpc().await.create_topic("t", 4).await.unwrap();
    for partition in 0..4 {
        let leader = [&a, &b][partition as usize % 2];
        let first = vec![record("0")];
        leader.grpc().await.produce("t", partition, first).await.unwrap();
    }
    (a, b)
}

async fn send(producer: &Producer, partition: u32, value: &str) {
    let record = NewRecord {
        partition: Some(partition),
        value: Some(value.as_bytes()),
        ..NewRecord::default()
    };
    producer.send(record).await.unwrap();
}

/// Reads until each of four partitions has given `count` values, which are numbered from 0 on.
async fn read(consumer: &mut Consumer, next: &mut BTreeMap<u32, u64>, count: u64) {
    while next.len() < 4 || next.values().any(|next| *next < count) {
        let consumed = timeout(PATIENCE, consumer.next()).await.expect("there is more");
        let consumed = consumed.unwrap().unwrap();
        let expected = next.entry(consumed.partition).or_default();
        assert_eq!(consumed.record.offset, *expected, "{consumed:?}");
        assert_eq!(consumed.record.value.as_deref(), Some(expected.to_string().as_bytes()));
        *expected += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_a_consumer_and_an_admin_go_to_the_agent_that_leads_a_partition() {
    let shared = Shared::new();
    let (a, b) = two_agents(&shared, "disk").await;
    let connection = Connection::open(&a.url()).await.unwrap();
    for idempotent in [true, false] {
        let settings = ProducerSettings {
            batch_bytes: 500,
            idempotent,
            ..ProducerSettings::default()
        };
        let producer = Producer::open(&connection, "t", settings).await.unwrap();
        let numbers = if idempotent { 1..200 } else { 200..300 };
        for number in numbers {
            for partition in 0..4 {
                send(&producer, partition, &number.to_string()).await;
            }
        }
        producer.close().await.unwrap();
    }
    let expected: Vec<String> = (0..300).map(|number: u32| number.to_string()).collect();
    for partition in 0..4 {
        let leader = [&a, &b][partition as usize % 2];
        let read = leader.grpc().await.read("t", partition, 0).await.unwrap();
        assert_eq!(values(&read), expected, "partition {partition}");
    }

    let settings = ConsumerSettings {
        max_bytes: 2_000,
        prefetch_bytes: 5_000,
        ..ConsumerSettings::default()
    };
    let whole = Consumer::open_topics(&connection, &["t"], Start::Earliest, settings.clone());
    let mut whole = whole.await.unwrap();
    let mut single = Consumer::new(&connection, settings);
    for partition in 0..4 {
        single.assign("t", partition, Start::Earliest).await.unwrap();
    }
    let producer = Producer::open(&connection, "t", ProducerSettings::default());
    let producer = producer.await.unwrap();
    for (consumer, count) in [(&mut whole, 300), (&mut single, 301)] {
        let mut next = BTreeMap::new();
        read(consumer, &mut next, count).await;
        // Whoever leads it: a pause holds, and a seek goes where it says.
        consumer.pause("t", 1);
        consumer.pause("t", 0);
        assert_eq!(consumer.position("t", 1).unwrap().next_offset, count);
        consumer.seek("t", 3, Start::Offset(count - 10)).await.unwrap();
        for offset in count - 10..count {
            let consumed = timeout(PATIENCE, consumer.next()).await.unwrap().unwrap().unwrap();
            assert_eq!((consumed.partition, consumed.record.offset), (3, offset));
        }
        for partition in 0..4 {
            send(&producer, partition, &count.to_string()).await;
        }
        producer.flush().await.unwrap();
        for expected in [[2, 3], [0, 1]] {
            let mut came = Vec::new();
            for _ in expected {
                let consumed = timeout(PATIENCE, consumer.next()).await.unwrap().unwrap().unwrap();
                assert_eq!(consumed.record.offset, count);
                came.push(consumed.partition);
            }
            came.sort_unstable();
            assert_eq!(came, expected, "what is paused comes once it is resumed");
            consumer.resume("t", 1);
            consumer.resume("t", 0);
        }
        assert_eq!(consumer.assigned().len(), 4);
    }

    let admin = Admin::new(&connection);
    assert_eq!(admin.offsets("t", 3, None).await.unwrap().high_watermark, 302);
    assert_eq!(admin.truncate_topic("t", 3, 100).await.unwrap(), 100);
    assert_eq!(admin.offsets("t", 3, None).await.unwrap().log_start_offset, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_go_where_a_partition_goes() {
    let shared = Shared::new();
    let (a, b) = two_agents(&shared, "object").await;
    let connection = Connection::open(&a.url()).await.unwrap();
    let producer = Producer::open(&connection, "t", ProducerSettings::default());
    let producer = producer.await.unwrap();
    let consumer = Consumer::open_topics(&connection, &["t"], Start::Earliest, ConsumerSettings::default());
    let mut consumer = consumer.await.unwrap();
    let mut next = BTreeMap::new();
    for number in 1..50 {
        for partition in 0..4 {
            send(&producer, partition, &number.to_string()).await;
        }
    }
    producer.flush().await.unwrap();
    read(&mut consumer, &mut next, 50).await;
    // It is away for longer than its lease lasts: the other one takes its partitions.
    let setup = b.kill9();
    for number in 50..100 {
        for partition in 0..4 {
            send(&producer, partition, &number.to_string()).await;
        }
    }
    timeout(PATIENCE, producer.flush())
        .await
        .expect("somebody leads them")
        .unwrap();
    read(&mut consumer, &mut next, 100).await;
    for partition in 0..4 {
        assert_eq!(a.grpc().await.read("t", partition, 0).await.unwrap().len(), 100);
    }
    drop(setup);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_commits_where_the_end_of_the_partition_is_known() {
    let shared = Shared::new();
    let (a, b) = two_agents(&shared, "disk").await;
    let connection = Connection::open(&a.url()).await.unwrap();
    let settings = GroupConsumerSettings {
        auto_commit: None,
        ..GroupConsumerSettings::default()
    };
    let mut consumer = GroupConsumer::join(&connection, "g", &["t"], settings).await.unwrap();
    for _ in 0..4 {
        timeout(PATIENCE, consumer.next())
            .await
            .expect("each has one")
            .unwrap()
            .unwrap();
    }
    consumer.commit().await.unwrap();
    let admin = Admin::new(&connection);
    let stored = admin.committed_offsets("g", Vec::new()).await.unwrap();
    assert_eq!(stored.iter().map(|stored| stored.offset).collect::<Vec<_>>(), [1; 4]);
    // Only its leader can say that there is no such offset.
    let beyond = consumer
        .commit_offsets(vec![(("t".to_owned(), 1), 2)])
        .await
        .unwrap_err();
    assert_eq!(beyond.reason(), Some("OFFSET_OUT_OF_RANGE"), "{beyond}");
    consumer.leave().await.unwrap();
    let commit = async |offset| {
        let request = v1::CommitOffsetsRequest {
            group: "g".to_owned(),
            offsets: vec![v1::CommittedOffset {
                topic: "t".to_owned(),
                partition: 1,
                offset,
                ..v1::CommittedOffset::default()
            }],
            ..v1::CommitOffsetsRequest::default()
        };
        let answer = a.grpc().await.groups().commit_offsets(request).await;
        answer
            .unwrap()
            .into_inner()
            .failures
            .pop()
            .and_then(|failure| failure.error)
    };
    let refused = commit(1).await.expect("it is not in a segment");
    assert_eq!(
        (refused.reason.as_str(), refused.leader.as_str()),
        ("LED_ELSEWHERE", b.grpc_address())
    );
    b.grpc().await.partitions("t", true).await.unwrap();
    assert_eq!(commit(1).await, None);
    assert_eq!(commit(2).await.expect("there is none").reason, "LED_ELSEWHERE");
}
