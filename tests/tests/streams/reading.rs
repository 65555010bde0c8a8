//! The client's producer and consumer against a real agent: positions, pauses, and an agent that is started again.

use futures::StreamExt;
use millstream_client::{Connection, Consumer, ConsumerSettings, NewRecord, Producer, ProducerSettings, Start};
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
    let port = agent.grpc_address().rsplit(':').next().unwrap().to_owned();
    let setup = agent.kill9().flag("--listen").flag(format!("127.0.0.1:{port}"));
    let _agent = setup.start();
    while read.len() < RECORDS as usize / 2 {
        read.push(consumer.next().await.unwrap().unwrap().record.offset);
    }
    assert!(read.into_iter().eq(0..RECORDS / 2));
}
