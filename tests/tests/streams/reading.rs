//! The client's producer and consumer against a real agent: positions, pauses, and an agent that is started again.

use std::time::Duration;

use futures::StreamExt;
use millstream_client::{
    Admin, ClientError, Connection, Consumer, ConsumerSettings, NewRecord, Producer, ProducerSettings, Start,
    partition_for_key, v1,
};
use millstream_tests::Agent;

const RECORDS: u64 = 5_000;

/// A topic of two partitions with numbered records.
async fn filled(agent: &Agent) -> Connection {
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 2).await.unwrap();
    let connection = Connection::open(&agent.url()).await.unwrap();
    send(&connection, 0..RECORDS).await;
    connection
}

async fn send(connection: &Connection, numbers: std::ops::Range<u64>) {
    let settings = ProducerSettings {
        batch_bytes: 10_000,
        ..ProducerSettings::default()
    };
    let producer = Producer::open(connection, "t", settings).await.unwrap();
    for number in numbers {
        let record = NewRecord {
            partition: Some((number % 2) as u32),
            timestamp_ms: number as i64,
            value: Some(&number.to_be_bytes()),
            ..NewRecord::default()
        };
        producer.send(record).await.unwrap();
    }
    producer.close().await.unwrap();
}

fn number(value: Option<&[u8]>) -> u64 {
    u64::from_be_bytes(value.unwrap().try_into().unwrap())
}

fn small() -> ConsumerSettings {
    ConsumerSettings {
        max_bytes: 5_000,
        prefetch_bytes: 20_000,
        ..ConsumerSettings::default()
    }
}

#[tokio::test]
async fn a_stream_of_records_gives_each_once_in_the_order_of_its_partition() {
    let agent = Agent::start();
    let connection = filled(&agent).await;
    let mut consumer = Consumer::open_topics(&connection, &["t"], Start::Earliest, small())
        .await
        .unwrap();
    let mut next = [0, 1];
    for _ in 0..RECORDS {
        let consumed = consumer.next().await.unwrap().unwrap();
        let partition = consumed.partition as usize;
        assert_eq!(number(consumed.record.value.as_deref()), next[partition]);
        assert_eq!(consumed.record.offset, next[partition] / 2);
        next[partition] += 2;
        let position = consumer.position("t", consumed.partition).unwrap();
        assert_eq!(position.next_offset, consumed.record.offset + 1);
    }
    for partition in 0..2 {
        assert_eq!(consumer.position("t", partition).unwrap().lag(), 0);
    }
}

#[tokio::test]
async fn seek_pause_and_resume_go_on_at_the_right_record() {
    let agent = Agent::start();
    let connection = filled(&agent).await;
    let mut consumer = Consumer::open(&connection, "t", 0, Start::Offset(100), small())
        .await
        .unwrap();
    let next = async |consumer: &mut Consumer| {
        let consumed = consumer.next().await.unwrap().unwrap();
        (consumed.partition, consumed.record.offset)
    };
    for offset in 100..110 {
        assert_eq!(next(&mut consumer).await, (0, offset));
    }
    consumer.seek("t", 0, Start::Offset(2_000)).await.unwrap();
    assert_eq!(next(&mut consumer).await, (0, 2_000));
    consumer.seek("t", 0, Start::Timestamp(1_000)).await.unwrap();
    assert_eq!(next(&mut consumer).await, (0, 500));

    consumer.pause("t", 0);
    consumer.assign("t", 1, Start::Earliest).await.unwrap();
    for offset in 0..RECORDS / 2 {
        assert_eq!(next(&mut consumer).await, (1, offset), "the other one is paused");
    }
    consumer.resume("t", 0);
    for offset in 501..RECORDS / 2 {
        assert_eq!(next(&mut consumer).await, (0, offset));
    }
    consumer.unassign("t", 0);
    send(&connection, RECORDS..RECORDS + 2).await;
    assert_eq!(next(&mut consumer).await, (1, RECORDS / 2));
}

#[tokio::test]
async fn a_consumer_goes_on_where_it_was_when_its_agent_is_back() {
    let agent = Agent::start();
    let connection = filled(&agent).await;
    let mut consumer = Consumer::open(&connection, "t", 1, Start::Earliest, small())
        .await
        .unwrap();
    let mut read = Vec::new();
    while read.len() < 1_000 {
        read.push(consumer.next().await.unwrap().unwrap().record.offset);
    }
    let _agent = again(agent);
    while read.len() < RECORDS as usize / 2 {
        read.push(consumer.next().await.unwrap().unwrap().record.offset);
    }
    assert!(read.into_iter().eq(0..RECORDS / 2));
}

