//! What modules do wrong, what stops them, and that the next instance does not feel it.

use millstream_wasm::{Call, Instance, Limits, ModuleError};

use crate::behaving::ECHO;
use crate::support::{Fragments, input, process, processing, records, tight};

const ENDLESS: &str = "(loop $l (br $l)) (unreachable)";

/// A call of `process` with two records must fail; the instance is dead then, and a good module still works.
fn failure(fragments: &Fragments<'_>, limits: &Limits) -> ModuleError {
    let mut instance = fragments.instance(limits).unwrap();
    let error = process(&mut instance, &["a", "b"]).unwrap_err();
    assert_dead(&mut instance);
    assert_good_module_works();
    error
}

fn assert_dead(instance: &mut Instance) {
    assert!(instance.is_dead());
    assert_eq!(process(instance, &["a"]), Err(ModuleError::Dead));
}

fn assert_good_module_works() {
    let mut good = Fragments::default().instance(&tight()).unwrap();
    assert!(process(&mut good, &["a"]).is_ok());
}

fn wrong_answer(process: &str) -> String {
    match failure(&processing(process), &Limits::default()) {
        ModuleError::Output { what } => what,
        other => panic!("{other}"),
    }
}

#[test]
fn an_endless_loop_ends_at_the_deadline() {
    let deadline = |call| ModuleError::Deadline {
        call,
        limit: tight().cpu_deadline,
    };
    assert_eq!(failure(&processing(ENDLESS), &tight()), deadline(Call::Process));
    let configuring = Fragments {
        configure: ENDLESS,
        ..Fragments::default()
    };
    assert_eq!(configuring.instance(&tight()).err(), Some(deadline(Call::Configure)));
}

#[test]
fn an_endless_loop_while_it_is_compiled_ends_at_the_default_deadline() {
    let deadline = |call| ModuleError::Deadline {
        call,
        limit: Limits::default().cpu_deadline,
    };
    let describing = Fragments {
        describe: ENDLESS,
        ..Fragments::default()
    };
    assert_eq!(describing.module().unwrap_err(), deadline(Call::Describe));
    let starting = Fragments {
        items: "(func $s (loop $l (br $l))) (start $s)",
        ..Fragments::default()
    };
    assert_eq!(starting.module().unwrap_err(), deadline(Call::Start));
    assert_good_module_works();
}

#[test]
fn an_endless_loop_in_the_allocator_ends_at_the_deadline() {
    let allocating = Fragments {
        allocate: "(loop $l (br $l))",
        ..Fragments::default()
    };
    let error = allocating.instance(&tight()).err();
    assert_eq!(
        error,
        Some(ModuleError::Deadline {
            call: Call::Configure,
            limit: tight().cpu_deadline
        })
    );
}

#[test]
fn recursion_without_end_traps() {
    let items = "(func $r (result i32) (i32.add (call $r) (i32.const 1)))";
    let error = failure(
        &Fragments {
            items,
            ..processing("(call $r)")
        },
        &Limits::default(),
    );
    assert!(
        matches!(&error, ModuleError::Trap { call: Call::Process, message, .. } if message.contains("stack")),
        "{error}"
    );
}

#[test]
fn a_memory_bomb_is_stopped_at_the_limit() {
    let bomb = "(loop $l (drop (memory.grow (i32.const 16))) (br $l)) (unreachable)";
    let limits = Limits {
        memory_bytes: 8 << 20,
        ..Limits::default()
    };
    let error = failure(&processing(bomb), &limits);
    assert_eq!(
        error,
        ModuleError::Memory {
            call: Call::Process,
            wanted: 9 << 20,
            limit: 8 << 20
        }
    );
}

#[test]
fn all_memory_at_once_is_refused() {
    let error = failure(
        &processing("(drop (memory.grow (i32.const 60000))) (i32.const 1024)"),
        &Limits::default(),
    );
    assert!(matches!(error, ModuleError::Memory { .. }), "{error}");
}

