//! The logs of incarnations on this machine's disk, each in a folder named by its id.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{DiskWal, ReplaySummary, SyncPolicy, WalSettings, replay};
use crate::error::{LogError, Result};
use crate::file::{LocalDisk, sync_dir};
use crate::wal::frame::Frame;
use crate::wal::seam::{Wal, WalStore};

/// A replay hands over frames once they have this many bytes together, and reads as much ahead.
const REPLAY_PIECE_BYTES: usize = 1 << 20;

/// How logs on a disk are kept and written.
#[derive(Debug, Clone)]
pub struct DiskWalsSettings {
    /// The directory with one folder for each log. Whoever uses it holds the lock on it.
    pub dir: PathBuf,
    /// As [`WalSettings::file_bytes`].
    pub file_bytes: u64,
    /// As [`WalSettings::group_bytes_max`].
    pub group_bytes_max: usize,
    /// As [`WalSettings::sync`].
    pub sync: SyncPolicy,
}

impl DiskWalsSettings {
    /// The logs under `dir`, each with the defaults of [`WalSettings::new`].
    pub fn new(dir: impl Into<PathBuf>) -> DiskWalsSettings {
        let WalSettings {
            dir,
            file_bytes,
            group_bytes_max,
            sync,
        } = WalSettings::new(dir);
        DiskWalsSettings {
            dir,
            file_bytes,
            group_bytes_max,
            sync,
        }
    }
}

/// The logs under one directory.
///
/// The lock on that directory is what seals them: it is held by the one process that may write there, and goes with it.
/// So a log of an earlier incarnation is sealed by the fact that this one runs, and a log on another machine's disk,
/// which is not here, is never taken over.
#[derive(Debug)]
pub struct DiskWals {
    settings: DiskWalsSettings,
}

impl DiskWals {
    /// Touches nothing before a log is created.
    pub fn new(settings: DiskWalsSettings) -> DiskWals {
        DiskWals { settings }
    }

    fn folder(&self, wal_id: Uuid) -> PathBuf {
        self.settings.dir.join(wal_id.to_string())
    }
}

impl WalStore for DiskWals {
    fn create(&self, wal_id: Uuid) -> BoxFuture<'_, Result<Arc<dyn Wal>>> {
        let settings = WalSettings {
            dir: self.folder(wal_id),
            file_bytes: self.settings.file_bytes,
            group_bytes_max: self.settings.group_bytes_max,
            sync: self.settings.sync,
        };
        let dir = settings.dir.clone();
        blocking(dir, move || {
            DiskWal::create(settings, wal_id).map(|wal| Arc::new(wal) as Arc<dyn Wal>)
        })
        .boxed()
    }

    fn exists(&self, wal_id: Uuid) -> BoxFuture<'_, Result<bool>> {
        let dir = self.folder(wal_id);
        blocking(dir.clone(), move || {
            dir.try_exists().map_err(|e| LogError::io(&dir, "look for", 0, e))
        })
        .boxed()
    }

    fn seal(&self, _wal_id: Uuid, _by: Uuid, _floor: u64) -> BoxFuture<'_, Result<()>> {
        futures::future::ready(Ok(())).boxed()
    }

    // The files are read on a thread of their own and the frames visited here, so that the visitor may borrow.
    fn replay<'a>(
        &'a self,
        wal_id: Uuid,
        _floor: u64,
        visit: &'a mut (dyn FnMut(Frame) -> Result<()> + Send),
    ) -> BoxFuture<'a, Result<ReplaySummary>> {
        let dir = self.folder(wal_id);
        let (pieces, mut found) = mpsc::channel(1);
        let read_from = dir.clone();
        let walk = async move {
            let reading = tokio::task::spawn_blocking(move || replay_in_pieces(&read_from, wal_id, &pieces));
            while let Some(piece) = found.recv().await {
                piece.into_iter().try_for_each(&mut *visit)?;
            }
            reading.await.unwrap_or_else(|e| Err(not_run(&dir, e)))
        };
        walk.boxed()
    }

    fn remove(&self, wal_id: Uuid) -> BoxFuture<'_, Result<()>> {
        let (dir, logs) = (self.folder(wal_id), self.settings.dir.clone());
        blocking(dir.clone(), move || {
            match std::fs::remove_dir_all(&dir) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(LogError::io(&dir, "remove the directory", 0, e));
                }
                _ => {}
            }
            sync_dir(&LocalDisk, &logs)
        })
        .boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Uuid>>> {
        let dir = self.settings.dir.clone();
        blocking(dir.clone(), move || folders_of_logs(&dir)).boxed()
    }
}

/// The folders in `dir` that are named by an id, in order; none where there is no `dir` yet.
fn folders_of_logs(dir: &Path) -> Result<Vec<Uuid>> {
    let failed = |error| LogError::io(dir, "list the directory", 0, error);
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut ids = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let id = entry.file_name().to_str().and_then(|name| Uuid::try_parse(name).ok());
        if let Some(id) = id
            && id.to_string().as_str() == entry.file_name()
            && entry.file_type().map_err(failed)?.is_dir()
        {
            ids.push(id);
        }
    }
    ids.sort_unstable();
    Ok(ids)
}

fn replay_in_pieces(dir: &Path, wal_id: Uuid, pieces: &mpsc::Sender<Vec<Frame>>) -> Result<ReplaySummary> {
    let send = |piece| {
        let stopped = |_| LogError::ReplayStopped {
            reason: "nobody takes the frames any more".into(),
        };
        pieces.blocking_send(piece).map_err(stopped)
    };
    let (mut piece, mut bytes) = (Vec::new(), 0);
    let summary = replay(dir, wal_id, |frame| {
        bytes += frame.encoded_len();
        piece.push(frame);
        if bytes < REPLAY_PIECE_BYTES {
            return Ok(());
        }
        bytes = 0;
        send(std::mem::take(&mut piece))
    });
    // What was found before a damage is handed over too, as `replay` itself does.
    send(piece)?;
    summary
}

/// Runs what waits for a disk where it holds up nobody.
async fn blocking<T: Send + 'static>(dir: PathBuf, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(not_run(&dir, e)))
}

fn not_run(dir: &Path, error: tokio::task::JoinError) -> LogError {
    LogError::io(dir, "work on the directory", 0, io::Error::other(error))
}
