//! The agent's settings: what they are, what they mean and what they are when nobody says otherwise.
//!
//! Every setting has one name: `wal_file_bytes` in the TOML file is `MILLSTREAM_WAL_FILE_BYTES` in the environment.
//! `load` lays the layers over each other and says where a wrong one stands.

mod load;

use std::{fmt, path::PathBuf, str::FromStr, thread};

use serde::{Deserialize, Serialize};

pub use load::Sources;

/// How an agent runs. Sizes are in bytes, times in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The folder for everything that the agent keeps on this machine; one agent at a time uses it.
    pub data_dir: PathBuf,
    /// `HOST:PORT` of gRPC.
    pub listen: String,
    /// `HOST:PORT` of HTTP: health.
    pub http: String,
    /// `sqlite:PATH`; without it a file in the data folder.
    pub metadata: Option<String>,
    /// `file:PATH` for segments; without it a folder in the data folder.
    pub store: Option<String>,
    /// When an append counts as durable.
    pub wal_sync: WalSync,
    /// Size of one write-ahead log file, allocated ahead.
    pub wal_file_bytes: u64,
    /// A partition's tail becomes a segment at this size, where its topic says nothing else.
    pub segment_bytes: u64,
    /// A partition's tail becomes a segment at this age, where its topic says nothing else.
    pub segment_age_ms: u64,
    /// Bound on all tails together; near it tails become segments early, at it producers have to wait.
    pub tail_bytes_max: usize,
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
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            data_dir: PathBuf::from("millstream-data"),
            listen: "127.0.0.1:7070".to_owned(),
            http: "127.0.0.1:7080".to_owned(),
            metadata: None,
            store: None,
            wal_sync: WalSync::Always,
            wal_file_bytes: 64 << 20,
            segment_bytes: 64 << 20,
            segment_age_ms: 600_000,
            tail_bytes_max: 256 << 20,
            index_cache_bytes: 64 << 20,
            block_cache_bytes: 128 << 20,
            module_memory_bytes: 64 << 20,
            module_deadline_ms: 100,
            module_threads: thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

impl Settings {
    /// Where metadata is kept, `sqlite:PATH`.
    pub fn metadata_url(&self) -> String {
        let default = || format!("sqlite:{}", self.data_dir.join("metadata.db").display());
        self.metadata.clone().unwrap_or_else(default)
    }

    /// Where segments are kept, `file:PATH`.
    pub fn store_url(&self) -> String {
        let default = || format!("file:{}", self.data_dir.join("objects").display());
        self.store.clone().unwrap_or_else(default)
    }

    /// The first setting whose value makes no sense, with the reason.
    fn check(&self) -> Result<(), (&'static str, String)> {
        for (key, address) in [("listen", &self.listen), ("http", &self.http)] {
            let port = address
                .rsplit_once(':')
                .filter(|(host, _)| !host.is_empty())
                .map(|(_, port)| port);
            if port.is_none_or(|port| port.parse::<u16>().is_err()) {
                return Err((key, format!("{address:?} is not HOST:PORT")));
            }
        }
        for (key, value, least) in [
            ("wal_file_bytes", self.wal_file_bytes, 1 << 20),
            ("segment_bytes", self.segment_bytes, 1 << 10),
            ("segment_age_ms", self.segment_age_ms, 1),
            ("tail_bytes_max", self.tail_bytes_max as u64, 1 << 20),
            ("module_memory_bytes", self.module_memory_bytes as u64, 1 << 20),
            ("module_deadline_ms", self.module_deadline_ms, 1),
            ("module_threads", self.module_threads as u64, 1),
        ] {
            if value < least {
                return Err((key, format!("{value} is too small, the least is {least}")));
            }
        }
        Ok(())
    }
}

/// When the write-ahead log syncs its file: `always`, `never` or `interval:MS`.
///
/// Under the last two an acknowledged record survives the loss of the process, not that of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum WalSync {
    /// Before every answer.
    Always,
    /// As the operating system sees fit.
    Never,
    /// Every so many milliseconds.
    Interval {
        /// At least 1.
        ms: u64,
    },
}

impl FromStr for WalSync {
    type Err = String;

    fn from_str(text: &str) -> Result<WalSync, String> {
        let interval = || text.strip_prefix("interval:")?.parse().ok().filter(|ms| *ms > 0);
        match text {
            "always" => Ok(WalSync::Always),
            "never" => Ok(WalSync::Never),
            _ => match interval() {
                Some(ms) => Ok(WalSync::Interval { ms }),
                None => Err(format!("{text:?} is none of always, never, interval:MS")),
            },
        }
    }
}

impl fmt::Display for WalSync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalSync::Always => f.write_str("always"),
            WalSync::Never => f.write_str("never"),
            WalSync::Interval { ms } => write!(f, "interval:{ms}"),
        }
    }
}

impl TryFrom<String> for WalSync {
    type Error = String;

    fn try_from(text: String) -> Result<WalSync, String> {
        text.parse()
    }
}

impl From<WalSync> for String {
    fn from(sync: WalSync) -> String {
        sync.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_make_sense_and_stay_in_the_data_folder() {
        let settings = Settings::default();
        assert_eq!(settings.check(), Ok(()));
        assert_eq!(settings.metadata_url(), "sqlite:millstream-data/metadata.db");
        assert_eq!(settings.store_url(), "file:millstream-data/objects");
    }

    #[test]
    fn wal_sync_reads_what_it_writes() {
        for sync in [WalSync::Always, WalSync::Never, WalSync::Interval { ms: 50 }] {
            assert_eq!(sync.to_string().parse(), Ok(sync));
        }
        for text in ["", "sometimes", "interval:", "interval:0", "interval:x", "Always"] {
            assert!(text.parse::<WalSync>().is_err(), "{text:?}");
        }
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
}
