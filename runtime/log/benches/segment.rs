//! What a segment costs beside its codec: writing one against `lz4_flex` alone on the same blocks, reading one against
//! decompression alone. The ratios at the end come from one run, so that they hold on a busy machine too.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use millstream_batch::{Batch, BatchBuilder, Compression, Epoch, Offset};
use millstream_log::segment::SegmentReader;
use millstream_log::{BlockSettings, SegmentIdentity, SegmentWriter, Store};
use uuid::Uuid;

const RECORDS_PER_BATCH: u32 = 500;
const BATCHES: u64 = 160;
const KEY: &str = "bench/0/seg.bin";
const ROUNDS: u32 = 40;

/// A small generator with a fixed seed, so that every run sees the same records.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, limit: u64) -> u64 {
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

fn json_batches() -> Vec<Batch> {
    let mut random = Seeded(0x9e37_79b9_7f4a_7c15);
    let mut batches = Vec::new();
    for index in 0..BATCHES {
        let mut builder = BatchBuilder::new();
        for position in 0..i64::from(RECORDS_PER_BATCH) {
            let timestamp_ms = 1_700_000_000_000 + index as i64 * 100 + position / 5;
            let value = record(&mut random, timestamp_ms);
            builder.push(timestamp_ms, None, Some(value.as_bytes()), std::iter::empty());
        }
        let mut batch = builder.build(Compression::None);
        batch.stamp(Offset(index * u64::from(RECORDS_PER_BATCH)), Epoch(1));
        batches.push(batch);
    }
    batches
}

fn write_segment(batches: &[Batch]) -> (Vec<Bytes>, u64) {
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

/// The least time of several rounds of each, taken in turns.
fn least_times(mut first: impl FnMut(), mut second: impl FnMut()) -> (Duration, Duration) {
    let mut least = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        first();
        least.0 = least.0.min(start.elapsed());
        let start = Instant::now();
        second();
        least.1 = least.1.min(start.elapsed());
    }
    least
}

fn main() {
    let batches = json_batches();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime starts");
    let (parts, stored_bytes) = write_segment(&batches);
    let store = Store::memory();
    runtime.block_on(store.put_new(KEY, parts)).expect("the store is empty");
    let reader = runtime
        .block_on(SegmentReader::open(&store, KEY, stored_bytes))
        .expect("the segment is whole");
    let read = |block| {
        runtime
            .block_on(reader.read_block(&store, block))
            .expect("the segment is whole")
    };
    let raw: Vec<Bytes> = (0..reader.block_count()).map(read).collect();
    let raw_bytes: usize = raw.iter().map(Bytes::len).sum();
    let compressed: Vec<Vec<u8>> = raw.iter().map(|block| lz4_flex::block::compress(block)).collect();

    let write = || drop(black_box(write_segment(&batches)));
    let compress = || {
        raw.iter()
            .for_each(|block| drop(black_box(lz4_flex::block::compress(block))))
    };
    let read_all = || (0..raw.len()).for_each(|block| drop(black_box(read(block))));
    let decompress = || {
        for (block, raw) in compressed.iter().zip(&raw) {
            drop(black_box(lz4_flex::block::decompress(block, raw.len())));
        }
    };
    let find = || black_box(reader.find_block(black_box(Offset(40_000))));

    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("segment");
    group.throughput(Throughput::Bytes(raw_bytes as u64)).sample_size(20);
    group.bench_function("write", |bencher| bencher.iter(write));
    group.bench_function("lz4_flex compress alone", |bencher| bencher.iter(compress));
    group.bench_function("read", |bencher| bencher.iter(read_all));
    group.bench_function("lz4_flex decompress alone", |bencher| bencher.iter(decompress));
    group.finish();
    criterion.bench_function("segment/find block", |bencher| bencher.iter(find));

    let (written, compressed_in) = least_times(write, compress);
    let (read_in, decompressed_in) = least_times(read_all, decompress);
    println!(
        "{raw_bytes} bytes of batches in {} blocks, stored in {stored_bytes} bytes",
        raw.len()
    );
    println!(
        "segment write / lz4_flex alone: {:.2}",
        written.as_secs_f64() / compressed_in.as_secs_f64()
    );
    println!(
        "segment read / lz4_flex alone: {:.2}",
        read_in.as_secs_f64() / decompressed_in.as_secs_f64()
    );
}
