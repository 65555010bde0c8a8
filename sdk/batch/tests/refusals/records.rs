//! Wrong in a record.

use bytes::Bytes;
use millstream_batch::{Batch, BatchError, Compression, Limits, RecordError, RecordIter, encode_record};

use crate::support::{Record, build, put, seal};
use crate::{BASE_MS, refusal, with_field};

/// A batch of these encoded records, right in all but them.
fn with_records(count: u32, records: Vec<u8>) -> Bytes {
    Batch::from_records(BASE_MS, BASE_MS, count, count - 1, records.into()).to_bytes()
}

fn record_refusal(records: &[u8]) -> RecordError {
    match refusal(with_records(1, records.to_vec())) {
        BatchError::Record { index: 0, source } => source,
        other => panic!("{other}"),
    }
}

#[test]
fn offset_deltas_with_a_gap_are_refused() {
    let mut records = Vec::new();
    encode_record(&mut records, 0, 0, None, None, std::iter::empty());
    encode_record(&mut records, 0, 2, None, None, std::iter::empty());
    assert_eq!(
        refusal(with_records(2, records)),
        BatchError::OffsetDelta { index: 1, found: 2 }
    );
}

#[test]
fn a_max_timestamp_that_is_not_the_greatest_is_refused() {
    for found in [BASE_MS, BASE_MS + 1, BASE_MS + 3, -1] {
        let error = BatchError::MaxTimestamp {
            found,
            computed: BASE_MS + 2,
        };
        assert_eq!(refusal(with_field(35, found.to_be_bytes())), error);
    }
}

#[test]
fn a_timestamp_that_overflows_is_refused() {
    let records = [Record::of(0, b"first"), Record::of(-2, b"second")];
    let mut batch = build(&records, Compression::None).to_bytes().to_vec();
    put(&mut batch, 27, (i64::MIN + 1).to_be_bytes());
    let error = BatchError::Timestamp {
        index: 1,
        base_timestamp_ms: i64::MIN + 1,
        delta_ms: -2,
    };
    assert_eq!(refusal(seal(batch)), error);
}

#[test]
fn a_record_above_the_limit_is_refused_with_index_size_and_limit() {
    let records = [Record::of(BASE_MS, b"small"), Record::of(BASE_MS, &[7; 100])];
    for codec in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let batch = build(&records, codec);
        let plain = batch.decompressed(1 << 20).unwrap();
        let size = RecordIter::new(&plain).last().unwrap().unwrap().encoded().len();
        let validate = |record_bytes_max| {
            Batch::validate(
                batch.to_bytes(),
                &Limits {
                    record_bytes_max,
                    ..Limits::default()
                },
            )
            .map(|_| ())
        };
        assert_eq!(validate(size), Ok(()));
        let error = validate(size - 1).unwrap_err();
        assert_eq!(
            error,
            BatchError::RecordTooLarge {
                index: 1,
                size,
                limit: size - 1
            }
        );
        assert_eq!(
            error.to_string(),
            format!("record 1: {size} bytes are above the limit of {}", size - 1)
        );
    }
}

#[test]
fn a_record_length_past_the_end_is_refused() {
    let error = RecordError::Length {
        field: "record length",
        position: 0,
        length: 7,
        available: 6,
    };
    assert_eq!(record_refusal(&[14, 0, 0, 0, 1, 1, 0]), error);
    let error = RecordError::Length {
        field: "record length",
        position: 0,
        length: -1,
        available: 6,
    };
    assert_eq!(record_refusal(&[1, 0, 0, 0, 1, 1, 0]), error);
}

#[test]
fn a_field_length_past_the_end_of_its_record_is_refused() {
    let past = |field, position, length, available| RecordError::Length {
        field,
        position,
        length,
        available,
    };
    assert_eq!(record_refusal(&[12, 0, 0, 0, 8, 1, 0]), past("key length", 4, 4, 2));
    assert_eq!(record_refusal(&[12, 0, 0, 0, 3, 1, 0]), past("key length", 4, -2, 2));
    assert_eq!(record_refusal(&[12, 0, 0, 0, 1, 4, 0]), past("value length", 5, 2, 1));
    assert_eq!(record_refusal(&[12, 0, 0, 0, 1, 1, 1]), past("header count", 6, -1, 0));
    assert_eq!(record_refusal(&[12, 0, 0, 0, 1, 1, 2]), past("header count", 6, 1, 0));
    assert_eq!(
        record_refusal(&[16, 0, 0, 0, 1, 1, 2, 1, 1]),
        past("header key length", 7, -1, 1)
    );
    assert_eq!(
        record_refusal(&[16, 0, 0, 0, 1, 1, 2, 0, 2]),
        past("header value length", 8, 1, 0)
    );
}

#[test]
fn a_record_that_ends_inside_a_varint_is_refused() {
    assert_eq!(record_refusal(&[4, 0, 0x80]), RecordError::CutShort { position: 3 });
    assert_eq!(record_refusal(&[0]), RecordError::CutShort { position: 1 });
    assert_eq!(record_refusal(&[0x80]), RecordError::CutShort { position: 1 });
}

#[test]
fn a_varint_too_wide_for_its_field_is_refused() {
    let error = RecordError::Varint { position: 3, bits: 32 };
    assert_eq!(
        record_refusal(&[20, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 1, 0]),
        error
    );
}

#[test]
fn bytes_after_the_last_field_of_a_record_are_refused() {
    assert_eq!(
        record_refusal(&[16, 0, 0, 0, 1, 1, 0, 9, 9]),
        RecordError::Surplus { position: 7, bytes: 2 }
    );
}

#[test]
fn record_attributes_are_refused() {
    assert_eq!(
        record_refusal(&[12, 4, 0, 0, 1, 1, 0]),
        RecordError::Attributes { position: 1, found: 4 }
    );
}
