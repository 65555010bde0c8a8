//! What the write-ahead log and the local store ask of the file system, as a seam: the real one, and those of the tests,
//! which fail on demand or lose whatever was not synced.
//!
//! Each must guarantee:
//! 1. `create` gives a file of exactly that many zeros whose room is reserved, or leaves nothing behind. A file that is
//!    already there is an error.
//! 2. `reserve` makes a file that many bytes long with zeros behind what it had, the room for them reserved, or leaves
//!    what it had as it was.
//! 3. After `sync_data` everything written to the file before is durable, its length included.
//! 4. `link` gives a file a second name in one step. A name that is already there is an error of kind `AlreadyExists`,
//!    and the file that has it stays as it is.
//! 5. After `sync_dir` the creations, links and removals in the directory are durable.

mod direct;
mod direct_read;
#[cfg(test)]
pub(crate) mod simulated;

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

pub(crate) use direct::BLOCK_BYTES;
pub(crate) use direct::DIRECT_BYTES_MIN;
use direct::DirectFile;
pub(crate) use direct_read::DirectReader;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, retry_on_intr};

use crate::error::{LogError, Result};

/// How much is written at once where room has to be reserved by writing zeros.
const ZEROS_BYTES: usize = 1 << 20;

pub(crate) trait Disk: Debug + Send + Sync + 'static {
    /// Creates an empty file where `bytes` is 0.
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn DiskFile>>;
    /// The same for a file that the system need not keep in memory: nobody reads it but for a recovery, or who reads it keeps
    /// what was read.
    fn create_uncached(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        self.create(path, bytes)
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

pub(crate) trait DiskFile: Debug + Send + Sync + 'static {
    fn reserve(&self, bytes: u64) -> io::Result<()>;
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;
    fn sync_data(&self) -> io::Result<()>;
}

/// Creates `dir` and whatever is missing above it, and makes their entries durable, that of a directory that was there
/// already too: whoever made it may not have come to that yet.
pub(crate) fn create_dir_durably(disk: &dyn Disk, dir: &Path) -> Result<()> {
    let above = parent_of(dir);
    let mut made = disk.create_dir(dir);
    if made.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound) && above != dir {
        create_dir_durably(disk, above)?;
        made = disk.create_dir(dir);
    }
    match made {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(LogError::io(dir, "create the directory", 0, e)),
        _ => sync_dir(disk, above),
    }
}

/// Makes the entries of `dir` durable.
pub(crate) fn sync_dir(disk: &dyn Disk, dir: &Path) -> Result<()> {
    disk.sync_dir(dir)
        .map_err(|e| LogError::io(dir, "sync the directory", 0, e))
}

/// The directory that has the entry of `path`.
pub(crate) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

/// The file system of this machine.
#[derive(Debug)]
pub(crate) struct LocalDisk;

impl LocalDisk {
    fn create_file(path: &Path, bytes: u64) -> io::Result<File> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        if bytes > 0
            && let Err(error) = file.reserve(bytes)
        {
            drop(file);
            std::fs::remove_file(path)?;
            return Err(error);
        }
        Ok(file)
    }
}

impl Disk for LocalDisk {
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(LocalDisk::create_file(path, bytes)?))
    }

    fn create_uncached(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file = LocalDisk::create_file(path, bytes)?;
        Ok(Arc::new(DirectFile::new(path, file)))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

impl DiskFile for File {
    // A full disk shows here, where nothing depends on the room yet, and not at a write.
    fn reserve(&self, bytes: u64) -> io::Result<()> {
        match retry_on_intr(|| fallocate(self, FallocateFlags::empty(), 0, bytes)) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(self, bytes),
            Err(error) => Err(error.into()),
        }
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.write_all_at(bytes, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }
}

/// Reserves room where the file system cannot do it without writing.
fn write_zeros(file: &File, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS_BYTES];
    let mut position = file.metadata()?.len();
    while position < bytes {
        let length = (bytes - position).min(ZEROS_BYTES as u64);
        file.write_all_at(&zeros[..length as usize], position)?;
        position += length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserving_adds_zeros_behind_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let reserve_in = [|file: &File, bytes| file.reserve(bytes), write_zeros];
        for (name, reserve) in ["allocated", "written"].iter().zip(reserve_in) {
            let path = dir.path().join(name);
            std::fs::write(&path, b"kept").unwrap();
            reserve(
                &OpenOptions::new().write(true).open(&path).unwrap(),
                ZEROS_BYTES as u64 + 9,
            )
            .unwrap();
            let found = std::fs::read(&path).unwrap();
            assert_eq!((&found[..4], found.len()), (b"kept".as_slice(), ZEROS_BYTES + 9));
            assert!(found[4..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn a_file_that_is_there_already_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.wal");
        std::fs::write(&path, b"kept").unwrap();
        assert!(LocalDisk.create(&path, 10).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"kept");
    }

    #[test]
    fn an_empty_file_can_be_made_and_linked_once() {
        let dir = tempfile::tempdir().unwrap();
        let [written, object] = ["written", "object"].map(|name| dir.path().join(name));
        LocalDisk.create(&written, 0).unwrap().write_at(b"whole", 0).unwrap();
        LocalDisk.link(&written, &object).unwrap();
        let again = LocalDisk.link(&written, &object).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        LocalDisk.remove(&written).unwrap();
        assert_eq!(std::fs::read(&object).unwrap(), b"whole");
    }

    #[test]
    fn every_missing_directory_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("made/on/the/way");
        create_dir_durably(&LocalDisk, &deep).unwrap();
        create_dir_durably(&LocalDisk, &deep).unwrap();
        assert!(deep.is_dir());
    }
}
