//! What the write-ahead log costs beside the disk: appending without a sync against a checksum and a copy of the same
//! bytes, and syncing against plain writes and `fdatasync` of pieces of the same size.

mod common;

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Figures, percentile, repeated_batch};
use millstream_batch::{Batch, Epoch, Offset};
use millstream_log::{DiskWal, Frame, Outcome, ProducerStamp, SyncPolicy, Wal, WalSettings};
use tokio::runtime::Runtime;
use uuid::Uuid;

const BATCH_BYTES: usize = 64 << 10;
/// How much each round writes.
const ROUND_BYTES: usize = 128 << 20;
const ROUNDS: u32 = 5;
/// Frames that wait for their answer at once, at saturation.
const IN_FLIGHT: usize = 256;
const RECORDS_PER_SECOND: u32 = 1_000;
/// How long answers and syncs are timed in each turn, and how many turns each gets.
const ACK_TIME: Duration = Duration::from_millis(500);
const ACK_TURNS: usize = 12;

fn frame(batch: Batch) -> Frame {
    Frame {
        topic_id: Uuid::from_u128(1),
        partition: 0,
        epoch: Epoch(1),
        pipeline_version: 1,
        base_offset: batch.base_offset(),
        producer: ProducerStamp::NONE,
        outcome: Outcome::all_kept(batch.record_count()),
        batch: Some(batch),
    }
}

/// Frames of about 64 KiB, one behind the other, of records of this size. Each has memory of its own, as what comes from a
/// network has.
fn frames(value_bytes: usize, bytes: usize) -> Vec<Frame> {
    let value: Vec<u8> = (0..value_bytes).map(|at| (at * 31) as u8).collect();
    let count = BATCH_BYTES / (value_bytes + 8);
    let first = repeated_batch(0, count, &value).to_bytes();
    (0..bytes / first.len())
        .map(|index| {
            let mut own = Bytes::copy_from_slice(&first);
            let mut batch = Batch::split_first(&mut own).expect("it was just made");
            batch.stamp(Offset((index * count) as u64), Epoch(1));
            frame(batch)
        })
        .collect()
}

fn bytes_of(frames: &[Frame]) -> usize {
    frames.iter().map(Frame::encoded_len).sum()
}

/// Appends all, with so many in flight; gives how long it took, and the mean length of a group.
async fn append(dir: &Path, sync: SyncPolicy, frames: Vec<Frame>) -> (Duration, usize) {
    let settings = WalSettings {
        sync,
        ..WalSettings::new(dir.join("wal"))
    };
    let wal = DiskWal::create(settings, Uuid::from_u128(2)).expect("the directory is empty");
    let start = Instant::now();
    let mut commits = VecDeque::new();
    for frame in frames {
        if commits.len() == IN_FLIGHT
            && let Some(oldest) = commits.pop_front()
        {
            commit(oldest).await;
        }
        commits.push_back(wal.submit(frame).await.expect("the log is open"));
    }
    for left in commits {
        commit(left).await;
    }
    let time = start.elapsed();
    let stats = wal.stats();
    wal.close().await;
    std::fs::remove_dir_all(dir.join("wal")).expect("the log is closed");
    (time, (stats.bytes_written / stats.groups.max(1)) as usize)
}

async fn commit(commit: impl Future<Output = millstream_log::Result<()>>) {
    commit.await.expect("the disk takes it");
}

/// The least the log must do to the same bytes: a checksum, and a copy to where they stay. `room` is what is copied to at
/// once before it starts again at the front.
fn checksum_and_copy(frames: &[Frame], room: usize) {
    let mut copied = Vec::with_capacity(room);
    for frame in frames {
        let records = frame.batch.as_ref().expect("every frame has one").records();
        if copied.len() + records.len() > room {
            copied.clear();
        }
        black_box(crc32fast::hash(records));
        copied.extend_from_slice(records);
        black_box(copied.last());
    }
}

/// A preallocated file, as the log's are.
fn preallocated(path: &Path, bytes: u64) -> File {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .expect("the file is new");
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes).expect("there is room");
    file.sync_all().expect("the disk syncs");
    file
}

/// Writes and syncs piece after piece.
fn write_and_sync(dir: &Path, piece_bytes: usize, bytes: usize) -> Duration {
    let (path, piece) = (dir.join("plain"), vec![7u8; piece_bytes]);
    let file = preallocated(&path, bytes as u64 + piece_bytes as u64);
    let start = Instant::now();
    let mut position = 0;
    while position < bytes {
        file.write_all_at(&piece, position as u64).expect("there is room");
        file.sync_data().expect("the disk syncs");
        position += piece_bytes;
    }
    let time = start.elapsed();
    std::fs::remove_file(path).expect("it is there");
    time
}

