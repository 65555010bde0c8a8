//! What the log asks of the file system, as a seam: the real one, and one that fails on demand for the tests.
//!
//! Each must guarantee:
//! 1. `create` gives a file of exactly that many zeros whose room is reserved, or leaves nothing behind. A file that is
//!    already there is an error.
//! 2. `reserve` makes a file that many bytes long with zeros behind what it had, the room for them reserved, or leaves
//!    what it had as it was.
//! 3. After `sync_data` everything written to the file before is durable, its length included.
//! 4. After `sync_dir` the creations and removals in the directory are durable.

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
    fn reserve(&self, bytes: u64) -> io::Result<()>;
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;
    fn sync_data(&self) -> io::Result<()>;
}

/// The file system of this machine.
pub(super) struct LocalDisk;

impl Disk for LocalDisk {
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        if let Err(error) = file.reserve(bytes) {
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
}
