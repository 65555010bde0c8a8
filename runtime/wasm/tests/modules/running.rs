//! A stage at work: its instance comes and goes, and what the module says is heard.

use std::sync::Arc;
use std::time::Duration;

use millstream_wasm::{Engine, EngineSettings, Input, Level, Limits, Module, ModuleError, Outcome, Runner};

use crate::support::{ENGINE, Fragments, Heard, input, processing, records, runner};

const TRAP: &str = "(unreachable)";
/// What an instance of [`Fragments`] holds from the start, in bytes: its pages, and the table its imports go through.
const START_BYTES: usize = (64 << 16) + 2 * 8;

pub fn run(runner: &mut Runner, values: &[&str]) -> Result<Outcome, ModuleError> {
    runner.process(input(values.len(), &records(values)))
}

fn engine(guest_memory_bytes_max: usize, instances_max: usize) -> Engine {
    Engine::with(EngineSettings {
        guest_memory_bytes_max,
        instances_max,
        cache_dir: None,
    })
    .unwrap()
}

fn on(engine: &Engine, fragments: &Fragments<'_>) -> Runner {
    let module = Module::compile(engine, &fragments.component()).unwrap();
    runner(engine, module, &Limits::default(), Arc::new(Heard::default()))
}

#[test]
fn an_instance_is_made_with_the_first_call_and_kept() {
    let mut runner = Fragments::default().runner(&Limits::default());
    assert!(!runner.has_instance());
    run(&mut runner, &["a"]).unwrap();
    assert!(runner.has_instance());
    assert!(runner.cpu_used() > Duration::ZERO);
}

#[test]
fn after_a_trap_the_next_call_gets_a_new_instance() {
    // Traps the second time an instance is called.
    let body = "(if (i32.load (i32.const 4096)) (then (unreachable))) (i32.store (i32.const 4096) (i32.const 1))
        (i32.const 1024)";
    let mut runner = processing(body).runner(&Limits::default());
    for _ in 0..3 {
        run(&mut runner, &["a"]).unwrap();
        assert!(matches!(run(&mut runner, &["a"]), Err(ModuleError::Trap { .. })));
        assert!(!runner.has_instance());
    }
}

#[test]
fn an_instance_whose_memory_grew_is_not_used_again() {
    let body = "(drop (memory.grow (i32.const 300))) (i32.const 1024)";
    let mut runner = processing(body).runner(&Limits::default());
    for _ in 0..10 {
        run(&mut runner, &["a"]).unwrap();
        assert!(!runner.has_instance());
    }
}

#[test]
fn damaged_input_costs_no_instance() {
    let mut runner = Fragments::default().runner(&Limits::default());
    let damaged = vec![0xff; 200 << 10];
    let damaged = Input {
        count: 9,
        ..input(0, &damaged)
    };
    assert!(matches!(runner.process(damaged), Err(ModuleError::Input { .. })));
    assert!(runner.has_instance());
}

#[test]
fn at_the_bound_on_memory_the_instance_idle_longest_is_given_up() {
    let engine = engine(2 * START_BYTES, 100);
    let mut runners: Vec<Runner> = (0..3).map(|_| on(&engine, &Fragments::default())).collect();
    run(&mut runners[0], &["a"]).unwrap();
    run(&mut runners[1], &["a"]).unwrap();
    run(&mut runners[0], &["a"]).unwrap();
    run(&mut runners[2], &["a"]).unwrap();
    let kept: Vec<bool> = runners.iter().map(Runner::has_instance).collect();
    assert_eq!(kept, [true, false, true]);
    let stats = engine.guest_memory();
    assert_eq!((stats.bytes, stats.instances), (2 * START_BYTES, 2));
    assert!(stats.evicted >= 1);
    run(&mut runners[1], &["a"]).unwrap();
    drop(runners);
    assert_eq!((engine.guest_memory().bytes, engine.guest_memory().instances), (0, 0));
}

#[test]
fn at_the_bound_on_instances_the_one_idle_longest_is_given_up() {
    let engine = engine(1 << 30, 2);
    let mut runners: Vec<Runner> = (0..3).map(|_| on(&engine, &Fragments::default())).collect();
    for runner in &mut runners {
        run(runner, &["a"]).unwrap();
    }
    let kept: Vec<bool> = runners.iter().map(Runner::has_instance).collect();
    assert_eq!(kept, [false, true, true]);
}

