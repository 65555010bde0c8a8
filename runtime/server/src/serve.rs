//! The agent: locks its data folder, opens metadata, store and broker, and serves until told to stop.

use std::{fs::File, sync::Arc, time::Duration};

use anyhow::bail;
use millstream_broker::{Broker, BrokerError, TopicConfig};
use millstream_log::LogError;
use millstream_meta::Metadata;
use millstream_wasm::Limits;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{config::Settings, grpc, http, parts};

/// How long a graceful stop waits for tails to become segments, and as long again for the write-ahead log to close.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// How long requests under way may take once the agent is stopping; a fetch may be waiting for records.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// An agent is named for its data folder; of a long path the end tells most.
const AGENT_NAME_CHARS_MAX: usize = 60;

/// Runs an agent until SIGTERM, Ctrl-C, or a failure of its write-ahead log.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let agent = Agent::start(settings).await?;
    tracing::info!(grpc = %agent.grpc_address, http = %agent.http_address, "serving");
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut failure = agent.broker.failure();
    let failed = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        reason = failed(&mut failure) => Some(reason),
    };
    if let Some(reason) = failed {
        // What is durable is found by the next start; going on could only acknowledge what is not.
        bail!("the write-ahead log failed, start the agent again to recover: {reason}");
    }
    agent.stop().await;
    Ok(())
}

/// A running agent.
pub struct Agent {
    broker: Arc<Broker>,
    pub grpc_address: std::net::SocketAddr,
    http_address: std::net::SocketAddr,
    /// Turns to true when no more requests are taken.
    stop: watch::Sender<bool>,
    /// Turns to true when connections break.
    cut: watch::Sender<bool>,
    servers: tokio::task::JoinSet<anyhow::Result<()>>,
    _locks: Vec<File>,
}

impl Agent {
    /// Starts serving. Everything that can be wrong with the settings or the machine is an error here.
    pub async fn start(settings: Settings) -> anyhow::Result<Agent> {
        let grpc = bind("listen", &settings.listen).await?;
        let http = bind("http", &settings.http).await?;
        let (grpc_address, http_address) = (grpc.local_addr()?, http.local_addr()?);
        let locks = parts::lock(&settings)?;

        let metadata = Metadata::open(&settings.metadata_url()).await?;
        let store = parts::store(&settings)?;
        let wals = parts::wals(&settings, &store);
        let clock = Arc::new(parts::SystemClock);
        let broker = Broker::open(broker_settings(&settings)?, clock, metadata, store, wals)
            .await
            .map_err(|error| explain(error, &settings))?;

        let bounds = grpc::Bounds::new(
            settings.connections_max,
            settings.connection_bytes_max,
            settings.in_flight_bytes_max,
        );
        let ((stop, stopped), (cut, is_cut)) = (watch::channel(false), watch::channel(false));
        let mut servers = tokio::task::JoinSet::new();
        servers.spawn(http::serve(broker.clone(), bounds.clone(), http, stopped.clone()));
        servers.spawn(grpc::serve(broker.clone(), grpc, bounds, stopped, is_cut));
        Ok(Agent {
            broker,
            grpc_address,
            http_address,
            stop,
            cut,
            servers,
            _locks: locks,
        })
    }

    /// Stops accepting, answers what is under way, makes segments of everything and gives the leases back.
    pub async fn stop(mut self) {
        tracing::info!("stopping");
        self.stop.send_replace(true);
        let drained = tokio::time::timeout(DRAIN_TIMEOUT, async {
            while let Some(ended) = self.servers.join_next().await {
                if let Ok(Err(error)) = ended {
                    tracing::warn!(%error, "a server ended with an error");
                }
            }
        });
        if drained.await.is_err() {
            self.cut.send_replace(true);
            self.servers.abort_all();
        }
        self.broker.stop().await;
        tracing::info!("stopped");
    }
}

/// A store that cannot be reached says so at length, and not what to do.
fn explain(error: BrokerError, settings: &Settings) -> anyhow::Error {
    let of_the_store = matches!(error, BrokerError::Log(LogError::Store { .. }));
    match of_the_store {
        true => anyhow::anyhow!(
            "the store {} does not answer as it must; `millstream doctor` with the same settings tells more: {error}",
            settings.store_url()
        ),
        false => error.into(),
    }
}

async fn bind(setting: &str, address: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            anyhow::anyhow!("{address} is in use by another process; choose another with --{setting} HOST:PORT")
        }
        _ => anyhow::anyhow!("cannot listen on {address}: {error}; choose another with --{setting} HOST:PORT"),
    })
}

fn broker_settings(settings: &Settings) -> anyhow::Result<millstream_broker::Settings> {
    let path = std::path::absolute(&settings.data_dir)?.display().to_string();
    let cut = path
        .char_indices()
        .rev()
        .nth(AGENT_NAME_CHARS_MAX)
        .map_or(0, |(at, c)| at + c.len_utf8());
    let agent_name = path[cut..].to_owned();
    Ok(millstream_broker::Settings {
        agent_name,
        wal_bytes_max: settings.wal_bytes_max,
        uploads_max: settings.uploads_max,
        tail_bytes_max: settings.tail_bytes_max,
        topic_defaults: TopicConfig {
            segment_bytes: settings.segment_bytes,
            segment_age_ms: settings.segment_age_ms,
            ..TopicConfig::default()
        },
        fetch_bytes_max: settings.fetch_bytes_max,
        segment_entries_max: settings.segment_entries_max,
        index_cache_bytes: settings.index_cache_bytes,
        block_cache_bytes: settings.block_cache_bytes,
        module_threads: settings.module_threads,
        module_limits: Limits {
            memory_bytes: settings.module_memory_bytes,
            cpu_deadline: Duration::from_millis(settings.module_deadline_ms),
            ..Limits::default()
        },
        stop_timeout: STOP_TIMEOUT,
        deletion_grace: Duration::from_millis(settings.deletion_grace_ms),
        orphan_grace: Duration::from_millis(settings.orphan_grace_ms),
        sweep_interval: Duration::from_millis(settings.sweep_interval_ms),
        ..millstream_broker::Settings::default()
    })
}

async fn failed(failure: &mut watch::Receiver<Option<String>>) -> String {
    match failure.wait_for(Option::is_some).await {
        Ok(reason) => reason.clone().expect("the condition saw it"),
        Err(_) => std::future::pending().await,
    }
}
