//! The log on a local disk: its settings, and the handle that partitions submit frames through.

mod committer;
mod keeper;
mod replay;
mod scan;
mod wals;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use millstream_batch::Offset;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use self::committer::Committer;
use self::keeper::{Keeper, Unsynced};
#[cfg(test)]
pub(super) use self::replay::wal_files;
pub use self::replay::{ReplaySummary, replay};
#[cfg(test)]
pub(super) use self::scan::{LogFile, NextGroup};
pub use self::wals::{DiskWals, DiskWalsSettings};
use super::coverage::Coverage;
use super::frame::Frame;
use super::group::GROUP_BYTES_MAX;
use super::queue::{Commit, Counts, Door, Failure, Submission};
use super::seam::{Wal, WalStats};
use crate::error::{LogError, Result};
use crate::file::{Disk, LocalDisk, create_dir_durably, sync_dir};
use crate::measure::WalMeasures;

/// The least a file may take.
const FILE_BYTES_MIN: u64 = 4 << 10;
/// The most a file may take.
const FILE_BYTES_MAX: u64 = 16 << 30;

/// When a group counts as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncPolicy {
    /// After an `fdatasync`: an answer survives the loss of power.
    Always,
    /// After the write; an `fdatasync` follows in the background at this interval. An answer survives the loss of the
    /// process only.
    Interval(Duration),
    /// After the write; an `fdatasync` follows in the background when a file is full, and at the end. An answer survives
    /// the loss of the process only.
    Never,
}

/// How a log is written.
#[derive(Debug, Clone)]
pub struct WalSettings {
    /// The log's own directory.
    pub dir: PathBuf,
    /// Length of each file in bytes; a group that is larger gets a larger file.
    pub file_bytes: u64,
    /// A group takes no further frame once it would grow beyond this many bytes.
    pub group_bytes_max: usize,
    /// When a group counts as written.
    pub sync: SyncPolicy,
}

impl WalSettings {
    /// Files of 64 MiB, groups of at most 8 MiB, every group synced.
    pub fn new(dir: impl Into<PathBuf>) -> WalSettings {
        WalSettings {
            dir: dir.into(),
            file_bytes: 64 << 20,
            group_bytes_max: 8 << 20,
            sync: SyncPolicy::Always,
        }
    }

    fn check(&self) -> Result<()> {
        in_bounds("file_bytes", self.file_bytes, FILE_BYTES_MIN, FILE_BYTES_MAX)?;
        in_bounds(
            "group_bytes_max",
            self.group_bytes_max as u64,
            1,
            GROUP_BYTES_MAX as u64,
        )
    }
}

/// Refuses a setting by its name.
pub(super) fn in_bounds(name: &'static str, value: u64, min: u64, max: u64) -> Result<()> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(LogError::WalSettings { name, value, min, max })
    }
}

/// The write-ahead log of a running incarnation. Clones share it; when the last one is dropped, what is queued is still
/// written and synced, without anybody waiting for it.
///
/// A commit fails with [`LogError::DiskFull`] where there was no room for its group: nothing was written, and the log
/// stays usable. Everything else fails the log.
#[derive(Clone)]
pub struct DiskWal {
    queue: Sender<Request>,
    door: Arc<Door>,
    shared: Arc<Shared>,
}

/// What the handle, the committer and the keeper share.
struct Shared {
    coverage: Mutex<Coverage<PathBuf>>,
    unsynced: Mutex<Unsynced>,
    failure: Failure,
    counts: Counts,
    keeper: Sender<KeeperCall>,
}

/// What the committer is asked.
#[expect(
    clippy::large_enum_variant,
    reason = "all but one request is a frame, and a box would allocate for each"
)]
enum Request {
    Write(Submission),
    Close(oneshot::Sender<()>),
}

/// What the keeper is asked.
enum KeeperCall {
    /// A file is full, or a file can go.
    Look,
    /// Sync what is left and end.
    End,
}

impl DiskWal {
    /// Starts a new log in `settings.dir`, which is created when it is not there and must hold no log yet.
    ///
    /// Errors: [`LogError::WalExists`], [`LogError::WalSettings`], [`LogError::DiskFull`], [`LogError::Io`].
    pub fn create(settings: WalSettings, wal_id: Uuid) -> Result<DiskWal> {
        DiskWal::create_on(Arc::new(LocalDisk), settings, wal_id)
    }

