//! The agent's settings: what they are, what they mean and what they are when nobody says otherwise.
//!
//! Every setting has one name: `wal_file_bytes` in the TOML file is `MILLSTREAM_WAL_FILE_BYTES` in the environment.
//! `load` lays the layers over each other and says where a wrong one stands.

mod load;
mod metadata;
mod secret;
mod store;
mod wal;

use std::{path::PathBuf, thread, time::Duration};

use millstream_meta::MetadataSettings;
use serde::{Deserialize, Serialize};

use crate::logging::LogFormat;

pub use load::Sources;
pub use metadata::MetadataUrl;
pub use secret::Secret;
pub use store::StoreUrl;
pub use wal::{WalPlace, WalSync};

/// A bound on requests below this would refuse a single one of the largest that is allowed, for ever.
const REQUEST_BYTES_LEAST: u64 = 20 << 20;
/// The same for answers to fetches.
const ANSWER_BYTES_LEAST: u64 = 32 << 20;

/// The same for what waits to be uploaded.
const TAIL_BYTES_LEAST: u64 = 20 << 20;
/// More memory or disk than any machine has: sums of such numbers never overflow.
const BYTES_MOST: u64 = 1 << 50;
/// A lease is renewed several times before it is over, each time with a round trip to the database.
const LEASE_MS_LEAST: u64 = 1_000;
/// What the tables accept.
const AGENT_NAME_CHARS_MAX: usize = 249;
/// A hundred years.
const TIME_MS_MOST: u64 = 100 * 365 * 24 * 3_600_000;

