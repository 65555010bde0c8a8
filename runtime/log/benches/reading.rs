//! Finding a segment and a block, and what one small read takes: time, allocations, bytes fetched, blocks decoded.

mod common;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::counting::CountingStore;
use common::{Figures, Seeded, json_batches, write_segment};
use millstream_batch::{Batch, Offset, RecordIter};
use millstream_log::segment::BlockEntry;
use millstream_log::{CacheSettings, SegmentCache, SegmentDirectory, SegmentRef, Store};

const KEY: &str = "bench/0/seg.bin";
const SEGMENTS: u64 = 10_000;
const SEGMENT_RECORDS: u64 = 50_000;
const FINDS: usize = 1 << 20;
/// How many are timed at once: short enough for many rounds that nothing else disturbs.
const FINDS_TIMED: usize = 1 << 13;
const READS: usize = 2_000;
const RECORDS_READ: usize = 100;
const ROUNDS: usize = 5;

/// The least time per call of several rounds, and how often one of them allocated.
fn per_find(offsets: &[Offset], find: impl Fn(Offset)) -> (f64, u64) {
    let rounds = (0..ROUNDS).flat_map(|_| offsets.chunks_exact(FINDS_TIMED));
    let times = rounds.map(|offsets| common::timed(|| offsets.iter().for_each(|offset| find(*offset))));
    let least = times.min().unwrap_or_default().as_nanos() as f64 / FINDS_TIMED as f64;
    let allocated = allocation_counter::measure(|| offsets.iter().for_each(|offset| find(*offset)));
    (least, allocated.count_total)
}

fn random_offsets(count: usize, below: u64) -> Vec<Offset> {
    let mut random = Seeded(0x9e37_79b9_7f4a_7c15);
    (0..count).map(|_| Offset(random.below(below))).collect()
}

fn find_a_segment(figures: &mut Figures) {
    let mut directory = SegmentDirectory::new(SEGMENTS as usize);
    for index in 0..SEGMENTS {
        directory.insert(SegmentRef {
            key: format!("bench/0/seg_{index:020}_0.bin").into(),
            base_offset: Offset(index * SEGMENT_RECORDS),
            end_offset: Offset((index + 1) * SEGMENT_RECORDS),
            stored_bytes: 1,
            etag: None,
            max_timestamp_ms: 0,
        });
    }
    let offsets = random_offsets(FINDS, SEGMENTS * SEGMENT_RECORDS);
    let (time, allocations) = per_find(&offsets, |offset| {
        black_box(directory.find(black_box(offset)));
    });
    figures.at_most("find a segment among 10,000", 60.0, time, "ns");
    figures.at_most("  allocations in a million of them", 0.0, allocations as f64, "");
}

/// What a read of a few records found, and what it took.
struct Read {
    records: usize,
    time: Duration,
}

async fn read(cache: &SegmentCache, stored_bytes: u64, offset: Offset) -> Read {
    let start = Instant::now();
    let reader = cache.open(KEY, stored_bytes, None).await.expect("the segment is whole");
    let block = reader.find_block(offset).expect("the segment holds it");
    let mut block = cache.block(&reader, block).await.expect("the block is whole");
    let mut records = 0;
    while !block.is_empty() && records < RECORDS_READ {
        let batch = Batch::split_first(&mut block).expect("the batch is whole");
        if batch.next_offset() <= offset {
            continue;
        }
        let skipped = offset.0.saturating_sub(batch.base_offset().0) as usize;
        let found = RecordIter::new(batch.records());
        records += black_box(found.skip(skipped).take(RECORDS_READ - records).count());
    }
    let time = start.elapsed();
    Read { records, time }
}

async fn small_reads(figures: &mut Figures) {
    let batches = json_batches(160, 500);
    let (parts, stored_bytes) = write_segment(&batches);
    let counting = CountingStore::default();
    let gets = counting.gets.clone();
    let store = Store::over(Arc::new(counting));
    store.put_new(KEY, parts).await.expect("the store is empty");
    let cache = SegmentCache::new(store.clone(), CacheSettings::default());

    // Cold: one offset, nothing cached.
    let offset = Offset(40_123);
    read(&cache, stored_bytes, offset).await;
    let reader = cache.open(KEY, stored_bytes, None).await.expect("it is cached");
    let block = reader.find_block(offset).expect("the segment holds it");
    let entry: BlockEntry = reader.blocks()[block];
    let fetched = std::mem::take(&mut *gets.lock().expect("no holder panics"));
    let bytes: u64 = fetched.iter().map(|range| range.end - range.start).sum();
    let aim = (64 << 10).min(stored_bytes) + u64::from(entry.length);
    figures.at_most(
        "small read, cold: gets (one footer, one block)",
        2.0,
        fetched.len() as f64,
        "",
    );
    figures.at_most("small read, cold: bytes fetched", aim as f64, bytes as f64, "B");

    let offsets = random_offsets(FINDS, 80_000);
    let (time, allocations) = per_find(&offsets, |offset| {
        black_box(reader.find_block(black_box(offset)));
    });
    let what = format!("find a block among {}", reader.block_count());
    figures.at_most(&what, 60.0, time, "ns");
    figures.at_most("  allocations in a million of them", 0.0, allocations as f64, "");

    // Warm: every block cached.
    for block in 0..reader.block_count() {
        cache.block(&reader, block).await.expect("the block is whole");
    }
    let decompress = Instant::now();
    reader.read_block(&store, block).await.expect("the block is whole");
    let decompress = decompress.elapsed();
    gets.lock().expect("no holder panics").clear();
    let (mut records, mut times) = (0, Vec::new());
    for offset in random_offsets(READS, 80_000) {
        let read = read(&cache, stored_bytes, offset).await;
        records += read.records;
        times.push(read.time);
    }
    let fetched = gets.lock().expect("no holder panics").len();
    let median = common::percentile(&mut times, 50);
    figures.at_most(
        "100 records, warm: blocks fetched and decompressed",
        0.0,
        fetched as f64,
        "",
    );
    let what = format!("100 records, warm: median ({} records a read)", records / READS);
    let share = median.as_secs_f64() / decompress.as_secs_f64();
    figures.at_most(&what, decompress.as_secs_f64() * 1e6, median.as_secs_f64() * 1e6, "us");
    figures.at_most("  as a share of fetching and decoding one block", 1.0, share, "x");
}

fn main() {
    let mut figures = Figures::default();
    find_a_segment(&mut figures);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime starts").block_on(small_reads(&mut figures));
    figures.print();
}
