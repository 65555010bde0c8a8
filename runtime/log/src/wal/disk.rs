//! The log on a local disk: its settings, and the handle that partitions submit frames through.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use millstream_batch::Offset;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use uuid::Uuid;

use super::committer::Committer;
use super::coverage::Coverage;
use super::file::{Disk, LocalDisk};
use super::frame::{FRAME_BYTES_MAX, Frame};
use super::group::GROUP_BYTES_MAX;
use super::keeper::{Keeper, Unsynced};
use crate::error::{LogError, Result};
use crate::store::{create_dir_durably, sync_dir};

/// The most bytes of frames that wait for the committer; beyond it, submitting waits.
pub const QUEUE_BYTES_MAX: usize = FRAME_BYTES_MAX;
/// What each waiting frame counts for at least, so that the queue's bound also holds for their number.
const QUEUED_FRAME_BYTES_MIN: usize = 1 << 10;
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

fn in_bounds(name: &'static str, value: u64, min: u64, max: u64) -> Result<()> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(LogError::WalSettings { name, value, min, max })
    }
}

/// The write-ahead log of a running incarnation. Clones share it; when the last one is dropped, what is queued is still
/// written and synced, without anybody waiting for it.
#[derive(Clone)]
pub struct DiskWal {
    queue: Sender<Request>,
    room: Arc<Semaphore>,
    shared: Arc<Shared>,
}

/// What the handle, the committer and the keeper share.
pub(super) struct Shared {
    coverage: Mutex<Coverage>,
    unsynced: Mutex<Unsynced>,
    failure: watch::Sender<Option<String>>,
    keeper: Sender<KeeperCall>,
}

/// What the committer is asked.
#[expect(
    clippy::large_enum_variant,
    reason = "all but one request is a frame, and a box would allocate for each"
)]
pub(super) enum Request {
    Write(Submission),
    Close(oneshot::Sender<()>),
}

/// What the keeper is asked.
pub(super) enum KeeperCall {
    /// A file is full, or a file can go.
    Look,
    /// Sync what is left and end.
    End,
}

/// A frame that waits for its group.
pub(super) struct Submission {
    pub(super) frame: Frame,
    pub(super) bytes: usize,
    answer: oneshot::Sender<Result<()>>,
    _room: OwnedSemaphorePermit,
}