/// How an agent runs. Sizes are in bytes, times in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The folder for everything that the agent keeps on this machine; one agent at a time uses it.
    pub data_dir: PathBuf,
    /// `HOST:PORT` of gRPC.
    pub listen: String,
    /// `HOST:PORT` of HTTP: health and metrics.
    pub http: String,
    /// How lines of the log are written.
    pub log_format: LogFormat,
    /// `HOST:PORT` of gRPC as other machines reach it; without it `listen`.
    pub advertise: Option<String>,
    /// The agent's name in the metadata; without it the machine's with some digits, kept in the data folder.
    pub agent_name: Option<String>,
    /// `sqlite:PATH` or `postgres://...`; without it a file in the data folder.
    pub metadata: Option<MetadataUrl>,
    /// Connections to a PostgreSQL at once.
    pub metadata_connections_max: u32,
    /// How long one statement may take in a PostgreSQL.
    pub metadata_timeout_ms: u64,
    /// How long what was read of the metadata is used without asking again.
    pub metadata_cache_ttl_ms: u64,
    /// How long the agent's leases last after it was heard of for the last time.
    pub lease_duration_ms: u64,
    /// How long a change of a pipeline waits until other agents have switched; 0: it waits for none.
    pub activation_wait_ms: u64,
    /// `file:PATH` or `s3://BUCKET/PREFIX` for segments; without it a folder in the data folder.
    pub store: Option<StoreUrl>,
    /// The URL of a store that is compatible with S3; without it Amazon's own.
    pub s3_endpoint: Option<String>,
    /// Its region; without it that of the environment.
    pub s3_region: Option<String>,
    /// The access key; without it what the environment, the shared credentials file or the machine gives.
    pub s3_access_key_id: Option<Secret>,
    /// The secret key that goes with it.
    pub s3_secret_access_key: Option<Secret>,
    /// The token that goes with temporary keys.
    pub s3_session_token: Option<Secret>,
    /// A credentials file in Amazon's format.
    pub s3_credentials_file: Option<PathBuf>,
    /// The profile in the credentials file.
    pub s3_profile: Option<String>,
    /// Whether the bucket stands in the path of the URL, as most compatible stores want it, and not in the host name.
    pub s3_path_style: bool,
    /// Where the write-ahead log is kept.
    pub wal: WalPlace,
    /// When an append counts as durable.
    pub wal_sync: WalSync,
    /// Size of one write-ahead log file, allocated ahead.
    pub wal_file_bytes: u64,
    /// How long an append to an `object` log waits for others to share its object.
    pub wal_flush_interval_ms: u64,
    /// An object of an `object` log is written at this size, however long it has waited.
    pub wal_flush_bytes: u64,
    /// Objects of an `object` log on their way at once.
    pub wal_puts_max: usize,
    /// Above this much stored write-ahead log the partitions that hold its oldest part make segments.
    pub wal_bytes_max: u64,
    /// A partition's tail becomes a segment at this size, where its topic says nothing else.
    pub segment_bytes: u64,
    /// A partition's tail becomes a segment at this age, where its topic says nothing else.
    pub segment_age_ms: u64,
    /// Bound on all tails together; near it tails become segments early, at it producers have to wait.
    pub tail_bytes_max: usize,
    /// Segments on their way to the store at once.
    pub uploads_max: usize,
    /// gRPC connections at once; further ones wait to be accepted.
    pub connections_max: usize,
    /// Bound on the requests of one connection that are not answered yet.
    pub connection_bytes_max: usize,
    /// Bound on the requests of all connections that are not answered yet.
    pub in_flight_bytes_max: usize,
    /// Bound on answers to fetches that are being put together or sent; at it readers wait.
    pub fetch_bytes_max: usize,
    /// Memory for what fetch pipelines made of stored blocks; 0 for none.
    pub fetch_cache_bytes: u64,
    /// CPU time that one fetch may use in modules; when it is used up the fetch answers what there is.
    pub fetch_cpu_ms: u64,
    /// Segments of one partition known in memory; the database knows all.
    pub segment_entries_max: usize,
    /// Between two rounds of retention, merging and deleting.
    pub sweep_interval_ms: u64,
    /// How long an object stays that was deleted, for readers who still know it.
    pub deletion_grace_ms: u64,
    /// How long an object stays that nothing names: longer than any clock here may be wrong.
    pub orphan_grace_ms: u64,
    /// Memory for the indexes of segments.
    pub index_cache_bytes: u64,
    /// Memory for blocks read from segments.
    pub block_cache_bytes: u64,
    /// Memory of one module instance.
    pub module_memory_bytes: usize,
    /// CPU time of a module for one piece of a batch.
    pub module_deadline_ms: u64,
    /// Threads that run modules.
    pub module_threads: usize,
    /// A folder on this machine: `NAME.wasm` in it is deployed as module NAME.
    pub modules_dir: Option<PathBuf>,
    /// How long a new version of a module is watched, and taken back where it fails too often.
    pub module_rollback_window_ms: u64,
    /// Batches that it takes to judge one.
    pub module_rollback_batches_min: u32,
    /// Above this share of failed batches it is taken back; 100 for never.
    pub module_rollback_error_percent: u32,
    /// Memory of all module instances together.
    pub module_guest_memory_bytes: usize,
    /// Module instances at once.
    pub module_instances_max: usize,
    /// Where compiled modules are kept, on a disk of this machine; without it a folder in the data folder.
    pub module_cache_dir: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            data_dir: PathBuf::from("millstream-data"),
            listen: "127.0.0.1:7070".to_owned(),
            http: "127.0.0.1:7080".to_owned(),
            log_format: LogFormat::Text,
            advertise: None,
            agent_name: None,
            metadata: None,
            metadata_connections_max: 10,
            metadata_timeout_ms: 10_000,
            metadata_cache_ttl_ms: 5_000,
            lease_duration_ms: 30_000,
            activation_wait_ms: 10_000,
            store: None,
            s3_endpoint: None,
            s3_region: None,
            s3_access_key_id: None,
            s3_secret_access_key: None,
            s3_session_token: None,
            s3_credentials_file: None,
            s3_profile: None,
            s3_path_style: false,
            wal: WalPlace::Disk,
            wal_sync: WalSync::Always,
            wal_file_bytes: 64 << 20,
            wal_flush_interval_ms: 100,
            wal_flush_bytes: 8 << 20,
            wal_puts_max: 4,
            wal_bytes_max: 1 << 30,
            segment_bytes: 64 << 20,
            segment_age_ms: 600_000,
            tail_bytes_max: 256 << 20,
            uploads_max: 4,
            connections_max: 1_024,
            connection_bytes_max: 72 << 20,
            in_flight_bytes_max: 144 << 20,
            fetch_bytes_max: 128 << 20,
            fetch_cache_bytes: 64 << 20,
            fetch_cpu_ms: 1_000,
            segment_entries_max: 10_000,
            sweep_interval_ms: 30_000,
            deletion_grace_ms: 60_000,
            orphan_grace_ms: 3_600_000,
            index_cache_bytes: 64 << 20,
            block_cache_bytes: 80 << 20,
            module_memory_bytes: 64 << 20,
            module_deadline_ms: 100,
            module_threads: thread::available_parallelism().map_or(1, usize::from),
            modules_dir: None,
            module_rollback_window_ms: 600_000,
            module_rollback_batches_min: 20,
            module_rollback_error_percent: 10,
            module_guest_memory_bytes: 1 << 30,
            module_instances_max: 8_000,
            module_cache_dir: None,
        }
    }
}

