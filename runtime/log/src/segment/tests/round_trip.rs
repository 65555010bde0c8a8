use proptest::prelude::*;

use super::*;
use crate::error::LogError;
use crate::outcome::{Fate, Outcome};

fn any_compression() -> impl Strategy<Value = Compression> {
    prop_oneof![Just(Compression::None), Just(Compression::Lz4), Just(Compression::Zstd)]
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_appended_is_read_back_block_by_block(
        base in 0..1u64 << 40,
        counts in proptest::collection::vec(1..40u32, 1..30),
        value_bytes in prop_oneof![9 => 0..200usize, 1 => Just(4_000)],
        compression in any_compression(),
        raw_bytes_target in prop_oneof![Just(1usize), 100..8_000usize, Just(1 << 20)],
    ) {
        let batches = batches(base, &counts, value_bytes);
        let segment = encode(&batches, compression, raw_bytes_target);
        let summary = segment.summary;
        let bytes = whole(&segment);
        prop_assert_eq!(summary.stored_bytes, bytes.len() as u64);
        prop_assert_eq!(summary.raw_bytes, back_to_back(&batches).len() as u64);
        prop_assert_eq!(summary.record_count, counts.iter().map(|count| u64::from(*count)).sum::<u64>());
        prop_assert_eq!(summary.end_offset, batches[batches.len() - 1].next_offset());
        run(async {
            let store = store_of(bytes.clone()).await;
            let reader = SegmentReader::open(&store, KEY, summary.stored_bytes, None).await.unwrap();
            prop_assert_eq!(*reader.identity(), identity(base));
            prop_assert_eq!(reader.block_count(), summary.block_count as usize);
            prop_assert_eq!(read_all(&store, &reader).await.unwrap(), back_to_back(&batches));
            prop_assert_eq!(reader.notes().unwrap().pipelines.len(), counts.len().div_ceil(3));
            for batch in &batches {
                let block = reader.find_block(batch.base_offset()).unwrap();
                let mut raw = reader.read_block(&store, block).await.unwrap();
                let mut found = false;
                while !raw.is_empty() {
                    found |= Batch::split_first(&mut raw).unwrap() == *batch;
                }
                prop_assert!(found);
            }
            prop_assert_eq!(reader.find_block(summary.end_offset), None);
            if base > 0 {
                prop_assert_eq!(reader.find_block(Offset(base - 1)), None);
            }
            Ok(())
        })?;
        let report = inspect("file", bytes).unwrap();
        prop_assert_eq!(report.blocks.len(), summary.block_count as usize);
        prop_assert_eq!(report.footer.min_timestamp_ms, summary.min_timestamp_ms);
    }

    #[test]
    fn notes_round_trip(
        ranges in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..5),
        producers in proptest::collection::vec((any::<i64>(), any::<i16>(), 0..5usize), 0..5),
    ) {
        let state = |(id, epoch, count): (i64, i16, usize)| ProducerState {
            id,
            epoch,
            batches: (0..count).map(|index| producer_batch(index as i32)).collect(),
        };
        let notes = Notes {
            pipelines: ranges.into_iter().map(|(first, version)| PipelineRange { first_offset: Offset(first), version }).collect(),
            producers: ProducerCheckpoint { producers: producers.into_iter().map(state).collect() },
        };
        prop_assert_eq!(Notes::decode("key", 0, &notes.encode()).unwrap(), notes);
    }

    #[test]
    fn any_bytes_are_notes_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = Notes::decode("key", 0, &[b"MSNT", bytes.as_slice()].concat());
    }
}

fn producer_batch(first_sequence: i32) -> ProducerBatch {
    ProducerBatch {
        first_sequence,
        last_sequence: first_sequence + 1,
        base_offset: Offset(9),
        outcome: Outcome::from_iter([(1, Fate::Pipeline), (0, Fate::Skipped)]),
    }
}

#[test]
fn of_a_producers_batches_the_last_five_are_kept() {
    let batches: Vec<ProducerBatch> = (0..7).map(producer_batch).collect();
    let producers = vec![ProducerState {
        id: 1,
        epoch: 0,
        batches: batches.clone(),
    }];
    let notes = Notes {
        pipelines: Vec::new(),
        producers: ProducerCheckpoint { producers },
    };
    let decoded = Notes::decode("key", 0, &notes.encode()).unwrap();
    assert_eq!(decoded.producers.producers[0].batches, batches[2..]);
}

