//! The log in the object store: one object for each flush, of all partitions together.
//!
//! | file | owns |
//! |---|---|
//! | `writer` | the one task that gathers frames, numbers objects, and answers in order |
//! | `put` | one object's way into the store, and who else may have taken its number |
//! | `seal` | the object that ends a log |
//! | `sealing`, `replay` | what a recovery does with a log that another incarnation left |
//! | `wals` | the logs under one prefix |

mod floor;
mod keys;
mod put;
mod replay;
mod seal;
mod sealing;
#[cfg(test)]
mod tests;
mod wals;
mod writer;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use millstream_batch::Offset;
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use self::keys::Keys;
pub use self::wals::ObjectWals;
use self::writer::{Request, Writer};
use super::coverage::Coverage;
use super::disk::in_bounds;
use super::frame::Frame;
use super::group::GROUP_BYTES_MAX;
use super::queue::{Commit, Counts, Door, Failure};
use super::seam::{Wal, WalStats};
use crate::error::{LogError, Result};
use crate::measure::WalMeasures;
use crate::store::Store;

/// The most puts that may be in flight for one log.
pub const PUTS_MAX: usize = 64;
/// The most bytes that one flush may gather.
const FLUSH_BYTES_MAX: usize = 64 << 20;

/// How logs in the object store are written.
#[derive(Debug, Clone)]
pub struct ObjectWalSettings {
    /// What the keys start with.
    pub prefix: String,
    /// How long the first frame of an object waits for others.
    pub flush_interval: Duration,
    /// An object takes no further frame once it would grow beyond this many bytes, and is then put at once.
    pub flush_bytes: usize,
    /// How many puts may be in flight.
    pub puts_max: usize,
}

impl Default for ObjectWalSettings {
    /// An object every 100 ms or 8 MiB, four puts in flight.
    fn default() -> ObjectWalSettings {
        ObjectWalSettings {
            prefix: "_wal".into(),
            flush_interval: Duration::from_millis(100),
            flush_bytes: 8 << 20,
            puts_max: 4,
        }
    }
}

impl ObjectWalSettings {
    fn check(&self) -> Result<()> {
        const { assert!(FLUSH_BYTES_MAX <= GROUP_BYTES_MAX) };
        in_bounds("flush_bytes", self.flush_bytes as u64, 1, FLUSH_BYTES_MAX as u64)?;
        in_bounds("puts_max", self.puts_max as u64, 1, PUTS_MAX as u64)
    }
}

/// The write-ahead log of a running incarnation. When it is dropped, what is queued is still put, without anybody waiting
/// for it.
///
/// Objects are trimmed in parts: 64 of them, or fewer where those have 64 MiB. One frame that is still needed keeps its
/// whole part, and the part being written always stays.
///
/// A put that fails is tried again under its number for as long as it takes; meanwhile the queue fills, and submitting
/// waits. Only a number that somebody else has taken fails the log: with a seal another incarnation has ended it.
pub struct ObjectWal {
    queue: mpsc::UnboundedSender<Request>,
    door: Door,
    shared: Arc<Shared>,
    /// Everything below this number is deleted. One trim at a time.
    deleted: tokio::sync::Mutex<u64>,
}

/// What the handle and the writer share.
struct Shared {
    store: Store,
    keys: Keys,
    /// Named by the number of the first object of each part.
    coverage: Mutex<Coverage<u64>>,
    failure: Failure,
    counts: Counts,
    /// Every object below this number is stored.
    stored_end: AtomicU64,
}

impl ObjectWal {
    /// Starts a new log, whose folder must hold nothing yet.
    async fn create(store: Store, settings: ObjectWalSettings, wal_id: Uuid) -> Result<ObjectWal> {
        settings.check()?;
        let keys = Keys::new(&settings.prefix, wal_id);
        if !store.list(keys.folder()).await?.is_empty() {
            return Err(LogError::WalExists {
                path: keys.folder().into(),
            });
        }
        let shared = Arc::new(Shared {
            store,
            keys,
            coverage: Mutex::default(),
            failure: Failure::default(),
            counts: Counts::default(),
            stored_end: AtomicU64::new(0),
        });
        let (queue, requests) = mpsc::unbounded_channel();
        tokio::spawn(Writer::new(settings, wal_id, shared.clone()).run(requests));
        Ok(ObjectWal {
            queue,
            door: Door::default(),
            shared,
            deleted: tokio::sync::Mutex::new(0),
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

    async fn delete_below(&self, floor: u64) -> Result<()> {
        let mut deleted = self.deleted.lock().await;
        // Whatever was asked for, what is needed stays.
        let floor = floor.min(self.trimmable());
        if floor > *deleted {
            let keys = (*deleted..floor).map(|number| self.shared.keys.of(number));
            self.shared.store.delete_all(keys.collect()).await?;
            self.shared.coverage().forget_below(floor);
            *deleted = floor;
        }
        Ok(())
    }
}

impl Wal for ObjectWal {
    fn submit(&self, frame: Frame) -> BoxFuture<'_, Result<Commit>> {
        self.queue(frame).boxed()
    }

    fn committed(&self, topic_id: Uuid, partition: u32, end: Offset) {
        self.shared.coverage().committed(topic_id, partition, end);
    }

    fn parts_begun(&self) -> u64 {
        self.shared.coverage().parts_begun()
    }

    fn checkpointed(&self, topic_id: Uuid, partition: u32, end: Offset, parts_begun: u64) {
        let mut coverage = self.shared.coverage();
        coverage.checkpointed(topic_id, partition, end, parts_begun);
    }

    fn give_up(&self, topic_id: Uuid, partition: u32) {
        self.shared.coverage().give_up(topic_id, partition);
    }

    fn forget_topic(&self, topic_id: Uuid) {
        self.shared.coverage().forget_topic(topic_id);
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

    // Moves in whole parts of 64 objects, or of 64 MiB where that is fewer; the part being written stays. Not beyond what is
    // stored: a seal goes to the first missing number at or above the floor, and has to meet the puts that are in flight.
    fn trimmable(&self) -> u64 {
        let stored_end = self.shared.stored_end.load(Ordering::Acquire);
        let needed = self.shared.coverage().oldest_needed().copied();
        needed.unwrap_or(0).min(stored_end)
    }

    fn trim(&self, floor: u64) -> BoxFuture<'_, Result<()>> {
        self.delete_below(floor).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let (done, closed) = oneshot::channel();
        let asked = self.queue.send(Request::Close(done)).is_ok();
        let ended = async move {
            if asked {
                // An error means that the writer has ended already, which is what was asked for.
                let _ = closed.await;
            }
        };
        ended.boxed()
    }
}

impl std::fmt::Debug for ObjectWal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectWal")
            .field("folder", &self.shared.keys.folder())
            .field("failure", &self.shared.failure)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn coverage(&self) -> MutexGuard<'_, Coverage<u64>> {
        self.coverage.lock().expect("no holder of the lock panics")
    }
}