impl Settings {
    /// Where compiled modules are kept.
    pub fn module_cache_dir(&self) -> PathBuf {
        let default = || self.data_dir.join("cache").join("modules");
        self.module_cache_dir.clone().unwrap_or_else(default)
    }

    /// Where metadata is kept.
    pub fn metadata_url(&self) -> MetadataUrl {
        let default = || MetadataUrl::Sqlite(self.data_dir.join("metadata.db"));
        self.metadata.clone().unwrap_or_else(default)
    }

    /// How to open the metadata; a database that is not there is waited for that long.
    pub fn metadata_settings(&self, connect_patience: Duration) -> MetadataSettings {
        MetadataSettings {
            connections_max: self.metadata_connections_max,
            statement_timeout: Duration::from_millis(self.metadata_timeout_ms),
            connect_patience,
            cache_ttl: Duration::from_millis(self.metadata_cache_ttl_ms),
            ..MetadataSettings::at(self.metadata_url().reveal())
        }
    }

    /// Where segments are kept.
    pub fn store_url(&self) -> StoreUrl {
        let default = || StoreUrl::File(self.data_dir.join("objects"));
        self.store.clone().unwrap_or_else(default)
    }

    /// The folder of the write-ahead logs on this machine.
    pub fn wal_dir(&self) -> PathBuf {
        self.data_dir.join("wal")
    }

    /// The first setting whose value makes no sense, with the reason.
    fn check(&self) -> Result<(), (&'static str, String)> {
        let advertise = self.advertise.as_ref().unwrap_or(&self.listen);
        for (key, address) in [("listen", &self.listen), ("http", &self.http), ("advertise", advertise)] {
            check_address(address).map_err(|reason| (key, reason))?;
        }
        if self.advertise.as_ref().is_some_and(|address| address.ends_with(":0")) {
            return Err(("advertise", format!("{advertise:?} names no port")));
        }
        if let Some(name) = &self.agent_name {
            check_agent_name(name).map_err(|reason| ("agent_name", reason))?;
        }
        if self.listen == self.http && !self.listen.ends_with(":0") {
            return Err(("http", format!("{} is the address of gRPC already", self.http)));
        }
        for (key, value, least, most) in self.numbers() {
            if value < least {
                return Err((key, format!("{value} is too small, the least is {least}")));
            }
            if value > most {
                return Err((key, format!("{value} is too large, the most is {most}")));
            }
        }
        Ok(())
    }

