//! Zigzag varints, as in Protocol Buffers: seven bits a byte, lowest first, the top bit set on all but the last.

use crate::error::RecordError;
use crate::source::Source;

/// Reads a varint of a signed field of 32 bits: at most 5 bytes.
#[inline]
pub(crate) fn read_i32<S: Source>(source: &mut S) -> Result<i32, S::Error> {
    let raw = read_raw::<32, S>(source)? as u32;
    Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
}

/// Reads a varint of a signed field of 64 bits: at most 10 bytes.
#[inline]
pub(crate) fn read_i64<S: Source>(source: &mut S) -> Result<i64, S::Error> {
    let raw = read_raw::<64, S>(source)?;
    Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
}

/// Reads the varint at a position if it is there and takes at most 3 bytes: its value, and where it ends.
#[inline(always)]
pub(crate) fn read_short(bytes: &[u8], at: usize) -> Option<(i32, usize)> {
    let (raw, end) = read_short_raw(bytes, at)?;
    Some(((raw >> 1) as i32 ^ -((raw & 1) as i32), end))
}

/// As [`read_short`], for a length or the -1 of what is null. Without negative numbers there is less to compute, and where
/// the next record begins waits for it.
#[inline(always)]
pub(crate) fn read_short_length(bytes: &[u8], at: usize) -> Option<(Option<usize>, usize)> {
    const NULL: u32 = 1;
    let (raw, end) = read_short_raw(bytes, at)?;
    match raw {
        NULL => Some((None, end)),
        _ if raw & 1 == 0 => Some((Some((raw >> 1) as usize), end)),
        _ => None,
    }
}

#[inline(always)]
fn read_short_raw(bytes: &[u8], at: usize) -> Option<(u32, usize)> {
    let byte = |index: usize| bytes.get(at + index).copied().map(u32::from);
    let first = byte(0)?;
    if first & 0x80 == 0 {
        return Some((first, at + 1));
    }
    let second = byte(1)?;
    if second & 0x80 == 0 {
        return Some((first & 0x7f | second << 7, at + 2));
    }
    let third = byte(2)?;
    if third & 0x80 == 0 {
        return Some((first & 0x7f | (second & 0x7f) << 7 | third << 14, at + 3));
    }
    None
}

/// Nearly all varints of a record take one or two bytes, which are read without a loop.
#[inline]
fn read_raw<const BITS: u32, S: Source>(source: &mut S) -> Result<u64, S::Error> {
    let position = source.position();
    let first = source.byte()?;
    if first & 0x80 == 0 {
        return Ok(first.into());
    }
    let second = source.byte()?;
    let value = u64::from(first & 0x7f) | u64::from(second & 0x7f) << 7;
    if second & 0x80 == 0 {
        return Ok(value);
    }
    read_rest::<BITS, S>(source, position, value)
}

