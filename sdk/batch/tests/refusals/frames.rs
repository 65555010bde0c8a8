//! Wrong in what is compressed.

use std::io::Write;

use lz4_flex::frame::{BlockMode, FrameEncoder, FrameInfo};
use millstream_batch::{Batch, BatchError, Compression, Limits, RecordError};

use crate::support::{Record, build, read};
use crate::{BASE_MS, refusal, three, with_frame};

#[test]
fn a_header_key_that_is_not_utf8_is_refused() {
    let records = [18, 0, 0, 0, 1, 1, 2, 2, 0xff, 1];
    for codec in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let frame = compress(codec, &records);
        let source = RecordError::HeaderKey { position: 8 };
        assert_eq!(
            refusal(with_frame(codec, &frame)),
            BatchError::Record { index: 0, source }
        );
    }
}

#[test]
fn compressed_records_that_end_inside_a_record_are_refused() {
    for codec in [Compression::Lz4, Compression::Zstd] {
        let frame = compress(codec, &[14, 0, 0, 0, 1, 4, b'v']);
        let source = RecordError::CutShort { position: 7 };
        assert_eq!(
            refusal(with_frame(codec, &frame)),
            BatchError::Record { index: 0, source }
        );
    }
}

#[test]
fn compressed_records_longer_than_the_scratch_are_walked() {
    let records = (0..5).map(|index| Record {
        headers: vec![("k".repeat(70_000) + "ü", Some(vec![3; 100_000]))],
        ..Record::of(BASE_MS + index, &[index as u8; 200_000])
    });
    let records: Vec<_> = records.collect();
    for codec in [Compression::Lz4, Compression::Zstd] {
        let batch = build(&records, codec);
        assert_eq!(Batch::validate(batch.to_bytes(), &Limits::default()), Ok(batch.clone()));
        assert_eq!(read(&batch), records);
    }
}

#[test]
fn records_that_grow_above_the_limit_when_decompressed_are_refused() {
    let records: Vec<_> = (0..65).map(|_| Record::of(BASE_MS, &vec![0; 1_000_000])).collect();
    for codec in [Compression::Lz4, Compression::Zstd] {
        let batch = build(&records, codec);
        assert!(batch.encoded_len() < 1 << 20, "{codec}: {}", batch.encoded_len());
        let limits = Limits {
            decompressed_bytes_max: 64_000_000,
            ..Limits::default()
        };
        let error = BatchError::DecompressedTooLarge { limit: 64_000_000 };
        assert_eq!(Batch::validate(batch.to_bytes(), &limits), Err(error.clone()));
        assert_eq!(batch.decompressed(64_000_000), Err(error));
        let exact = batch.decompressed(usize::MAX).unwrap().len();
        let limits = Limits {
            decompressed_bytes_max: exact,
            ..Limits::default()
        };
        assert!(Batch::validate(batch.to_bytes(), &limits).is_ok());
    }
    let plain = build(&three(), Compression::None);
    assert_eq!(
        plain.decompressed(1),
        Err(BatchError::DecompressedTooLarge { limit: 1 })
    );
}

#[test]
fn bytes_after_the_compressed_frame_are_refused() {
    for codec in [Compression::Lz4, Compression::Zstd] {
        let frame = build(&three(), codec).records().to_vec();
        for trailing in [&b"more"[..], &[0], &frame] {
            let batch = with_frame(codec, &[&frame, trailing].concat());
            let reason = format!("{} bytes follow the frame", trailing.len());
            assert_eq!(refusal(batch), BatchError::Decompression { codec, reason });
        }
    }
}

#[test]
fn a_compressed_frame_that_is_cut_short_is_refused_wherever_it_is_cut() {
    for codec in [Compression::Lz4, Compression::Zstd] {
        let frame = build(&three(), codec).records().to_vec();
        for end in 0..frame.len() {
            assert!(
                Batch::validate(with_frame(codec, &frame[..end]), &Limits::default()).is_err(),
                "{codec} {end}"
            );
        }
    }
}

#[test]
fn records_that_are_no_frame_of_their_codec_are_refused() {
    let reason = "the records do not begin with a frame".to_owned();
    for codec in [Compression::Lz4, Compression::Zstd] {
        let error = BatchError::Decompression {
            codec,
            reason: reason.clone(),
        };
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0];
        let legacy_lz4 = [0x02, 0x21, 0x4c, 0x18, 0, 0, 0, 0];
        for frame in [&b""[..], b"plain", &skippable, &legacy_lz4] {
            assert_eq!(refusal(with_frame(codec, frame)), error);
        }
    }
}

#[test]
fn a_zstd_window_above_the_bound_is_refused() {
    let content = vec![1; 1000];
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(24).unwrap();
    encoder.include_contentsize(false).unwrap();
    encoder.write_all(&content).unwrap();
    let error = refusal(with_frame(Compression::Zstd, &encoder.finish().unwrap()));
    assert!(
        matches!(
            error,
            BatchError::Decompression {
                codec: Compression::Zstd,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn an_lz4_frame_with_other_settings_is_read() {
    let mut records = Vec::new();
    three()
        .iter()
        .enumerate()
        .for_each(|(at, record)| record.encode_into(&mut records, BASE_MS, at as i32));
    let info = FrameInfo::new()
        .block_mode(BlockMode::Linked)
        .block_checksums(true)
        .content_checksum(true)
        .content_size(Some(records.len() as u64));
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(&records).unwrap();
    let batch = with_frame(Compression::Lz4, &encoder.finish().unwrap());
    assert_eq!(read(&Batch::validate(batch, &Limits::default()).unwrap()), three());
}

fn compress(codec: Compression, records: &[u8]) -> Vec<u8> {
    match codec {
        Compression::None => records.to_vec(),
        Compression::Lz4 => {
            let mut encoder = FrameEncoder::new(Vec::new());
            encoder.write_all(records).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => zstd::encode_all(records, 3).unwrap(),
    }
}