fn without_sync(figures: &mut Figures, runtime: &Runtime, dir: &Path) {
    for value_bytes in [128, 1_024] {
        let frames = frames(value_bytes, ROUND_BYTES);
        let (mut appended, mut copied, mut cached) = (Duration::MAX, Duration::MAX, Duration::MAX);
        for _ in 0..ROUNDS {
            let (time, _) = runtime.block_on(append(dir, SyncPolicy::Never, frames.clone()));
            appended = appended.min(time);
            // To memory that was not touched before, as the log's pages of the file are.
            copied = copied.min(common::timed(|| checksum_and_copy(&frames, ROUND_BYTES)));
            cached = cached.min(common::timed(|| checksum_and_copy(&frames, 1 << 20)));
        }
        let what = format!("append, no sync, {value_bytes} B records / crc32 and memcpy");
        figures.at_most(&what, 2.0, common::ratio(appended, copied), "x");
        let rate = |time: Duration| bytes_of(&frames) as f64 / time.as_secs_f64() / 1e9;
        println!(
            "{value_bytes} B records: append, no sync {:.2} GB/s; crc32 and memcpy {:.2} GB/s, into 1 MiB over and over \
             {:.2} GB/s",
            rate(appended),
            rate(copied),
            rate(cached)
        );
    }
}

fn at_saturation(figures: &mut Figures, runtime: &Runtime, dir: &Path) {
    let frames = frames(1_024, ROUND_BYTES);
    let bytes = bytes_of(&frames);
    let mut shares = Vec::new();
    for _ in 0..ROUNDS {
        let (time, piece_bytes) = runtime.block_on(append(dir, SyncPolicy::Always, frames.clone()));
        let plain = write_and_sync(dir, piece_bytes, bytes);
        let rate = |time: Duration| bytes as f64 / time.as_secs_f64() / 1e6;
        println!(
            "durable append: {:.0} MB/s in groups of {} KiB; plain write and fdatasync of such pieces: {:.0} MB/s",
            rate(time),
            piece_bytes >> 10,
            rate(plain)
        );
        shares.push(common::ratio(plain, time));
    }
    shares.sort_unstable_by(f64::total_cmp);
    figures.at_least(
        "durable append at saturation / plain write and fdatasync",
        0.7,
        shares[shares.len() / 2],
        "x",
    );
}

/// One record at a time, this often a second; how long each answer took.
async fn ack_times(wal: &DiskWal, next: &mut u64) -> Vec<Duration> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / RECORDS_PER_SECOND);
    let mut waiting = Vec::new();
    let start = Instant::now();
    while start.elapsed() < ACK_TIME {
        ticks.tick().await;
        let frame = frame(repeated_batch(*next, 1, &[7; 1_024]));
        *next += 1;
        let submitted = Instant::now();
        let commit = wal.submit(frame).await.expect("the log is open");
        waiting.push(tokio::spawn(async move {
            commit.await.expect("the disk takes it");
            submitted.elapsed()
        }));
    }
    let mut times = Vec::new();
    for answer in waiting {
        times.push(answer.await.expect("no task panics"));
    }
    times
}

/// A write of one record and its `fdatasync`, this often a second; how long each took.
async fn sync_times(file: &File, position: &mut u64) -> Vec<Duration> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / RECORDS_PER_SECOND);
    let (mut times, start) = (Vec::new(), Instant::now());
    while start.elapsed() < ACK_TIME {
        ticks.tick().await;
        let began = Instant::now();
        file.write_all_at(&[7; 1_200], *position).expect("there is room");
        file.sync_data().expect("the disk syncs");
        times.push(began.elapsed());
        *position += 1_200;
    }
    times
}

fn answers(figures: &mut Figures, runtime: &Runtime, dir: &Path) {
    // Both files stay to the end: making or removing one would be in the way of the other's syncs.
    let settings = WalSettings::new(dir.join("wal"));
    let wal = DiskWal::create(settings, Uuid::from_u128(2)).expect("the directory is empty");
    let (file, mut position, mut next) = (preallocated(&dir.join("plain"), 64 << 20), 0, 0);
    let (mut acks, mut syncs) = (Vec::new(), Vec::new());
    // The first turn is not counted.
    for turn in 0..=ACK_TURNS {
        let acked = runtime.block_on(ack_times(&wal, &mut next));
        let synced = runtime.block_on(sync_times(&file, &mut position));
        if turn > 0 {
            acks.extend(acked);
            syncs.extend(synced);
        }
    }
    runtime.block_on(wal.close());
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let (ack, sync) = (percentile(&mut acks, 99), percentile(&mut syncs, 99));
    println!(
        "{} acks: p50 {:.2} ms, p99 {:.2} ms; {} fdatasyncs: p50 {:.2} ms, p99 {:.2} ms",
        acks.len(),
        ms(percentile(&mut acks, 50)),
        ms(ack),
        syncs.len(),
        ms(percentile(&mut syncs, 50)),
        ms(sync)
    );
    let aim = (ms(sync) * 150.0 + 100.0).round() / 100.0;
    figures.at_most(
        "durable ack at 1,000 records/s, p99 (1.5 x fdatasync + 1 ms)",
        aim,
        ms(ack),
        "ms",
    );
}

fn main() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder
        .worker_threads(1)
        .enable_time()
        .build()
        .expect("a runtime starts");
    // On the disk of the target folder: a temporary folder may be in memory, where nothing is ever synced.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target folder takes files");
    let mut figures = Figures::default();
    without_sync(&mut figures, &runtime, dir.path());
    at_saturation(&mut figures, &runtime, dir.path());
    answers(&mut figures, &runtime, dir.path());
    figures.print();
}
