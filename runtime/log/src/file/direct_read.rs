//! Reads past what the system keeps of files in memory, for pieces that are kept by who reads them.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::BLOCK_BYTES;

/// How much memory is kept for the next reads. What is read at once is mostly let go at once, when a cache makes room.
const KEPT_BYTES_MAX: usize = 16 << 20;

/// Reads large pieces of files into memory that is used again: new memory costs a page fault for each 4 KiB, which is more than
/// reading them does.
#[derive(Clone, Debug, Default)]
pub(crate) struct DirectReader {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    memories: Vec<Vec<u8>>,
    bytes: usize,
}

impl DirectReader {
    /// Reads all of `range` from a file that nobody else reads with: past the system's memory (`O_DIRECT`), and the usual way
    /// where the file system does not know that. An error of kind `UnexpectedEof` where the file ends before.
    pub(crate) fn read(&self, file: &File, range: Range<u64>) -> io::Result<Bytes> {
        let read = set_direct(file, true).and_then(|()| self.read_blocks(file, &range));
        match read {
            Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
                tracing::debug!(%error, "a large read goes the usual way");
                set_direct(file, false)?;
                let mut bytes = vec![0; (range.end - range.start) as usize];
                file.read_exact_at(&mut bytes, range.start)?;
                Ok(bytes.into())
            }
            read => read,
        }
    }

    /// Reads the whole blocks, in the file and in memory, in which the range lies.
    fn read_blocks(&self, file: &File, range: &Range<u64>) -> io::Result<Bytes> {
        const BLOCK: u64 = BLOCK_BYTES as u64;
        let begin = range.start - range.start % BLOCK;
        let length = (range.end.next_multiple_of(BLOCK) - begin) as usize;
        let mut memory = self.memory(length + BLOCK_BYTES);
        let gap = memory.bytes.as_ptr().align_offset(BLOCK_BYTES);
        let blocks = &mut memory.bytes[gap..gap + length];
        let wanted = (range.start - begin) as usize..(range.end - begin) as usize;
        let mut read = 0;
        while read < wanted.end {
            match file.read_at(&mut blocks[read..], begin + read as u64) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(more) => read += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Bytes::from_owner(memory).slice(gap + wanted.start..gap + wanted.end))
    }

    /// So many bytes at least, and not more than a quarter more.
    fn memory(&self, bytes: usize) -> Memory {
        let mut kept = self.kept();
        let fits = |memory: &Vec<u8>| (bytes..=bytes + bytes / 4).contains(&memory.len());
        let found = kept.memories.iter().rposition(fits);
        let found = found.map(|at| kept.memories.swap_remove(at));
        kept.bytes -= found.as_ref().map_or(0, Vec::len);
        drop(kept);
        Memory {
            bytes: found.unwrap_or_else(|| vec![0; bytes]),
            reader: self.clone(),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing panics while it holds this lock.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory that is kept for the next read once nobody looks at it any more.
struct Memory {
    bytes: Vec<u8>,
    reader: DirectReader,
}

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut kept = self.reader.kept();
        kept.bytes += bytes.len();
        kept.memories.push(bytes);
        // Those that have waited longest go: what is read now is as long as what was let go last.
        let mut gone = Vec::new();
        while kept.bytes > KEPT_BYTES_MAX {
            let oldest = kept.memories.remove(0);
            kept.bytes -= oldest.len();
            gone.push(oldest);
        }
        drop(kept);
    }
}

fn set_direct(file: &File, direct: bool) -> io::Result<()> {
    let mut flags = fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, direct);
    Ok(fcntl_setfl(file, flags)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_of(bytes: &[u8]) -> (tempfile::TempDir, File) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("object");
        std::fs::write(&path, bytes).unwrap();
        let file = File::open(path).unwrap();
        (dir, file)
    }

    #[test]
    fn any_range_is_read_as_it_is() {
        let bytes: Vec<u8> = (0..3 * BLOCK_BYTES + 77).map(|at| (at * 31 + at / 251) as u8).collect();
        let (_dir, file) = file_of(&bytes);
        let edges = [0, 1, 4_095, 4_096, 4_097, 8_192, 12_288, bytes.len() - 1, bytes.len()];
        for (at, start) in edges.iter().enumerate() {
            for end in &edges[at..] {
                let read = DirectReader::default().read(&file, *start as u64..*end as u64).unwrap();
                assert!(read == bytes[*start..*end], "{start}..{end}");
            }
        }
    }

    #[test]
    fn what_lies_behind_the_end_is_an_error() {
        let (_dir, file) = file_of(&[7; 5_000]);
        for range in [0..5_001, 4_999..9_000, 8_192..8_193, 20_000..20_001] {
            let error = DirectReader::default().read(&file, range).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn where_direct_reads_are_not_known_all_goes_the_usual_way() {
        // Files of the system's own do not know them.
        let file = File::open("/proc/version").unwrap();
        let whole = std::fs::read("/proc/version").unwrap();
        assert_eq!(
            DirectReader::default().read(&file, 3..whole.len() as u64).unwrap(),
            whole[3..]
        );
    }

    #[test]
    fn memory_is_used_again_once_nobody_looks_at_it() {
        let reader = DirectReader::default();
        let [first, held] = [20_000, 20_000].map(|bytes| Bytes::from_owner(reader.memory(bytes)));
        let (part, at) = (first.slice(5..9), first.as_ptr());
        drop(first);
        assert_eq!(reader.kept().memories.len(), 0);
        drop(part);
        let again = reader.memory(18_000);
        assert_eq!(again.bytes.as_ptr(), at);
        drop((held, again));
        // Much smaller ones do not take it.
        let small = reader.memory(BLOCK_BYTES);
        assert_eq!(small.bytes.len(), BLOCK_BYTES);
        assert_eq!(reader.kept().memories.len(), 2);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let reader = DirectReader::default();
        let all: Vec<_> = (0..40).map(|_| reader.memory(1 << 20)).collect();
        drop(all);
        let kept = reader.kept();
        assert_eq!((kept.bytes, kept.memories.len()), (KEPT_BYTES_MAX, 16));
    }
}
