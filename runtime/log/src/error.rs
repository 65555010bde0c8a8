use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millstream_batch::{BatchError, Offset};
use uuid::Uuid;

/// What the functions of this crate return.
pub type Result<T> = std::result::Result<T, LogError>;

/// Everything that can go wrong in the log. One failure may have to be told to many waiters, so it is cheap to clone.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// The file system refused.
    #[error("{}: {action}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        source: Arc<io::Error>,
    },
    /// There is no room on the disk (or in the quota). Nothing was written; it can be tried again once there is room.
    #[error("{}: the disk is full, {needed_bytes} bytes are needed: free some space", path.display())]
    DiskFull {
        /// The file or object that was to be written.
        path: PathBuf,
        /// How many bytes it needs.
        needed_bytes: u64,
    },
    /// The object store refused.
    #[error("object {key}: {action}: {source}")]
    Store {
        /// The object's key, or the prefix.
        key: String,
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        source: Arc<object_store::Error>,
    },
    /// A create-only put met an object that is there already; it was left as it is.
    #[error("object {key} exists already")]
    AlreadyExists {
        /// The object's key.
        key: String,
    },
    /// The object is another one than the one that was put.
    #[error("object {key} has changed: its etag is not the one that it was put with")]
    Changed {
        /// The object's key.
        key: String,
    },
    /// The settings of an object store cannot be used.
    #[error("object store settings: {name}: {reason}")]
    StoreSettings {
        /// The setting.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no such object.
    #[error("object {key} does not exist")]
    NotFound {
        /// The object's key.
        key: String,
    },
    /// The key cannot be an object's name.
    #[error("object key {key:?} is refused: {reason}")]
    KeyRefused {
        /// The key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A ranged read gave another number of bytes than asked for.
    #[error("object {key}: a range of {found} bytes was read, expected {expected}")]
    RangeMismatch {
        /// The object's key.
        key: String,
        /// Bytes read.
        found: u64,
        /// Bytes asked for.
        expected: u64,
    },
    /// A checksum in a segment does not match.
    #[error("segment {key}: {part} at {position}: crc {found:#x}, expected {expected:#x}")]
    SegmentCrc {
        /// The segment's key or file name.
        key: String,
        /// Which part: header, block, index, footer.
        part: &'static str,
        /// The part's position in the segment, in bytes.
        position: u64,
        /// The checksum of the bytes as they were read.
        found: u32,
        /// The checksum that is stored.
        expected: u32,
    },
    /// A segment's bytes make no sense.
    #[error("segment {key}: {part} at {position}: {reason}")]
    SegmentDamaged {
        /// The segment's key or file name.
        key: String,
        /// Which part: header, block, index, notes, footer.
        part: &'static str,
        /// The part's position in the segment, in bytes.
        position: u64,
        /// What is wrong.
        reason: String,
    },
    /// A segment of a later version of the format.
    #[error("segment {key}: format version {found} is not understood, this build reads version {supported}")]
    SegmentVersion {
        /// The segment's key or file name.
        key: String,
        /// The version it has.
        found: u16,
        /// The version this build reads.
        supported: u16,
    },
    /// A batch was appended to a segment that does not start where the last one ended.
    #[error("segment writer: a batch at offset {found} does not follow, expected {expected}")]
    SegmentGap {
        /// The batch's first offset.
        found: Offset,
        /// The offset the segment goes on with.
        expected: Offset,
    },
    /// A batch is larger than a block may be.
    #[error("segment writer: a batch of {bytes} bytes is larger than a block may be ({bytes_max})")]
    BatchTooLarge {
        /// The batch's encoded length.
        bytes: usize,
        /// The most a block holds, before compression.
        bytes_max: usize,
    },
    /// A segment without a batch cannot be finished.
    #[error("segment writer: no batch was appended")]
    SegmentEmpty,
    /// A codec failed on its own account.
    #[error("{codec}: {source}")]
    Codec {
        /// Which codec.
        codec: &'static str,
        /// Why it failed.
        source: Arc<io::Error>,
    },
    /// A batch in a block or a frame is not a batch.
    #[error("{place}: {source}")]
    Batch {
        /// Which segment or file, and where in it.
        place: String,
        /// What is wrong with the batch.
        source: Arc<BatchError>,
    },
    /// A part of the write-ahead log that is known to have been durable is damaged or missing: acknowledged data is lost.
    #[error(
        "{}: the write-ahead log is damaged at byte {position} (log position {log_position}), below {durable_end}, \
         which was durable: {reason}",
        path.display()
    )]
    WalDamaged {
        /// The file.
        path: PathBuf,
        /// Where in the file, in bytes.
        position: u64,
        /// The same place as a position in the whole log.
        log_position: u64,
        /// The greatest position any later group knew to be durable.
        durable_end: u64,
        /// What is wrong.
        reason: String,
    },
    /// A part of the write-ahead log is whole, but this build cannot read it.
    #[error("{}: byte {position}: {reason}", path.display())]
    WalNotUnderstood {
        /// The file.
        path: PathBuf,
        /// Where in the file, in bytes.
        position: u64,
        /// What is not understood.
        reason: String,
    },
    /// The file belongs to another write-ahead log.
    #[error("{}: belongs to write-ahead log {found}, expected {expected}", path.display())]
    WalOther {
        /// The file.
        path: PathBuf,
        /// The id in its header.
        found: Uuid,
        /// The id of the log that was asked for.
        expected: Uuid,
    },
    /// A write-ahead log is created once; its directory holds files already.
    #[error("{}: holds a write-ahead log already", path.display())]
    WalExists {
        /// The directory.
        path: PathBuf,
    },
    /// A write or a sync of the write-ahead log failed. It takes nothing any more; the process has to recover.
    #[error("the write-ahead log has failed and takes nothing any more: {reason}")]
    WalPoisoned {
        /// The first failure.
        reason: String,
    },
    /// The write-ahead log was closed.
    #[error("the write-ahead log is closed")]
    WalClosed,
    /// The settings of a write-ahead log are out of bounds.
    #[error("write-ahead log settings: {name} is {value}, allowed are {min} to {max}")]
    WalSettings {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: u64,
        /// The least that is allowed.
        min: u64,
        /// The most that is allowed.
        max: u64,
    },
    /// A frame is too large for the write-ahead log.
    #[error("a frame of {bytes} bytes is too large for the write-ahead log ({bytes_max})")]
    FrameTooLarge {
        /// The frame's encoded length.
        bytes: usize,
        /// The most that is allowed.
        bytes_max: usize,
    },
    /// A frame names another offset than the batch it carries.
    #[error("a frame at offset {frame} carries a batch at offset {batch}")]
    FrameMismatch {
        /// The frame's base offset.
        frame: Offset,
        /// The batch's base offset.
        batch: Offset,
    },
    /// Whoever visits the frames of a replay stopped it.
    #[error("replay was stopped: {reason}")]
    ReplayStopped {
        /// Why.
        reason: String,
    },
}

impl LogError {
    /// An I/O error, a full disk told apart from the others.
    pub(crate) fn io(path: &Path, action: &'static str, needed_bytes: u64, source: io::Error) -> LogError {
        if is_disk_full(&source) {
            return LogError::DiskFull {
                path: path.to_path_buf(),
                needed_bytes,
            };
        }
        LogError::Io {
            path: path.to_path_buf(),
            action,
            source: Arc::new(source),
        }
    }

    /// Whether there was no room: the one failure that goes away by freeing space.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, LogError::DiskFull { .. })
    }
}

/// Whether the file system said that there is no room, on the device or in the quota.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
