//! What an operator can set about the broker.

use std::{path::PathBuf, time::Duration};

use millstream_log::SyncPolicy;
use millstream_meta::TopicConfig;
use millstream_wasm::Limits as ModuleLimits;

/// Settings of one agent's broker. Sizes are bytes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the agent in the metadata; it outlives incarnations.
    pub agent_name: String,
    /// Folder that holds one write-ahead log per incarnation.
    pub wal_dir: PathBuf,
    /// Preallocated size of one file of the write-ahead log.
    pub wal_file_bytes: u64,
    /// When the write-ahead log reaches stable storage.
    pub wal_sync: SyncPolicy,
    /// Bound on the durable batches beyond committed segments, of all partitions together.
    pub tail_bytes_max: usize,
    /// What holds for a new topic that says nothing else.
    pub topic_defaults: TopicConfig,
    /// Bound on cached segment indexes.
    pub index_cache_bytes: u64,
    /// Bound on cached decompressed blocks.
    pub block_cache_bytes: u64,
    /// Threads that run modules.
    pub module_threads: usize,
    /// Bounds on one module instance.
    pub module_limits: ModuleLimits,
    /// How long a graceful stop waits for tails to become segments. What is left stays in the write-ahead log.
    pub stop_timeout: Duration,
    /// How long objects outlive their deletion from the metadata, for readers that still hold an index.
    pub deletion_grace: Duration,
}
