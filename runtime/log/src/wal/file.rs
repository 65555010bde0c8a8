//! What the log asks of the file system, as a seam: the real one, and one that fails on demand for the tests.
//!
//! Each must guarantee:
//! 1. `create` gives a file of exactly that many zeros whose room is reserved, or leaves nothing behind. A file that is
//!    already there is an error.
//! 2. After `sync_data` everything written to the file before is durable, its length included.
//! 3. After `sync_dir` the creations and removals in the directory are durable.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, retry_on_intr};

/// How much is written at once where room has to be reserved by writing zeros.
const ZEROS_BYTES: usize = 1 << 20;

pub(super) trait Disk: Send + Sync + 'static {
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn DiskFile>>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

pub(super) trait DiskFile: Send + Sync + 'static {
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;
    fn sync_data(&self) -> io::Result<()>;
}

/// The file system of this machine.
pub(super) struct LocalDisk;

impl Disk for LocalDisk {
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        if let Err(error) = reserve(&file, bytes) {
            drop(file);
            std::fs::remove_file(path)?;
            return Err(error);
        }
        Ok(Arc::new(file))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

impl DiskFile for File {
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.write_all_at(bytes, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }
}

/// Reserves room, so that a full disk shows here, where nothing depends on it yet, and not at a write.
fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    match retry_on_intr(|| fallocate(file, FallocateFlags::empty(), 0, bytes)) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file, bytes),
        Err(error) => Err(error.into()),
    }
}

fn write_zeros(file: &File, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS_BYTES];
    let mut position = 0;
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
    fn room_reserved_by_writing_reads_as_zeros_of_the_asked_length() {
        let file = tempfile::NamedTempFile::new().unwrap();
        write_zeros(file.as_file(), ZEROS_BYTES as u64 + 5).unwrap();
        assert!(std::fs::read(file.path()).unwrap().iter().all(|byte| *byte == 0));
        assert_eq!(file.path().metadata().unwrap().len(), ZEROS_BYTES as u64 + 5);
    }

    #[test]
    fn a_file_that_is_there_already_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.wal");
        std::fs::write(&path, b"kept").unwrap();
        assert!(LocalDisk.create(&path, 10).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"kept");
    }
}