#[tokio::test]
async fn a_producer_checkpoint_comes_back_with_the_segment() {
    let producers = vec![ProducerState {
        id: 1,
        epoch: 0,
        batches: vec![producer_batch(4)],
    }];
    let checkpoint = ProducerCheckpoint { producers };
    let mut writer = SegmentWriter::new(identity(0), BlockSettings::default());
    writer.append(&batch(0, 2, 10), 1).unwrap();
    writer.set_producers(checkpoint.clone());
    let segment = writer.finish().unwrap();
    let store = store_of(whole(&segment)).await;
    let reader = SegmentReader::open(&store, KEY, segment.summary.stored_bytes, None)
        .await
        .unwrap();
    assert_eq!(reader.notes().unwrap().producers, checkpoint);
}

#[test]
fn a_block_that_does_not_shrink_is_stored_raw() {
    let mut state = 1u64;
    let mut noise = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) as u8
    };
    let value: Vec<u8> = (0..40_000).map(|_| noise()).collect();
    let mut builder = BatchBuilder::new();
    builder.push(0, None, Some(&value), std::iter::empty());
    let incompressible = builder.build(Compression::None);
    for compression in [Compression::Lz4, Compression::Zstd] {
        let report = inspect(
            "file",
            whole(&encode(std::slice::from_ref(&incompressible), compression, 1)),
        )
        .unwrap();
        assert_eq!(report.blocks[0].codec, Compression::None);
        assert_eq!(report.blocks[0].stored_len, report.blocks[0].raw_len);
        let report = inspect("file", whole(&encode(&[batch(0, 1, 4_000)], compression, 1))).unwrap();
        assert_eq!(report.blocks[0].codec, compression);
    }
}

#[test]
fn a_batch_above_the_target_is_a_block_of_its_own() {
    let batches = batches(0, &[1, 1, 50, 1, 1], 50);
    let report = inspect("file", whole(&encode(&batches, Compression::Lz4, 1_000))).unwrap();
    let counts: Vec<u32> = report.blocks.iter().map(|block| block.batch_count).collect();
    assert_eq!(counts, [2, 1, 2]);
}

#[test]
fn a_batch_that_leaves_a_gap_is_refused() {
    let mut writer = SegmentWriter::new(identity(10), BlockSettings::default());
    writer.append(&batch(10, 2, 1), 1).unwrap();
    let error = writer.append(&batch(13, 1, 1), 1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "segment writer: a batch at offset 13 does not follow, expected 12"
    );
}

#[test]
fn a_batch_that_fits_no_block_is_refused() {
    let records = Bytes::from(vec![0; BLOCK_RAW_BYTES_MAX]);
    let large = Batch::from_records(0, 0, 1, 0, records);
    let mut writer = SegmentWriter::new(identity(0), BlockSettings::default());
    assert!(matches!(writer.append(&large, 1), Err(LogError::BatchTooLarge { .. })));
}

#[test]
fn a_segment_without_a_batch_is_refused() {
    let writer = SegmentWriter::new(identity(0), BlockSettings::default());
    assert!(matches!(writer.finish(), Err(LogError::SegmentEmpty)));
}

#[test]
fn a_segment_key_sorts_by_offset_and_ends_in_its_random_id() {
    let key = segment_key("topics/a", 4, Offset(17), 0xabc);
    assert_eq!(
        key,
        "topics/a/4/seg_00000000000000000017_00000000000000000000000000000abc.bin"
    );
}

#[test]
fn large_batches_that_are_not_compressed_are_not_copied() {
    let batches = batches(0, &[2, 40, 1, 40], 4_000);
    let segment = encode(&batches, Compression::None, 1 << 20);
    let is_there = |batch: &Batch| {
        let records = batch.records().as_ptr();
        segment.parts.iter().any(|part| part.as_ptr() == records)
    };
    let shared: Vec<bool> = batches.iter().map(is_there).collect();
    assert_eq!(shared, [false, true, false, true]);
}
