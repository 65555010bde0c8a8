//! Round trips of any records, and bytes that are wrong in any way.

#![cfg(feature = "codecs")]

mod support;

use std::io::Write;

use bytes::Bytes;
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use millstream_batch::{Batch, Compression, Epoch, Limits, Offset, RecordIter};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use support::{Header, Record, build, read, seal};

/// Small limits, so that they are met.
const LIMITS: Limits = Limits {
    batch_bytes_max: 1 << 16,
    record_bytes_max: 1 << 12,
    decompressed_bytes_max: 1 << 16,
};

fn config(cases: u32) -> ProptestConfig {
    // What fails is printed in its smallest form, and belongs into a test of its own.
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn codec() -> impl Strategy<Value = Compression> {
    prop_oneof![Just(Compression::None), Just(Compression::Lz4), Just(Compression::Zstd)]
}

fn header() -> impl Strategy<Value = Header> {
    ("\\PC{0,8}", option::of(vec(any::<u8>(), 0..16)))
}

fn record() -> impl Strategy<Value = Record> {
    let timestamp_ms = prop_oneof![-1_000i64..1_000, -(1i64 << 61)..(1 << 61)];
    let key = option::of(vec(any::<u8>(), 0..40));
    let value = option::of(prop_oneof![vec(any::<u8>(), 0..300), vec(Just(b'a'), 0..300)]);
    let fields = (timestamp_ms, key, value, vec(header(), 0..4));
    fields.prop_map(|(timestamp_ms, key, value, headers)| Record {
        timestamp_ms,
        key,
        value,
        headers,
    })
}

/// One change to a batch's bytes; positions wrap around its length.
#[derive(Clone, Debug)]
enum Mutation {
    Flip { at: usize, bits: u8 },
    Truncate { at: usize },
    Remove { at: usize },
    Insert { at: usize, bytes: Vec<u8> },
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        4 => (any::<usize>(), 1u8..).prop_map(|(at, bits)| Mutation::Flip { at, bits }),
        1 => any::<usize>().prop_map(|at| Mutation::Truncate { at }),
        1 => any::<usize>().prop_map(|at| Mutation::Remove { at }),
        1 => (any::<usize>(), vec(any::<u8>(), 1..20)).prop_map(|(at, bytes)| Mutation::Insert { at, bytes }),
    ]
}

fn mutate(batch: &mut Vec<u8>, mutation: Mutation) {
    let place = |at: usize| at % batch.len().max(1);
    match mutation {
        _ if batch.is_empty() => {}
        Mutation::Flip { at, bits } => {
            let at = place(at);
            batch[at] ^= bits;
        }
        Mutation::Truncate { at } => batch.truncate(place(at)),
        Mutation::Remove { at } => {
            batch.remove(place(at));
        }
        Mutation::Insert { at, bytes } => {
            let at = place(at);
            batch.splice(at..at, bytes);
        }
    }
}

/// A batch that is accepted holds what it says.
fn accepted_batches_walk_cleanly(bytes: Bytes) {
    let Ok(batch) = Batch::validate(bytes.clone(), &LIMITS) else {
        return;
    };
    let records = batch.decompressed(LIMITS.decompressed_bytes_max).unwrap();
    let mut max_timestamp_ms = i64::MIN;
    let mut count = 0;
    for (record, index) in RecordIter::new(&records).zip(0..) {
        let record = record.unwrap();
        assert_eq!(record.offset_delta, index);
        assert!(record.encoded().len() <= LIMITS.record_bytes_max);
        assert_eq!(record.headers().count(), record.header_count() as usize);
        let timestamp_ms = batch
            .header()
            .base_timestamp_ms
            .checked_add(record.timestamp_delta)
            .unwrap();
        max_timestamp_ms = max_timestamp_ms.max(timestamp_ms);
        count += 1;
    }
    assert!(count > 0);
    assert_eq!(batch.record_count(), count);
    assert_eq!(batch.next_offset() - batch.base_offset(), u64::from(count));
    assert_eq!(batch.header().max_timestamp_ms, max_timestamp_ms);
    assert_eq!(batch.to_bytes(), bytes);
}

