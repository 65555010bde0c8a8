//! The write-ahead log of one incarnation, shared by all its partitions.
//!
//! One committer thread takes everything that is queued, writes it as one *group*, syncs once and answers all.
//! [`replay`] reads what a crash left behind. The log lives in a directory of its own, in files named
//! `{number of the first group:020}.wal`, each preallocated and filled from the front with whole groups. What has not
//! been written yet is zeros, so a group header of zeros is the end of a file.
//!
//! All integers are big endian; reserved fields are 0, anything else is refused. Groups are numbered from 0 without gaps. A *log position* counts the bytes of all groups
//! before it, file headers not included.
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
//!   40   8  durable end: every byte below this log position was synced before this group was written
//!   48   4  length of the frames that follow, in bytes
//!   52   4  number of frames that follow
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
//! Invariants:
//! 1. A group never spans files, and nothing is written behind a failed write or a failed sync.
//! 2. The durable end of a group counts only what an `fdatasync` has answered for.
//! 3. Damage below the greatest durable end seen anywhere later means that acknowledged frames are lost: replay stops
//!    with an error. Everything from the first damage on, at or above that mark, was never known to be durable: it is cut.
//! 4. A file is deleted only when each of its frames is in a committed segment and every older file is gone.

mod committer;
mod coverage;
mod disk;
mod file;
mod frame;
mod group;
mod keeper;
mod replay;
mod scan;
#[cfg(test)]
mod tests;

pub use disk::{Commit, DiskWal, SyncPolicy, WalSettings};
pub use frame::{Frame, ProducerStamp};
pub use replay::{ReplaySummary, replay};
