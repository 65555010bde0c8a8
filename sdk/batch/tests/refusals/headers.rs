//! Wrong as a whole or in its header.

use bytes::Bytes;
use millstream_batch::{Batch, BatchError, Compression, HEADER_BYTES, Limits, encode_record};

use crate::support::{build, put, seal};
use crate::{BASE_MS, good, refusal, three, with_field};

#[test]
fn a_batch_that_is_cut_short_is_refused_wherever_it_is_cut() {
    let batch = good();
    for found in 0..batch.len() {
        let needed = if found < HEADER_BYTES {
            HEADER_BYTES
        } else {
            batch.len()
        };
        assert_eq!(refusal(batch[..found].to_vec()), BatchError::CutShort { found, needed });
    }
}

#[test]
fn a_length_past_its_end_is_refused_before_anything_is_allocated() {
    let mut batch = good();
    put(&mut batch, 8, i32::MAX.to_be_bytes());
    let needed = i32::MAX as usize + 12;
    assert_eq!(
        refusal(batch.clone()),
        BatchError::CutShort {
            found: batch.len(),
            needed
        }
    );
}

#[test]
fn a_length_too_small_for_a_header_is_refused() {
    for found in [48, 0, -1, i32::MIN] {
        let mut batch = good();
        put(&mut batch, 8, found.to_be_bytes());
        assert_eq!(refusal(batch), BatchError::Length { found, least: 49 });
    }
}

#[test]
fn bytes_after_the_batch_are_refused() {
    let mut batch = good();
    let batch_bytes = batch.len();
    batch.extend_from_slice(b"more");
    assert_eq!(refusal(batch), BatchError::Trailing { bytes: 4, batch_bytes });
}

#[test]
fn another_magic_is_refused() {
    assert_eq!(refusal(with_field(16, [1])), BatchError::Magic { found: 1 });
}

#[test]
fn a_batch_with_a_wrong_checksum_is_refused() {
    let mut batch = good();
    *batch.last_mut().unwrap() ^= 1;
    assert!(matches!(refusal(batch), BatchError::Crc { .. }));
}

#[test]
fn a_batch_above_the_limit_is_refused() {
    let limits = Limits {
        batch_bytes_max: good().len() - 1,
        ..Limits::default()
    };
    let error = Batch::validate(good().into(), &limits).unwrap_err();
    assert_eq!(
        error,
        BatchError::TooLarge {
            size: good().len(),
            limit: good().len() - 1
        }
    );
    let limits = Limits {
        batch_bytes_max: good().len(),
        ..Limits::default()
    };
    assert!(Batch::validate(good().into(), &limits).is_ok());
}

#[test]
fn a_batch_without_records_is_refused() {
    for last_offset_delta in [-1i32, 0] {
        let mut batch = build(&three(), Compression::None).encode_header().to_vec();
        put(&mut batch, 57, 0i32.to_be_bytes());
        put(&mut batch, 23, last_offset_delta.to_be_bytes());
        assert_eq!(
            refusal(seal(batch)),
            BatchError::Count {
                record_count: 0,
                last_offset_delta
            }
        );
    }
}

#[test]
fn a_negative_count_is_refused() {
    let error = BatchError::Count {
        record_count: -3,
        last_offset_delta: 2,
    };
    assert_eq!(refusal(with_field(57, (-3i32).to_be_bytes())), error);
}

#[test]
fn a_last_offset_delta_that_is_not_the_counts_is_refused() {
    for last_offset_delta in [1i32, 3, i32::MAX] {
        let error = BatchError::Count {
            record_count: 3,
            last_offset_delta,
        };
        assert_eq!(refusal(with_field(23, last_offset_delta.to_be_bytes())), error);
    }
}

#[test]
fn a_batch_with_a_wrong_count_is_refused() {
    for codec in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let mut batch = build(&three(), codec).to_bytes().to_vec();
        put(&mut batch, 57, 4i32.to_be_bytes());
        put(&mut batch, 23, 3i32.to_be_bytes());
        assert_eq!(
            refusal(seal(batch.clone())),
            BatchError::RecordsMissing { declared: 4, found: 3 }
        );
        put(&mut batch, 57, 2i32.to_be_bytes());
        put(&mut batch, 23, 1i32.to_be_bytes());
        assert!(
            matches!(refusal(seal(batch)), BatchError::RecordsSurplus { declared: 2, .. }),
            "{codec}"
        );
    }
}

#[test]
fn an_unknown_codec_is_refused() {
    for code in [1, 2, 5, 6, 7] {
        assert_eq!(refusal(with_field(21, [0, code])), BatchError::UnknownCodec { code });
    }
}

#[test]
fn attributes_that_are_not_the_producers_are_refused() {
    let refused = [
        (1u16 << 3, "log append time"),
        (1 << 4, "transactional"),
        (1 << 5, "control records"),
        (1 << 6, "delete horizon"),
        (1 << 7, "unknown bits"),
        (1 << 15, "unknown bits"),
    ];
    for (attributes, what) in refused {
        let error = BatchError::RefusedAttributes { attributes, what };
        assert_eq!(refusal(with_field(21, attributes.to_be_bytes())), error);
    }
}

#[test]
fn offsets_out_of_range_are_refused() {
    for base_offset in [-1, i64::MAX, i64::MAX - 2] {
        let error = BatchError::Offset {
            base_offset,
            last_offset_delta: 2,
        };
        assert_eq!(refusal(with_field(0, base_offset.to_be_bytes())), error);
    }
}

#[test]
fn producer_fields_that_contradict_each_other_are_refused() {
    for (producer_id, producer_epoch, base_sequence) in [(7, -1, 0), (7, 0, -1), (-2, 0, 0)] {
        let batch = build(&three(), Compression::None).with_producer(producer_id, producer_epoch, base_sequence);
        let error = BatchError::Producer {
            producer_id,
            producer_epoch,
            base_sequence,
        };
        assert_eq!(refusal(batch.to_bytes()), error);
    }
}

#[test]
fn without_a_producer_id_epoch_and_sequence_mean_nothing() {
    let batch = build(&three(), Compression::None).with_producer(-1, -1, 0);
    assert!(Batch::validate(batch.to_bytes(), &Limits::default()).is_ok());
}

#[test]
fn splitting_leaves_the_bytes_as_they_were_after_an_error() {
    let mut batch = good();
    batch[40] ^= 1;
    let mut bytes = Bytes::from(batch.clone());
    assert!(matches!(Batch::split_first(&mut bytes), Err(BatchError::Crc { .. })));
    assert_eq!(bytes, batch);
}

#[test]
fn splitting_takes_what_a_readers_filter_left() {
    let mut records = Vec::new();
    encode_record(&mut records, 0, 4, None, Some(b"kept"), std::iter::empty());
    let kept = Batch::from_records(BASE_MS, BASE_MS, 1, 9, records.into());
    let none = Batch::from_records(BASE_MS, BASE_MS, 0, 9, Bytes::new());
    for batch in [kept, none] {
        let mut bytes = batch.to_bytes();
        let split = Batch::split_first(&mut bytes).unwrap();
        assert_eq!(split.next_offset().0, 10);
        assert_eq!(split, batch);
    }
}
