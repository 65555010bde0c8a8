//! The agent: locks its data folder, opens metadata, store and broker, and serves until told to stop.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use millstream_broker::{Broker, Clock, TopicConfig};
use millstream_log::{Store, SyncPolicy};
use millstream_meta::Metadata;
use millstream_wasm::Limits;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{
    config::{Settings, WalSync},
    grpc, http,
};

/// How long a graceful stop waits for tails to become segments.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// How long requests under way may take once the agent is stopping; a fetch may be waiting for records.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// An agent is named for its data folder; of a long path the end tells most.
const AGENT_NAME_CHARS_MAX: usize = 60;
/// How long deleted objects stay for readers that still hold an index.
const DELETION_GRACE: Duration = Duration::from_secs(60);

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
    stop: watch::Sender<bool>,
    servers: tokio::task::JoinSet<anyhow::Result<()>>,
    _locks: Vec<File>,
}

impl Agent {
    /// Starts serving. Everything that can be wrong with the settings or the machine is an error here.
    pub async fn start(settings: Settings) -> anyhow::Result<Agent> {
        let grpc = bind("listen", &settings.listen).await?;
        let http = bind("http", &settings.http).await?;
        let (grpc_address, http_address) = (grpc.local_addr()?, http.local_addr()?);
        let locks = lock(&settings)?;

        let metadata = Metadata::open(&settings.metadata_url()).await?;
        let store = open_store(&settings.store_url())?;
        let broker = Broker::open(broker_settings(&settings)?, Arc::new(SystemClock), metadata, store).await?;

        let (stop, stopped) = watch::channel(false);
        let mut servers = tokio::task::JoinSet::new();
        servers.spawn(grpc::serve(broker.clone(), grpc, wait(stopped.clone())));
        servers.spawn(http::serve(broker.clone(), http, wait(stopped)));
        Ok(Agent {
            broker,
            grpc_address,
            http_address,
            stop,
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
            self.servers.abort_all();
        }
        self.broker.stop().await;
        tracing::info!("stopped");
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

/// Holds the data folder and the metadata file against a second agent.
fn lock(settings: &Settings) -> anyhow::Result<Vec<File>> {
    let dir = &settings.data_dir;
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make the data folder {}", dir.display()))?;
    let mut locks = vec![lock_file(
        &dir.join("lock"),
        &format!("the data folder {}", dir.display()),
    )?];
    // Wherever it lies: another agent may have been told to use this file from another data folder.
    let url = settings.metadata_url();
    if let Some(path) = url
        .strip_prefix("sqlite:")
        .map(|path| path.strip_prefix("//").unwrap_or(path))
    {
        locks.push(lock_file(
            &PathBuf::from(format!("{path}.lock")),
            &format!("the metadata file {path}"),
        )?);
    }
    Ok(locks)
}

fn lock_file(path: &Path, what: &str) -> anyhow::Result<File> {
    let file = File::create(path).with_context(|| format!("cannot write in {what}"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("{what} is in use by another agent; stop that one or choose another --data-dir")
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {what}")),
    }
}

fn open_store(url: &str) -> anyhow::Result<Store> {
    let Some(path) = url.strip_prefix("file:") else {
        bail!("store {url:?} is not offered by this version; use file:PATH");
    };
    Store::local(path).with_context(|| format!("cannot open the store in {path}"))
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
        wal_dir: settings.data_dir.join("wal"),
        wal_file_bytes: settings.wal_file_bytes,
        wal_sync: match settings.wal_sync {
            WalSync::Always => SyncPolicy::Always,
            WalSync::Interval { ms } => SyncPolicy::Interval(Duration::from_millis(ms)),
            WalSync::Never => SyncPolicy::Never,
        },
        tail_bytes_max: settings.tail_bytes_max,
        topic_defaults: TopicConfig {
            segment_bytes: settings.segment_bytes,
            segment_age_ms: settings.segment_age_ms,
            ..TopicConfig::default()
        },
        index_cache_bytes: settings.index_cache_bytes,
        block_cache_bytes: settings.block_cache_bytes,
        module_threads: settings.module_threads,
        module_limits: Limits {
            memory_bytes: settings.module_memory_bytes,
            cpu_deadline: Duration::from_millis(settings.module_deadline_ms),
            ..Limits::default()
        },
        stop_timeout: STOP_TIMEOUT,
        deletion_grace: DELETION_GRACE,
    })
}

async fn wait(mut stopped: watch::Receiver<bool>) {
    // The sender is gone only with the agent itself.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

async fn failed(failure: &mut watch::Receiver<Option<String>>) -> String {
    match failure.wait_for(Option::is_some).await {
        Ok(reason) => reason.clone().expect("the condition saw it"),
        Err(_) => std::future::pending().await,
    }
}

struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as i64)
    }

    fn random_id(&self) -> u128 {
        uuid::Uuid::new_v4().as_u128()
    }
}
