//! The agent's figures in the OpenMetrics text format, taken when they are asked for.

mod measures;
mod modules;

use std::{fmt, fs, sync::Arc};

use millstream_broker::Broker;
use millstream_meta::{CacheStats, Metadata};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use rustix::time::{ClockId, clock_gettime};

use crate::grpc::Bounds;

/// Everything that `/metrics` shows.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// The type of [`Metrics::text`].
    pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// The figures of an agent.
    pub fn new(broker: Arc<Broker>, bounds: Arc<Bounds>, metadata: Metadata) -> Metrics {
        let mut registry = Registry::with_prefix("millstream");
        measures::register(&mut registry, &broker);
        registry.register_collector(Box::new(Figures {
            broker,
            bounds,
            metadata,
        }));
        Metrics { registry }
    }

    /// The figures as they are now.
    pub fn text(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("a string takes everything");
        text
    }
}

struct Figures {
    broker: Arc<Broker>,
    bounds: Arc<Bounds>,
    metadata: Metadata,
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Figures").finish_non_exhaustive()
    }
}

/// One figure: name, what it is, value.
type Figure = (&'static str, &'static str, u64);

impl Figures {
    /// What goes up and down.
    fn gauges(&self) -> Vec<Figure> {
        let broker = self.broker.stats();
        let reads = self.broker.read_stats();
        vec![
            (
                "acknowledged_not_stored_bytes",
                "Bytes that are acknowledged and not yet in segments of the object store",
                broker.tail_bytes as u64,
            ),
            (
                "acknowledged_not_stored_bytes_max",
                "Bound on acknowledged_not_stored_bytes; at it producers are refused",
                broker.tail_bytes_max as u64,
            ),
            (
                "open_partitions",
                "Partitions that this agent serves now",
                broker.open_partitions as u64,
            ),
            (
                "idempotent_producers",
                "Idempotent producers that open partitions remember, each counted for every partition that does",
                broker.producers as u64,
            ),
            (
                "groups",
                "Consumer groups with members, of those that sent heartbeats to this agent lately",
                broker.groups.groups as u64,
            ),
            ("group_members", "Members of these groups", broker.groups.members as u64),
            ("topics", "Topics that this agent knows", broker.topics as u64),
            (
                "partitions",
                "Partitions of the topics that this agent knows",
                broker.partitions,
            ),
            (
                "wal_stored_bytes",
                "Bytes of the write-ahead log as stored",
                broker.wal.bytes_stored,
            ),
            (
                "uploads_running",
                "Segments on their way to the object store",
                broker.uploads_running as u64,
            ),
            (
                "index_cache_bytes",
                "Memory that holds indexes of segments",
                broker.index_cache_bytes,
            ),
            (
                "block_cache_bytes",
                "Memory that holds blocks of segments",
                broker.block_cache_bytes,
            ),
            ("connections", "Open gRPC connections", self.bounds.connections() as u64),
            (
                "request_bytes",
                "Bytes of requests that are not answered yet, as they travel",
                self.bounds.request_bytes() as u64,
            ),
            (
                "fetch_bytes",
                "Bytes reserved for answers to fetches that are not sent yet",
                reads.answer_bytes as u64,
            ),
            (
                "fetch_chains_running",
                "Fetches that go through modules now",
                reads.chains_running as u64,
            ),
            (
                "fetch_cache_bytes",
                "Memory that holds what fetch pipelines made of blocks",
                reads.results.bytes,
            ),
            (
                "metadata_connections",
                "Open connections to the metadata database",
                self.metadata.stats().connections.into(),
            ),
            (
                "lease_seconds_left",
                "How long the agent's leases can still be counted on; 0 while nothing is acknowledged because of them",
                broker.lease_left.as_secs(),
            ),
            ("resident_bytes", "Memory of the process", resident_bytes()),
        ]
    }

