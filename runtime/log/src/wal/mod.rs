//! The write-ahead log of one incarnation, shared by all its partitions.
//!
//! Whatever is queued is written as one *group*, and then all who wait for it are answered. There are two kinds of log
//! behind one trait, [`Wal`], and each has a [`WalStore`] for what a recovery does with the logs of earlier incarnations:
//!
//! | log | a group is | survives the loss of | taken over |
//! |---|---|---|---|
//! | [`DiskWal`] | written to a preallocated file (what is large past the memory of the system), then `fdatasync` (see [`SyncPolicy`]) | process, power | on its own machine |
//! | [`ObjectWal`] | one object, put create-only every 100 ms or 8 MiB | process, power, machine | from anywhere |
//!
//! | file | owns |
//! |---|---|
//! | `seam` | the two traits and what they guarantee |
//! | `queue` | a frame's way in and its answer; the bound on what waits |
//! | `frame`, `group` | the bytes |
//! | `coverage` | which parts hold frames that are in no segment yet |
//! | `disk`, `object` | the two kinds |
//!
//! # Bytes
//!
//! All integers are big endian; reserved fields are 0, anything else is refused. Groups are numbered from 0 without gaps.
//! A *log position* counts the bytes of all groups before it, file headers not included.
//!
//! On a disk the log has a directory of its own, with files named `{number of the first group:020}.wal`, each
//! preallocated and filled from the front with whole groups behind a file header. What has not been written yet is zeros,
//! so a group header of zeros is the end of a file. In the object store it has a folder, `{prefix}/{wal id}`, with one
//! object for each group, `{number of the group:020}.wal`, which is the group and nothing else; where a seal stands
//! instead, the log has ended.
//!
//! ```text
//! file header, 64 B
//!    0   8  magic "MILLSWAL"
//!    8   2  version, 1
//!   10   2  reserved, 0
//!   12  16  WAL id
//!   28   8  number of the first group
//!   36   8  log position of the first group
//!   44  16  reserved, 0
//!   60   4  crc32 of bytes 0..60
//!
//! group header, 64 B
//!    0   4  magic "MSWG"
//!    4   2  version, 1
//!    6   2  reserved, 0
//!    8  16  WAL id
//!   24   8  group number
//!   32   8  log position of this header
//!   40   8  durable end: every byte below this log position was durable before this group was written
//!   48   4  length of the frames that follow, in bytes
//!   52   4  number of frames that follow
//!   56   4  reserved, 0
//!   60   4  crc32 of bytes 0..60
//!
//! seal, 64 B
//!    0   4  magic "MSWS"
//!    4   2  version, 1
//!    6   2  reserved, 0
//!    8  16  WAL id
//!   24   8  number of the group in whose place it stands
//!   32  16  id of the incarnation that ended the log
//!   48   8  present end: every number from the trim floor up to this one was there when the seal was put
//!   56   4  reserved, 0
//!   60   4  crc32 of bytes 0..60
//!
//! frame
//!    0   4  length of the frame from byte 8 on
//!    4   4  crc32 of the length field and of everything from byte 8 on
//!    8   1  kind, 1
//!    9  16  topic id
//!   25   4  partition
//!   29   8  epoch
//!   37   8  pipeline version
//!   45   8  base offset
//!   53   8  producer id            -1: none
//!   61   2  producer epoch         -1: none
//!   63   4  first sequence         -1: none
//!   67   4  last sequence          -1: none
//!   71   4  length of the outcome, in bytes
//!   75   n  outcome (see [`Outcome`](crate::Outcome))
//! 75+n   m  the batch, as it travels; empty when no record was kept
//! ```
//!
//! # Invariants
//!
//! 1. A group never spans files or objects. On a disk nothing is written behind a failed write or a failed sync.
//! 2. The durable end of a group counts only what an `fdatasync` or a put has answered for.
//! 3. Damage below the greatest durable end seen anywhere later means that acknowledged frames are lost: replay stops
//!    with an error. Everything from the first damage on, at or above that mark, was never known to be durable: it is cut.
//!    An object is stored whole or not at all, so a damaged one is always an error.
//! 4. A file is deleted only when each of its frames is in a committed segment, or has no batch and is in a checkpoint of the
//!    producers, and every older file is gone. An object is deleted only below a trim floor that was recorded before, and
//!    the same holds for its frames.
//! 5. The next object's number is taken once, by a group or by a seal: an object beyond the first seal or the first
//!    missing number was never acknowledged. So a seal stays when its log is removed; it keeps a put of the old
//!    incarnation that is still on its way from being acknowledged.

mod coverage;
mod disk;
mod frame;
mod group;
mod object;
mod queue;
mod seam;
#[cfg(test)]
mod tests;

pub use disk::{DiskWal, DiskWals, DiskWalsSettings, ReplaySummary, SyncPolicy, WalSettings, replay};
pub use frame::{Frame, ProducerStamp};
pub use object::{ObjectWal, ObjectWalSettings, ObjectWals};
pub use queue::{Commit, QUEUE_BYTES_MAX};
pub use seam::{Wal, WalStats, WalStore};

/// Takes a group apart as a replay does: its frames, or why it is none.
pub(crate) fn decode_group(bytes: &[u8]) -> Result<Vec<Frame>, String> {
    let (header, mut payload) = group::split_group(bytes).map_err(|fault| match fault {
        group::HeaderFault::Damaged(reason) | group::HeaderFault::NotUnderstood(reason) => reason,
    })?;
    (0..header.frame_count)
        .map(|_| frame::split_frame(&mut payload).and_then(Frame::decode))
        .collect()
}