    /// Every number: its key, its value, the least and the most.
    #[rustfmt::skip] // One a line.
    fn numbers(&self) -> [(&'static str, u64, u64, u64); 35] {
        [
            ("metadata_connections_max", self.metadata_connections_max.into(), 3, 1 << 10),
            ("metadata_timeout_ms", self.metadata_timeout_ms, 100, 3_600_000),
            ("metadata_cache_ttl_ms", self.metadata_cache_ttl_ms, 1, 3_600_000),
            ("lease_duration_ms", self.lease_duration_ms, LEASE_MS_LEAST, 3_600_000),
            ("activation_wait_ms", self.activation_wait_ms, 0, 3_600_000),
            ("wal_file_bytes", self.wal_file_bytes, 1 << 20, 1 << 30),
            ("wal_flush_interval_ms", self.wal_flush_interval_ms, 1, 60_000),
            ("wal_flush_bytes", self.wal_flush_bytes, 64 << 10, 64 << 20),
            ("wal_puts_max", self.wal_puts_max as u64, 1, 256),
            ("wal_bytes_max", self.wal_bytes_max, 2 << 20, BYTES_MOST),
            ("segment_bytes", self.segment_bytes, 1 << 10, 1 << 30),
            ("segment_age_ms", self.segment_age_ms, 1, TIME_MS_MOST),
            ("tail_bytes_max", self.tail_bytes_max as u64, TAIL_BYTES_LEAST, BYTES_MOST),
            ("uploads_max", self.uploads_max as u64, 1, 1 << 10),
            ("connections_max", self.connections_max as u64, 1, 1 << 20),
            ("connection_bytes_max", self.connection_bytes_max as u64, REQUEST_BYTES_LEAST, BYTES_MOST),
            ("in_flight_bytes_max", self.in_flight_bytes_max as u64, REQUEST_BYTES_LEAST, BYTES_MOST),
            ("fetch_bytes_max", self.fetch_bytes_max as u64, ANSWER_BYTES_LEAST, u32::MAX.into()),
            ("fetch_cache_bytes", self.fetch_cache_bytes, 0, BYTES_MOST),
            ("fetch_cpu_ms", self.fetch_cpu_ms, 1, 3_600_000),
            ("segment_entries_max", self.segment_entries_max as u64, 1, 1 << 24),
            ("sweep_interval_ms", self.sweep_interval_ms, 1, TIME_MS_MOST),
            ("deletion_grace_ms", self.deletion_grace_ms, 0, TIME_MS_MOST),
            ("orphan_grace_ms", self.orphan_grace_ms, 0, TIME_MS_MOST),
            ("index_cache_bytes", self.index_cache_bytes, 0, BYTES_MOST),
            ("block_cache_bytes", self.block_cache_bytes, 0, BYTES_MOST),
            ("module_memory_bytes", self.module_memory_bytes as u64, 1 << 20, 4 << 30),
            ("module_deadline_ms", self.module_deadline_ms, 1, 3_600_000),
            ("module_threads", self.module_threads as u64, 1, 1 << 10),
            ("module_rollback_window_ms", self.module_rollback_window_ms, 0, TIME_MS_MOST),
            ("module_rollback_batches_min", self.module_rollback_batches_min.into(), 1, 1 << 30),
            ("module_rollback_error_percent", self.module_rollback_error_percent.into(), 0, 100),
            ("module_guest_memory_bytes", self.module_guest_memory_bytes as u64, 16 << 20, BYTES_MOST),
            ("module_instances_max", self.module_instances_max as u64, 1, 1 << 20),
            ("wal_sync", self.wal_sync.interval_ms(), 0, 3_600_000),
        ]
    }
}

fn check_address(address: &str) -> Result<(), String> {
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    match port.map(|(_, port)| port.parse::<u16>()) {
        Some(Ok(_)) => Ok(()),
        _ => Err(format!("{address:?} is not HOST:PORT")),
    }
}

pub(crate) fn check_agent_name(name: &str) -> Result<(), String> {
    if !(1..=AGENT_NAME_CHARS_MAX).contains(&name.chars().count()) || name.chars().any(char::is_control) {
        return Err(format!(
            "{name:?} is no name: 1 to {AGENT_NAME_CHARS_MAX} characters that can be printed"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_make_sense_and_stay_in_the_data_folder() {
        let settings = Settings::default();
        assert_eq!(settings.check(), Ok(()));
        assert_eq!(
            settings.metadata_url().to_string(),
            "sqlite:millstream-data/metadata.db"
        );
        assert_eq!(settings.store_url().to_string(), "file:millstream-data/objects");
    }

    #[test]
    fn addresses_need_a_host_and_a_port() {
        for (listen, good) in [
            ("127.0.0.1:7070", true),
            ("[::1]:0", true),
            ("localhost:80", true),
            ("7070", false),
            (":7070", false),
            ("localhost", false),
            ("localhost:99999", false),
        ] {
            let settings = Settings {
                listen: listen.to_owned(),
                ..Settings::default()
            };
            assert_eq!(settings.check().is_ok(), good, "{listen:?}");
        }
    }

    #[test]
    fn an_advertised_address_and_a_name_are_checked() {
        let check = |advertise: &str, agent_name: &str| {
            let settings = Settings {
                advertise: Some(advertise.to_owned()),
                agent_name: Some(agent_name.to_owned()),
                ..Settings::default()
            };
            settings.check().map_err(|(key, _)| key)
        };
        assert_eq!(check("a.example:7070", "a"), Ok(()));
        assert_eq!(check("a.example", "a"), Err("advertise"));
        assert_eq!(check("a.example:0", "a"), Err("advertise"));
        for name in ["", "a\n", &"x".repeat(250)] {
            assert_eq!(check("a:1", name), Err("agent_name"), "{name:?}");
        }
    }

    #[test]
    fn both_servers_cannot_have_one_address() {
        let check = |address: &str| {
            let settings = Settings {
                listen: address.to_owned(),
                http: address.to_owned(),
                ..Settings::default()
            };
            settings.check().map_err(|(key, _)| key)
        };
        assert_eq!(check("127.0.0.1:7070"), Err("http"));
        assert_eq!(check("127.0.0.1:0"), Ok(()));
    }

    #[test]
    fn every_number_has_a_least_and_a_most_around_its_default() {
        let settings = Settings::default();
        for (key, value, least, most) in settings.numbers() {
            assert!(least <= value && value <= most, "{key}");
        }
    }
}