    /// What only goes up. The format adds `_total` to their names.
    fn counters(&self) -> Vec<Figure> {
        let broker = self.broker.stats();
        let metadata = self.metadata.stats();
        let results = self.broker.read_stats().results;
        vec![
            (
                "index_cache_hits",
                "Indexes of segments that were in memory",
                broker.cache_looks.index_hits,
            ),
            (
                "index_cache_misses",
                "Indexes of segments that were fetched from the object store",
                broker.cache_looks.index_misses,
            ),
            (
                "block_cache_hits",
                "Blocks of segments that were in memory",
                broker.cache_looks.block_hits,
            ),
            (
                "block_cache_misses",
                "Blocks of segments that were fetched from the object store, those read ahead too",
                broker.cache_looks.block_misses,
            ),
            (
                "fetch_cache_hits",
                "Blocks whose way through a fetch pipeline was answered from memory",
                results.hits,
            ),
            (
                "fetch_cache_misses",
                "Blocks that went through a fetch pipeline",
                results.misses,
            ),
            (
                "metadata_queries",
                "Statements sent to the metadata database, beginning and ending transactions included",
                metadata.queries,
            ),
            (
                "metadata_retries",
                "Tries again of what the metadata database refused for others' sake or lost its connection over",
                metadata.retries,
            ),
            ("wal_groups", "Groups written to the write-ahead log", broker.wal.groups),
            (
                "wal_frames",
                "Batches written to the write-ahead log",
                broker.wal.frames,
            ),
            (
                "wal_written_bytes",
                "Bytes written to the write-ahead log",
                broker.wal.bytes_written,
            ),
            ("uploads", "Segments stored and committed", broker.uploads_done),
            (
                "upload_retries",
                "Uploads of segments that failed and were tried again",
                broker.upload_retries,
            ),
            (
                "merges",
                "Merges of small segments into a large one",
                broker.merges_done,
            ),
            (
                "group_commits",
                "Offsets that groups committed through this agent",
                broker.groups.commits,
            ),
            (
                "group_rebalances",
                "How often partitions of groups were shared out anew through this agent",
                broker.groups.rebalances,
            ),
            (
                "lease_lapses",
                "How often the leases were not renewed in time",
                broker.lease_lapses,
            ),
            (
                "requests_refused",
                "Requests refused because a bound was met, that of acknowledged_not_stored_bytes among them",
                self.bounds.refused(),
            ),
        ]
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for (name, help, value) in self.gauges() {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)?;
        }
        for (name, help, value) in self.counters() {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)?;
        }
        let help = "Processor time of the process, of all its threads";
        let metric = encoder.encode_descriptor("cpu_seconds", help, None, MetricType::Counter)?;
        ConstCounter::new(cpu_seconds()).encode(metric)?;
        self.encode_caches(&mut encoder)?;
        modules::encode(&self.broker, &mut encoder)
    }
}

impl Figures {
    /// What the cache in front of the metadata did, by the kind of thing that was looked up.
    fn encode_caches(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let caches = self.metadata.stats().cache;
        for (name, help, value) in CACHE_FIGURES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for cache in &caches {
                let labels = [("kind", cache.kind)];
                let metric = family.encode_family(&labels)?;
                ConstCounter::new(value(cache)).encode(metric)?;
            }
        }
        let name = "metadata_cache_entries";
        let mut family = encoder.encode_descriptor(name, "Things that the cache holds", None, MetricType::Gauge)?;
        for cache in &caches {
            let labels = [("kind", cache.kind)];
            let metric = family.encode_family(&labels)?;
            ConstGauge::new(cache.entries).encode(metric)?;
        }
        Ok(())
    }
}

/// Name, what it is, and how it is taken.
type CacheFigure = (&'static str, &'static str, fn(&CacheStats) -> u64);

const CACHE_FIGURES: [CacheFigure; 3] = [
    (
        "metadata_cache_hits",
        "Looks at metadata that were answered from memory",
        |cache| cache.hits,
    ),
    (
        "metadata_cache_misses",
        "Looks at metadata that had to wait for the database",
        |cache| cache.misses,
    ),
    (
        "metadata_cache_refreshes",
        "Reads of the database that brought what is in memory up to date, in the background",
        |cache| cache.refreshes,
    ),
];

/// What the process holds of the machine's memory; 0 where the system does not tell.
fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// Processor time of the process.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_has_memory_and_has_used_a_processor() {
        assert!(resident_bytes() > 1 << 20);
        assert!(cpu_seconds() > 0.0);
    }
}