proptest! {
    #![proptest_config(config(512))]

    #[test]
    fn what_is_built_is_accepted_and_read_back(records in vec(record(), 1..40), codec in codec()) {
        let batch = build(&records, codec);
        let accepted = Batch::validate(batch.to_bytes(), &Limits::default());
        prop_assert_eq!(accepted.as_ref(), Ok(&batch));
        prop_assert_eq!(batch.compression(), codec);
        prop_assert_eq!(batch.header().base_timestamp_ms, records[0].timestamp_ms);
        prop_assert_eq!(read(&batch), records);
    }

    #[test]
    fn a_stamped_batch_keeps_its_checksum(records in vec(record(), 1..5), offset in 0..i64::MAX as u64 / 2, epoch in 0..1u64 << 31) {
        let mut batch = build(&records, Compression::None);
        batch.stamp(Offset(offset), Epoch(epoch));
        prop_assert_eq!(batch.base_offset(), Offset(offset));
        let mut bytes = batch.to_bytes();
        prop_assert_eq!(Batch::split_first(&mut bytes), Ok(batch));
        prop_assert!(bytes.is_empty());
    }

    #[test]
    fn a_record_encoded_with_other_deltas_keeps_its_content(record in record(), timestamp_delta: i64, offset_delta: i32) {
        let mut first = Vec::new();
        record.encode_into(&mut first, 0, 0);
        let mut second = Vec::new();
        let view = RecordIter::new(&first).next().unwrap().unwrap();
        view.encode_with(timestamp_delta, offset_delta, &mut second);
        let moved = RecordIter::new(&second).next().unwrap().unwrap();
        prop_assert_eq!((moved.timestamp_delta, moved.offset_delta), (timestamp_delta, offset_delta));
        prop_assert_eq!((moved.key, moved.value), (view.key, view.value));
        prop_assert!(moved.headers().eq(view.headers()));
        prop_assert_eq!(moved.encoded(), &second[..]);
    }

    #[test]
    fn a_record_with_another_key_and_value_is_as_if_encoded_anew(record in record(), other in record(), offset_delta: i32) {
        let (mut first, mut replaced, mut anew) = (Vec::new(), Vec::new(), Vec::new());
        record.encode_into(&mut first, 0, 0);
        let view = RecordIter::new(&first).next().unwrap().unwrap();
        let (key, value) = (other.key.as_deref(), other.value.as_deref());
        view.encode_replaced(other.timestamp_ms, offset_delta, key, value, &mut replaced);
        let expected = Record { headers: record.headers.clone(), ..other.clone() };
        expected.encode_into(&mut anew, 0, offset_delta);
        prop_assert_eq!(replaced, anew);
    }
}

proptest! {
    #![proptest_config(config(4096))]

    #[test]
    fn a_mutated_batch_is_refused_or_walks_cleanly(
        records in vec(record(), 1..6),
        codec in codec(),
        mutations in vec(mutation(), 1..4),
        sealed: bool,
    ) {
        let mut batch = build(&records, codec).to_bytes().to_vec();
        mutations.into_iter().for_each(|mutation| mutate(&mut batch, mutation));
        accepted_batches_walk_cleanly(if sealed { seal(batch) } else { batch.into() });
    }

    #[test]
    fn mutated_records_of_a_good_frame_are_refused_or_walk_cleanly(
        records in vec(record(), 1..6),
        codec in codec(),
        mutations in vec(mutation(), 1..4),
    ) {
        let plain = build(&records, Compression::None);
        let mut encoded = plain.records().to_vec();
        mutations.into_iter().for_each(|mutation| mutate(&mut encoded, mutation));
        let mut batch = plain.encode_header().to_vec();
        batch[22] = codec.code();
        batch.extend(match codec {
            Compression::None => encoded,
            Compression::Lz4 => {
                let mut encoder = FrameEncoder::new(Vec::new());
                encoder.write_all(&encoded).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Zstd => zstd::encode_all(&encoded[..], 1).unwrap(),
        });
        accepted_batches_walk_cleanly(seal(batch));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300), header in any::<bool>()) {
        let records: Vec<_> = RecordIter::new(&bytes).collect();
        prop_assert!(records.iter().rev().skip(1).all(Result::is_ok));
        for record in records.into_iter().flatten() {
            prop_assert_eq!(record.headers().count(), record.header_count() as usize);
        }
        let batch = if header {
            [&build(&[Record::of(0, b"")], Compression::None).encode_header()[..], &bytes].concat()
        } else {
            bytes
        };
        let _ = Batch::split_first(&mut seal(batch.clone()));
        accepted_batches_walk_cleanly(seal(batch.clone()));
        accepted_batches_walk_cleanly(batch.into());
    }
}

proptest! {
    #![proptest_config(config(128))]

    /// Linked blocks refer to earlier ones, over more than one turn of the decoder's buffer.
    #[test]
    fn a_mutated_frame_of_linked_blocks_is_refused_or_walks_cleanly(
        value in vec(0u8..8, 1_000..4_000),
        repeat in 1usize..120,
        mutations in vec(mutation(), 1..4),
    ) {
        let limits = Limits { record_bytes_max: 1 << 20, ..Limits::default() };
        let plain = build(&[Record::of(0, &value.repeat(repeat))], Compression::None);
        let info = FrameInfo::new().block_mode(BlockMode::Linked).block_size(BlockSize::Max64KB);
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(plain.records()).unwrap();
        let mut frame = encoder.finish().unwrap();
        let mut header = plain.encode_header().to_vec();
        header[22] = Compression::Lz4.code();
        prop_assert!(Batch::validate(seal([&header[..], &frame].concat()), &limits).is_ok());
        // Behind the frame's own checksummed header.
        let mut blocks = frame.split_off(7);
        mutations.into_iter().for_each(|mutation| mutate(&mut blocks, mutation));
        let _ = Batch::validate(seal([&header[..], &frame, &blocks].concat()), &limits);
    }
}
