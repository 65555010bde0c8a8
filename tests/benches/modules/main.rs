//! What running in a module costs: a filter, modules that leave or rewrite every record, and one that rewrites JSON,
//! each against the same work in native Rust on the same batches; and three stages of a broker in a row against each
//! alone. A module's time is the whole of it: records copied in, the call, and the checks of what came out. The ratios at
//! the end come from one run, so that they hold on a busy machine too.

mod batches;
mod build;
mod chain;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use memchr::memmem::Finder;
use millstream_batch::{Batch, RecordIter};
use millstream_guest as guest;
use millstream_wasm::{Engine, Input, Limits, Module, Outcome, Runner, StageContext, Unheard, Verdict};

use batches::{LINES, ORDERS, WORD, lines, orders};

const FIELDS: (&str, &str) = ("fields", "$.email,$.card.number");
const ROUNDS: u32 = 60;

fn runner(engine: &Engine, component: &[u8], params: &[(&str, &str)]) -> Runner {
    let module = Module::compile(engine, component).expect("the module compiles");
    let context = StageContext {
        topic: "bench".to_owned(),
        on_fetch: false,
    };
    Runner::new(
        engine,
        module,
        Limits::default(),
        context,
        owned(params),
        Arc::new(Unheard),
    )
}

fn owned(params: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    params.iter().map(owned).collect()
}

fn run(runner: &mut Runner, batch: &Batch) -> Outcome {
    let input = Input {
        partition: 0,
        first_offset: None,
        append_time_ms: 0,
        base_timestamp_ms: batch.header().base_timestamp_ms,
        count: batch.record_count(),
        records: batch.records(),
    };
    runner.process(input).expect("the module does not fail")
}

/// A program that looks at every record of a batch and does nothing.
fn walk_natively(batch: &Batch) -> i64 {
    let records = RecordIter::new(batch.records()).map(|record| record.expect("the batch is well-formed"));
    records.map(|record| black_box(record).timestamp_delta).sum()
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
fn least_times(records: u64, mut measured: impl FnMut(), mut against: impl FnMut()) -> Times {
    let mut least = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        measured();
        least.0 = least.0.min(start.elapsed());
        let start = Instant::now();
        against();
        least.1 = least.1.min(start.elapsed());
    }
    let each = |time: Duration| time.as_secs_f64() * 1e9 / records as f64;
    Times {
        measured_ns: each(least.0),
        against_ns: each(least.1),
    }
}

/// Nanoseconds a record.
struct Times {
    measured_ns: f64,
    against_ns: f64,
}

impl Times {
    fn print(&self, measured: &str, against: &str, aim: f64) {
        let Times {
            measured_ns,
            against_ns,
        } = self;
        println!("{measured} {measured_ns:.1} ns a record, {against} {against_ns:.1}");
        println!("{measured} / {against}: {:.2} (aim {aim})", measured_ns / against_ns);
    }
}

fn main() {
    let engine = Engine::new().expect("this machine runs modules");
    let (lines, orders) = (lines(), orders());
    let all_lines = lines.len() as u64 * LINES;
    let all_orders = orders.len() as u64 * ORDERS;

    let finder = Finder::new(WORD);
    let contains = build::component("examples/modules/contains");
    let identity = build::component("tests/benches/modules/identity");
    let redact = build::component("modules/redact");
    let mut filter = runner(&engine, &contains, &[("text", WORD)]);
    let mut unchanged = runner(&engine, &identity, &[]);
    let mut rewriting = runner(&engine, &identity, &[("rewrite", "true")]);
    let mut native = guest::Instance::configure(guest::Context::default(), &owned(&[FIELDS])).expect("they are right");
    let mut redact = runner(&engine, &redact, &[FIELDS]);
    for batch in &lines {
        assert_eq!(kept(run(&mut filter, batch)), filter_natively(&finder, batch));
        let [piece] = &run(&mut unchanged, batch).pieces[..] else {
            panic!("a batch of lines is one piece")
        };
        assert_eq!(piece.verdict, Verdict::Unchanged);
        let records = rewritten(run(&mut rewriting, batch));
        assert_eq!(RecordIter::new(&records).count(), batch.record_count() as usize);
    }
    for batch in &orders {
        assert_eq!(
            rewritten(run(&mut redact, batch)),
            emitted(redact_natively(&mut native, batch))
        );
    }

    let through = |runner: &mut Runner, batches: &[Batch]| {
        batches.iter().for_each(|batch| drop(black_box(run(runner, batch))));
    };
    let filter_native = || {
        lines
            .iter()
            .for_each(|batch| drop(black_box(filter_natively(&finder, batch))))
    };
    let walk_native = || lines.iter().for_each(|batch| _ = black_box(walk_natively(batch)));
    let mut redact_native = || {
        orders
            .iter()
            .for_each(|batch| drop(black_box(redact_natively(&mut native, batch))))
    };

    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("modules");
    group.throughput(Throughput::Elements(all_lines)).sample_size(20);
    group.bench_function("unchanged", |bencher| bencher.iter(|| through(&mut unchanged, &lines)));
    group.bench_function("every record rewritten", |bencher| {
        bencher.iter(|| through(&mut rewriting, &lines));
    });
    group.bench_function("native walk", |bencher| bencher.iter(walk_native));
    group.bench_function("filter", |bencher| bencher.iter(|| through(&mut filter, &lines)));
    group.bench_function("native filter", |bencher| bencher.iter(filter_native));
    group.throughput(Throughput::Elements(all_orders));
    group.bench_function("JSON redaction", |bencher| {
        bencher.iter(|| through(&mut redact, &orders))
    });
    group.bench_function("native JSON redaction", |bencher| bencher.iter(&mut redact_native));
    group.finish();

    least_times(all_lines, || through(&mut filter, &lines), filter_native).print("filter", "native filter", 1.7);
    least_times(all_lines, || through(&mut unchanged, &lines), walk_native).print("unchanged", "native walk", 1.5);
    least_times(all_lines, || through(&mut rewriting, &lines), walk_native).print("rewritten", "native walk", 3.0);
    least_times(all_orders, || through(&mut redact, &orders), redact_native).print(
        "redaction",
        "native redaction",
        1.25,
    );
    chain::print(&identity, &lines);
}
