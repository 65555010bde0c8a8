//! What goes over the wire beside the services' own messages: compression, health, reflection.

use std::fs;

use millstream_proto::v1::{
    self, consumer_service_client::ConsumerServiceClient, produce_request::Payload,
    producer_service_client::ProducerServiceClient,
};
use millstream_tests::{Agent, Grpc, record, values, workspace};
use tonic::{Code, Response, codec::CompressionEncoding, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

/// The services of the contract, in order.
fn services() -> Vec<String> {
    let outline = workspace().join("sdk/proto/tests/golden/contract.txt");
    let outline = fs::read_to_string(outline).expect("the contract has an outline");
    let services = outline.lines().filter_map(|line| line.strip_prefix("service "));
    services.map(str::to_owned).collect()
}

/// How an answer came; nothing where it came plain.
fn encoding<T>(answer: &Response<T>) -> Option<String> {
    let encoding = answer.metadata().get("grpc-encoding")?;
    Some(encoding.to_str().unwrap().to_owned())
}

fn request(records: Vec<v1::Record>) -> v1::ProduceRequest {
    v1::ProduceRequest {
        topic: "t".to_owned(),
        payload: Some(Payload::Records(v1::RecordList { records })),
        ..v1::ProduceRequest::default()
    }
}

fn fetch() -> v1::FetchRequest {
    v1::FetchRequest {
        partitions: vec![v1::FetchPartition {
            topic: "t".to_owned(),
            ..v1::FetchPartition::default()
        }],
        format: v1::FetchFormat::Records.into(),
        ..v1::FetchRequest::default()
    }
}

fn producer(grpc: &Grpc, encoding: CompressionEncoding) -> ProducerServiceClient<Channel> {
    ProducerServiceClient::new(grpc.channel())
        .send_compressed(encoding)
        .accept_compressed(encoding)
}

#[tokio::test]
async fn requests_come_in_gzip_or_zstd_and_only_who_asks_is_answered_so() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 1).await.unwrap();
    let mut sent = Vec::new();
    for (codec, name) in [(CompressionEncoding::Gzip, "gzip"), (CompressionEncoding::Zstd, "zstd")] {
        let value = format!("{name} {}", "x".repeat(100_000));
        let answer = producer(&grpc, codec)
            .produce(request(vec![record(value.clone())]))
            .await;
        assert_eq!(encoding(&answer.unwrap()).as_deref(), Some(name));
        sent.push(value);
        let mut consumer = ConsumerServiceClient::new(grpc.channel()).accept_compressed(codec);
        let answer = consumer.fetch(fetch()).await.unwrap();
        assert_eq!(encoding(&answer).as_deref(), Some(name));
        assert_eq!(values(&answer.into_inner().partitions[0].records), sent);
    }
    let answer = grpc.consumer().fetch(fetch()).await.unwrap();
    assert_eq!(encoding(&answer), None, "who does not ask gets what is cheap");
    assert_eq!(values(&answer.into_inner().partitions[0].records), sent);

    // As libraries over gRPC's C core say with every call, though nobody asked for it.
    let mut unasked = tonic::Request::new(fetch());
    let said = "identity, deflate, gzip".parse().unwrap();
    unasked.metadata_mut().insert("grpc-accept-encoding", said);
    let answer = grpc.consumer().fetch(unasked).await.unwrap();
    assert_eq!(encoding(&answer), None);
}

#[tokio::test]
async fn a_small_request_that_is_too_large_once_it_is_decompressed_is_refused_before_it_is() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 1).await.unwrap();
    for codec in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let bomb = vec![record("x".repeat(30 << 20))];
        let status = producer(&grpc, codec)
            .max_encoding_message_size(64 << 20)
            .produce(request(bomb))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains("size limit, of 20971520 bytes"), "{status}");
    }
    grpc.assert_serves("u").await;
    assert_eq!(agent.metric("millstream_request_bytes"), 0.0);
}

#[tokio::test]
async fn every_service_is_reflected_and_has_its_health() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = ServerReflectionClient::new(grpc.channel())
        .server_reflection_info(futures::stream::iter([ask]))
        .await
        .unwrap()
        .into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else {
        panic!("{answer:?}");
    };
    let own = list.service.iter().map(|service| service.name.as_str());
    let mut own: Vec<_> = own.filter(|name| name.starts_with("millstream.")).collect();
    own.sort_unstable();
    assert_eq!(own, services());
    let mut health = HealthClient::new(grpc.channel());
    for service in own.into_iter().chain([""]) {
        let service = service.to_owned();
        let status = health
            .check(HealthCheckRequest { service })
            .await
            .unwrap()
            .into_inner()
            .status();
        assert_eq!(status, ServingStatus::Serving);
    }
}

#[tokio::test]
async fn an_agent_lists_itself_and_what_it_leads() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 3).await.unwrap();
    grpc.produce("t", 1, vec![record("a")]).await.unwrap();
    let listed = agent.cli(["agent", "list", "--output", "json"]).json();
    let own = &listed[0];
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(own["address"], agent.grpc_address());
    assert_eq!(
        (&own["alive"], &own["this_one"], &own["partitions"]),
        (&true.into(), &true.into(), &1.into())
    );
    assert_eq!(own["version"], env!("CARGO_PKG_VERSION"));
    let table = agent.cli(["agent", "list"]).text();
    assert!(
        table.contains("(answers)") && table.contains(agent.grpc_address()),
        "{table}"
    );
}
