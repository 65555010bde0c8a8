//! Reading one file of the log: group by group, and, behind a damage, looking for what the rest still knows.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::error::{LogError, Result};
use crate::wal::frame::check_frames;
use crate::wal::group::{
    FILE_HEADER_BYTES, FileHeader, GROUP_BYTES_MAX, GROUP_HEADER_BYTES, GROUP_MAGIC, GroupHeader, HeaderFault,
};

/// How much is read at once behind a damage.
const SCAN_BYTES: usize = 64 << 10;
/// What was preallocated and never written, which is skipped as a whole.
static ZEROS: [u8; SCAN_BYTES] = [0; SCAN_BYTES];

/// One file, read from the front.
pub(in crate::wal) struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    position: u64,
}

/// What comes next in a file.
pub(in crate::wal) enum NextGroup {
    /// A group of which every checksum is right; the file stands behind it.
    Whole(GroupHeader),
    /// Nothing was written here.
    End,
    /// Something that is no group any more; the file stands before it.
    Damaged(String),
    /// A whole header of which this build does not know what it means.
    NotUnderstood(String),
}

impl LogFile {
    pub(in crate::wal) fn open(path: &Path) -> Result<LogFile> {
        let open = || {
            let file = File::open(path)?;
            let bytes = file.metadata()?.len();
            Ok((file, bytes))
        };
        let (file, bytes) = open().map_err(|e| LogError::io(path, "open", 0, e))?;
        Ok(LogFile {
            path: path.to_path_buf(),
            file,
            bytes,
            position: 0,
        })
    }

    pub(in crate::wal) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the next group starts, in bytes.
    pub(in crate::wal) fn position(&self) -> u64 {
        self.position
    }

    pub(in crate::wal) fn header(&mut self) -> Result<std::result::Result<FileHeader, HeaderFault>> {
        let mut bytes = [0; FILE_HEADER_BYTES];
        if self.bytes < bytes.len() as u64 {
            return Ok(Err(HeaderFault::Damaged(format!("the file has {} bytes", self.bytes))));
        }
        self.read(&mut bytes, 0)?;
        self.position = bytes.len() as u64;
        Ok(FileHeader::decode(&bytes))
    }

    /// Reads the next group, its frames into `payload`.
    pub(in crate::wal) fn next_group(&mut self, payload: &mut Vec<u8>) -> Result<NextGroup> {
        let left = self.bytes.saturating_sub(self.position);
        let mut head = [0; GROUP_HEADER_BYTES];
        let head_len = left.min(head.len() as u64) as usize;
        self.read(&mut head[..head_len], self.position)?;
        if head == [0; GROUP_HEADER_BYTES] {
            return Ok(NextGroup::End);
        }
        if head_len < head.len() {
            return Ok(NextGroup::Damaged("a group header is cut short".into()));
        }
        let header = match GroupHeader::decode(&head) {
            Ok(header) => header,
            Err(HeaderFault::Damaged(reason)) => return Ok(NextGroup::Damaged(reason)),
            Err(HeaderFault::NotUnderstood(reason)) => return Ok(NextGroup::NotUnderstood(reason)),
        };
        let length = header.payload_len as usize;
        if length > GROUP_BYTES_MAX || length as u64 > left - head.len() as u64 {
            return Ok(NextGroup::Damaged(format!(
                "group {} of {length} bytes is cut short",
                header.number
            )));
        }
        payload.resize(length, 0);
        self.read(payload, self.position + head.len() as u64)?;
        if let Err(reason) = check_frames(header.frame_count, payload) {
            return Ok(NextGroup::Damaged(format!("group {}: {reason}", header.number)));
        }
        self.position += head.len() as u64 + length as u64;
        Ok(NextGroup::Whole(header))
    }

    fn read(&self, bytes: &mut [u8], position: u64) -> Result<()> {
        let read = self.file.read_exact_at(bytes, position);
        read.map_err(|e: io::Error| LogError::io(&self.path, "read", 0, e))
    }
}

/// What lies behind the place where a log ends.
#[derive(Debug, Default)]
pub(super) struct Remains {
    /// The greatest durable end any group header knows.
    pub(super) durable_end: u64,
    /// How many group headers of this log there are.
    pub(super) groups: u64,
    /// Bytes from there to the last one that is not zero, file headers not counted.
    pub(super) bytes: u64,
}

impl Remains {
    /// Looks through `file` from `position` on. Groups are looked for at every byte: after a damage, nothing tells where
    /// one starts.
    pub(super) fn add(&mut self, file: &LogFile, position: u64, wal_id: Uuid) -> Result<()> {
        let start = position.max(FILE_HEADER_BYTES as u64);
        let mut last_byte = start;
        let mut from = start;
        let mut chunk = Vec::new();
        while from < file.bytes {
            // The next chunk starts where a header that this one cuts could start.
            let length = (file.bytes - from).min(SCAN_BYTES as u64) as usize;
            chunk.resize(length, 0);
            file.read(&mut chunk, from)?;
            if chunk != ZEROS[..length] {
                self.look_for_groups(&chunk, wal_id);
                let last = chunk
                    .iter()
                    .rposition(|byte| *byte != 0)
                    .map_or(0, |index| index as u64 + 1);
                last_byte = last_byte.max(from + last);
            }
            let stepped = length.saturating_sub(GROUP_HEADER_BYTES - 1).max(1);
            from += if from + length as u64 == file.bytes {
                length as u64
            } else {
                stepped as u64
            };
        }
        self.bytes += last_byte - start;
        Ok(())
    }

    fn look_for_groups(&mut self, mut bytes: &[u8], wal_id: Uuid) {
        while let Some(skip) = bytes.iter().position(|byte| *byte == GROUP_MAGIC[0]) {
            bytes = &bytes[skip..];
            let Some(head) = bytes.first_chunk::<GROUP_HEADER_BYTES>() else {
                return;
            };
            if let Ok(header) = GroupHeader::decode(head)
                && header.wal_id == wal_id
            {
                self.groups += 1;
                self.durable_end = self.durable_end.max(header.durable_end);
            }
            bytes = &bytes[1..];
        }
    }
}
