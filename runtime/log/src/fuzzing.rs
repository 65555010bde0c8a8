//! What the fuzz targets and the test of their corpus call: each takes any bytes, as a disk or a store may give them, and
//! must neither panic nor allocate by a length that was not checked.
//!
//! Everything is under a checksum, so that random bytes would rarely come further than to a wrong one. Each therefore also
//! runs with the checksums put right, as a faulty writer would have left the bytes.

use std::sync::OnceLock;

use bytes::Bytes;
use millstream_batch::{Batch, BatchError, Limits, RecordIter};
use tokio::runtime::Runtime;

use crate::segment::{SegmentReader, decode_lone_block, inspect};
use crate::store::Store;
use crate::wal::decode_group;

/// A target: its name, which is that of its corpus too, and what it runs.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 5] = [
    ("batch", batch),
    ("wal_group", wal_group),
    ("wal_frame", wal_frame),
    ("segment", segment),
    ("block", block),
];

/// The most a batch may decompress to here.
const RECORDS_BYTES_MAX: usize = 1 << 20;
const BATCH_CRC_AT: usize = 17;
const GROUP_BYTES: usize = 64;
const GROUP_CRC_AT: usize = 60;
const FOOTER_BYTES: usize = 64;
const BLOCK_BYTES: usize = 40;
const BLOCK_CRC_AT: usize = 36;

/// A batch, at the door and as stored.
pub fn batch(data: &[u8]) {
    let mut repaired = data.to_vec();
    let taken = Batch::split_first(&mut Bytes::copy_from_slice(data));
    if let Err(BatchError::Crc { computed, .. }) = taken {
        put(&mut repaired, BATCH_CRC_AT, computed);
    }
    for bytes in [Bytes::copy_from_slice(data), repaired.into()] {
        if let Ok(batch) = Batch::validate(bytes.clone(), &Limits::default()) {
            assert_eq!(batch.to_bytes(), bytes, "a batch that was taken is those bytes");
            let records = batch.decompressed(RECORDS_BYTES_MAX);
            let count = records.map_or(0, |records| RecordIter::new(&records).filter(Result::is_ok).count());
            assert!(
                count == 0 || count == batch.record_count() as usize,
                "a batch that was taken holds its records"
            );
        }
        let mut rest = bytes.clone();
        while !rest.is_empty() && Batch::split_first(&mut rest).is_ok() {}
    }
}

/// A group of the write-ahead log, with its frames.
pub fn wal_group(data: &[u8]) {
    let mut repaired = data.to_vec();
    repair_frames(repaired.get_mut(GROUP_BYTES..).unwrap_or_default());
    repair_head(&mut repaired);
    for bytes in [data, &repaired] {
        let _ = decode_group(bytes);
    }
}

/// One frame's body, in a group of its own.
pub fn wal_frame(data: &[u8]) {
    let mut group = vec![0; GROUP_BYTES + 8];
    group[..4].copy_from_slice(b"MSWG");
    group[5] = 1;
    put(&mut group, 48, data.len() as u32 + 8);
    put(&mut group, 52, 1);
    put(&mut group, GROUP_BYTES, data.len() as u32);
    group.extend_from_slice(data);
    repair_frames(&mut group[GROUP_BYTES..]);
    repair_head(&mut group);
    let _ = decode_group(&group);
}

/// A whole segment: header, blocks, index, notes and footer, and the blocks alone where the rest is damaged.
pub fn segment(data: &[u8]) {
    let mut repaired = data.to_vec();
    repair_footer(&mut repaired);
    for bytes in [Bytes::copy_from_slice(data), repaired.into()] {
        let _ = inspect("fuzz", bytes.clone());
        let store = Store::memory();
        let length = bytes.len() as u64;
        let read = async {
            store.put_new("fuzz", vec![bytes]).await?;
            let reader = SegmentReader::open(&store, "fuzz", length, None).await?;
            for block in 0..reader.block_count() {
                reader.read_block(&store, block).await?;
            }
            Ok::<_, crate::LogError>(())
        };
        let _ = runtime().block_on(read);
    }
}

/// One block of a segment.
pub fn block(data: &[u8]) {
    let mut repaired = data.to_vec();
    if data.len() >= BLOCK_BYTES {
        let stored_end = BLOCK_BYTES.saturating_add(u32_at(data, 8) as usize).min(data.len());
        let crc = crc32(&[&data[..BLOCK_CRC_AT], &data[BLOCK_BYTES..stored_end]]);
        put(&mut repaired, BLOCK_CRC_AT, crc);
    }
    for bytes in [Bytes::copy_from_slice(data), repaired.into()] {
        let Ok(mut batches) = decode_lone_block(&bytes) else {
            continue;
        };
        while !batches.is_empty() && Batch::split_first(&mut batches).is_ok() {}
    }
}

/// Puts right the checksum of each frame, as far as their lengths make sense.
fn repair_frames(mut frames: &mut [u8]) {
    while frames.len() >= 8 {
        let end = 8usize.saturating_add(u32_at(frames, 0) as usize);
        if end > frames.len() {
            return;
        }
        let (frame, rest) = frames.split_at_mut(end);
        let crc = crc32(&[&frame[..4], &frame[8..]]);
        frame[4..8].copy_from_slice(&crc.to_be_bytes());
        frames = rest;
    }
}

/// Puts right the checksum of a header of 64 bytes that ends with it.
fn repair_head(bytes: &mut [u8]) {
    if bytes.len() >= GROUP_BYTES {
        let crc = crc32(&[&bytes[..GROUP_CRC_AT]]);
        put(bytes, GROUP_CRC_AT, crc);
    }
}

/// Puts right the checksums of the segment's header, of index and notes, and of the footer.
fn repair_footer(bytes: &mut [u8]) {
    repair_head(bytes);
    let Some(at) = bytes.len().checked_sub(FOOTER_BYTES) else {
        return;
    };
    let index = u64::from(u32_at(bytes, at)) << 32 | u64::from(u32_at(bytes, at + 4));
    if let Some(sections) = usize::try_from(index).ok().and_then(|index| bytes.get(index..at)) {
        let crc = crc32(&[sections]);
        put(bytes, at + 48, crc);
    }
    let crc = crc32(&[&bytes[at..at + 52], &bytes[at + 56..]]);
    put(bytes, at + 52, crc);
}

fn crc32(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let built = tokio::runtime::Builder::new_current_thread().build();
        built.expect("a runtime without drivers starts")
    })
}
