//! The network's side of the broker: package `millstream.v1` over gRPC, with reflection and health.
//!
//! One file a service; each turns messages into calls of the broker and back. `status` is the one place where an error
//! becomes a gRPC code. `connections` accepts, `charged` holds what arrives to the `bounds`.

mod bounds;
mod charged;
mod cluster;
mod compression;
mod connections;
mod consumer;
mod download;
mod enums;
mod group;
mod health;
mod init_producer;
mod module;
mod module_logs;
mod pipeline;
mod pipeline_history;
mod pipeline_message;
mod plain;
mod produce_stream;
mod producer;
mod stage;
mod status;
mod subscribe;
mod topic;
mod whole;

use std::{pin::pin, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{http::Uri, response::Response};
use millstream_broker::{Broker, BrokerError};
use millstream_proto::{DESCRIPTORS, v1};
use tokio::{net::TcpListener, sync::watch};
use tonic::{Status, codec::CompressionEncoding, service::Routes, transport::Server};

pub use bounds::Bounds;
use charged::Charged;
use connections::Patience;
use download::Downloads;
use status::{status, unknown};
use subscribe::Memberships;

/// Bound on a message either way: a batch of 16 MiB and what goes with it.
const MESSAGE_BYTES_MAX: usize = 20 << 20;
/// Bound on an answer to a fetch: plain records may take four times what was asked for, of which there are 16 MiB at most.
const FETCH_MESSAGE_BYTES_MAX: usize = 96 << 20;
/// Bound on a message that deploys a module: a component of 64 MiB and what goes with it.
const DEPLOY_BYTES_MAX: usize = 65 << 20;
/// Bound on what asks for health or reflection, which is not charged: such a request may last as long as its connection.
const QUESTION_BYTES_MAX: usize = 16 << 10;
/// HTTP/2 flow control: how much a client may send on one stream, and on all together, before it is read and charged.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// The largest frame of HTTP/2 that a client may send: few large ones cost less than many small ones.
const FRAME_BYTES_MAX: u32 = 1 << 20;
/// A peer that does not answer for so long is gone, and what its connection holds is given back.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(120);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Requests under way on one connection.
const STREAMS_PER_CONNECTION_MAX: u32 = 1_024;

/// A service that takes compressed requests, and compresses its answers where the client asks for it: who does not pays nothing.
macro_rules! compressed {
    ($service:expr) => {
        $service
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd)
            .send_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Zstd)
    };
}

/// The services' common state.
#[derive(Clone)]
struct Api {
    broker: Arc<Broker>,
    bounds: Arc<Bounds>,
    downloads: Downloads,
    memberships: Memberships,
    stop: watch::Receiver<bool>,
}

impl Api {
    /// What was done; or why it was not, with the nearest name where what was named is not known.
    async fn told<T>(&self, done: Result<T, BrokerError>) -> Result<T, Status> {
        match done {
            Ok(done) => Ok(done),
            Err(error) => Err(status(self.broker.with_nearest_name(error).await)),
        }
    }
}

/// Serves until `stop` turns to true, then answers what is under way. Connections break when `cut` turns to true.
pub async fn serve(
    broker: Arc<Broker>,
    listener: TcpListener,
    bounds: Arc<Bounds>,
    stop: watch::Receiver<bool>,
    cut: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let api = Api {
        broker,
        bounds: bounds.clone(),
        downloads: Downloads::default(),
        memberships: Memberships::default(),
        stop: stop.clone(),
    };
    let (reporter, health) = tonic_health::server::health_reporter();
    let report = health::report(reporter, api.broker.clone(), stop.clone());
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .context("the generated descriptors describe themselves")?
        .max_decoding_message_size(QUESTION_BYTES_MAX);
    let producer = v1::producer_service_server::ProducerServiceServer::new(api.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX);
    let consumer = v1::consumer_service_server::ConsumerServiceServer::new(api.clone())
        .max_encoding_message_size(FETCH_MESSAGE_BYTES_MAX);
    let modules =
        v1::module_service_server::ModuleServiceServer::new(api.clone()).max_decoding_message_size(DEPLOY_BYTES_MAX);
    let topics = v1::topic_service_server::TopicServiceServer::new(api.clone());
    let pipelines = v1::pipeline_service_server::PipelineServiceServer::new(api.clone());
    let groups =
        v1::group_service_server::GroupServiceServer::new(api.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let cluster = v1::cluster_service_server::ClusterServiceServer::new(api);
    let incoming = connections::incoming(listener, bounds.clone(), Patience::default(), cut);
    let routes = Routes::new(health.max_decoding_message_size(QUESTION_BYTES_MAX))
        .add_service(reflection)
        .add_service(Charged::new(compressed!(topics), &bounds))
        .add_service(Charged::new(compressed!(producer), &bounds))
        .add_service(Charged::new(compressed!(consumer), &bounds))
        .add_service(Charged::new(compressed!(modules), &bounds))
        .add_service(Charged::new(compressed!(pipelines), &bounds))
        .add_service(Charged::new(compressed!(cluster), &bounds))
        .add_service(Charged::new(compressed!(groups), &bounds))
        .into_axum_router()
        .fallback(no_such_service);
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_routes(routes.into())
        .serve_with_incoming_shutdown(incoming, stopping(stop));
    let mut server = pin!(server);
    let served = tokio::select! {
        served = &mut server => served,
        () = report => server.await,
    };
    served.context("the gRPC server ended")
}

/// Refuses a call of what is none of the services.
async fn no_such_service(uri: Uri) -> Response {
    Status::from(unknown("SERVICE_UNKNOWN", "service", &uri)).into_http()
}

/// Resolves when the agent begins to stop.
async fn stopping(mut stop: watch::Receiver<bool>) {
    // The sender is gone only with the agent itself.
    let _ = stop.wait_for(|stop| *stop).await;
}