#[test]
fn a_table_bomb_is_stopped_at_the_limit() {
    let bomb = "(loop $l (drop (table.grow $t (ref.null func) (i32.const 10000))) (br $l)) (unreachable)";
    let error = failure(
        &Fragments {
            items: "(table $t 1 funcref)",
            ..processing(bomb)
        },
        &Limits::default(),
    );
    assert!(
        matches!(
            error,
            ModuleError::Tables {
                call: Call::Process,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn bytes_that_are_no_records_are_refused() {
    let body = "(i64.store (i32.const 4096) (i64.const 0x100000001))
        (i64.store (i32.const 4200) (i64.const -1))
        (call $rewrite (i32.const 4096) (local.get $count) (i32.const 4200) (i32.const 8))";
    assert!(wrong_answer(body).contains("record 0"));
}

#[test]
fn answers_that_do_not_fit_the_input_are_refused() {
    assert!(wrong_answer("(call $keep (i32.const 4096) (i32.const 2))").contains("bitmap of 2 bytes"));
    assert!(wrong_answer("(call $keep (i32.const 4096) (i32.const 0))").contains("bitmap of 0 bytes"));
    let counts = "(call $rewrite (i32.const 4096) (i32.const 3) (i32.const 0) (i32.const 0))";
    assert!(wrong_answer(counts).contains("3 counts for 2 records"));
    let sum = "(i64.store (i32.const 4096) (i64.const 0x200000001))
        (call $rewrite (i32.const 4096) (local.get $count) (local.get $ptr) (local.get $len))";
    assert!(wrong_answer(sum).contains("fewer records"));
    let rest = "(i64.store (i32.const 4096) (i64.const 1))
        (call $rewrite (i32.const 4096) (local.get $count) (local.get $ptr) (local.get $len))";
    assert!(wrong_answer(rest).contains("bytes after the last record"));
    assert!(wrong_answer("(call $reject (i32.const 2))").contains("rejects record 2 of 2"));
}

#[test]
fn pointers_out_of_bounds_trap() {
    for body in [
        "(i32.const -4)",
        "(call $keep (i32.const -1) (i32.const 1))",
        "(i32.const 1023)",
    ] {
        let error = failure(&processing(body), &Limits::default());
        assert!(matches!(error, ModuleError::Trap { .. }), "{body}: {error}");
    }
}

#[test]
fn routes_are_refused_by_name() {
    let body =
        "(i32.store (i32.const 1056) (i32.const 4096)) (i32.store (i32.const 1060) (i32.const 1)) (i32.const 1024)";
    let error = failure(&processing(body), &Limits::default());
    assert_eq!(error, ModuleError::Routed);
    assert!(error.to_string().contains("routes are not offered yet"));
}

#[test]
fn an_error_of_process_is_told_in_its_words() {
    let body = "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store (i32.const 1028) (i32.const 3004))
        (i32.store (i32.const 1032) (i32.const 5)) (i32.const 1024)";
    assert_eq!(
        failure(&processing(body), &Limits::default()),
        ModuleError::Failed {
            message: "words".into()
        }
    );
}

#[test]
fn a_trap_carries_the_last_error_logged() {
    let body = "(call $log (i32.const 0) (i32.const 3004) (i32.const 5)) (unreachable)";
    let error = failure(&processing(body), &Limits::default());
    assert!(error.to_string().ends_with("it last logged: words"), "{error}");
}

#[test]
fn output_that_outgrows_its_input_is_refused() {
    for bytes in [(3 << 20) / 2, 3 << 20] {
        let body = format!("(call $rewrite (i32.const 4096) (i32.const 2) (i32.const 65536) (i32.const {bytes}))");
        let error = failure(&processing(&body), &Limits::default());
        assert!(
            matches!(
                error,
                ModuleError::OutputTooLarge {
                    call: Call::Process,
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn output_over_all_pieces_is_bounded_in_bytes_and_records() {
    let value = "v".repeat(1_000);
    let values = vec![&*value; 400];
    let bytes = records(&values);
    for limits in [
        Limits {
            output_bytes_max: 300 << 10,
            ..Limits::default()
        },
        Limits {
            output_records_max: 399,
            ..Limits::default()
        },
    ] {
        let mut instance = processing(ECHO).instance(&limits).unwrap();
        let error = instance.process(input(400, &bytes)).unwrap_err();
        assert!(matches!(error, ModuleError::OutputTooLarge { .. }), "{error}");
        assert_dead(&mut instance);
    }
}

#[test]
fn a_log_line_of_megabytes_is_stopped() {
    let body = "(call $log (i32.const 2) (i32.const 65536) (i32.const 3000000)) (i32.const 1024)";
    let error = failure(&processing(body), &Limits::default());
    assert!(matches!(error, ModuleError::OutputTooLarge { .. }), "{error}");
}
