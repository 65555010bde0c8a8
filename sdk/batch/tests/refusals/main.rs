//! What `Batch::validate` refuses, fact by fact.

#![cfg(feature = "codecs")]

mod frames;
mod headers;
mod records;
#[path = "../support/mod.rs"]
mod support;

use bytes::Bytes;
use millstream_batch::{Batch, BatchError, Compression, Limits};
use support::{Record, build, put, read, seal};

const BASE_MS: i64 = 1_767_225_600_000;

fn three() -> Vec<Record> {
    vec![
        Record::of(BASE_MS, b"first"),
        Record::of(BASE_MS + 2, b"second"),
        Record::of(BASE_MS + 1, b"third"),
    ]
}

fn good() -> Vec<u8> {
    build(&three(), Compression::None).to_bytes().to_vec()
}

fn refusal(bytes: impl Into<Bytes>) -> BatchError {
    Batch::validate(bytes.into(), &Limits::default()).unwrap_err()
}

/// The good batch with one field overwritten, and a checksum that belongs to it.
fn with_field<const N: usize>(position: usize, field: [u8; N]) -> Bytes {
    let mut batch = good();
    put(&mut batch, position, field);
    seal(batch)
}

/// A batch whose records are `frame`, said to be of `codec`.
fn with_frame(codec: Compression, frame: &[u8]) -> Bytes {
    let mut batch = build(&three(), Compression::None).encode_header().to_vec();
    batch[22] = codec.code();
    batch.extend_from_slice(frame);
    seal(batch)
}

#[test]
fn a_good_batch_is_accepted() {
    for codec in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let batch = build(&three(), codec);
        assert_eq!(Batch::validate(batch.to_bytes(), &Limits::default()), Ok(batch.clone()));
        assert_eq!(read(&batch), three());
    }
}