    pub(super) fn create_on(disk: Arc<dyn Disk>, settings: WalSettings, wal_id: Uuid) -> Result<DiskWal> {
        settings.check()?;
        create_dir_durably(&*disk, &settings.dir)?;
        sync_dir(&*disk, &settings.dir)?;
        if !replay::wal_files(&settings.dir)?.is_empty() {
            return Err(LogError::WalExists { path: settings.dir });
        }
        let (queue, requests) = channel();
        let (keeper, calls) = channel();
        let shared = Arc::new(Shared {
            coverage: Mutex::default(),
            unsynced: Mutex::default(),
            failure: Failure::default(),
            counts: Counts::default(),
            keeper,
        });
        let dir = settings.dir.clone();
        let keeper = Keeper::new(disk.clone(), &settings, shared.clone());
        let committer = Committer::create(disk, settings, wal_id, shared.clone())?;
        start(&dir, committer, requests, keeper, calls)?;
        Ok(DiskWal {
            queue,
            door: Arc::default(),
            shared,
        })
    }

    async fn queue(&self, frame: Frame) -> Result<Commit> {
        self.shared.failure.check()?;
        let (submission, commit) = self.door.admit(frame).await?;
        self.queue
            .send(Request::Write(submission))
            .map_err(|_| LogError::WalClosed)?;
        Ok(commit)
    }
}

impl Wal for DiskWal {
    fn submit(&self, frame: Frame) -> BoxFuture<'_, Result<Commit>> {
        self.queue(frame).boxed()
    }

    // Files go in the background, oldest first; never the one being written.
    fn committed(&self, topic_id: Uuid, partition: u32, end: Offset) {
        if self.shared.coverage().committed(topic_id, partition, end) {
            self.shared.call_keeper(KeeperCall::Look);
        }
    }

    fn parts_begun(&self) -> u64 {
        self.shared.coverage().parts_begun()
    }

    fn checkpointed(&self, topic_id: Uuid, partition: u32, end: Offset, parts_begun: u64) {
        let mut coverage = self.shared.coverage();
        if coverage.checkpointed(topic_id, partition, end, parts_begun) {
            self.shared.call_keeper(KeeperCall::Look);
        }
    }

    fn give_up(&self, topic_id: Uuid, partition: u32) {
        if self.shared.coverage().give_up(topic_id, partition) {
            self.shared.call_keeper(KeeperCall::Look);
        }
    }

    fn forget_topic(&self, topic_id: Uuid) {
        if self.shared.coverage().forget_topic(topic_id) {
            self.shared.call_keeper(KeeperCall::Look);
        }
    }

    fn failure(&self) -> watch::Receiver<Option<String>> {
        self.shared.failure.watch()
    }

    fn stats(&self) -> WalStats {
        let bytes_stored = self.shared.coverage().bytes_stored();
        self.shared.counts.stats(bytes_stored)
    }

    fn measures(&self) -> WalMeasures {
        self.shared.counts.measures.clone()
    }

    fn pinned_by(&self, bytes_max: u64) -> Vec<(Uuid, u32)> {
        self.shared.coverage().pinned_by(bytes_max)
    }

    fn trimmable(&self) -> u64 {
        0
    }

    fn trim(&self, _floor: u64) -> BoxFuture<'_, Result<()>> {
        futures::future::ready(Ok(())).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let (done, closed) = oneshot::channel();
        let asked = self.queue.send(Request::Close(done)).is_ok();
        let ended = async move {
            if asked {
                // An error means that the committer has ended already, which is what was asked for.
                let _ = closed.await;
            }
        };
        ended.boxed()
    }
}

impl std::fmt::Debug for DiskWal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskWal")
            .field("failure", &self.shared.failure)
            .finish_non_exhaustive()
    }
}

/// Starts the two threads of a log. The keeper outlives the committer, which tells it to end.
fn start(
    dir: &Path,
    committer: Committer,
    requests: Receiver<Request>,
    keeper: Keeper,
    calls: Receiver<KeeperCall>,
) -> Result<()> {
    let thread = |name: &str| std::thread::Builder::new().name(name.into());
    let keeping = thread("wal-keeper").spawn(move || keeper.run(&calls));
    let keeping = keeping.map_err(|e| LogError::io(dir, "start the keeper thread", 0, e))?;
    let committing = thread("wal-committer").spawn(move || committer.run(requests, keeping));
    committing.map_err(|e| LogError::io(dir, "start the committer thread", 0, e))?;
    Ok(())
}

impl Shared {
    fn coverage(&self) -> MutexGuard<'_, Coverage<PathBuf>> {
        self.coverage.lock().expect("no holder of the lock panics")
    }

    fn unsynced(&self) -> MutexGuard<'_, Unsynced> {
        self.unsynced.lock().expect("no holder of the lock panics")
    }

    fn call_keeper(&self, call: KeeperCall) {
        // A keeper that has ended has nothing left to keep.
        let _ = self.keeper.send(call);
    }
}
