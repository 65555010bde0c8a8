//! After a failure the records at fault are found, and the others go through.

use std::time::Duration;

use millstream_wasm::{Failed, Input, Isolated, IsolationBudget, Limits, ModuleError, Runner, Verdict};

use crate::support::{Fragments, input, processing, records};

/// Traps on a record whose value begins with `!`, loops on `@`, rejects the one record it is given where that begins
/// with `?`. Reads records without a key, of two bytes of length and of offset delta at most.
const TOUCHY: &str = r#"
  (local.set $at (local.get $ptr))
  (block $done (loop $next
    (br_if $done (i32.ge_u (local.get $i) (local.get $count)))
    (call $field (local.get $at))
    (if (i32.eq (global.get $first_byte) (i32.const 0x21)) (then (unreachable)))
    (if (i32.eq (global.get $first_byte) (i32.const 0x40)) (then (loop $forever (br $forever))))
    (if (i32.and (i32.eq (global.get $first_byte) (i32.const 0x3f)) (i32.eq (local.get $count) (i32.const 1)))
      (then (return (call $reject (i32.const 0)))))
    (local.set $at (global.get $after))
    (local.set $i (i32.add (local.get $i) (i32.const 1)))
    (br $next)))
  (i32.const 1024)"#;

/// `$varint` reads an unsigned varint; `$field` finds a record's value and its end.
const READING: &str = r#"
  (global $cursor (mut i32) (i32.const 0))
  (global $first_byte (mut i32) (i32.const 0))
  (global $after (mut i32) (i32.const 0))
  (func $varint (result i32) (local $value i32) (local $shift i32) (local $byte i32)
    (loop $more
      (local.set $byte (i32.load8_u (global.get $cursor)))
      (global.set $cursor (i32.add (global.get $cursor) (i32.const 1)))
      (local.set $value (i32.or (local.get $value)
        (i32.shl (i32.and (local.get $byte) (i32.const 0x7f)) (local.get $shift))))
      (local.set $shift (i32.add (local.get $shift) (i32.const 7)))
      (br_if $more (i32.and (local.get $byte) (i32.const 0x80))))
    (local.get $value))
  (func $field (param $at i32) (local $bytes i32)
    (global.set $cursor (local.get $at))
    (local.set $bytes (i32.shr_u (call $varint) (i32.const 1)))
    (global.set $after (i32.add (global.get $cursor) (local.get $bytes)))
    (global.set $cursor (i32.add (global.get $cursor) (i32.const 1)))
    (drop (call $varint)) (drop (call $varint)) (drop (call $varint)) (drop (call $varint))
    (global.set $first_byte (i32.load8_u (global.get $cursor))))"#;

fn touchy(limits: &Limits) -> Runner {
    Fragments {
        items: READING,
        ..processing(TOUCHY)
    }
    .runner(limits)
}

/// Fails on the values, searches, and checks that the outcome covers them all and keeps exactly what did not fail.
fn isolate(runner: &mut Runner, values: &[&str], budget: IsolationBudget) -> Isolated {
    let bytes = records(values);
    let input = input(values.len(), &bytes);
    let first = runner.process(input).unwrap_err();
    let isolated = runner.isolate(input, first, budget);
    assert_covers(&input, &isolated);
    isolated
}

fn assert_covers(input: &Input<'_>, isolated: &Isolated) {
    let (mut index, mut position) = (0, 0);
    for piece in &isolated.outcome.pieces {
        assert_eq!(piece.records.start, position);
        let failed = |i: u32| isolated.failed.iter().any(|failed| failed.records.contains(&i));
        let rejected = |i: u32| isolated.outcome.rejects.iter().any(|reject| reject.index == i);
        for i in 0..piece.count {
            let kept = match &piece.verdict {
                Verdict::Unchanged => true,
                Verdict::Keep(bitmap) => bitmap[i as usize / 8] >> (i % 8) & 1 == 1,
                Verdict::Rewrite { counts, .. } => counts[i as usize] > 0,
            };
            assert_eq!(kept, !failed(index + i) && !rejected(index + i), "record {}", index + i);
        }
        (index, position) = (index + piece.count, piece.records.end);
    }
    assert_eq!((index, position), (input.count, input.records.len()));
}

fn budget() -> IsolationBudget {
    IsolationBudget::of(&Limits::default())
}

fn found(isolated: &Isolated) -> Vec<(u32, u32, bool)> {
    let each = |failed: &Failed| (failed.records.start, failed.records.end, failed.isolated);
    isolated.failed.iter().map(each).collect()
}