impl Submission {
    pub(super) fn answer(self, result: Result<()>) {
        // Whoever stopped waiting has no use for the answer.
        let _ = self.answer.send(result);
    }
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
        create_dir_durably(&settings.dir)?;
        sync_dir(&settings.dir)?;
        if !super::replay::wal_files(&settings.dir)?.is_empty() {
            return Err(LogError::WalExists { path: settings.dir });
        }
        let (queue, requests) = channel();
        let (keeper, calls) = channel();
        let shared = Arc::new(Shared {
            coverage: Mutex::default(),
            unsynced: Mutex::default(),
            failure: watch::Sender::new(None),
            keeper,
        });
        let dir = settings.dir.clone();
        let keeper = Keeper::new(disk.clone(), &settings, shared.clone());
        let committer = Committer::create(disk, settings, wal_id, shared.clone())?;
        start(&dir, committer, requests, keeper, calls)?;
        Ok(DiskWal {
            queue,
            room: Arc::new(Semaphore::new(QUEUE_BYTES_MAX)),
            shared,
        })
    }

    /// Queues a frame, behind everything that was queued before the call; waits while the queue is full. The answer
    /// comes through the [`Commit`].
    ///
    /// A frame whose partition has a failed frame before it fails with the same error, until the partition starts again
    /// at an offset not beyond the one that failed: the log never holds a gap.
    ///
    /// Errors: [`LogError::FrameTooLarge`], [`LogError::FrameMismatch`], [`LogError::WalPoisoned`],
    /// [`LogError::WalClosed`]; the commit's own: [`LogError::DiskFull`] (nothing was written, the log stays usable),
    /// [`LogError::WalPoisoned`], [`LogError::WalClosed`].
    pub async fn submit(&self, frame: Frame) -> Result<Commit> {
        self.shared.check_failure()?;
        if let Some(batch) = &frame.batch
            && batch.base_offset() != frame.base_offset
        {
            return Err(LogError::FrameMismatch {
                frame: frame.base_offset,
                batch: batch.base_offset(),
            });
        }
        let bytes = frame.encoded_len();
        if bytes > FRAME_BYTES_MAX {
            return Err(LogError::FrameTooLarge {
                bytes,
                bytes_max: FRAME_BYTES_MAX,
            });
        }
        let permits = bytes.max(QUEUED_FRAME_BYTES_MIN) as u32;
        let room = self
            .room
            .clone()
            .acquire_many_owned(permits)
            .await
            .map_err(|_| LogError::WalClosed)?;
        let (answer, answered) = oneshot::channel();
        let submission = Submission {
            frame,
            bytes,
            answer,
            _room: room,
        };
        self.queue
            .send(Request::Write(submission))
            .map_err(|_| LogError::WalClosed)?;
        Ok(Commit { answered })
    }

    /// Everything of the partition below `end` is in committed segments: files that hold nothing else are deleted,
    /// oldest first, in the background; never the one being written. A frame without a batch is needed up to its base offset.
    pub fn committed(&self, topic_id: Uuid, partition: u32, end: Offset) {
        if self.shared.coverage().committed(topic_id, partition, end) {
            self.shared.call_keeper(KeeperCall::Look);
        }
    }

    /// The topic was deleted: none of its frames is needed any more.
    pub fn forget_topic(&self, topic_id: Uuid) {
        if self.shared.coverage().forget_topic(topic_id) {
            self.shared.call_keeper(KeeperCall::Look);
        }
    }

    /// Says why, once a write or a sync has failed. From then on the log takes nothing any more.
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.shared.failure.subscribe()
    }

    /// Length of all files, preallocated room included.
    pub fn bytes_on_disk(&self) -> u64 {
        self.shared.coverage().bytes_on_disk()
    }

    /// Writes and syncs what is queued, then ends the log. Other clones get [`LogError::WalClosed`].
    pub async fn close(self) {
        let (done, closed) = oneshot::channel();
        if self.queue.send(Request::Close(done)).is_ok() {
            // An error means that the committer has ended already, which is what was asked for.
            let _ = closed.await;
        }
    }
}

impl std::fmt::Debug for DiskWal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskWal")
            .field("failure", &*self.shared.failure.borrow())
            .finish_non_exhaustive()
    }
}

/// Starts the two threads of a log. The keeper outlives the committer, which tells it to end.
fn start(
    dir: &std::path::Path,
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
    pub(super) fn coverage(&self) -> MutexGuard<'_, Coverage> {
        self.coverage.lock().expect("no holder of the lock panics")
    }

    pub(super) fn unsynced(&self) -> MutexGuard<'_, Unsynced> {
        self.unsynced.lock().expect("no holder of the lock panics")
    }

    pub(super) fn call_keeper(&self, call: KeeperCall) {
        // A keeper that has ended has nothing left to keep.
        let _ = self.keeper.send(call);
    }

    /// Takes the log out of use. The first reason stays.
    pub(super) fn poison(&self, reason: String) {
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            if first {
                tracing::error!(reason, "the write-ahead log has failed");
                *failure = Some(reason);
            }
            first
        });
    }

    pub(super) fn check_failure(&self) -> Result<()> {
        match &*self.failure.borrow() {
            Some(reason) => Err(LogError::WalPoisoned { reason: reason.clone() }),
            None => Ok(()),
        }
    }
}

/// Resolves once the frame's group is written, as the [`SyncPolicy`] says.
#[derive(Debug)]
#[must_use = "a frame is not durable before its commit resolves"]
pub struct Commit {
    answered: oneshot::Receiver<Result<()>>,
}

impl Future for Commit {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.answered)
            .poll(context)
            .map(|answer| answer.unwrap_or(Err(LogError::WalClosed)))
    }
}
