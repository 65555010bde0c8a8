//! One connection to an agent, and what every service client made from it has in common.

use std::{future::Future, sync::Arc, time::Duration};

use millstream_proto::v1::{
    cluster_service_client::ClusterServiceClient, consumer_service_client::ConsumerServiceClient,
    group_service_client::GroupServiceClient, module_service_client::ModuleServiceClient,
    pipeline_service_client::PipelineServiceClient, producer_service_client::ProducerServiceClient,
    topic_service_client::TopicServiceClient,
};
use tonic::{
    Status,
    codegen::http::Uri,
    transport::{Channel, Endpoint},
};

use crate::{
    ClientError,
    agents::{Agents, HOPS_MAX},
};

/// Bound on a message either way: a batch of 16 MiB and what goes with it.
const MESSAGE_BYTES_MAX: usize = 20 << 20;
/// Bound on an answer to a fetch: a batch may be four times its size once its records are decompressed.
const FETCH_BYTES_MAX: usize = 96 << 20;
/// Bound on a message that deploys a module: a component of 64 MiB and what goes with it.
const DEPLOY_BYTES_MAX: usize = 65 << 20;
/// HTTP/2 flow control: how much may be under way on one stream, and on all together.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// The largest frame that an agent may send: few large ones cost less than many small ones.
const FRAME_BYTES_MAX: u32 = 1 << 20;
/// An agent that has said nothing for so long is asked for a sign of life while calls are open, and has so long to give it: the
/// calls to one that hangs end.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// An HTTP/2 connection to an agent. Clones share it; it is opened anew when it was lost. Where other agents lead partitions,
/// what is made from it asks them too, over connections that are opened when they are first named.
#[derive(Clone, Debug)]
pub struct Connection {
    channel: Channel,
    url: String,
    agents: Arc<Agents>,
}

impl Connection {
    /// Connects to an agent, for instance at `http://127.0.0.1:7070`.
    ///
    /// # Errors
    /// [`ClientError::Url`] for an address that cannot be used, [`ClientError::Unreachable`] where no agent answers.
    pub async fn open(url: &str) -> Result<Connection, ClientError> {
        let channel =
            endpoint(url)?
                .connect()
                .await
                .map_err(|error| match ClientError::from_transport(&error, url) {
                    // Nothing was asked yet: a connection that breaks while it is being opened is none.
                    ClientError::ConnectionLost { url, reason } => ClientError::Unreachable { url, reason },
                    error => error,
                })?;
        Ok(Connection {
            channel,
            url: url.to_owned(),
            agents: Arc::default(),
        })
    }

    /// The way to the agent at HOST:PORT, which is connected to with the first request.
    pub(crate) fn at(&self, address: &str) -> Result<Connection, ClientError> {
        let url = format!("http://{address}");
        if url == self.url {
            return Ok(self.clone());
        }
        let make = || Ok(endpoint(&url)?.connect_lazy());
        Ok(Connection {
            channel: self.agents.channel::<ClientError>(&url, make)?,
            url,
            agents: self.agents.clone(),
        })
    }

    /// Asks this agent and, as long as the answer names another one as the leader, that one; who answered in the end.
    pub(crate) async fn follow<T, F>(&self, ask: impl Fn(Connection) -> F) -> Result<(Connection, T), ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let (mut at, mut hops) = (self.clone(), 0);
        loop {
            let error = match ask(at.clone()).await {
                Ok(answer) => return Ok((at, answer)),
                Err(error) => error,
            };
            match error.leader() {
                Some(address) if hops < HOPS_MAX => at = at.at(address)?,
                _ => return Err(error),
            }
            hops += 1;
        }
    }

    /// The agent's address, as it was given.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn error(&self, status: Status) -> ClientError {
        ClientError::from_status(status, &self.url)
    }

    /// What calls go over.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn topics(&self) -> TopicServiceClient<Channel> {
        TopicServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(crate) fn producer(&self) -> ProducerServiceClient<Channel> {
        ProducerServiceClient::new(self.channel.clone()).max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(crate) fn consumer(&self) -> ConsumerServiceClient<Channel> {
        ConsumerServiceClient::new(self.channel.clone()).max_decoding_message_size(FETCH_BYTES_MAX)
    }

    pub(crate) fn modules(&self) -> ModuleServiceClient<Channel> {
        ModuleServiceClient::new(self.channel.clone())
            .max_encoding_message_size(DEPLOY_BYTES_MAX)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(crate) fn groups(&self) -> GroupServiceClient<Channel> {
        GroupServiceClient::new(self.channel.clone())
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
            .max_decoding_message_size(FETCH_BYTES_MAX)
    }

    pub(crate) fn cluster(&self) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(crate) fn pipelines(&self) -> PipelineServiceClient<Channel> {
        PipelineServiceClient::new(self.channel.clone())
    }
}

fn endpoint(url: &str) -> Result<Endpoint, ClientError> {
    Ok(Endpoint::from(parse(url)?)
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT))
}

fn parse(url: &str) -> Result<Uri, ClientError> {
    let bad = |reason: String| ClientError::Url {
        url: url.to_owned(),
        reason,
    };
    let uri: Uri = url
        .parse()
        .map_err(|error: tonic::codegen::http::uri::InvalidUri| bad(error.to_string()))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http"), Some(host)) if !host.is_empty() => Ok(uri),
        (Some("http"), _) => Err(bad("it names no host".to_owned())),
        (Some(scheme), _) => Err(bad(format!("{scheme}:// is not spoken"))),
        (None, _) => Err(bad("it does not begin with http://".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_addresses_are_taken() {
        assert!(parse("http://127.0.0.1:7070").is_ok());
        assert!(parse("http://[::1]:7070").is_ok());
        for (url, reason) in [
            ("127.0.0.1:7070", "does not begin with http://"),
            ("https://example.org", "https:// is not spoken"),
            ("http://a b", "invalid uri"),
            ("", "empty"),
        ] {
            let error = parse(url).unwrap_err().to_string();
            assert!(error.contains(reason), "{url:?}: {error}");
        }
    }

    #[tokio::test]
    async fn a_refused_connection_says_how_to_start_an_agent() {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let url = format!("http://127.0.0.1:{port}");

        let error = Connection::open(&url).await.unwrap_err();

        assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
        assert!(
            error.to_string().starts_with(&format!("no agent answers at {url} (")),
            "{error}"
        );
        assert!(
            error.to_string().ends_with("start one with `millstream serve`"),
            "{error}"
        );
    }
}