/// Starts an agent again where it was reached before.
fn again(agent: Agent) -> Agent {
    let port = agent.grpc_address().rsplit(':').next().unwrap().to_owned();
    agent
        .kill9()
        .env("MILLSTREAM_LISTEN", format!("127.0.0.1:{port}"))
        .start()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_idempotent_producer_sends_is_stored_once_however_often_its_agent_is_killed() {
    const SENT: u64 = 20_000;
    let mut agent = Agent::start();
    agent.grpc().await.create_topic("t", 2).await.unwrap();
    let connection = Connection::open(&agent.url()).await.unwrap();
    let settings = ProducerSettings {
        batch_bytes: 2_000,
        buffer_bytes_max: 40_000,
        ..ProducerSettings::default()
    };
    let producer = Producer::open(&connection, "t", settings).await.unwrap();
    let sending = tokio::spawn(async move {
        for number in 0..SENT {
            let record = NewRecord {
                partition: Some((number % 2) as u32),
                value: Some(&number.to_be_bytes()),
                ..NewRecord::default()
            };
            producer.send(record).await.unwrap();
        }
        producer.close().await
    });
    for least in [1_000, 3_000, 6_000] {
        let grpc = agent.grpc().await;
        while grpc.offsets("t", 0).await.unwrap().1 < least {}
        agent = again(agent);
    }
    assert_eq!(sending.await.unwrap().unwrap().acknowledged, SENT);
    let grpc = agent.grpc().await;
    for partition in 0..2 {
        let read = grpc.read("t", partition, 0).await.unwrap();
        let numbers = read.iter().map(|record| number(record.value.as_deref()));
        assert!(
            numbers.eq((0..SENT).filter(|n| n % 2 == u64::from(partition))),
            "partition {partition}"
        );
    }
}

#[tokio::test]
async fn a_partition_that_is_read_again_gives_nothing_of_where_it_was_read_before() {
    let agent = Agent::start();
    let connection = filled(&agent).await;
    let opened = Consumer::open(&connection, "t", 0, Start::Earliest, small()).await;
    let mut consumer = opened.unwrap();
    for _ in 0..20 {
        // More is on its way than was given.
        assert_eq!(consumer.next().await.unwrap().unwrap().record.offset, 0);
        consumer.unassign("t", 0);
        assert_eq!(consumer.assigned(), []);
        consumer.assign("t", 0, Start::Earliest).await.unwrap();
    }
}

#[tokio::test]
async fn a_producer_finds_partitions_that_are_added_while_it_is_open() {
    let agent = Agent::start();
    let connection = filled(&agent).await;
    let admin = Admin::new(&connection);
    let add = async |partitions| {
        let config = v1::TopicConfig::default();
        admin.alter_topic("t", config, Some(partitions)).await.unwrap()
    };
    let settings = ProducerSettings {
        partitions_max_age: Duration::from_millis(20),
        batch_bytes: 200,
        ..ProducerSettings::default()
    };
    let producer = Producer::open(&connection, "t", settings).await.unwrap();
    let send = async |partition, key: Option<&str>| {
        let record = NewRecord {
            partition,
            key: key.map(str::as_bytes),
            value: Some(&[b'x'; 100]),
            ..NewRecord::default()
        };
        producer.send(record).await
    };
    assert_eq!(producer.partitions(), 2);
    add(16).await;
    while producer.partitions() != 16 {
        tokio::task::yield_now().await;
    }
    let keys = ["a", "b", "c", "d", "e"];
    for key in keys {
        let delivered = send(None, Some(key)).await.unwrap().await.unwrap();
        assert_eq!(delivered.partition, partition_for_key(key.as_bytes(), 16));
    }
    assert!(keys.iter().any(|key| partition_for_key(key.as_bytes(), 16) > 1));
    let mut reached = [false; 16];
    while reached.contains(&false) {
        let delivered = send(None, None).await.unwrap().await.unwrap();
        reached[delivered.partition as usize] = true;
    }
    producer.close().await.unwrap();

    // One that is named is looked for at once.
    let settings = ProducerSettings::default();
    let producer = Producer::open(&connection, "t", settings).await.unwrap();
    let named = |partition| NewRecord {
        partition: Some(partition),
        ..NewRecord::default()
    };
    let absent = producer.send(named(16)).await.unwrap_err();
    assert!(
        matches!(absent, ClientError::NoSuchPartition { partitions: 16, .. }),
        "{absent}"
    );
    add(17).await;
    assert_eq!(producer.send(named(16)).await.unwrap().await.unwrap().partition, 16);
    assert_eq!(producer.partitions(), 17);
    producer.close().await.unwrap();
}
