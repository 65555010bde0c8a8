//! The agent: locks its data folder, opens metadata, store and broker, and serves until told to stop.

use std::{fs::File, sync::Arc, time::Duration};

use anyhow::bail;
use millstream_broker::{Broker, BrokerError, TopicConfig};
use millstream_log::LogError;
use millstream_meta::{MetaError, Metadata};
use millstream_wasm::Limits;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};

use crate::{
    config::{MetadataUrl, Settings},
    grpc, http,
    metrics::Metrics,
    name, parts,
};

/// How long a graceful stop waits for tails to become segments, and as long again for the write-ahead log to close.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// How long requests under way may take once the agent is stopping; a fetch may be waiting for records.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long whoever asks how the agent is may take to hear that it ends.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long a start waits for a database that is not there: one that starts with the machine takes so long.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);

/// Runs an agent until SIGTERM, Ctrl-C, or until it fails for good.
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
        bail!("{reason}; start the agent again, it recovers what was acknowledged");
    }
    agent.stop().await;
    Ok(())
}

/// A running agent.
pub struct Agent {
    broker: Arc<Broker>,
    metadata: Metadata,
    pub grpc_address: std::net::SocketAddr,
    http_address: std::net::SocketAddr,
    /// Turns to true when no more requests are taken.
    stop: watch::Sender<bool>,
    /// Turns to true when connections break.
    cut: watch::Sender<bool>,
    servers: tokio::task::JoinSet<anyhow::Result<()>>,
    /// Tells how the agent is, until the end.
    http: JoinHandle<anyhow::Result<()>>,
    end: watch::Sender<bool>,
    _locks: Vec<File>,
}

impl Agent {
    /// Starts serving. Everything that can be wrong with the settings or the machine is an error here.
    pub async fn start(settings: Settings) -> anyhow::Result<Agent> {
        let grpc = bind("listen", &settings.listen).await?;
        let http = bind("http", &settings.http).await?;
        let (grpc_address, http_address) = (grpc.local_addr()?, http.local_addr()?);
        let locks = parts::lock(&settings)?;

        let metadata = open_metadata(&settings).await?;
        let store = parts::store(&settings)?;
        let wals = parts::wals(&settings, &store);
        let clock = Arc::new(parts::SystemClock);
        let agent_name = name::of_agent(&settings, &metadata).await?;
        let address = advertised(&settings, grpc_address.port());
        tracing::info!(agent = agent_name, address, metadata = metadata.place(), "starting");
        let broker_settings = broker_settings(&settings, agent_name, address);
        let broker = Broker::open(broker_settings, clock, metadata.clone(), store, wals)
            .await
            .map_err(|error| explain(error, &settings))?;

        let bounds = grpc::Bounds::new(
            settings.connections_max,
            settings.connection_bytes_max,
            settings.in_flight_bytes_max,
        );
        let ((stop, stopped), (cut, is_cut)) = (watch::channel(false), watch::channel(false));
        let (end, ended) = watch::channel(false);
        let mut servers = tokio::task::JoinSet::new();
        let metrics = Metrics::new(broker.clone(), bounds.clone(), metadata.clone());
        let http = tokio::spawn(http::serve(broker.clone(), metrics, http, stopped.clone(), ended));
        if let Some(dir) = settings.modules_dir {
            let (broker, stopped) = (broker.clone(), stopped.clone());
            servers.spawn(async move {
                crate::watch::run(dir, broker, stopped).await;
                Ok(())
            });
        }
        servers.spawn(grpc::serve(broker.clone(), grpc, bounds, stopped, is_cut));
        Ok(Agent {
            broker,
            metadata,
            grpc_address,
            http_address,
            stop,
            cut,
            servers,
            http,
            end,
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
        // The last connection to an SQLite file leaves it whole by itself. Nobody waits for a server that is gone.
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, self.metadata.close()).await;
        self.end.send_replace(true);
        // Somebody may keep a connection open for ever.
        if tokio::time::timeout(FAREWELL, &mut self.http).await.is_err() {
            self.http.abort();
        }
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

async fn open_metadata(settings: &Settings) -> anyhow::Result<Metadata> {
    let opened = Metadata::open_with(&settings.metadata_settings(CONNECT_PATIENCE)).await;
    opened.map_err(|error| match error {
        MetaError::Unavailable { .. } => anyhow::anyhow!(
            "{error} (it was waited for, {} s); `millstream doctor` with the same settings tells more",
            CONNECT_PATIENCE.as_secs()
        ),
        error => error.into(),
    })
}

/// Where others reach this agent's gRPC. A port that the system chose is known only now.
fn advertised(settings: &Settings, port: u16) -> String {
    if let Some(address) = &settings.advertise {
        return address.clone();
    }
    let (host, _) = settings.listen.rsplit_once(':').expect("addresses were checked");
    let everywhere = matches!(host, "0.0.0.0" | "[::]");
    if everywhere && matches!(settings.metadata_url(), MetadataUrl::Postgres { .. }) {
        tracing::warn!(
            listen = settings.listen,
            "other machines are not told where this agent is: set advertise to HOST:PORT as they reach it"
        );
    }
    format!("{host}:{port}")
}

fn broker_settings(settings: &Settings, agent_name: String, address: String) -> millstream_broker::Settings {
    millstream_broker::Settings {
        agent_name,
        address,
        lease_duration: Duration::from_millis(settings.lease_duration_ms),
        wal_bytes_max: settings.wal_bytes_max,
        uploads_max: settings.uploads_max,
        tail_bytes_max: settings.tail_bytes_max,
        topic_defaults: TopicConfig {
            segment_bytes: settings.segment_bytes,
            segment_age_ms: settings.segment_age_ms,
            ..TopicConfig::default()
        },
        fetch_bytes_max: settings.fetch_bytes_max,
        fetch_cache_bytes: settings.fetch_cache_bytes,
        fetch_cpu: Duration::from_millis(settings.fetch_cpu_ms),
        segment_entries_max: settings.segment_entries_max,
        index_cache_bytes: settings.index_cache_bytes,
        block_cache_bytes: settings.block_cache_bytes,
        module_threads: settings.module_threads,
        module_rollback_window_ms: settings.module_rollback_window_ms,
        module_rollback_batches_min: settings.module_rollback_batches_min,
        module_rollback_error_percent: settings.module_rollback_error_percent,
        module_limits: Limits {
            memory_bytes: settings.module_memory_bytes,
            cpu_deadline: Duration::from_millis(settings.module_deadline_ms),
            ..Limits::default()
        },
        module_guest_memory_bytes: settings.module_guest_memory_bytes,
        module_instances_max: settings.module_instances_max,
        module_cache_dir: Some(settings.module_cache_dir()),
        activation_wait: Duration::from_millis(settings.activation_wait_ms),
        stop_timeout: STOP_TIMEOUT,
        deletion_grace: Duration::from_millis(settings.deletion_grace_ms),
        orphan_grace: Duration::from_millis(settings.orphan_grace_ms),
        sweep_interval: Duration::from_millis(settings.sweep_interval_ms),
        ..millstream_broker::Settings::default()
    }
}

async fn failed(failure: &mut watch::Receiver<Option<String>>) -> String {
    match failure.wait_for(Option::is_some).await {
        Ok(reason) => reason.clone().expect("the condition saw it"),
        Err(_) => std::future::pending().await,
    }
}