/// Reads on after two bytes, which gave `value`.
#[inline(never)]
fn read_rest<const BITS: u32, S: Source>(source: &mut S, position: usize, mut value: u64) -> Result<u64, S::Error> {
    let mut shift = 14;
    loop {
        let byte = source.byte()?;
        // The last byte that fits holds fewer than seven bits and has no successor; both show as a greater value.
        if shift + 7 > BITS && u64::from(byte) >> (BITS - shift) != 0 {
            return Err(RecordError::Varint { position, bits: BITS }.into());
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
        shift += 7;
    }
}

/// Appends `value` as a varint. For values that fit 32 bits the bytes are those of a field of 32 bits.
#[inline]
pub(crate) fn write(out: &mut Vec<u8>, value: i64) {
    let mut raw = zigzag(value);
    // Nearly all varints of a record take one or two bytes, which are written without a loop.
    if raw < 0x80 {
        return out.push(raw as u8);
    }
    if raw < 0x4000 {
        return out.extend_from_slice(&[raw as u8 | 0x80, (raw >> 7) as u8]);
    }
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

/// Up to 8 bytes of short varints, one behind the other, which are put together in a register and written at once.
#[derive(Clone, Copy, Default)]
pub(crate) struct Short {
    word: u64,
    len: usize,
}

impl Short {
    pub(crate) const LEN_MAX: usize = size_of::<u64>();

    /// Adds a varint; `None` where it takes more than 3 bytes, or all together more than 8.
    #[inline(always)]
    pub(crate) fn varint(self, value: i64) -> Option<Short> {
        let raw = zigzag(value);
        let (word, len) = match raw {
            0..0x80 => (raw, 1),
            0x80..0x4000 => (raw & 0x7f | raw << 1 & 0x7f00 | 0x80, 2),
            0x4000..0x20_0000 => (raw & 0x7f | raw << 1 & 0x7f00 | raw << 2 & 0x7f_0000 | 0x8080, 3),
            _ => return None,
        };
        self.then(Short { word, len })
    }

    /// Adds others; `None` where all together are more than 8 bytes.
    #[inline(always)]
    pub(crate) fn then(self, others: Short) -> Option<Short> {
        let len = self.len + others.len;
        // Eight bytes have no room for more, and their shift would be that of none.
        let word = self.word | others.word << (8 * self.len as u32 % u64::BITS);
        (len <= Self::LEN_MAX && self.len < Self::LEN_MAX).then_some(Short { word, len })
    }

    pub(crate) fn len(self) -> usize {
        self.len
    }

    /// Appends the bytes. Those beyond are written too, and taken away.
    #[inline(always)]
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        let end = out.len() + self.len;
        out.extend_from_slice(&self.word.to_le_bytes());
        out.truncate(end);
    }
}

/// Bytes that [`write`] appends for `value`.
#[inline]
pub(crate) fn len(value: i64) -> usize {
    let last_bit = 63 - (zigzag(value) | 1).leading_zeros() as usize;
    // For 0 to 63 the same as `last_bit / 7 + 1`, without a division.
    (last_bit * 9 + 73) / 64
}

#[inline]
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SliceSource;

    #[test]
    fn varints_round_trip_at_every_width() {
        let edges = (0..64).flat_map(|bit| [1i64 << bit, (1i64 << bit).wrapping_sub(1), -(1i64 << bit.min(62))]);
        for value in edges.chain([i64::MIN, i64::MAX, 0, -1]) {
            let mut bytes = Vec::new();
            write(&mut bytes, value);
            assert_eq!(bytes.len(), len(value), "{value}");
            assert_eq!(read_i64(&mut SliceSource::new(&bytes)), Ok(value));
            if let Ok(narrow) = i32::try_from(value) {
                assert_eq!(read_i32(&mut SliceSource::new(&bytes)), Ok(narrow));
            } else {
                let error = RecordError::Varint { position: 0, bits: 32 };
                assert_eq!(read_i32(&mut SliceSource::new(&bytes)), Err(error), "{value}");
            }
        }
    }

    #[test]
    fn short_varints_are_written_together_as_one_by_one() {
        let values = [0, -1, 63, 64, -64, -65, 8_191, 8_192, -8_193, 1_048_575, -1_048_576];
        for (first, second) in values.iter().flat_map(|first| values.map(|second| (*first, second))) {
            let (mut together, mut one_by_one) = (vec![7], vec![7]);
            let short = Short::default().varint(first).and_then(|short| short.varint(second));
            short.unwrap().write(&mut together);
            write(&mut one_by_one, first);
            write(&mut one_by_one, second);
            assert_eq!(together, one_by_one, "{first} {second}");
        }
    }

    #[test]
    fn what_is_no_short_varint_is_not_written_as_one() {
        assert!(Short::default().varint(1_048_576).is_none());
        assert!(Short::default().varint(-1_048_577).is_none());
        let three = Short::default().varint(8_192).unwrap();
        let six = three.then(three).unwrap();
        assert!(six.then(three).is_none());
        let eight = six.varint(64).unwrap();
        assert!(eight.varint(0).is_none());
    }

    #[test]
    fn a_varint_that_overflows_is_refused() {
        let too_wide = [&[0xff; 9][..], &[0x02]].concat();
        let too_long = [&[0x80; 10][..], &[0x00]].concat();
        for bytes in [too_wide, too_long] {
            let error = RecordError::Varint { position: 0, bits: 64 };
            assert_eq!(read_i64(&mut SliceSource::new(&bytes)), Err(error));
        }
        let error = RecordError::Varint { position: 0, bits: 32 };
        assert_eq!(
            read_i32(&mut SliceSource::new(&[0xff, 0xff, 0xff, 0xff, 0x1f])),
            Err(error)
        );
        assert_eq!(
            read_i32(&mut SliceSource::new(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00])),
            Err(error)
        );
    }

    #[test]
    fn a_varint_that_is_cut_short_is_refused() {
        let error = RecordError::CutShort { position: 2 };
        assert_eq!(read_i64(&mut SliceSource::new(&[0x80, 0x80])), Err(error));
    }
}
