//! What the benchmarks share: records that look real, times taken in turns, and the table that each run ends with.

#![allow(dead_code, reason = "each benchmark uses its part")]

pub mod counting;

use std::time::{Duration, Instant};

use bytes::Bytes;
use millstream_batch::{Batch, BatchBuilder, Compression, Epoch, Offset};
use millstream_log::{BlockSettings, SegmentIdentity, SegmentWriter};
use uuid::Uuid;

/// A small generator with a fixed seed, so that every run sees the same records.
pub struct Seeded(pub u64);

impl Seeded {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// About 200 bytes of JSON, as a web service logs them.
fn record(random: &mut Seeded, timestamp_ms: i64) -> String {
    let path = [
        "/api/v1/orders",
        "/api/v1/users",
        "/static/app.js",
        "/health",
        "/api/v2/search",
    ];
    let agent = ["Mozilla/5.0 (X11; Linux x86_64)", "curl/8.5.0", "okhttp/4.12.0"];
    format!(
        r#"{{"ts":{timestamp_ms},"level":"info","method":"GET","path":"{}/{}","status":{},"duration_us":{},"ip":"10.{}.{}.{}","agent":"{}","trace":"{:016x}"}}"#,
        path[random.below(5) as usize],
        random.below(100_000),
        [200, 200, 200, 204, 304, 404, 500][random.below(7) as usize],
        random.below(90_000),
        random.below(256),
        random.below(256),
        random.below(256),
        agent[random.below(3) as usize],
        random.below(u64::MAX),
    )
}

/// Batches of JSON records, one behind the other.
pub fn json_batches(batches: u64, records_per_batch: u32) -> Vec<Batch> {
    let mut random = Seeded(0x9e37_79b9_7f4a_7c15);
    let mut made = Vec::new();
    for index in 0..batches {
        let mut builder = BatchBuilder::new();
        for position in 0..i64::from(records_per_batch) {
            let timestamp_ms = 1_700_000_000_000 + index as i64 * 100 + position / 5;
            let value = record(&mut random, timestamp_ms);
            builder.push(timestamp_ms, None, Some(value.as_bytes()), std::iter::empty());
        }
        made.push(stamped(builder, index * u64::from(records_per_batch)));
    }
    made
}

/// One batch of `count` records with values of `value_bytes`, all of them the same byte.
pub fn repeated_batch(base: u64, count: usize, value: &[u8]) -> Batch {
    let mut builder = BatchBuilder::new();
    for _ in 0..count {
        builder.push(1_700_000_000_000, None, Some(value), std::iter::empty());
    }
    stamped(builder, base)
}

fn stamped(builder: BatchBuilder, base: u64) -> Batch {
    let mut batch = builder.build(Compression::None);
    batch.stamp(Offset(base), Epoch(1));
    batch
}

/// The parts of a segment of these batches, and its length.
pub fn write_segment(batches: &[Batch]) -> (Vec<Bytes>, u64) {
    let identity = SegmentIdentity {
        topic_id: Uuid::from_u128(1),
        partition: 0,
        base_offset: Offset(0),
        epoch: Epoch(1),
        created_at_ms: 0,
    };
    let mut writer = SegmentWriter::new(identity, BlockSettings::default());
    for batch in batches {
        writer.append(batch, 1).expect("the batches are contiguous");
    }
    let segment = writer.finish().expect("there are batches");
    (segment.parts, segment.summary.stored_bytes)
}

pub fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// The least time of several rounds of each, taken in turns, so that a busy machine slows both.
pub fn least_times(rounds: u32, mut first: impl FnMut(), mut second: impl FnMut()) -> (Duration, Duration) {
    let mut least = (Duration::MAX, Duration::MAX);
    for _ in 0..rounds {
        least.0 = least.0.min(timed(&mut first));
        least.1 = least.1.min(timed(&mut second));
    }
    least
}

pub fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}

/// The value that `percent` of the sorted `times` do not exceed.
pub fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

/// The figures of a run against their aims.
#[derive(Default)]
pub struct Figures(Vec<(String, String, String, bool)>);

impl Figures {
    /// A figure that should be at most `aim`.
    pub fn at_most(&mut self, what: &str, aim: f64, measured: f64, unit: &str) {
        self.add(
            what,
            format!("<= {aim} {unit}"),
            format!("{measured:.2} {unit}"),
            measured <= aim,
        );
    }

    /// A figure that should be at least `aim`.
    pub fn at_least(&mut self, what: &str, aim: f64, measured: f64, unit: &str) {
        self.add(
            what,
            format!(">= {aim} {unit}"),
            format!("{measured:.2} {unit}"),
            measured >= aim,
        );
    }

    pub fn add(&mut self, what: &str, aim: String, measured: String, met: bool) {
        self.0.push((what.into(), aim, measured, met));
    }

    /// Prints the table.
    pub fn print(&self) {
        println!("\n{:<62} {:>18} {:>18}", "what", "aim", "measured");
        for (what, aim, measured, met) in &self.0 {
            let missed = if *met { "" } else { "  missed" };
            println!("{what:<62} {aim:>18} {measured:>18}{missed}");
        }
        println!();
    }
}
