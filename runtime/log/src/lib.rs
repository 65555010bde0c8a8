//! Where batches are kept: the write-ahead log, the segments, and the object store under both.
//!
//! | room | owns |
//! |---|---|
//! | [`wal`] | the incarnation's write-ahead log: frames, groups, files, the committer, replay |
//! | [`segment`] | the immutable objects batches end up in: format, writer, reader, cache, inspection |
//! | [`store`] | create-only puts, ranged gets and durable local files |
//! | [`measure`] | distributions of seconds and bytes |
//!
//! The crate knows no topic names and no SQL: it is given key prefixes and ids. It reads no clock and draws no random
//! numbers: times and ids come in as arguments. Both formats carry a version and are drawn byte by byte in the room
//! that owns them; every integer in them is big endian, as in the record batch, and every byte is under a checksum.
//!
//! Invariant: nothing read from a disk or a store is believed before its checksum matched, nothing is allocated by a
//! length that was not checked, and nothing that was read makes the process panic.

mod error;
mod file;
#[doc(hidden)]
pub mod fuzzing;
pub mod measure;
mod outcome;
pub mod segment;
pub mod store;
pub mod wal;
mod wire;

pub use error::{LogError, Result};
pub use measure::WalMeasures;
pub use outcome::{Fate, Outcome, Run};
pub use segment::{
    BlockSettings, CacheLooks, CacheSettings, EncodedSegment, SegmentCache, SegmentDirectory, SegmentHead,
    SegmentIdentity, SegmentReader, SegmentRef, SegmentReport, SegmentSummary, SegmentWriter, segment_key,
};
pub use store::{Folder, S3Settings, Store, StoredObject};
pub use wal::{
    Commit, DiskWal, DiskWals, DiskWalsSettings, Frame, ObjectWal, ObjectWalSettings, ObjectWals, ProducerStamp,
    ReplaySummary, SyncPolicy, Wal, WalSettings, WalStats, WalStore, replay,
};
