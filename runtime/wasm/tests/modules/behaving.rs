//! What well-behaved modules get and give.

use millstream_wasm::{Limits, ModuleError, Outcome, Piece, Reject, Verdict};

use crate::support::{Fragments, input, process, processing, records};

/// Keeps records whose value begins with `x`. Reads records of less than 64 bytes without a key.
const FILTER: &str = r#"
  (memory.fill (i32.const 4096) (i32.const 0) (i32.const 64))
  (local.set $at (local.get $ptr))
  (block $done (loop $next
    (br_if $done (i32.ge_u (local.get $i) (local.get $count)))
    (if (i32.eq (i32.load8_u offset=6 (local.get $at)) (i32.const 0x78)) (then
      (i32.store8 offset=4096 (i32.shr_u (local.get $i) (i32.const 3))
        (i32.or (i32.load8_u offset=4096 (i32.shr_u (local.get $i) (i32.const 3)))
          (i32.shl (i32.const 1) (i32.and (local.get $i) (i32.const 7)))))))
    (local.set $at (i32.add (local.get $at) (i32.add (i32.const 1)
      (i32.shr_u (i32.load8_u (local.get $at)) (i32.const 1)))))
    (local.set $i (i32.add (local.get $i) (i32.const 1)))
    (br $next)))
  (call $keep (i32.const 4096) (i32.shr_u (i32.add (local.get $count) (i32.const 7)) (i32.const 3)))"#;

/// Rewrites every record as itself.
pub const ECHO: &str = r#"
  (block $done (loop $next
    (br_if $done (i32.ge_u (local.get $i) (local.get $count)))
    (i32.store offset=4096 (i32.shl (local.get $i) (i32.const 2)) (i32.const 1))
    (local.set $i (i32.add (local.get $i) (i32.const 1)))
    (br $next)))
  (call $rewrite (i32.const 4096) (local.get $count) (local.get $ptr) (local.get $len))"#;

fn verdicts(outcome: &Outcome) -> Vec<&Verdict> {
    outcome.pieces.iter().map(|piece| &piece.verdict).collect()
}

#[test]
fn an_unchanged_module_gives_back_the_input_as_one_piece() {
    let mut instance = Fragments::default().instance(&Limits::default()).unwrap();
    let bytes = records(&["a", "b"]);
    let outcome = instance.process(input(2, &bytes)).unwrap();
    let piece = Piece {
        count: 2,
        records: 0..bytes.len(),
        verdict: Verdict::Unchanged,
    };
    assert_eq!(
        outcome,
        Outcome {
            pieces: vec![piece],
            rejects: Vec::new()
        }
    );
    assert_eq!(instance.process(input(0, &[])).unwrap(), Outcome::default());
}

#[test]
fn a_filter_keeps_what_it_says() {
    let mut instance = processing(FILTER).instance(&Limits::default()).unwrap();
    let outcome = process(&mut instance, &["xa", "b", "xc", "d", "e", "f", "g", "h", "xi"]).unwrap();
    assert_eq!(verdicts(&outcome), [&Verdict::Keep(vec![0b101, 1])]);
    let outcome = process(&mut instance, &["x1", "x2"]).unwrap();
    assert_eq!(verdicts(&outcome), [&Verdict::Unchanged]);
}

#[test]
fn a_large_input_goes_in_pieces_and_indexes_count_over_all_of_it() {
    let mut instance = processing("(call $reject (i32.const 1))")
        .instance(&Limits::default())
        .unwrap();
    let value = "v".repeat(1_000);
    let values = vec![&*value; 400];
    let outcome = process(&mut instance, &values).unwrap();
    assert_eq!(outcome.pieces.len(), 4);
    assert_eq!(outcome.pieces.iter().map(|piece| piece.count).sum::<u32>(), 400);
    let starts = outcome.pieces.iter().scan(0, |next, piece| {
        let start = *next;
        *next += piece.count;
        Some(start)
    });
    let expected: Vec<Reject> = starts
        .map(|start| Reject {
            index: start + 1,
            reason: "words".into(),
        })
        .collect();
    assert_eq!(outcome.rejects, expected);
    for piece in &outcome.pieces {
        let Verdict::Keep(bitmap) = &piece.verdict else {
            panic!("{:?}", piece.verdict)
        };
        assert_eq!(bitmap[0], 0b1111_1101);
    }
}

#[test]
fn a_rewrite_comes_back_checked() {
    let mut instance = processing(ECHO).instance(&Limits::default()).unwrap();
    let bytes = records(&["a", "b"]);
    let outcome = instance.process(input(2, &bytes)).unwrap();
    assert_eq!(
        verdicts(&outcome),
        [&Verdict::Rewrite {
            counts: vec![1, 1],
            records: bytes.clone()
        }]
    );
}

#[test]
fn process_is_told_where_and_when() {
    // Traps unless partition, append time and base timestamp are those of the input and there is no first offset.
    let body = "(if (i32.or (i32.or (i32.ne (local.get $partition) (i32.const 3)) (local.get $some))
          (i32.or (i64.ne (local.get $append) (i64.const 2000)) (i64.ne (local.get $base) (i64.const 1000))))
        (then (unreachable))) (i32.const 1024)";
    let mut instance = processing(body).instance(&Limits::default()).unwrap();
    assert!(process(&mut instance, &["a"]).is_ok());
}

#[test]
fn a_damaged_input_is_refused_without_harm_to_the_instance() {
    let mut instance = Fragments::default().instance(&Limits::default()).unwrap();
    let damaged = vec![0xff; 200 << 10];
    assert!(matches!(
        instance.process(input(9, &damaged)),
        Err(ModuleError::Input { .. })
    ));
    assert!(!instance.is_dead());
    assert!(process(&mut instance, &["a"]).is_ok());
}

#[test]
fn instances_move_between_threads() {
    let mut instance = processing(FILTER).instance(&Limits::default()).unwrap();
    let outcome = std::thread::spawn(move || process(&mut instance, &["xa", "b"]))
        .join()
        .unwrap()
        .unwrap();
    assert_eq!(verdicts(&outcome), [&Verdict::Keep(vec![1])]);
}
