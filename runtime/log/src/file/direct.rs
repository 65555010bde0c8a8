//! Files that the system need not keep in memory: those of the write-ahead log, which nobody reads but for a recovery, and
//! objects, of which the block cache keeps what is read.
//!
//! What the system keeps of a file costs a copy, and a page for each 4 KiB: at hundreds of megabytes a second that is most of
//! what writing takes, for pages that nobody looks at. So large writes go past it (`O_DIRECT`). Such a write has to begin and
//! end at whole blocks, in the file and in memory. What comes before the first whole block and behind the last one is written
//! as everything else is; the system keeps both views of a file the same. Where a file system does not know it, all goes the
//! usual way.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::fs::OFlags;

use super::DiskFile;

/// A multiple of the blocks of the disks there are.
pub(crate) const BLOCK_BYTES: usize = 4 << 10;
/// Smaller writes and reads cost less the usual way.
pub(crate) const DIRECT_BYTES_MIN: usize = 256 << 10;
/// How much is written at once.
const PIECE_BYTES: usize = 1 << 20;

/// A file whose large writes go past the system's memory.
#[derive(Debug)]
pub(super) struct DirectFile {
    usual: File,
    /// `None` where the file system does not know it.
    direct: Mutex<Option<Direct>>,
}

#[derive(Debug)]
struct Direct {
    file: File,
    /// Where a piece is copied to that does not begin at a whole block of memory; made with the first.
    room: Vec<u8>,
}

impl DirectFile {
    /// The file at `path`, which is open as `usual` too.
    pub(super) fn new(path: &Path, usual: File) -> DirectFile {
        let flags = OFlags::DIRECT.bits() as i32;
        let direct = OpenOptions::new().write(true).custom_flags(flags).open(path);
        let direct = direct.inspect_err(|error| tracing::debug!(?path, %error, "large writes go the usual way"));
        let direct = direct.map(|file| Direct { file, room: Vec::new() });
        DirectFile {
            usual,
            direct: Mutex::new(direct.ok()),
        }
    }

    /// Writes whole blocks.
    fn write_blocks(&self, blocks: &[u8], position: u64) -> io::Result<()> {
        // A copy that was cut short by a panic is not looked at again.
        let mut direct = self.direct.lock().unwrap_or_else(PoisonError::into_inner);
        let mut position = position;
        for piece in blocks.chunks(PIECE_BYTES) {
            let written = direct.as_mut().map(|direct| direct.write(piece, position));
            match written {
                Some(Err(error)) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
                    tracing::debug!(%error, "large writes go the usual way from here on");
                    *direct = None;
                    self.usual.write_all_at(piece, position)?;
                }
                Some(written) => written?,
                None => self.usual.write_all_at(piece, position)?,
            }
            position += piece.len() as u64;
        }
        Ok(())
    }
}

impl Direct {
    fn write(&mut self, piece: &[u8], position: u64) -> io::Result<()> {
        if piece.as_ptr().align_offset(BLOCK_BYTES) == 0 {
            return self.file.write_all_at(piece, position);
        }
        if self.room.is_empty() {
            self.room = vec![0; PIECE_BYTES + BLOCK_BYTES];
        }
        let start = self.room.as_ptr().align_offset(BLOCK_BYTES);
        let room = &mut self.room[start..start + piece.len()];
        room.copy_from_slice(piece);
        self.file.write_all_at(room, position)
    }
}

impl DiskFile for DirectFile {
    fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.usual.reserve(bytes)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        if bytes.len() < DIRECT_BYTES_MIN {
            return self.usual.write_all_at(bytes, position);
        }
        let into_block = position as usize % BLOCK_BYTES;
        let (head, rest) = bytes.split_at((BLOCK_BYTES - into_block) % BLOCK_BYTES);
        let (blocks, tail) = rest.split_at(rest.len() - rest.len() % BLOCK_BYTES);
        let blocks_at = position + head.len() as u64;
        self.usual.write_all_at(head, position)?;
        self.write_blocks(blocks, blocks_at)?;
        self.usual.write_all_at(tail, blocks_at + blocks.len() as u64)
    }

    fn sync_data(&self) -> io::Result<()> {
        // Of the file, whichever way it was written.
        self.usual.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(count: usize, seed: usize) -> Vec<u8> {
        (0..count).map(|at| (at * 31 + at / 251 + seed * 7) as u8).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn writes_behind_each_other_are_read_as_they_were_made(
            sizes in proptest::collection::vec(
                prop_oneof![0..200usize, 4_000..5_000usize, 250_000..300_000usize, 1_040_000..1_060_000usize],
                1..8,
            ),
            start in 0..9_000u64,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("0.wal");
            let usual = File::create(&path).unwrap();
            usual.set_len(10 << 20).unwrap();
            let file = DirectFile::new(&path, usual);
            let (mut expected, mut position) = (vec![0; 10 << 20], start);
            for (seed, size) in sizes.into_iter().enumerate() {
                let bytes = bytes(size, seed);
                // Every other one lies in memory as in the file, so far as blocks go.
                let mut lying = vec![0; size + BLOCK_BYTES];
                let gap = lying.as_ptr().align_offset(BLOCK_BYTES) + position as usize % BLOCK_BYTES * (seed % 2);
                let gap = gap % BLOCK_BYTES;
                lying[gap..][..size].copy_from_slice(&bytes);
                file.write_at(&lying[gap..][..size], position).unwrap();
                expected[position as usize..][..size].copy_from_slice(&bytes);
                position += size as u64;
            }
            file.sync_data().unwrap();
            prop_assert!(std::fs::read(&path).unwrap() == expected);
            if file.direct.lock().unwrap().is_none() {
                println!("skipped: the file system of {path:?} knows no direct writes");
            }
        }
    }

    #[test]
    fn where_direct_writes_are_refused_all_goes_the_usual_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.wal");
        let file = DirectFile {
            usual: File::create(&path).unwrap(),
            direct: Mutex::new(Some(Direct {
                // One of the system's own, which takes numbers alone and says EINVAL to anything else.
                file: OpenOptions::new().write(true).open("/proc/self/oom_score_adj").unwrap(),
                room: Vec::new(),
            })),
        };
        let bytes = bytes(DIRECT_BYTES_MIN * 5, 1);
        file.write_at(&bytes, 7).unwrap();
        assert!(std::fs::read(&path).unwrap()[7..] == bytes);
        assert!(file.direct.lock().unwrap().is_none());
    }

    #[test]
    fn without_direct_writes_all_goes_the_usual_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.wal");
        let file = DirectFile {
            usual: File::create(&path).unwrap(),
            direct: Mutex::new(None),
        };
        let bytes = bytes(DIRECT_BYTES_MIN * 5, 1);
        file.write_at(&bytes, 0).unwrap();
        assert!(std::fs::read(&path).unwrap() == bytes);
    }
}
