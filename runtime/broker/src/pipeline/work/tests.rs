use millstream_batch::{BatchBuilder, Compression, Offset, encode_record};
use millstream_wasm::Piece;

use super::*;

/// A batch at offset 100 whose records are made at 1000, 1001, ...
fn batch(values: &[&str]) -> Batch {
    let mut builder = BatchBuilder::new();
    for (i, value) in values.iter().enumerate() {
        builder.push(1_000 + i as i64, None, Some(value.as_bytes()), [].into_iter());
    }
    let mut batch = builder.build(Compression::None);
    batch.stamp(Offset(100), Epoch(7));
    batch
}

fn work(side: Side, batch: &Batch) -> Work {
    Work::new(side, batch, batch.records().clone())
}

fn whole(work: &Work, verdict: Verdict) -> Outcome {
    let piece = Piece {
        count: work.count(),
        records: 0..work.records().len(),
        verdict,
    };
    Outcome {
        pieces: vec![piece],
        rejects: Vec::new(),
    }
}

fn records(values: &[(&str, i64)]) -> Vec<u8> {
    let mut records = Vec::new();
    for (value, timestamp_delta) in values {
        encode_record(
            &mut records,
            *timestamp_delta,
            0,
            None,
            Some(value.as_bytes()),
            [].into_iter(),
        );
    }
    records
}

/// Offset, timestamp and value of every record.
fn content(batch: &Batch) -> Vec<(u64, i64, String)> {
    RecordIter::new(batch.records())
        .map(|record| {
            let record = record.unwrap();
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            let offset = batch.base_offset().0 + record.offset_delta as u64;
            (offset, batch.header().base_timestamp_ms + record.timestamp_delta, value)
        })
        .collect()
}

fn row(offset: u64, timestamp_ms: i64, value: &str) -> (u64, i64, String) {
    (offset, timestamp_ms, value.to_owned())
}

#[test]
fn what_no_stage_touched_is_stored_as_it_came() {
    let batch = batch(&["a", "b"]);
    let mut work = work(Side::Produce, &batch);
    let unchanged = whole(&work, Verdict::Unchanged);
    work.apply(&unchanged, &[]).unwrap();
    assert!(work.is_untouched());
    assert_eq!(work.fate(), Fate { changed: 0, dropped: 0 });
    assert_eq!(work.into_produced(batch.clone()).unwrap(), (Some(batch), None));
}

#[test]
fn kept_records_get_contiguous_offsets_on_produce_and_keep_theirs_on_fetch() {
    let batch = batch(&["a", "b", "c", "d"]);
    for side in [Side::Produce, Side::Fetch] {
        let mut work = work(side, &batch);
        let keep = whole(&work, Verdict::Keep(vec![0b1010]));
        work.apply(&keep, &[]).unwrap();
        assert_eq!(work.fate(), Fate { changed: 0, dropped: 2 });
        assert_eq!((work.source(0), work.source(1)), (1, 3));
        match side {
            Side::Produce => {
                let stored = work.into_produced(batch.clone()).unwrap().0.unwrap();
                assert_eq!(content(&stored), [row(0, 1_001, "b"), row(1, 1_003, "d")]);
            }
            Side::Fetch => {
                let seen = work.into_fetched(batch.clone(), None).unwrap().unwrap();
                assert_eq!(content(&seen), [row(101, 1_001, "b"), row(103, 1_003, "d")]);
                assert_eq!(
                    seen.next_offset(),
                    Offset(104),
                    "readers move on over what was filtered"
                );
            }
        }
    }
}

#[test]
fn pieces_are_applied_each_with_its_own_verdict() {
    let batch = batch(&["a", "b", "c"]);
    let first_len = RecordIter::new(batch.records())
        .next()
        .unwrap()
        .unwrap()
        .encoded()
        .len();
    let mut work = work(Side::Produce, &batch);
    let rest = first_len..work.records().len();
    let pieces = vec![
        Piece {
            count: 1,
            records: 0..first_len,
            verdict: Verdict::Unchanged,
        },
        Piece {
            count: 2,
            records: rest,
            verdict: Verdict::Rewrite {
                counts: vec![0, 2],
                records: records(&[("C1", 5), ("C2", 6)]),
            },
        },
    ];
    let outcome = Outcome {
        pieces,
        rejects: Vec::new(),
    };
    work.apply(&outcome, &[]).unwrap();
    assert_eq!(work.fate(), Fate { changed: 1, dropped: 1 });
    let stored = work.into_produced(batch).unwrap().0.unwrap();
    assert_eq!(
        content(&stored),
        [row(0, 1_000, "a"), row(1, 1_005, "C1"), row(2, 1_006, "C2")]
    );
    assert_eq!(stored.header().max_timestamp_ms, 1_006);
}

