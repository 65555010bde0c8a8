//! Records a module made: what is well formed goes through, whatever it says; nothing else does.

use millstream_batch::{RecordIter, encode_record};
use millstream_wasm::{Limits, ModuleError, Outcome, Verdict};

use crate::running::run;
use crate::support::Fragments;

/// What comes of a module that gives these records for the one it gets.
fn answer(records: &[u8], limits: &Limits) -> Result<Outcome, ModuleError> {
    let text: String = records.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let items = format!(r#"(data (i32.const 131072) "{text}")"#);
    let length = records.len();
    let process = format!(
        "(i32.store (i32.const 4096) (i32.const 1))
         (call $rewrite (i32.const 4096) (i32.const 1) (i32.const 131072) (i32.const {length}))"
    );
    let pages = 3 + u32::try_from(length >> 16).unwrap();
    let mut runner = Fragments {
        items: &items,
        process: &process,
        pages,
        ..Fragments::default()
    }
    .runner(limits);
    run(&mut runner, &["a"])
}

fn refusal(records: &[u8]) -> String {
    match answer(records, &Limits::default()) {
        Err(ModuleError::Output { what }) => what,
        other => panic!("{other:?}"),
    }
}

fn accepted(records: &[u8]) {
    let outcome = answer(records, &Limits::default()).unwrap();
    let counts = vec![1];
    let records = records.to_vec();
    assert_eq!(outcome.pieces[0].verdict, Verdict::Rewrite { counts, records });
}

fn record(timestamp_delta: i64, offset_delta: i32) -> Vec<u8> {
    let mut record = Vec::new();
    encode_record(
        &mut record,
        timestamp_delta,
        offset_delta,
        Some(b"key"),
        Some(b"value"),
        [("h", None)].into_iter(),
    );
    record
}

#[test]
fn every_cut_of_a_record_is_refused() {
    let whole = record(0, 0);
    accepted(&whole);
    for end in 0..whole.len() {
        refusal(&whole[..end]);
    }
}

#[test]
fn every_changed_byte_gives_a_record_or_an_error() {
    let whole = record(0, 0);
    for at in 0..whole.len() {
        for byte in [0, 1, 0x7f, 0x80, 0xff] {
            let mut changed = whole.clone();
            changed[at] = byte;
            if let Ok(outcome) = answer(&changed, &Limits::default()) {
                let Verdict::Rewrite { records, .. } = &outcome.pieces[0].verdict else {
                    panic!("{outcome:?}")
                };
                assert!(RecordIter::new(records).all(|record| record.is_ok()));
            }
        }
    }
}

#[test]
fn lengths_that_are_huge_or_reach_into_each_other_are_refused() {
    // Record lengths of 2 GiB and of -1; a key of 2 GiB, and one that reaches over the value into the next record.
    refusal(&[0xfe, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0]);
    refusal(&[0x01, 0, 0, 0]);
    refusal(&[0x14, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0, 0]);
    let overlapping = [&[0x0c, 0, 0, 0, 0x20, 1, 0][..], &record(0, 0)].concat();
    refusal(&overlapping);
}

#[test]
fn offsets_out_of_order_mean_nothing() {
    accepted(&record(0, 77));
    accepted(&record(0, -5));
    accepted(&record(0, i32::MIN));
}

#[test]
fn timestamps_of_the_year_0_are_taken_and_those_out_of_range_refused() {
    const YEAR_0_MS: i64 = -62_167_219_200_000;
    accepted(&record(YEAR_0_MS, 0));
    // Deltas count from the batch's base, which is 1,000.
    assert!(refusal(&record(i64::MAX - 999, 0)).contains("timestamp"));
    accepted(&record(i64::MIN, 0));
}

#[test]
fn a_million_headers_are_bounded_by_their_bytes() {
    let mut record = Vec::new();
    let headers = std::iter::repeat_n(("", None), 1_000_000);
    encode_record(&mut record, 0, 0, None, None, headers);
    let error = answer(&record, &Limits::default()).unwrap_err();
    assert!(matches!(error, ModuleError::OutputTooLarge { .. }), "{error}");
    let growing = Limits {
        output_growth_max: 1_000_000,
        ..Limits::default()
    };
    let outcome = answer(&record, &growing).unwrap();
    let Verdict::Rewrite { records, .. } = &outcome.pieces[0].verdict else {
        panic!("{outcome:?}")
    };
    assert_eq!(*records, record);
}