#[test]
fn growth_beyond_what_the_agent_may_have_fails_without_giving_up_others_for_nothing() {
    let engine = engine(3 * START_BYTES, 100);
    let mut quiet = on(&engine, &Fragments::default());
    let mut hungry = on(
        &engine,
        &processing("(drop (memory.grow (i32.const 200))) (i32.const 1024)"),
    );
    run(&mut quiet, &["a"]).unwrap();
    let error = run(&mut hungry, &["a"]).unwrap_err();
    assert!(
        matches!(&error, ModuleError::AgentMemory { wanted, limit, .. } if *wanted == 200 << 16 && *limit == 3 * START_BYTES),
        "{error}"
    );
    assert!(!error.is_module_fault());
    assert!(quiet.has_instance());
    assert_eq!(engine.guest_memory().bytes, START_BYTES);
}

#[test]
fn partitions_that_want_more_than_there_is_together_all_get_through() {
    let engine = engine(3 * START_BYTES, 100);
    let module = Module::compile(&engine, &Fragments::default().component()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let new = || runner(&engine, module.clone(), &Limits::default(), Arc::new(Heard::default()));
                let mut runners: Vec<Runner> = (0..5).map(|_| new()).collect();
                for _ in 0..100 {
                    runners.iter_mut().for_each(|runner| drop(run(runner, &["a"]).unwrap()));
                }
            });
        }
    });
    let stats = engine.guest_memory();
    assert_eq!((stats.bytes, stats.instances), (0, 0));
    assert!(stats.evicted > 500);
}

#[test]
fn what_a_module_says_is_heard() {
    let body = "(call $log (i32.const 1) (i32.const 3004) (i32.const 5))
        (call $count_host (i32.const 3004) (i32.const 5) (i64.const 2)) (i32.const 1024)";
    let heard = Arc::new(Heard::default());
    let module = processing(body).module().unwrap();
    let mut runner = runner(&ENGINE, module, &Limits::default(), heard.clone());
    run(&mut runner, &["a"]).unwrap();
    run(&mut runner, &["a"]).unwrap();
    let words = || (Level::Warn, "words".to_owned());
    assert_eq!(*heard.lines.lock().unwrap(), [words(), words()]);
    assert_eq!(heard.counts.lock().unwrap()["words"], 4);
}

#[test]
fn what_a_module_said_before_it_trapped_is_heard() {
    let body = "(call $log (i32.const 0) (i32.const 3004) (i32.const 5))
        (call $count_host (i32.const 3004) (i32.const 5) (i64.const 2)) (unreachable)";
    let heard = Arc::new(Heard::default());
    let module = processing(body).module().unwrap();
    let mut runner = runner(&ENGINE, module, &Limits::default(), heard.clone());
    run(&mut runner, &["a"]).unwrap_err();
    assert_eq!(heard.lines.lock().unwrap().len(), 1);
    assert_eq!(heard.counts.lock().unwrap()["words"], 2);
}

#[test]
fn a_million_log_lines_are_cut_short() {
    let body = "(loop $l (call $log (i32.const 2) (i32.const 3004) (i32.const 5))
          (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 1000000))))
        (i32.const 1024)";
    let limits = Limits {
        cpu_deadline: Duration::from_secs(60),
        log_lines_max: 7,
        ..Limits::default()
    };
    let heard = Arc::new(Heard::default());
    let mut runner = runner(&ENGINE, processing(body).module().unwrap(), &limits, heard.clone());
    run(&mut runner, &["a"]).unwrap();
    let lines = heard.lines.lock().unwrap();
    assert_eq!(lines.len(), 8);
    assert!(lines[7].1.starts_with("999993 lines were dropped"), "{}", lines[7].1);
}

#[test]
fn log_lines_without_end_stop_at_the_deadline() {
    // A megabyte a line: ten thousand of them are the ten gigabytes.
    let body = "(loop $l (call $log (i32.const 2) (i32.const 65536) (i32.const 1000000)) (br $l)) (unreachable)";
    let limits = crate::support::tight();
    let heard = Arc::new(Heard::default());
    let mut runner = runner(&ENGINE, processing(body).module().unwrap(), &limits, heard.clone());
    let error = run(&mut runner, &["a"]).unwrap_err();
    assert!(matches!(error, ModuleError::Deadline { .. }), "{error}");
    let lines = heard.lines.lock().unwrap();
    assert!(lines.len() <= limits.log_lines_max as usize + 1);
    assert!(lines.iter().all(|(_, line)| line.len() <= limits.log_line_bytes_max));
}

#[test]
fn a_trap_in_configure_is_told_by_the_first_call() {
    let configuring = Fragments {
        configure: TRAP,
        ..Fragments::default()
    };
    let mut runner = configuring.runner(&Limits::default());
    let error = run(&mut runner, &["a"]).unwrap_err();
    assert!(error.to_string().contains("configure"), "{error}");
    assert_eq!(runner.prepare(), Err(error));
}
