//! At their bounds producers are told to come again, readers wait, and nothing is lost.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use millstream_client::{Connection, NewRecord, Producer, ProducerSettings};
use millstream_tests::{Agent, Grpc, Setup, record};
use tokio::task::JoinSet;

const MIB: usize = 1 << 20;
/// Larger than the tail's bound all together.
const PRODUCERS: u32 = 6;
const RECORDS: u64 = 60;
const RECORD_BYTES: usize = 512 << 10;

/// How long an agent may take to see that a connection has ended.
const PATIENCE: Duration = Duration::from_secs(30);

/// An agent whose bounds are as tight as they can be.
fn tight() -> Agent {
    let setup = Setup::new()
        .env("MILLSTREAM_IN_FLIGHT_BYTES_MAX", 20 * MIB)
        .env("MILLSTREAM_CONNECTION_BYTES_MAX", 20 * MIB)
        .env("MILLSTREAM_FETCH_BYTES_MAX", 32 * MIB)
        .env("MILLSTREAM_TAIL_BYTES_MAX", 32 * MIB);
    setup.env("MILLSTREAM_CONNECTIONS_MAX", PRODUCERS + 3).start()
}

async fn produce(url: String, partition: u32) {
    let connection = Connection::open(&url).await.unwrap();
    let settings = ProducerSettings {
        partition: Some(partition),
        batch_bytes: 8 * MIB,
        ..ProducerSettings::default()
    };
    let producer = Producer::open(&connection, "t", settings).await.unwrap();
    let mut value = vec![b'x'; RECORD_BYTES];
    for number in 0..RECORDS {
        value[..8].copy_from_slice(&number.to_be_bytes());
        let record = NewRecord {
            value: Some(&value),
            ..NewRecord::default()
        };
        producer.send(record).await.unwrap();
    }
    let totals = producer.close().await.unwrap();
    assert_eq!(totals.acknowledged, RECORDS);
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_that_send_more_than_fits_get_all_of_it_through() {
    let agent = tight();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", PRODUCERS).await.unwrap();
    let mut producers = JoinSet::new();
    for partition in 0..PRODUCERS {
        producers.spawn(produce(agent.url(), partition));
    }
    while let Some(ended) = producers.join_next().await {
        ended.unwrap();
    }
    assert!(agent.metric("millstream_requests_refused_total") > 0.0);
    for partition in 0..PRODUCERS {
        let records = grpc.read("t", partition, 0).await.unwrap();
        let numbers = records.iter().map(|record| {
            let value = record.value.as_deref().unwrap();
            u64::from_be_bytes(value[..8].try_into().unwrap())
        });
        assert!(numbers.eq(0..RECORDS), "partition {partition}");
    }
    assert_eq!(agent.metric("millstream_request_bytes"), 0.0);
    assert_eq!(agent.metric("millstream_fetch_bytes"), 0.0);
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_and_a_stop_ends_all() {
    let agent = Setup::new().env("MILLSTREAM_CONNECTIONS_MAX", 2).start();
    let first = agent.grpc().await;
    first.create_topic("t", 1).await.unwrap();
    let second = agent.grpc().await;
    second.partitions("t", false).await.unwrap();
    assert_eq!(agent.metric("millstream_connections"), 2.0);
    // The third one is accepted once there is room for it.
    let url = agent.url();
    let mut third = Box::pin(async move { Grpc::connect(&url).await.partitions("t", false).await });
    assert!(futures::poll!(&mut third).is_pending());
    drop(second);
    third.await.unwrap();

    // A connection that says nothing does not keep the agent from ending.
    let mut silent = std::net::TcpStream::connect(agent.grpc_address()).unwrap();
    agent.terminate();
    let mut rest = Vec::new();
    // Reset or closed: either way it has ended.
    let _ = silent.read_to_end(&mut rest);
    assert!(first.partitions("t", false).await.is_err());
}

/// One frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A fetch of all that topic "t" has, whose answer is not read.
fn fetch_without_reading(agent: &Agent) -> TcpStream {
    let mut headers = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/millstream.v1.ConsumerService/Fetch"),
        (":authority", "agent"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        // A literal that is not to be remembered, with a literal name (RFC 7541, section 6.2.2).
        headers.push(0);
        for text in [name, value] {
            headers.push(text.len() as u8);
            headers.extend(text.as_bytes());
        }
    }
    // A partition with the topic "t", max_bytes 16 MiB.
    let message = [0, 0, 0, 0, 10, 0x0a, 3, 0x0a, 1, b't', 0x10, 0x80, 0x80, 0x80, 0x08];
    let mut request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    request.extend(frame(4, 0, 0, &[]));
    request.extend(frame(1, 4, 1, &headers));
    request.extend(frame(0, 1, 1, &message));
    let mut client = TcpStream::connect(agent.grpc_address()).unwrap();
    client.write_all(&request).unwrap();
    // Most of what the client's first window takes: the rest waits for a larger one, which never comes.
    client.read_exact(&mut [0; 60_000]).unwrap();
    client
}

#[tokio::test]
async fn answers_that_nobody_reads_hold_their_room_until_the_connection_ends() {
    let agent = tight();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 1).await.unwrap();
    for _ in 0..15 {
        grpc.produce("t", 0, vec![record(vec![b'x'; MIB - 100])]).await.unwrap();
    }
    let held = |clients: usize| {
        let bytes = agent.metric("millstream_fetch_bytes") as usize;
        (clients * 14 * MIB..=clients * 16 * MIB).contains(&bytes)
    };
    let first = fetch_without_reading(&agent);
    let second = fetch_without_reading(&agent);
    assert!(held(2));
    // There is no room for a third one, and it is told so.
    let refused = agent.metric("millstream_requests_refused_total");
    let third = grpc.fetch("t", 0, 0).await.unwrap_err();
    assert_eq!(third.code(), tonic::Code::ResourceExhausted);
    assert_eq!(agent.metric("millstream_requests_refused_total"), refused + 1.0);
    assert!(held(2));

    drop(first);
    drop(second);
    let until = Instant::now() + PATIENCE;
    while agent.metric("millstream_fetch_bytes") > 0.0 {
        assert!(Instant::now() < until, "room is still held");
        tokio::task::yield_now().await;
    }
    assert_eq!(grpc.read("t", 0, 0).await.unwrap().len(), 15);
}
