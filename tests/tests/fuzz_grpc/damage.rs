//! Bytes that are damaged, and frames that are none.

use bytes::Bytes;
use millstream_tests::{
    Random,
    raw::{Body, PREFIX_BYTES, frame},
};

/// Bytes of what is random from its first to its last one.
const NOISE_BYTES_MAX: u64 = 300;
/// What a client may say of its compression.
const ENCODINGS: [&str; 4] = ["gzip", "zstd", "identity", "nonsense"];

/// Random bytes.
pub fn noise(random: &mut Random) -> Vec<u8> {
    let length = random.within(0..NOISE_BYTES_MAX);
    (0..length).map(|_| random.number() as u8).collect()
}

/// The same bytes, damaged in one to four places.
pub fn bytes(good: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..random.within(1..5) {
        let at = random.within(0..bytes.len() as u64 + 1) as usize;
        let Some(byte) = bytes.get_mut(at) else {
            bytes.push(random.number() as u8);
            continue;
        };
        match random.within(0..7) {
            0 => *byte ^= 1 << random.within(0..8),
            1 => *byte = random.number() as u8,
            2 => bytes.insert(at, random.number() as u8),
            3 => drop(bytes.remove(at)),
            4 => bytes.truncate(at),
            // The longest number there is, and one byte more.
            5 => drop(bytes.splice(at..at, [0xff; 10])),
            _ => {
                let end = at + random.within(0..(bytes.len() - at) as u64 + 1) as usize;
                bytes.extend_from_within(at..end);
            }
        }
    }
    bytes
}

/// Makes frames of a good body that are wrong in one way.
pub fn frames(good: Body, random: &mut Random) -> Body {
    let mut bytes = good.pieces.concat();
    let mut encoding = None;
    match random.within(0..9) {
        0 => bytes = frame(0, &noise(random)),
        1 => bytes.truncate(random.within(0..bytes.len() as u64) as usize),
        2 => set_length(&mut bytes, |length| length.wrapping_add(random.within(1..100) as u32)),
        3 => set_length(&mut bytes, |length| length.wrapping_sub(random.within(1..100) as u32)),
        4 => set_length(&mut bytes, |_| random.number() as u32),
        // Compressed, and nobody has said how; or a flag that means nothing.
        5 => bytes[0] = [1, 2, 0xff][random.within(0..3) as usize],
        6 => {
            bytes[0] = 1;
            encoding = Some(ENCODINGS[random.within(0..ENCODINGS.len() as u64) as usize]);
        }
        7 => bytes.extend(noise(random)),
        _ => bytes.extend_from_within(..),
    }
    Body {
        pieces: pieces(bytes, random),
        encoding,
    }
}

fn set_length(bytes: &mut [u8], change: impl FnOnce(u32) -> u32) {
    let field = bytes[1..PREFIX_BYTES].try_into().expect("a length has four bytes");
    let length = change(u32::from_be_bytes(field));
    bytes[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
}

/// Cuts bytes in pieces, wherever it may be.
fn pieces(bytes: Vec<u8>, random: &mut Random) -> Vec<Bytes> {
    let (mut rest, mut pieces) = (Bytes::from(bytes), Vec::new());
    while !rest.is_empty() {
        let length = random.within(1..rest.len() as u64 + 1) as usize;
        pieces.push(rest.split_to(length));
    }
    pieces
}