#[test]
fn one_record_in_ten_thousand_is_found_wherever_it_stands() {
    let mut runner = touchy(&Limits::default());
    let line = "v".repeat(100);
    for at in [0, 1, 4_999, 7_654, 9_999] {
        let mut values = vec![&*line; 10_000];
        values[at as usize] = "!";
        let isolated = isolate(&mut runner, &values, budget());
        assert_eq!(found(&isolated), [(at, at + 1, true)]);
        assert!(matches!(isolated.failed[0].error, ModuleError::Trap { .. }));
    }
}

#[test]
fn several_records_at_fault_are_all_found() {
    let mut values = vec!["fine"; 1_000];
    for at in [0, 1, 17, 500, 998, 999] {
        values[at] = "!";
    }
    let isolated = isolate(&mut touchy(&Limits::default()), &values, budget());
    let alone = [0, 1, 17, 500, 998, 999].map(|at| (at, at + 1, true));
    assert_eq!(found(&isolated), alone);
}

#[test]
fn a_record_alone_is_at_fault_without_another_try() {
    let mut runner = touchy(&Limits::default());
    let isolated = isolate(&mut runner, &["!"], budget());
    assert_eq!(found(&isolated), [(0, 1, true)]);
}

#[test]
fn rejects_keep_their_place_in_the_whole_input() {
    let isolated = isolate(&mut touchy(&Limits::default()), &["a", "b", "?", "!"], budget());
    assert_eq!(found(&isolated), [(3, 4, true)]);
    let rejects: Vec<u32> = isolated.outcome.rejects.iter().map(|reject| reject.index).collect();
    assert_eq!(rejects, [2]);
}

#[test]
fn a_trap_on_every_record_ends_at_the_number_of_failures() {
    let values = vec!["!"; 1_000];
    let budget = IsolationBudget {
        failures_max: 10,
        cpu: Duration::from_secs(60),
    };
    let isolated = isolate(&mut touchy(&Limits::default()), &values, budget);
    let mut expected: Vec<(u32, u32, bool)> = (0..10).map(|at| (at, at + 1, true)).collect();
    expected.push((10, 1_000, false));
    assert_eq!(found(&isolated), expected);
}

#[test]
fn a_record_that_loops_for_ever_is_found_within_the_budget() {
    let limits = Limits {
        cpu_deadline: Duration::from_millis(50),
        ..Limits::default()
    };
    let mut values = vec!["fine"; 1_000];
    values[700] = "@";
    let mut runner = touchy(&limits);
    let before = runner.cpu_used();
    let isolated = isolate(&mut runner, &values, IsolationBudget::of(&limits));
    assert_eq!(found(&isolated), [(700, 701, true)]);
    assert!(matches!(isolated.failed[0].error, ModuleError::Deadline { .. }));
    // The first try, the budget, and what making instances takes.
    assert!(runner.cpu_used() - before < limits.cpu_deadline * 8);
}

#[test]
fn a_batch_that_loops_on_every_record_ends_with_the_budget() {
    let limits = crate::support::tight();
    let values = vec!["@"; 500];
    let mut runner = touchy(&limits);
    let before = runner.cpu_used();
    let isolated = isolate(&mut runner, &values, IsolationBudget::of(&limits));
    let last = isolated.failed.last().unwrap();
    assert!(!last.isolated && last.records.end == 500, "{last:?}");
    assert!(runner.cpu_used() - before < limits.cpu_deadline * 12);
}

#[test]
fn what_is_not_of_the_records_ends_the_search_at_once() {
    let mut runner = touchy(&Limits::default());
    let bytes = records(&["a", "b"]);
    let refused = ModuleError::AgentInstances { limit: 1 };
    let isolated = runner.isolate(input(2, &bytes), refused.clone(), budget());
    assert_eq!(found(&isolated), [(0, 2, false)]);
    assert_eq!(isolated.failed[0].error, refused);
    assert_covers(&input(2, &bytes), &isolated);
    assert!(!runner.has_instance());
}

#[test]
fn output_beyond_what_the_whole_batch_may_give_blames_no_record() {
    let limits = Limits {
        output_bytes_max: 300,
        ..Limits::default()
    };
    let value = "v".repeat(50);
    let mut runner = processing(crate::behaving::ECHO).runner(&limits);
    let isolated = isolate(&mut runner, &[&*value; 16], budget());
    assert!(isolated.failed.iter().all(|failed| !failed.isolated), "{isolated:?}");
    assert_eq!(isolated.failed.last().unwrap().records.end, 16);
}
