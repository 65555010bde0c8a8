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
    Acks, Broker, BrokerError, Clock, FetchQuery, NewTopic, PartitionStatus, Settings, Topic, TopicConfig, WalKind,
    Wals,
};
use millstream_log::{DiskWals, DiskWalsSettings, ObjectWalSettings, ObjectWals, Store, SyncPolicy};
use millstream_meta::{Metadata, MetadataSettings, NewIncarnation};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use uuid::Uuid;

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
    /// How long agents go by what they read of the metadata.
    pub cache_ttl: Duration,
}

/// Nobody writes the database until it is released.
pub struct Lock(SqliteConnection);

impl Lock {
    pub async fn release(mut self) {
        self.0.execute("COMMIT").await.unwrap();
        self.0.close().await.unwrap();
    }
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
            cache_ttl: Duration::from_millis(20),
        }
    }

    pub fn store(&self) -> Store {
        Store::over(self.objects.clone())
    }

    pub async fn metadata(&self) -> Metadata {
        let file = self.dir.path().join("metadata.db");
        let settings = MetadataSettings {
            cache_ttl: self.cache_ttl,
            ..MetadataSettings::at(format!("sqlite:{}", file.display()))
        };
        Metadata::open_with(&settings).await.unwrap()
    }

    pub fn wals(&self) -> Wals {
        self.wals_in("wal")
    }

    /// With the logs on a disk of this name.
    pub fn wals_in(&self, disk: &str) -> Wals {
        let disk = DiskWalsSettings {
            file_bytes: 1 << 20,
            sync: SyncPolicy::Never,
            ..DiskWalsSettings::new(self.dir.path().join(disk))
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
        self.open_agent("test", "wal", change).await.unwrap()
    }

    /// An agent with a name and a disk of its own.
    pub async fn agent(&self, name: &str, change: impl FnOnce(&mut Settings)) -> Arc<Broker> {
        self.open_agent(name, &format!("wal-of-{name}"), change).await.unwrap()
    }

    pub async fn open_agent(
        &self,
        name: &str,
        disk: &str,
        change: impl FnOnce(&mut Settings),
    ) -> Result<Arc<Broker>, BrokerError> {
        self.open_over(self.metadata().await, name, disk, change).await
    }

    pub async fn open_over(
        &self,
        metadata: Metadata,
        name: &str,
        disk: &str,
        change: impl FnOnce(&mut Settings),
    ) -> Result<Arc<Broker>, BrokerError> {
        let mut settings = Settings {
            agent_name: name.to_owned(),
            address: format!("{name}.example:7070"),
            // Tests say when it is over.
            lease_duration: Duration::from_secs(3_600),
            module_threads: 2,
            deletion_grace: Duration::ZERO,
            // Tests say when to sweep.
            sweep_interval: Duration::from_secs(3_600),
            ..Settings::default()
        };
        change(&mut settings);
        Broker::open(settings, self.clock.clone(), metadata, self.store(), self.wals_in(disk)).await
    }

    /// The lease time of an agent is over, as far as the database is concerned.
    pub async fn expire(&self, agent: &str) {
        self.execute(&format!(
            "UPDATE agents SET lease_expires_at_ms = 1 WHERE name = '{agent}'"
        ))
        .await;
    }

    /// From now on the database does not hear that this agent is there.
    pub async fn refuse_renewals(&self, agent: &str) {
        self.refuse(&format!(
            "BEFORE UPDATE OF lease_expires_at_ms ON agents WHEN NEW.name = '{agent}'"
        ))
        .await;
    }

    /// From now on no pointer is moved to the log of this agent's incarnation of now.
    pub async fn refuse_pointers_to(&self, agent: &str) {
        self.refuse(&format!(
            "BEFORE UPDATE OF wal_id ON partitions \
             WHEN NEW.wal_id = (SELECT incarnation FROM agents WHERE name = '{agent}')"
        ))
        .await;
    }

    /// From now on no segment is committed.
    pub async fn refuse_segments(&self) {
        self.refuse("BEFORE INSERT ON segments").await;
    }

    async fn refuse(&self, what: &str) {
        self.execute(&format!(
            "CREATE TRIGGER refusal {what} BEGIN SELECT RAISE(ROLLBACK, 'the database refuses'); END"
        ))
        .await;
    }

    /// The database refuses nothing any more.
    pub async fn relent(&self) {
        self.execute("DROP TRIGGER refusal").await;
    }

    /// Keeps everybody from writing the database.
    pub async fn lock(&self) -> Lock {
        let mut connection = self.connect().await;
        connection.execute("BEGIN IMMEDIATE").await.unwrap();
        Lock(connection)
    }

    /// Tells the database something.
    pub async fn execute(&self, statement: &str) {
        let mut connection = self.connect().await;
        connection.execute(AssertSqlSafe(statement.to_owned())).await.unwrap();
        connection.close().await.unwrap();
    }

    async fn connect(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new()
            .filename(self.dir.path().join("metadata.db"))
            .busy_timeout(Duration::from_secs(30));
        options.connect().await.unwrap()
    }

    /// The keys of a topic's segments in the store.
    pub async fn segments(&self, topic: &str) -> Vec<String> {
        let mut keys = self.store().list(topic).await.unwrap();
        keys.retain(|key| key.contains("/seg_"));
        keys
    }
}

/// Another agent, which lives.
pub async fn another(metadata: &Metadata) -> Uuid {
    let id = Uuid::from_u128(1_000_000);
    register(metadata, "other", id).await;
    id
}

pub async fn register(metadata: &Metadata, agent_name: &str, incarnation: Uuid) {
    let new = NewIncarnation {
        agent_name,
        address: "other.example:7070",
        incarnation,
        wal_kind: WalKind::Disk,
        lease: Duration::from_secs(3_600),
    };
    metadata.register_incarnation(&new, NOW_MS).await.unwrap();
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
            stage: None,
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
