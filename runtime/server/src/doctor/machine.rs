//! What an agent relies on of its machine: ports, the data folder, room on the disk and how fast it syncs.

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use indicatif::BinaryBytes;
use millstream_client::{Admin, Connection};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::Seen;
use crate::{
    config::{Settings, WalPlace},
    parts,
};

/// How often a write is synced, to tell how long that takes, and the bytes of each.
const SYNCS: usize = 50;
const SYNC_BYTES: usize = 4 << 10;
/// Room for this many files of the write-ahead log is wanted.
const WAL_FILES_LEAST: u64 = 4;
/// How long whoever has a port may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The gRPC port is free, or the agent that is `running` in the data folder answers there.
pub async fn grpc_address(address: &str, running: bool) -> Seen {
    let agent = async || {
        let connection = Connection::open(&format!("http://{address}")).await.ok()?;
        Admin::new(&connection).topics().await.ok()
    };
    port("listen", address, running, async || agent().await.is_some()).await
}

/// The HTTP port is free, or the agent that is `running` in the data folder answers there.
pub async fn http_address(address: &str, running: bool) -> Seen {
    let agent = async || {
        let mut stream = TcpStream::connect(address).await?;
        let request = "GET /healthz HTTP/1.0\r\n\r\n";
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(4 << 10).read_to_end(&mut answer).await?;
        Ok::<_, io::Error>(answer.ends_with(b"alive\n"))
    };
    port("http", address, running, async || agent().await.unwrap_or(false)).await
}

async fn port(setting: &str, address: &str, running: bool, agent_answers: impl AsyncFn() -> bool) -> Seen {
    match TcpListener::bind(address).await {
        Ok(_) => Ok(format!("{address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            match tokio::time::timeout(ANSWER_TIMEOUT, agent_answers()).await {
                Ok(true) if running => Ok(format!("an agent answers at {address}")),
                Ok(true) => Err(format!(
                    "an agent with another data folder answers at {address}; choose another address with --{setting} \
                     HOST:PORT"
                )),
                _ => Err(format!(
                    "{address} is in use by another program; choose another with --{setting} HOST:PORT"
                )),
            }
        }
        Err(error) => Err(format!(
            "cannot listen on {address}: {error}; choose another with --{setting} HOST:PORT"
        )),
    }
}

/// A data folder that can be used.
pub enum Folder {
    /// By the next agent; locked meanwhile.
    Free(String, #[allow(dead_code, reason = "holds the locks")] Vec<File>),
    /// By the agent that runs.
    InUse,
}

impl Folder {
    /// What there is to say about it.
    pub fn seen(&self) -> String {
        match self {
            Folder::Free(path, _) => format!("{path} can be written"),
            Folder::InUse => "an agent is running in it".to_owned(),
        }
    }
}

/// Makes the folder where it is missing, and locks it as an agent does.
pub fn data_folder(settings: &Settings) -> Result<Folder, String> {
    match parts::lock(settings) {
        Ok(locks) => Ok(Folder::Free(settings.data_dir.display().to_string(), locks)),
        Err(error) if error.is::<parts::InUse>() => Ok(Folder::InUse),
        Err(error) => Err(format!("{error:#}; choose another with --data-dir")),
    }
}

/// Whether the disk has room for the write-ahead log.
pub fn free_space(settings: &Settings) -> Seen {
    let dir = &settings.data_dir;
    let stat = rustix::fs::statvfs(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let needed = match settings.wal {
        WalPlace::Disk => settings.wal_file_bytes.saturating_mul(WAL_FILES_LEAST),
        WalPlace::Object => 0,
    };
    let (free_text, needed_text) = (BinaryBytes(free), BinaryBytes(needed));
    if free < needed {
        return Err(format!(
            "{free_text} in {}; {WAL_FILES_LEAST} files of the write-ahead log need {needed_text}: free some space, or \
             make wal_file_bytes smaller",
            dir.display()
        ));
    }
    Ok(format!("{free_text} in {}", dir.display()))
}

/// How long the disk takes to sync, which is what a durable acknowledgement takes at least.
pub async fn wal(settings: &Settings) -> Seen {
    if settings.wal == WalPlace::Object {
        return Ok(format!(
            "it is kept in the store; an acknowledgement takes up to {} ms and one put",
            settings.wal_flush_interval_ms
        ));
    }
    let dir = settings.wal_dir();
    let shown = dir.display().to_string();
    let measured = tokio::task::spawn_blocking(move || sync_times(&dir)).await;
    let mut times = measured
        .map_err(|error| error.to_string())?
        .map_err(|error| format!("{shown}: {error}; a write-ahead log needs a disk that can be written and synced"))?;
    times.sort_unstable();
    let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
    Ok(format!(
        "{SYNCS} writes of 4 KiB in {shown}: fdatasync takes {} (median) to {} (slowest)",
        show(median),
        show(slowest)
    ))
}

/// The file has no name, so that nobody takes it for a part of a log.
fn sync_times(dir: &Path) -> io::Result<Vec<Duration>> {
    std::fs::create_dir_all(dir)?;
    let mut file = tempfile::tempfile_in(dir)?;
    (0..SYNCS)
        .map(|_| {
            file.write_all(&[0x5a; SYNC_BYTES])?;
            let began = Instant::now();
            file.sync_data()?;
            Ok(began.elapsed())
        })
        .collect()
}

fn show(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_another_program_has_is_told_from_a_free_one() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let held = port("listen", &address, true, async || false).await.unwrap_err();
        assert!(
            held.contains("in use by another program") && held.contains("--listen"),
            "{held}"
        );
        let agent = port("listen", &address, true, async || true).await.unwrap();
        assert!(agent.contains("an agent answers"), "{agent}");
        let other = port("listen", &address, false, async || true).await.unwrap_err();
        assert!(
            other.contains("another data folder") && other.contains("--listen"),
            "{other}"
        );
        drop(taken);
        assert!(port("listen", &address, true, async || false).await.is_ok());
    }

    #[test]
    fn a_folder_is_locked_while_it_is_looked_at() {
        let dir = tempfile::TempDir::new().unwrap();
        let settings = Settings {
            data_dir: dir.path().join("data"),
            ..Settings::default()
        };
        let first = data_folder(&settings).unwrap();
        assert!(matches!(first, Folder::Free(..)));
        assert!(matches!(data_folder(&settings), Ok(Folder::InUse)));
        drop(first);
        assert!(matches!(data_folder(&settings), Ok(Folder::Free(..))));
        assert_eq!(sync_times(&settings.wal_dir()).unwrap().len(), SYNCS);
        assert_eq!(std::fs::read_dir(settings.wal_dir()).unwrap().count(), 0);
    }
}
