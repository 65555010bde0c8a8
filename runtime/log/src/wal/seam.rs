//! What a partition asks of a write-ahead log, and what a recovery asks of what an earlier one left behind.

use std::fmt::Debug;
use std::sync::Arc;

use futures::future::BoxFuture;
use millstream_batch::Offset;
use tokio::sync::watch;
use uuid::Uuid;

use super::{Commit, Frame, ReplaySummary};
use crate::error::Result;
use crate::measure::WalMeasures;

/// The log of a running incarnation, shared by all its partitions.
///
/// Each implementation guarantees:
/// 1. Frames are written in the order in which `submit` was called, and their commits resolve in that order.
/// 2. A commit that resolves to `Ok` means that a replay of this log finds the frame, whatever is lost afterwards that
///    the implementation promises to survive.
/// 3. After a frame of a partition failed, every later frame of that partition fails too, until the partition starts
///    again at an offset not beyond the one that failed: the log never holds a gap.
/// 4. Nothing that holds a frame which neither `committed` nor `checkpointed` has covered, and that was not given up, is ever
///    deleted.
/// 5. Once `failure` says why, no commit resolves to `Ok` any more.
pub trait Wal: Debug + Send + Sync + 'static {
    /// Queues a frame behind everything queued before the call; waits while the queue is full.
    fn submit(&self, frame: Frame) -> BoxFuture<'_, Result<Commit>>;

    /// Everything of the partition below `end` is in committed segments.
    fn committed(&self, topic_id: Uuid, partition: u32, end: Offset);

    /// How many parts, files or objects, were begun so far: what was durable before the call is in one of them.
    fn parts_begun(&self) -> u64;

    /// What the log had of the partition when `parts_begun` was asked for is in committed segments below `end`, but for frames
    /// without a batch at `end`, and these are in a checkpoint. A part that was being written then keeps them all the same.
    fn checkpointed(&self, topic_id: Uuid, partition: u32, end: Offset, parts_begun: u64);

    /// Another log holds what this one has of the partition so far, and the partition's pointer does not name this one. What
    /// is written of it later is needed again, at whatever offsets.
    fn give_up(&self, topic_id: Uuid, partition: u32);

    /// The topic was deleted: none of its frames is needed any more.
    fn forget_topic(&self, topic_id: Uuid);

    /// Says why, once the log has failed for good: a write whose result is not known, or another incarnation sealed it.
    fn failure(&self) -> watch::Receiver<Option<String>>;

    /// Counts since the log was made.
    fn stats(&self) -> WalStats;

    /// What it measures, as long as it lives.
    fn measures(&self) -> WalMeasures;

    /// Where more than `bytes_max` are stored, the partitions whose frames keep the oldest part of it: once they are in
    /// segments it can go. Else nothing.
    fn pinned_by(&self, bytes_max: u64) -> Vec<(Uuid, u32)>;

    /// The number of the first object that is still needed, for a log whose parts are deleted by [`Wal::trim`]; 0 for one
    /// that trims itself.
    fn trimmable(&self) -> u64;

    /// Deletes everything below the number `floor`, which the caller has recorded before: a replay starts there.
    fn trim(&self, floor: u64) -> BoxFuture<'_, Result<()>>;

    /// Writes what is queued, then ends the log. As long as the object store does not answer it waits: give it a deadline.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// What a log has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WalStats {
    /// Bytes stored now, preallocated room included.
    pub bytes_stored: u64,
    /// Groups written.
    pub groups: u64,
    /// Frames in them.
    pub frames: u64,
    /// Bytes of them.
    pub bytes_written: u64,
}

/// Where the logs of incarnations are kept: one kind of it on a local disk, one in the object store.
///
/// Each implementation guarantees:
/// 1. After `seal` no frame is acknowledged by the sealed log any more, whoever still runs it. Sealing again is fine.
/// 2. `replay` of a sealed log gives every frame that was ever acknowledged and not trimmed, in the order in which they
///    were written; a group is visited whole or not at all. Where one that was acknowledged is missing or damaged it is
///    an error, never a shorter log.
/// 3. `remove` makes no acknowledgement of the removed log possible again.
pub trait WalStore: Debug + Send + Sync + 'static {
    /// Starts a new log.
    fn create(&self, wal_id: Uuid) -> BoxFuture<'_, Result<Arc<dyn Wal>>>;

    /// Whether the log can be reached from here. A log on a disk is where its folder is; what is not here is on another
    /// machine. One in the object store is reached from everywhere, even before its first object.
    fn exists(&self, wal_id: Uuid) -> BoxFuture<'_, Result<bool>>;

    /// Ends a log of another incarnation in the name of `by`. `floor` is its trim floor: read it again afterwards, and
    /// where it has moved, seal again. A floor that is still the same was so while the log was looked through.
    fn seal(&self, wal_id: Uuid, by: Uuid, floor: u64) -> BoxFuture<'_, Result<()>>;

    /// Gives every frame at or above the trim floor to `visit`.
    fn replay<'a>(
        &'a self,
        wal_id: Uuid,
        floor: u64,
        visit: &'a mut (dyn FnMut(Frame) -> Result<()> + Send),
    ) -> BoxFuture<'a, Result<ReplaySummary>>;

    /// Deletes what is left of a sealed log, or of one that was closed. A log that may still be written is sealed first.
    fn remove(&self, wal_id: Uuid) -> BoxFuture<'_, Result<()>>;

    /// The logs of which anything is here that [`WalStore::remove`] would delete, in order.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Uuid>>>;

    /// A floor to replay a log from whose trim floor is not known any more: nothing at or above it is missing that was
    /// ever acknowledged, and nothing below it was still needed. 0 for a log that trims itself.
    fn first_kept(&self, _wal_id: Uuid) -> BoxFuture<'_, Result<u64>> {
        Box::pin(std::future::ready(Ok(0)))
    }
}
