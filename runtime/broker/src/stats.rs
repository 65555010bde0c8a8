//! What the broker does and holds now, in numbers, and whether it takes requests.

use std::{sync::Arc, time::Duration};

use millstream_log::{CacheLooks, WalMeasures, WalStats};
use millstream_meta::AgentShare;
use millstream_wasm::GuestMemoryStats;
use uuid::Uuid;

use crate::{
    broker::Broker,
    error::Result,
    groups::GroupFigures,
    measures::Measures,
    partition::Partition,
    pipeline::{ModuleLogs, StageFigures},
};

/// Figures of one agent's broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerStats {
    /// Bytes that are acknowledged and not yet in segments, of all partitions, with those on their way into the WAL.
    pub tail_bytes: usize,
    /// Their bound.
    pub tail_bytes_max: usize,
    /// Segments that are being encoded or put.
    pub uploads_running: usize,
    /// Segments committed, merged ones not included.
    pub uploads_done: u64,
    /// Puts of segments that failed.
    pub upload_retries: u64,
    /// Merges committed.
    pub merges_done: u64,
    /// Partitions that are open.
    pub open_partitions: usize,
    /// Idempotent producers that these remember, each as often as there are partitions that do.
    pub producers: usize,
    /// Bytes of cached segment indexes.
    pub index_cache_bytes: u64,
    /// Bytes of cached blocks.
    pub block_cache_bytes: u64,
    /// How long the leases can still be counted on; zero while nothing is acknowledged because of them.
    pub lease_left: Duration,
    /// How often they were not renewed in time.
    pub lease_lapses: u64,
    /// Topics that are known.
    pub topics: usize,
    /// Their partitions.
    pub partitions: u64,
    /// What the caches of segment indexes and blocks were asked.
    pub cache_looks: CacheLooks,
    /// The write-ahead log.
    pub wal: WalStats,
    /// Consumer groups.
    pub groups: GroupFigures,
}

impl Broker {
    /// The figures as they are now.
    pub fn stats(&self) -> BrokerStats {
        let shared = self.shared();
        let (uploads_done, upload_retries, merges_done) = shared.uploads.counts();
        let (index_cache_bytes, block_cache_bytes) = shared.segments.weight_bytes();
        let topics = self.live_topics();
        let open: Vec<Partition> = topics.iter().flat_map(|live| live.open_partitions()).collect();
        BrokerStats {
            tail_bytes: shared.budget.used(),
            tail_bytes_max: shared.budget.bytes_max(),
            uploads_running: shared.uploads.running(),
            uploads_done,
            upload_retries,
            merges_done,
            open_partitions: open.len(),
            producers: open.iter().map(Partition::producer_count).sum(),
            index_cache_bytes,
            block_cache_bytes,
            lease_left: shared.lease_time.left(),
            lease_lapses: shared.lease_time.lapses(),
            topics: topics.len(),
            partitions: topics.iter().map(|live| u64::from(live.topic().partitions)).sum(),
            cache_looks: shared.segments.looks(),
            wal: shared.wal.stats(),
            groups: self.groups().figures(),
        }
    }

    /// What is measured of requests and segments.
    pub fn measures(&self) -> &Measures {
        &self.shared().measures
    }

    /// What the write-ahead log measures.
    pub fn wal_measures(&self) -> WalMeasures {
        self.shared().wal.measures()
    }

    /// All agents that are known by the metadata, by name, with what each holds.
    pub async fn agents(&self) -> Result<Vec<AgentShare>> {
        Ok(self.shared().metadata.agent_shares().await?)
    }

    /// The id of this start of the agent.
    pub fn incarnation(&self) -> Uuid {
        self.shared().incarnation
    }

    /// Bytes that are acknowledged and not yet in segments, of all partitions, with those on their way into the WAL.
    pub fn tail_bytes(&self) -> usize {
        self.shared().budget.used()
    }

    /// How every stage has fared since the agent started, in order of topics.
    pub fn stage_figures(&self) -> Vec<StageFigures> {
        self.shared().monitors.figures(None)
    }

    /// The memory that module instances hold.
    pub fn guest_memory(&self) -> GuestMemoryStats {
        self.shared().engine.guest_memory()
    }

    /// What a module has logged lately on this agent.
    ///
    /// # Errors
    /// There is no such module.
    pub async fn module_logs(&self, name: &str) -> Result<Arc<ModuleLogs>> {
        let monitors = &self.shared().monitors;
        // A file that could not be deployed has lines too, and is no module.
        if let Some(logs) = monitors.known_logs(name) {
            return Ok(logs);
        }
        self.module_store().version(name, None).await?;
        Ok(monitors.module_logs(name))
    }

    /// Whether requests are taken, or why they are not.
    ///
    /// A lease that ran out does not count. Producers are refused then, and told to try again, but readers are served; and a
    /// database that is away is so for all agents at once: who keeps requests from those that are not ready would keep them
    /// from all. [`BrokerStats::lease_left`] tells of it.
    ///
    /// # Errors
    /// The reason, for people.
    pub fn ready(&self) -> Result<(), String> {
        if self.is_stopping() {
            return Err("the agent is stopping".to_owned());
        }
        match self.failure().borrow().as_ref() {
            Some(reason) => Err(reason.clone()),
            None => Ok(()),
        }
    }
}
