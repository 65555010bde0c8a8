//! The network's side of the broker: package `millstream.v1` over gRPC, with reflection and health.
//!
//! One file a service; each turns messages into calls of the broker and back. `status` is the one place where an error
//! becomes a gRPC code.

mod consumer;
mod module;
mod pipeline;
mod producer;
mod status;
mod topic;

use std::{future::Future, sync::Arc};

use anyhow::Context as _;
use millstream_broker::Broker;
use millstream_proto::{DESCRIPTORS, v1};
use tokio::net::TcpListener;
use tonic::transport::{Server, server::TcpIncoming};

/// Bound on a message either way: a batch of 16 MiB and what goes with it.
const MESSAGE_BYTES_MAX: usize = 20 << 20;
/// Bound on an answer to a fetch: a batch may be four times its size once its records are decompressed.
const FETCH_MESSAGE_BYTES_MAX: usize = 96 << 20;
/// Bound on a message that deploys a module: a component of 64 MiB and what goes with it.
const DEPLOY_BYTES_MAX: usize = 65 << 20;
/// HTTP/2 flow control: how much may be under way on one stream, and on all together.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Requests under way on one connection.
const STREAMS_PER_CONNECTION_MAX: u32 = 1_024;

/// The services' common state.
#[derive(Clone)]
struct Api {
    broker: Arc<Broker>,
}

/// Serves until `stop` resolves, then answers what is under way.
pub async fn serve(broker: Arc<Broker>, listener: TcpListener, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let api = Api { broker };
    let (health_reporter, health) = tonic_health::server::health_reporter();
    health_reporter
        .set_serving::<v1::producer_service_server::ProducerServiceServer<Api>>()
        .await;
    health_reporter
        .set_serving::<v1::consumer_service_server::ConsumerServiceServer<Api>>()
        .await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .context("the generated descriptors describe themselves")?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .add_service(health)
        .add_service(reflection)
        .add_service(v1::topic_service_server::TopicServiceServer::new(api.clone()))
        .add_service(
            v1::producer_service_server::ProducerServiceServer::new(api.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(
            v1::consumer_service_server::ConsumerServiceServer::new(api.clone())
                .max_encoding_message_size(FETCH_MESSAGE_BYTES_MAX),
        )
        .add_service(
            v1::module_service_server::ModuleServiceServer::new(api.clone())
                .max_decoding_message_size(DEPLOY_BYTES_MAX),
        )
        .add_service(v1::pipeline_service_server::PipelineServiceServer::new(api))
        .serve_with_incoming_shutdown(incoming, stop)
        .await
        .context("the gRPC server ended")
}
