//! Clients that send too much, read too little, stop in the midst of a message or die.

use std::{
    io::Write as _,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use millstream_proto::v1::{self, producer_service_client::ProducerServiceClient};
use millstream_tests::{Agent, Grpc, Setup, values};
use tonic::{Code, transport::Endpoint};

use crate::{batch, produce_all, reason, request};

const CLIENTS: usize = 500;
const KIB: usize = 1 << 10;

fn large_batch() -> Bytes {
    let value = "x".repeat(255 * KIB);
    batch(&[&value])
}

#[tokio::test]
async fn a_message_above_the_limit_ends_the_stream_behind_what_was_sent_before() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 1).await.unwrap();
    let too_large = request("t", 0, vec![0; 21 << 20].into());
    let requests = stream::iter([
        request("t", 0, batch(&["a"])),
        too_large,
        request("t", 0, batch(&["b"])),
    ]);
    let mut answers = grpc.producer().produce_stream(requests).await.unwrap().into_inner();
    assert_eq!(reason(&answers.message().await.unwrap().unwrap()), None);
    let refused = answers.message().await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{}", refused.message());
    assert!(refused.message().contains("too large"), "{}", refused.message());
    assert_eq!(values(&grpc.read("t", 0, 0).await.unwrap()), ["a"]);
}

/// With so small a window a few answers are all that fits.
async fn deaf(agent: &Agent) -> ProducerServiceClient<tonic::transport::Channel> {
    let endpoint = Endpoint::from_shared(agent.url())
        .unwrap()
        .initial_stream_window_size(200);
    ProducerServiceClient::new(endpoint.connect().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_never_reads_its_answers_is_held_back_and_hurts_nobody() {
    const SENT_MAX: usize = 1_000;
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("deaf", 1).await.unwrap();
    grpc.create_topic("other", 1).await.unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let payload = large_batch();
    let requests = stream::iter(0..SENT_MAX).map(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        request("deaf", 0, payload.clone())
    });
    let mut producer = deaf(&agent).await;
    let answers = producer.produce_stream(requests).await.unwrap();

    // Meanwhile another one is served, until the first one gets no further.
    let mut before = (0, 0);
    loop {
        for _ in 0..50 {
            grpc.produce_batch("other", 0, batch(&["x"])).await.unwrap();
        }
        let stored = grpc.offsets("deaf", 0).await.unwrap().1 as usize;
        let now = (stored, sent.load(Ordering::Relaxed));
        if stored > 0 && now == before {
            break;
        }
        before = now;
    }
    let (stored, sent) = before;
    assert!(
        sent < SENT_MAX / 2,
        "{sent} requests were taken from a client that reads nothing"
    );
    let held = agent.metric("millstream_request_bytes") as usize;
    assert!(held <= 40 << 20, "{held} bytes are held");
    // What is stored holds nothing any more but its place in the answers.
    assert!(stored > 4, "{stored}");
    drop(answers);
    drop(producer);
    while agent.metric("millstream_request_bytes") > 0.0 {
        tokio::task::yield_now().await;
    }
}

/// One frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Opens a call and sends half a message of 100 KB.
fn half_a_message(agent: &Agent, path: &str) -> TcpStream {
    let mut headers = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
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
    let mut message = vec![0, 0, 1, 0x86, 0xa0];
    message.extend([0x0a; 10_000]);
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    bytes.extend(frame(1, 4, 1, &headers));
    bytes.extend(frame(0, 0, 1, &message));
    let mut client = TcpStream::connect(agent.grpc_address()).unwrap();
    client.write_all(&bytes).unwrap();
    client
}

#[tokio::test]
async fn five_hundred_clients_that_stop_in_the_midst_of_something_keep_nobody_from_being_served() {
    let agent = Agent::start();
    let paths = [
        "/millstream.v1.ProducerService/ProduceStream",
        "/millstream.v1.ProducerService/Produce",
        "/millstream.v1.ConsumerService/Subscribe",
    ];
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        clients.push(match paths.get(n % 4) {
            Some(path) => half_a_message(&agent, path),
            // Not even that.
            None => TcpStream::connect(agent.grpc_address()).unwrap(),
        });
    }
    let grpc = agent.grpc().await;
    while (agent.metric("millstream_connections") as usize) < CLIENTS {
        tokio::task::yield_now().await;
    }
    let resident = agent.resident_bytes();
    grpc.create_topic("t", 1).await.unwrap();
    let requests = (0..200).map(|n| request("t", 0, batch(&[&n.to_string()]))).collect();
    let answers = produce_all(&grpc, requests).await.unwrap();
    assert!(answers.iter().all(|answer| reason(answer).is_none()));
    assert_eq!(grpc.read("t", 0, 0).await.unwrap().len(), 200);
    assert!(resident < 300 << 20, "{resident} bytes are resident");
    drop(clients);
    while agent.metric("millstream_request_bytes") > 0.0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn of_a_client_that_dies_in_the_midst_a_beginning_is_stored() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 1).await.unwrap();
    for round in 0..10 {
        let dying = Grpc::connect(&agent.url()).await;
        let requests = (0..500).map(move |n| request("t", 0, batch(&[&format!("{round}-{n:03}")])));
        let mut answers = dying
            .producer()
            .produce_stream(stream::iter(requests))
            .await
            .unwrap()
            .into_inner();
        // After some answers it is gone.
        for _ in 0..round * 10 {
            answers.message().await.unwrap().unwrap();
        }
    }
    while agent.metric("millstream_request_bytes") > 0.0 {
        tokio::task::yield_now().await;
    }
    let read = values(&grpc.read("t", 0, 0).await.unwrap());
    for round in 0..10 {
        let of_round: Vec<_> = read
            .iter()
            .filter(|value| value.starts_with(&format!("{round}-")))
            .collect();
        assert!(of_round.len() >= round * 10, "{round}");
        let expected = (0..of_round.len()).map(|n| format!("{round}-{n:03}"));
        assert!(of_round.into_iter().cloned().eq(expected), "round {round}");
    }
    grpc.assert_serves("u").await;
}

#[tokio::test]
async fn what_is_no_message_is_refused_as_such() {
    let agent = Setup::new().start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 1).await.unwrap();
    // A payload whose batch is nothing of the kind.
    let garbage = v1::ProduceStreamRequest {
        ..request("t", 0, vec![0xff; 100].into())
    };
    let answers = produce_all(&grpc, vec![garbage]).await.unwrap();
    assert_eq!(reason(&answers[0]), Some("BATCH_INVALID"));
    grpc.assert_serves("u").await;
}
