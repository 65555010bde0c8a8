//! Readers: whole batches from any offset, waits that end, records by time, and bounds on what answers take.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use millstream_batch::{BatchBuilder, Compression, Offset, RecordIter};
use millstream_broker::{
    Acks, Broker, Clock, FetchQuery, Fetched, Kind, NewTopic, Settings, TopicConfig, WalKind, Wals,
};
use millstream_log::{DiskWals, DiskWalsSettings, ObjectWalSettings, ObjectWals, Store, SyncPolicy};
use millstream_meta::Metadata;
use tempfile::TempDir;

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(60);

/// Counts up, so that ids differ and times rise.
struct CountingClock(AtomicU64);

impl Clock for CountingClock {
    fn now_ms(&self) -> i64 {
        1_700_000_000_000 + self.0.fetch_add(1, Ordering::Relaxed) as i64
    }

    fn random_id(&self) -> u128 {
        u128::from(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

async fn open(dir: &Path, incarnation: u64, change: impl FnOnce(&mut Settings)) -> Arc<Broker> {
    let mut settings = Settings::default();
    change(&mut settings);
    let url = format!("sqlite:{}", dir.join("metadata.db").display());
    let metadata = Metadata::open(&url).await.unwrap();
    let store = Store::local(dir.join("objects")).unwrap();
    let wals = Wals {
        disk: Arc::new(DiskWals::new(DiskWalsSettings {
            file_bytes: 1 << 20,
            sync: SyncPolicy::Never,
            ..DiskWalsSettings::new(dir.join("wal"))
        })),
        object: Arc::new(ObjectWals::new(store.clone(), ObjectWalSettings::default())),
        kind: WalKind::Disk,
    };
    // Every broker of a test begins with another number.
    let clock = Arc::new(CountingClock(AtomicU64::new(incarnation << 32)));
    let broker = Broker::open(settings, clock, metadata, store, wals).await.unwrap();
    let topic = NewTopic {
        name: "t".to_owned(),
        partitions: 1,
        config: TopicConfig::default(),
    };
    if incarnation == 1 {
        broker.create_topic(topic).await.unwrap();
    }
    broker
}

/// A batch of one record for each timestamp.
fn batch(timestamps: impl IntoIterator<Item = i64>) -> Bytes {
    let mut builder = BatchBuilder::new();
    for timestamp in timestamps {
        builder.push(timestamp, None, Some(timestamp.to_string().as_bytes()), [].into_iter());
    }
    builder.build(Compression::None).to_bytes()
}

async fn produce(broker: &Broker, timestamps: impl IntoIterator<Item = i64>) {
    broker.produce("t", 0, batch(timestamps), Acks::Durable).await.unwrap();
}

async fn flush(broker: &Broker) {
    broker.topic("t", true).await.unwrap();
}

fn query(offset: u64, bytes_max: usize) -> FetchQuery {
    FetchQuery {
        topic: "t".to_owned(),
        partition: 0,
        offset: Offset(offset),
        bytes_max,
        bytes_min: 0,
        wait: Duration::ZERO,
        stage: None,
    }
}

fn waiting(offset: u64, bytes_min: usize, wait: Duration) -> FetchQuery {
    FetchQuery {
        bytes_min,
        wait,
        ..query(offset, 1 << 20)
    }
}

/// Offsets and values at or beyond `from`.
fn records(fetched: &Fetched, from: u64) -> Vec<(u64, i64)> {
    let mut found = Vec::new();
    for batch in &fetched.batches {
        for record in RecordIter::new(batch.records()) {
            let record = record.unwrap();
            let value = std::str::from_utf8(record.value.unwrap()).unwrap();
            found.push((
                batch.base_offset().0 + record.offset_delta as u64,
                value.parse().unwrap(),
            ));
        }
    }
    found.retain(|(offset, _)| *offset >= from);
    found
}

/// Everything from `from` on, fetched in pieces of `bytes_max`.
async fn read(broker: &Broker, from: u64, bytes_max: usize) -> Vec<(u64, i64)> {
    let (mut offset, mut found) = (from, Vec::new());
    loop {
        let fetched = broker.fetch(query(offset, bytes_max)).await.unwrap();
        found.extend(records(&fetched, offset));
        if fetched.next_offset == fetched.high_watermark {
            return found;
        }
        assert!(fetched.next_offset.0 > offset, "a fetch at {offset} does not move on");
        offset = fetched.next_offset.0;
    }
}

fn numbered(range: std::ops::Range<u64>) -> Vec<(u64, i64)> {
    range.map(|n| (n, n as i64)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_size_that_cuts_the_last_batch_never_skips_the_rest_of_it() {
    let dir = TempDir::new().unwrap();
    let broker = open(dir.path(), 1, |_| {}).await;
    // Batches of 1 to 12 records, of which the first half is in segments.
    let mut end = 0;
    for count in (1..=12).chain(1..=12) {
        produce(&broker, end..end + count).await;
        end += count;
        if count == 12 && end < 100 {
            flush(&broker).await;
        }
    }
    let end = end as u64;
    let one = batch(0..1).len();
    for bytes_max in (1..4 * one).step_by(7).chain([10 * one, 100 * one]) {
        assert_eq!(read(&broker, 0, bytes_max).await, numbered(0..end), "{bytes_max} bytes");
    }
    for from in 0..=end {
        assert_eq!(read(&broker, from, one).await, numbered(from..end), "from {from}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_at_the_end_never_restarts_from_the_beginning() {
    let dir = TempDir::new().unwrap();
    let broker = open(dir.path(), 1, |_| {}).await;
    let mut end = 0;
    for round in 0..6 {
        produce(&broker, end..end + 5).await;
        end += 5;
        if round % 2 == 0 {
            flush(&broker).await;
        }
        let at_the_end = broker.fetch(query(end as u64, 1 << 20)).await.unwrap();
        assert!(at_the_end.batches.is_empty(), "round {round}");
        assert_eq!(at_the_end.next_offset, Offset(end as u64));
        let waited = waiting(end as u64, 1, Duration::from_millis(1));
        let waited = broker.fetch(waited).await.unwrap();
        assert!(waited.batches.is_empty());
        assert_eq!(waited.next_offset, Offset(end as u64));
    }
    broker.stop().await;
    let broker = open(dir.path(), 2, |_| {}).await;
    let after_a_start = broker.fetch(query(end as u64, 1 << 20)).await.unwrap();
    assert!(after_a_start.batches.is_empty());
    assert_eq!(after_a_start.next_offset, Offset(end as u64));
}

#[tokio::test(flavor = "multi_thread")]
async fn old_data_is_read_when_more_segments_are_there_than_memory_knows() {
    let dir = TempDir::new().unwrap();
    let few = |settings: &mut Settings| {
        settings.segment_entries_max = 3;
        // Segments stay as they are.
        settings.sweep_interval = LONG;
    };
    let broker = open(dir.path(), 1, few).await;
    for n in 0..20 {
        produce(&broker, n * 10..n * 10 + 10).await;
        flush(&broker).await;
    }
    let (_, partitions) = broker.topic("t", false).await.unwrap();
    assert_eq!(partitions[0].segment_count, 20);
    assert_eq!(read(&broker, 0, 1).await, numbered(0..200));
    for from in [199, 0, 150, 9, 10, 100, 31] {
        let fetched = broker.fetch(query(from, 1)).await.unwrap();
        assert_eq!(records(&fetched, from)[0], (from, from as i64));
    }
    assert_eq!(broker.offset_at("t", 0, 42).await.unwrap(), Some(Offset(42)));
    broker.stop().await;

    let broker = open(dir.path(), 2, few).await;
    assert_eq!(read(&broker, 5, 1 << 20).await, numbered(5..200));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_on_finds_the_next_block_fetched() {
    const BLOCK_BYTES: u64 = 4_000;
    let dir = TempDir::new().unwrap();
    let broker = open(dir.path(), 1, |settings| {
        settings.topic_defaults.block_bytes = BLOCK_BYTES as u32;
    })
    .await;
    let config = broker.topic_defaults().clone();
    let topic = NewTopic {
        name: "blocks".to_owned(),
        partitions: 1,
        config,
    };
    broker.create_topic(topic).await.unwrap();
    // Every batch is a block of its own.
    let value = vec![b'x'; BLOCK_BYTES as usize];
    for _ in 0..10 {
        let mut builder = BatchBuilder::new();
        builder.push(0, None, Some(&value), [].into_iter());
        let encoded = builder.build(Compression::None).to_bytes();
        broker.produce("blocks", 0, encoded, Acks::Durable).await.unwrap();
    }
    broker.topic("blocks", true).await.unwrap();
    let fetch = async |offset| {
        let query = FetchQuery {
            topic: "blocks".to_owned(),
            ..query(offset, 1)
        };
        assert_eq!(broker.fetch(query).await.unwrap().next_offset, Offset(offset + 1));
    };
    // Two blocks are read, one from the other's end: the third comes by itself.
    fetch(0).await;
    fetch(1).await;
    let third = async {
        while broker.stats().block_cache_bytes < 3 * BLOCK_BYTES {
            fetch(0).await;
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, third).await.expect("a block is read ahead");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_waits_until_enough_is_there() {
    let dir = TempDir::new().unwrap();
    let broker = open(dir.path(), 1, |_| {}).await;
    produce(&broker, 0..1).await;
    let one = batch(0..1).len();
    let mut fetch = Box::pin(broker.fetch(waiting(0, 3 * one, LONG)));
    for n in 1..3 {
        assert!(futures::poll!(&mut fetch).is_pending(), "{n} batches are not three");
        produce(&broker, n..n + 1).await;
    }
    assert_eq!(records(&fetch.await.unwrap(), 0), numbered(0..3));

    // In time it answers with less, and with what is in segments it does not wait at all.
    let less = broker
        .fetch(waiting(2, 3 * one, Duration::from_millis(1)))
        .await
        .unwrap();
    assert_eq!(records(&less, 2), numbered(2..3));
    flush(&broker).await;
    let stored = broker.fetch(waiting(0, 1 << 20, LONG)).await.unwrap();
    assert_eq!(records(&stored, 0), numbered(0..3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_reader_is_told_at_once_that_its_partition_closes() {
    let dir = TempDir::new().unwrap();
    let broker = open(dir.path(), 1, |_| {}).await;
    produce(&broker, 0..1).await;
    let mut fetch = Box::pin(broker.fetch(waiting(1, 1, LONG)));
    assert!(futures::poll!(&mut fetch).is_pending());
    broker.delete_topic("t").await.unwrap();
    let told = tokio::time::timeout(LONG / 2, fetch)
        .await
        .expect("it does not wait on");
    assert!(matches!(told.unwrap_err().kind(), Kind::Unavailable | Kind::NotFound));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_record_of_a_time_is_found_wherever_it_lies() {
    let dir = TempDir::new().unwrap();
    let broker = open(dir.path(), 1, |_| {}).await;
    // Times do not go up: the first record in the order of offsets counts.
    let times = [10, 20, 15, 40, 30, 30, 50, 45, 70, 60];
    for (i, pair) in times.chunks(2).enumerate() {
        produce(&broker, pair.iter().copied()).await;
        if i < 3 {
            flush(&broker).await;
        }
    }
    let first = |time| times.iter().position(|at| *at >= time).map(|at| Offset(at as u64));
    for time in [i64::MIN, 0, 10, 11, 20, 21, 40, 41, 50, 51, 55, 70, 71, i64::MAX] {
        assert_eq!(broker.offset_at("t", 0, time).await.unwrap(), first(time), "{time}");
    }
    // Below the log start nothing is found any more, though its segment may still be there.
    broker.truncate("t", 0, Offset(3)).await.unwrap();
    assert_eq!(broker.offset_at("t", 0, 0).await.unwrap(), Some(Offset(3)));
    assert_eq!(broker.offset_at("t", 0, 20).await.unwrap(), Some(Offset(3)));
    assert_eq!(broker.offset_at("t", 0, 41).await.unwrap(), Some(Offset(6)));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_still_held_bound_those_that_follow() {
    let dir = TempDir::new().unwrap();
    let broker = open(dir.path(), 1, |settings| settings.fetch_bytes_max = 3 << 20).await;
    let large = "x".repeat(900 << 10);
    for _ in 0..4 {
        let mut builder = BatchBuilder::new();
        builder.push(0, None, Some(large.as_bytes()), [].into_iter());
        let encoded = builder.build(Compression::None).to_bytes();
        broker.produce("t", 0, encoded, Acks::Durable).await.unwrap();
    }
    // Two batches are asked for by one, and take room for both.
    let first = broker.fetch(query(0, 2 << 20)).await.unwrap();
    assert_eq!(first.batches.len(), 2);
    let held = broker.read_stats().answer_bytes;
    assert!((1 << 20..=3 << 20).contains(&held), "{held}");

    let mut second = Box::pin(broker.fetch(query(2, 2 << 20)));
    assert!(futures::poll!(&mut second).is_pending(), "there is no room for it");
    drop(first);
    drop(second.await.unwrap());
    assert_eq!(broker.read_stats().answer_bytes, 0);
    // One that is larger than everything comes alone.
    let all = broker.fetch(query(0, 16 << 20)).await.unwrap();
    assert_eq!(all.batches.len(), 4);
}
