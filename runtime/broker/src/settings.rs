//! What an operator can set about the broker.

use std::{path::PathBuf, sync::Arc, time::Duration};

use millstream_log::WalStore;
use millstream_meta::{TopicConfig, WalKind};
use millstream_wasm::Limits as ModuleLimits;

/// Settings of one agent's broker. Sizes are bytes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the agent in the metadata; it outlives incarnations. No two agents have the same: the one that starts later
    /// takes the place of the other.
    pub agent_name: String,
    /// `HOST:PORT` at which others reach this agent; told to clients that ask an agent which does not lead a partition.
    pub address: String,
    /// How long the agent's leases last after the database has heard of it for the last time: renewed at a third of it. Without
    /// the database producing goes on for nine tenths of it, and others take over an agent that is gone after all of it.
    pub lease_duration: Duration,
    /// Bound on the durable batches beyond committed segments, of all partitions together.
    pub tail_bytes_max: usize,
    /// Above this much stored write-ahead log the partitions that keep its oldest part make segments.
    pub wal_bytes_max: u64,
    /// Segments on their way to the store at once, merged ones included.
    pub uploads_max: usize,
    /// What holds for a new topic that says nothing else.
    pub topic_defaults: TopicConfig,
    /// Bound on answers to fetches that are being put together or sent.
    pub fetch_bytes_max: usize,
    /// Memory for what fetch pipelines made of stored blocks; 0 for none.
    pub fetch_cache_bytes: u64,
    /// What one fetch may use of the processor in modules; when it is used up the fetch answers what there is.
    pub fetch_cpu: Duration,
    /// Segments of one partition known in memory; the metadata store knows all.
    pub segment_entries_max: usize,
    /// Bound on cached segment indexes.
    pub index_cache_bytes: u64,
    /// Bound on cached decompressed blocks.
    pub block_cache_bytes: u64,
    /// Threads that run modules.
    pub module_threads: usize,
    /// Bounds on one module instance.
    pub module_limits: ModuleLimits,
    /// Bound on the memory of all module instances together.
    pub module_guest_memory_bytes: usize,
    /// Bound on module instances.
    pub module_instances_max: usize,
    /// Where compiled modules are kept on this machine; `None` for nowhere.
    pub module_cache_dir: Option<PathBuf>,
    /// How long a new version of a module is watched, in milliseconds.
    pub module_rollback_window_ms: u64,
    /// Batches that it takes to judge one.
    pub module_rollback_batches_min: u32,
    /// Above this share of failed batches a new version is taken back.
    pub module_rollback_error_percent: u32,
    /// How long an activation waits for other agents to switch; then it names those that have not. Zero: it asks once.
    pub activation_wait: Duration,
    /// How long a graceful stop waits for tails to become segments, and as long again for the write-ahead log to close.
    /// What is left stays in the write-ahead log.
    pub stop_timeout: Duration,
    /// How long objects outlive their deletion from the metadata, for readers that still hold an index.
    pub deletion_grace: Duration,
    /// How long an object that nothing names stays: longer than any clock may be wrong.
    pub orphan_grace: Duration,
    /// Between two searches for objects that nothing names.
    pub orphan_interval: Duration,
    /// Between two rounds of retention, merging, deleting and trimming.
    pub sweep_interval: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            agent_name: "millstream".to_owned(),
            address: "127.0.0.1:7070".to_owned(),
            lease_duration: Duration::from_secs(30),
            tail_bytes_max: 256 << 20,
            wal_bytes_max: 1 << 30,
            uploads_max: 4,
            topic_defaults: TopicConfig::default(),
            fetch_bytes_max: 128 << 20,
            fetch_cache_bytes: 64 << 20,
            fetch_cpu: Duration::from_secs(1),
            segment_entries_max: 10_000,
            index_cache_bytes: 64 << 20,
            block_cache_bytes: 80 << 20,
            module_threads: 1,
            module_limits: ModuleLimits::default(),
            module_guest_memory_bytes: 1 << 30,
            module_instances_max: 8_000,
            module_cache_dir: None,
            module_rollback_window_ms: 600_000,
            module_rollback_batches_min: 20,
            module_rollback_error_percent: 10,
            activation_wait: Duration::from_secs(10),
            stop_timeout: Duration::from_secs(60),
            deletion_grace: Duration::from_secs(60),
            orphan_grace: Duration::from_secs(3_600),
            orphan_interval: Duration::from_secs(3_600),
            sweep_interval: Duration::from_secs(30),
        }
    }
}

/// Where this agent's write-ahead logs are. Both places are needed for recovery: the log of an earlier incarnation may
/// be of the other kind.
#[derive(Clone, Debug)]
pub struct Wals {
    /// Those on the disk of this machine.
    pub disk: Arc<dyn WalStore>,
    /// Those in the object store.
    pub object: Arc<dyn WalStore>,
    /// Where a new one goes.
    pub kind: WalKind,
}

impl Wals {
    pub(crate) fn of(&self, kind: WalKind) -> &Arc<dyn WalStore> {
        match kind {
            WalKind::Disk => &self.disk,
            WalKind::Object => &self.object,
        }
    }
}