#[test]
fn a_second_stage_is_traced_back_to_the_input() {
    let batch = batch(&["a", "b", "c"]);
    let mut work = work(Side::Produce, &batch);
    let keep = whole(&work, Verdict::Keep(vec![0b110]));
    work.apply(&keep, &[]).unwrap();
    assert_eq!(work.source(0), 1);
    let rewrite = Verdict::Rewrite {
        counts: vec![1, 1],
        records: records(&[("b", 1), ("x", 2)]),
    };
    let rewrite = whole(&work, rewrite);
    work.apply(&rewrite, &[]).unwrap();
    assert_eq!(work.fate(), Fate { changed: 1, dropped: 1 }, "b came back as it was");
}

#[test]
fn on_fetch_a_rewritten_record_stays_at_its_offset_and_cannot_become_two() {
    let batch = batch(&["a", "b"]);
    let mut once = work(Side::Fetch, &batch);
    let rewrite = whole(
        &once,
        Verdict::Rewrite {
            counts: vec![0, 1],
            records: records(&[("B", 0)]),
        },
    );
    once.apply(&rewrite, &[]).unwrap();
    assert_eq!(
        content(&once.into_fetched(batch.clone(), None).unwrap().unwrap()),
        [row(101, 1_000, "B")]
    );

    let mut twice = work(Side::Fetch, &batch);
    let records = records(&[("a", 0), ("b", 0), ("b", 0)]);
    let rewrite = whole(
        &twice,
        Verdict::Rewrite {
            counts: vec![1, 2],
            records,
        },
    );
    assert_eq!(twice.multiplied(&rewrite), [(1, 2)]);
    twice.apply(&rewrite, &[]).unwrap();
    let left = twice.into_fetched(batch, None).unwrap().unwrap();
    assert_eq!(content(&left), [row(100, 1_000, "a")]);
}

#[test]
fn a_passed_record_stays_as_it_came_into_the_stage() {
    let batch = batch(&["a", "b", "c"]);
    let mut kept = work(Side::Produce, &batch);
    let keep = whole(&kept, Verdict::Keep(vec![0b001]));
    kept.apply(&keep, &[2]).unwrap();
    assert_eq!((kept.source(0), kept.source(1)), (0, 2));
    let rewrite = Verdict::Rewrite {
        counts: vec![1, 0],
        records: records(&[("A", 0)]),
    };
    let rewrite = whole(&kept, rewrite);
    kept.apply(&rewrite, &[1]).unwrap();
    assert_eq!(kept.fate(), Fate { changed: 1, dropped: 1 });
    let stored = kept.into_produced(batch).unwrap().0.unwrap();
    assert_eq!(content(&stored), [row(0, 1_000, "A"), row(1, 1_002, "c")]);
}

#[test]
fn dropping_an_input_record_drops_all_that_came_of_it() {
    let batch = batch(&["a", "b"]);
    let mut work = work(Side::Produce, &batch);
    let rewrite = Verdict::Rewrite {
        counts: vec![2, 1],
        records: records(&[("a1", 0), ("a2", 0), ("b", 1)]),
    };
    let rewrite = whole(&work, rewrite);
    work.apply(&rewrite, &[]).unwrap();
    work.drop_sources(&[0]).unwrap();
    let stored = work.into_produced(batch).unwrap().0.unwrap();
    assert_eq!(content(&stored), [row(0, 1_001, "b")]);
}

#[test]
fn a_batch_that_stops_at_a_record_ends_before_it() {
    let batch = batch(&["a", "b", "c"]);
    let mut stopped = work(Side::Fetch, &batch);
    stopped.cut_at(2).unwrap();
    let seen = stopped.into_fetched(batch.clone(), Some(2)).unwrap().unwrap();
    assert_eq!(content(&seen), [row(100, 1_000, "a"), row(101, 1_001, "b")]);
    assert_eq!(seen.next_offset(), Offset(102));
    let mut at_once = work(Side::Fetch, &batch);
    at_once.cut_at(0).unwrap();
    assert_eq!(at_once.into_fetched(batch, Some(0)).unwrap(), None);
}

#[test]
fn a_batch_of_which_nothing_is_left_is_no_batch() {
    let batch = batch(&["a", "b"]);
    for side in [Side::Produce, Side::Fetch] {
        let mut work = work(side, &batch);
        let none = whole(&work, Verdict::Keep(vec![0]));
        work.apply(&none, &[]).unwrap();
        assert_eq!(work.fate(), Fate { changed: 0, dropped: 2 });
        let left = match side {
            Side::Produce => work.into_produced(batch.clone()).map(|(left, _)| left),
            Side::Fetch => work.into_fetched(batch.clone(), None),
        };
        assert_eq!(left.unwrap(), None);
    }
}
