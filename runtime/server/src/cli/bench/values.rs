//! The values of records: made from their numbers, so that a reader knows what each has to be.

use std::{fs, path::Path, sync::Arc};

use anyhow::Context as _;

use super::settings::Filling;

/// Where synthetic values are cut out of.
const POOL_BYTES: usize = 2 << 20;
/// Most that a file of values may have: all of it is in memory.
const FILE_BYTES_MAX: u64 = 1 << 30;
const NUMBER_BYTES: usize = 8;
const WORDS: [&str; 8] = [
    "GET ",
    "/index ",
    "200 ",
    "order=",
    "user-7 ",
    "HTTP/1.1 ",
    "latency_ms ",
    "2015-05-17 ",
];

/// Values of records, by number.
#[derive(Clone, Debug)]
pub struct Values(Arc<Source>);

#[derive(Debug)]
enum Source {
    /// The number in eight bytes, and a piece of the pool.
    Synthetic { pool: Vec<u8>, bytes: usize },
    /// Lines of a file, again and again.
    Lines { text: Vec<u8>, ends: Vec<usize> },
}

impl Values {
    pub fn synthetic(filling: Filling, bytes: usize) -> Values {
        let mut random = fastrand::Rng::with_seed(1);
        let mut pool = Vec::with_capacity(POOL_BYTES + 16);
        while pool.len() < POOL_BYTES {
            match filling {
                Filling::Random => pool.extend_from_slice(&random.u64(..).to_le_bytes()),
                Filling::Text => pool.extend_from_slice(WORDS[random.usize(..WORDS.len())].as_bytes()),
            }
        }
        Values(Arc::new(Source::Synthetic { pool, bytes }))
    }

    pub fn from_file(path: &Path) -> anyhow::Result<Values> {
        let name = || path.display().to_string();
        let bytes = fs::metadata(path).with_context(name)?.len();
        if bytes > FILE_BYTES_MAX {
            anyhow::bail!(
                "{} has {bytes} bytes; a file of values has {FILE_BYTES_MAX} at most",
                name()
            );
        }
        let mut text = fs::read(path).with_context(name)?;
        if text.last().is_some_and(|last| *last != b'\n') {
            text.push(b'\n');
        }
        let ends: Vec<usize> = text
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'\n')
            .map(|(at, _)| at)
            .collect();
        if ends.is_empty() {
            anyhow::bail!("{} has no lines", name());
        }
        Ok(Values(Arc::new(Source::Lines { text, ends })))
    }

    /// How many bytes a value has, on the average.
    pub fn mean_bytes(&self) -> usize {
        match &*self.0 {
            Source::Synthetic { bytes, .. } => *bytes,
            Source::Lines { text, ends } => text.len() / ends.len() - 1,
        }
    }

    /// The value of the record with this number, in `room` where it has to be made.
    pub fn get<'a>(&'a self, number: u64, room: &'a mut Vec<u8>) -> &'a [u8] {
        match &*self.0 {
            Source::Synthetic { pool, bytes } => {
                room.clear();
                room.extend_from_slice(&number.to_be_bytes());
                room.extend_from_slice(piece(pool, number, bytes - NUMBER_BYTES));
                room
            }
            Source::Lines { text, ends } => line(text, ends, number),
        }
    }

    /// Whether this is the value of the record with this number.
    pub fn is(&self, number: u64, value: Option<&[u8]>) -> bool {
        let Some(value) = value else { return false };
        match &*self.0 {
            Source::Synthetic { pool, bytes } => {
                let (head, rest) = value.split_at_checked(NUMBER_BYTES).unwrap_or_default();
                head == number.to_be_bytes() && rest == piece(pool, number, bytes - NUMBER_BYTES)
            }
            Source::Lines { text, ends } => value == line(text, ends, number),
        }
    }
}

fn piece(pool: &[u8], number: u64, bytes: usize) -> &[u8] {
    let at = (number.wrapping_mul(2_654_435_761) % (POOL_BYTES - bytes) as u64) as usize;
    &pool[at..at + bytes]
}

fn line<'a>(text: &'a [u8], ends: &[usize], number: u64) -> &'a [u8] {
    let at = (number % ends.len() as u64) as usize;
    let start = at.checked_sub(1).map_or(0, |before| ends[before] + 1);
    &text[start..ends[at]]
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn each_number_has_its_value_and_no_other() {
        for filling in [Filling::Text, Filling::Random] {
            let (values, mut room) = (Values::synthetic(filling, 100), Vec::new());
            for number in [0, 1, 77, u64::MAX >> 1] {
                let value = values.get(number, &mut room).to_vec();
                assert_eq!(value.len(), 100);
                assert!(values.is(number, Some(&value)) && !values.is(number + 1, Some(&value)));
                let mut other = value.clone();
                other[99] ^= 1;
                assert!(!values.is(number, Some(&other)) && !values.is(number, None));
                assert!(!values.is(number, Some(&value[..5])));
            }
        }
    }

    #[test]
    fn lines_of_a_file_come_again_and_again() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"a\n\nccc").unwrap();
        let values = Values::from_file(file.path()).unwrap();
        let all: Vec<Vec<u8>> = (0..4)
            .map(|number| values.get(number, &mut Vec::new()).to_vec())
            .collect();
        assert_eq!(all, [&b"a"[..], b"", b"ccc", b"a"]);
        assert!(values.is(5, Some(b"ccc")));
    }
}
