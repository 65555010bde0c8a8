//! What running in a module costs: a filter and a module that rewrites JSON, each against the same code in native Rust on
//! the same batches. A module's time is the whole of it: records copied in, the call, and the checks of what came out.
//! The ratios at the end come from one run, so that they hold on a busy machine too.

mod batches;
mod build;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use memchr::memmem::Finder;
use millstream_batch::{Batch, RecordIter};
use millstream_guest as guest;
use millstream_tests::wat;
use millstream_wasm::{Engine, Input, Instance, Limits, Module, Outcome, StageContext, Verdict};

use batches::{LINES, ORDERS, WORD, lines, orders};

const FIELDS: (&str, &str) = ("fields", "$.email,$.card.number");
const ROUNDS: u32 = 60;

fn instance(engine: &Engine, component: &[u8], params: &[(&str, &str)]) -> Instance {
    let module = Module::compile(engine, component).expect("the module compiles");
    let context = StageContext {
        topic: "bench".to_owned(),
        on_fetch: false,
    };
    Instance::new(&module, &Limits::default(), &context, &owned(params)).expect("the parameters are right")
}

fn owned(params: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    params.iter().map(owned).collect()
}

fn run(instance: &mut Instance, batch: &Batch) -> Outcome {
    let input = Input {
        partition: 0,
        first_offset: None,
        append_time_ms: 0,
        base_timestamp_ms: batch.header().base_timestamp_ms,
        count: batch.record_count(),
        records: batch.records(),
    };
    instance.process(input).expect("the module does not fail")
}

/// The filter as it would stand in a program of its own.
fn filter_natively(finder: &Finder<'_>, batch: &Batch) -> Vec<u8> {
    let mut bitmap = vec![0; batch.record_count().div_ceil(8) as usize];
    for (index, record) in RecordIter::new(batch.records()).enumerate() {
        let value = record.expect("the batch is well-formed").value;
        if value.is_some_and(|value| finder.find(value).is_some()) {
            bitmap[index / 8] |= 1 << (index % 8);
        }
    }
    bitmap
}

/// The module's own code, called without WebAssembly around it.
fn redact_natively(redact: &mut guest::Instance<redact::mask>, batch: &Batch) -> guest::Outcome {
    let batch = guest::Batch {
        partition: 0,
        first_offset: None,
        append_time_ms: 0,
        base_timestamp_ms: batch.header().base_timestamp_ms,
        count: batch.record_count(),
        records: batch.records(),
    };
    redact.process(&batch).expect("the batch is well-formed")
}

/// What a module kept, whose batch came in one piece.
fn kept(outcome: Outcome) -> Vec<u8> {
    match outcome.pieces.into_iter().next().map(|piece| piece.verdict) {
        Some(Verdict::Keep(bitmap)) => bitmap,
        other => panic!("{other:?} is no bitmap"),
    }
}

/// The records a module made of a batch.
fn rewritten(outcome: Outcome) -> Vec<u8> {
    let records = outcome.pieces.into_iter().map(|piece| match piece.verdict {
        Verdict::Rewrite { records, .. } => records,
        other => panic!("{other:?} rewrites nothing"),
    });
    records.collect::<Vec<_>>().concat()
}

fn emitted(outcome: guest::Outcome) -> Vec<u8> {
    match outcome.verdict {
        guest::Verdict::Rewrite(emitted) => emitted.records,
        other => panic!("{other:?} rewrites nothing"),
    }
}

/// The least time of several rounds of each, taken in turns, for one of so many records.
fn least_times(records: u64, mut module: impl FnMut(), mut native: impl FnMut()) -> Times {
    let mut least = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        module();
        least.0 = least.0.min(start.elapsed());
        let start = Instant::now();
        native();
        least.1 = least.1.min(start.elapsed());
    }
    let each = |time: Duration| time.as_secs_f64() * 1e9 / records as f64;
    Times {
        module_ns: each(least.0),
        native_ns: each(least.1),
    }
}

/// Nanoseconds a record.
struct Times {
    module_ns: f64,
    native_ns: f64,
}

impl Times {
    fn print(&self, name: &str, aim: f64) {
        let Times { module_ns, native_ns } = self;
        println!("{name}: native {native_ns:.1} ns a record, module {module_ns:.1}");
        println!(
            "{name} module / native {name}: {:.2} (aim {aim})",
            module_ns / native_ns
        );
    }
}

fn main() {
    let engine = Engine::new().expect("this machine runs modules");
    let (lines, orders) = (lines(), orders());
    let all_lines = lines.len() as u64 * LINES;
    let all_orders = orders.len() as u64 * ORDERS;

    let finder = Finder::new(WORD);
    let mut contains = instance(
        &engine,
        &build::component("examples/modules/contains"),
        &[("text", WORD)],
    );
    let mut unchanged = instance(&engine, &wat::module(wat::KEEPS), &[]);
    let mut native = guest::Instance::configure(guest::Context::default(), &owned(&[FIELDS])).expect("they are right");
    let mut redact = instance(&engine, &build::component("modules/redact"), &[FIELDS]);
    for batch in &lines {
        assert_eq!(kept(run(&mut contains, batch)), filter_natively(&finder, batch));
    }
    for batch in &orders {
        assert_eq!(
            rewritten(run(&mut redact, batch)),
            emitted(redact_natively(&mut native, batch))
        );
    }

    let mut pass_module = || {
        lines
            .iter()
            .for_each(|batch| drop(black_box(run(&mut unchanged, batch))))
    };
    let mut filter_module = || {
        lines
            .iter()
            .for_each(|batch| drop(black_box(run(&mut contains, batch))))
    };
    let filter_native = || {
        lines
            .iter()
            .for_each(|batch| drop(black_box(filter_natively(&finder, batch))))
    };
    let mut rewrite_module = || orders.iter().for_each(|batch| drop(black_box(run(&mut redact, batch))));
    let mut rewrite_native = || {
        orders
            .iter()
            .for_each(|batch| drop(black_box(redact_natively(&mut native, batch))))
    };

    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("modules");
    group.throughput(Throughput::Elements(all_lines)).sample_size(20);
    group.bench_function("unchanged module", |bencher| bencher.iter(&mut pass_module));
    group.bench_function("filter module", |bencher| bencher.iter(&mut filter_module));
    group.bench_function("native filter", |bencher| bencher.iter(filter_native));
    group.throughput(Throughput::Elements(all_orders));
    group.bench_function("rewriting module", |bencher| bencher.iter(&mut rewrite_module));
    group.bench_function("native rewriting", |bencher| bencher.iter(&mut rewrite_native));
    group.finish();

    least_times(all_lines, filter_module, filter_native).print("filter", 2.0);
    least_times(all_orders, rewrite_module, rewrite_native).print("JSON rewriting", 1.25);
}
