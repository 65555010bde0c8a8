//! A broker's world, which outlives brokers: metadata and logs in a folder, objects in memory.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use millstream_batch::{BatchBuilder, Compression, Offset, RecordIter};
use millstream_broker::{
    Acks, Broker, Clock, FetchQuery, NewTopic, PartitionStatus, Settings, Topic, TopicConfig, WalKind, Wals,
};
use millstream_log::{DiskWals, DiskWalsSettings, ObjectWalSettings, ObjectWals, Store, SyncPolicy};
use millstream_meta::Metadata;
use tempfile::TempDir;

use crate::gate::Gate;

/// Long after every object of a test was made, so that none is younger than it should be.
pub const NOW_MS: i64 = 4_000_000_000_000;

/// Stands still until it is moved; ids differ.
pub struct TestClock {
    now_ms: AtomicI64,
    ids: AtomicU64,
}

impl TestClock {
    pub fn advance(&self, by: Duration) {
        self.now_ms.fetch_add(by.as_millis() as i64, Ordering::Relaxed);
    }

    pub fn set(&self, now_ms: i64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    fn random_id(&self) -> u128 {
        u128::from(self.ids.fetch_add(1, Ordering::Relaxed))
    }
}

pub struct World {
    pub dir: TempDir,
    pub clock: Arc<TestClock>,
    pub objects: Arc<Gate>,
    pub wal: WalKind,
}

impl World {
    pub fn new() -> World {
        World {
            dir: TempDir::new().unwrap(),
            clock: Arc::new(TestClock {
                now_ms: AtomicI64::new(NOW_MS),
                ids: AtomicU64::new(1),
            }),
            objects: Arc::default(),
            wal: WalKind::Disk,
        }
    }

    pub fn store(&self) -> Store {
        Store::over(self.objects.clone())
    }

    pub async fn metadata(&self) -> Metadata {
        let file = self.dir.path().join("metadata.db");
        Metadata::open(&format!("sqlite:{}", file.display())).await.unwrap()
    }

    pub fn wals(&self) -> Wals {
        let disk = DiskWalsSettings {
            file_bytes: 1 << 20,
            sync: SyncPolicy::Never,
            ..DiskWalsSettings::new(self.dir.path().join("wal"))
        };
        let object = ObjectWalSettings {
            flush_interval: Duration::from_millis(5),
            ..ObjectWalSettings::default()
        };
        Wals {
            disk: Arc::new(DiskWals::new(disk)),
            object: Arc::new(ObjectWals::new(self.store(), object)),
            kind: self.wal,
        }
    }

    /// A new incarnation. The former one is not told: for it this is a crash.
    pub async fn open(&self, change: impl FnOnce(&mut Settings)) -> Arc<Broker> {
        let mut settings = Settings {
            agent_name: "test".to_owned(),
            module_threads: 2,
            deletion_grace: Duration::ZERO,
            // Tests say when to sweep.
            sweep_interval: Duration::from_secs(3_600),
            ..Settings::default()
        };
        change(&mut settings);
        let (metadata, store) = (self.metadata().await, self.store());
        Broker::open(settings, self.clock.clone(), metadata, store, self.wals())
            .await
            .unwrap()
    }

    /// The keys of a topic's segments in the store.
    pub async fn segments(&self, topic: &str) -> Vec<String> {
        let mut keys = self.store().list(topic).await.unwrap();
        keys.retain(|key| key.contains("/seg_"));
        keys
    }
}

pub async fn topic(broker: &Arc<Broker>, name: &str, config: TopicConfig) -> Topic {
    broker
        .create_topic(NewTopic {
            name: name.to_owned(),
            partitions: 2,
            config,
        })
        .await
        .unwrap()
}

pub fn batch(values: std::ops::Range<u64>) -> Bytes {
    let mut builder = BatchBuilder::new();
    for value in values {
        builder.push(value as i64, None, Some(value.to_string().as_bytes()), [].into_iter());
    }
    builder.build(Compression::None).to_bytes()
}

/// Produces `values`, then makes a segment of them.
pub async fn segment(broker: &Broker, topic: &str, partition: u32, values: std::ops::Range<u64>) {
    broker
        .produce(topic, partition, batch(values), Acks::Durable)
        .await
        .unwrap();
    broker.topic(topic, true).await.unwrap();
}

pub async fn status(broker: &Broker, topic: &str, partition: u32) -> PartitionStatus {
    broker.topic(topic, false).await.unwrap().1[partition as usize].clone()
}

pub async fn read_all(broker: &Broker, topic: &str, partition: u32) -> Vec<(u64, u64)> {
    let start = broker.offsets(topic, partition).await.unwrap().0;
    read_from(broker, topic, partition, start).await
}

pub async fn read_from(broker: &Broker, topic: &str, partition: u32, start: Offset) -> Vec<(u64, u64)> {
    let (mut offset, mut found) = (start, Vec::new());
    loop {
        let query = FetchQuery {
            topic: topic.to_owned(),
            partition,
            offset,
            bytes_max: 10_000,
            bytes_min: 0,
            wait: Duration::ZERO,
        };
        let fetched = broker.fetch(query).await.unwrap();
        for batch in &fetched.batches {
            for record in RecordIter::new(batch.records()) {
                let record = record.unwrap();
                let at = batch.base_offset().0 + record.offset_delta as u64;
                let value = std::str::from_utf8(record.value.unwrap()).unwrap().parse().unwrap();
                if at >= offset.0 {
                    found.push((at, value));
                }
            }
        }
        offset = fetched.next_offset;
        if offset == fetched.high_watermark {
            return found;
        }
    }
}

pub fn numbered(range: std::ops::Range<u64>) -> Vec<(u64, u64)> {
    range.map(|n| (n, n)).collect()
}

/// Waits for a state.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let wait = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait)
        .await
        .unwrap_or_else(|_| panic!("it never came: {what}"));
}
