//! What the cache saves, and what a commit takes, on both databases: each figure beside what the database takes for less,
//! measured in turns within one run.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use millstream_batch::Offset;
use millstream_meta::{Lease, Metadata, MetadataSettings, NewIncarnation, NewSegment, Topic, TopicConfig, WalKind};
use millstream_postgres::{Options, Server};
use sqlx::{Connection, Executor, PgConnection, SqliteConnection};
use uuid::Uuid;

const NOW_MS: i64 = 1_700_000_000_000;
const TOPIC: &str = "web-orders";
const PARTITIONS: u32 = 100;
/// Lookups timed as one.
const LOOKUPS: u32 = 10_000;
const QUERIES: u32 = 200;
const ROUNDS: u32 = 20;
/// Commits, and as many of each thing beside them.
const COMMITS: u64 = 1_000;
const WARM_UP_COMMITS: u64 = 50;
/// What the lookups of the cache should be faster by than the query that they save, and how fast.
const LOOKUP_RATIO_AIM: f64 = 56.0;
const LOOKUP_AIM: Duration = Duration::from_micros(1);

/// One database, as millstream uses it and as it is.
struct Place {
    name: &'static str,
    metadata: Metadata,
    raw: Raw,
    topic: Topic,
    lease: Lease,
}

/// A connection of our own, for what a database takes at least.
enum Raw {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Raw {
    async fn execute(&mut self, text: &'static str) {
        let done = match self {
            Raw::Sqlite(connection) => connection.execute(sqlx::query(text)).await.map(|_| ()),
            Raw::Postgres(connection) => connection.execute(sqlx::query(text)).await.map(|_| ()),
        };
        done.unwrap_or_else(|error| panic!("{text}: {error}"));
    }

    /// A transaction that does nothing, as writers begin theirs.
    async fn empty_transaction(&mut self) {
        self.execute(match self {
            Raw::Sqlite(_) => "BEGIN IMMEDIATE",
            Raw::Postgres(_) => "BEGIN ISOLATION LEVEL SERIALIZABLE",
        })
        .await;
        self.execute("COMMIT").await;
    }
}

impl Place {
    async fn sqlite(directory: &Path) -> Place {
        let file = directory.join("metadata.db");
        let url = format!("sqlite:{}", file.display());
        let metadata = Metadata::open(&url).await.expect("the folder takes files");
        let mut raw = SqliteConnection::connect(&url).await.expect("the file is there");
        raw.execute("PRAGMA synchronous = FULL").await.expect("SQLite knows it");
        Place::filled("SQLite", metadata, Raw::Sqlite(raw)).await
    }

    async fn postgres(url: &str) -> Place {
        let metadata = Metadata::open_with(&MetadataSettings::at(url)).await;
        let raw = PgConnection::connect(url).await.expect("it takes connections");
        Place::filled("PostgreSQL", metadata.expect("the server runs"), Raw::Postgres(raw)).await
    }

    async fn filled(name: &'static str, metadata: Metadata, mut raw: Raw) -> Place {
        let config = TopicConfig::default();
        let topic = metadata.create_topic(Uuid::from_u128(1), TOPIC, PARTITIONS, &config, NOW_MS);
        let topic = topic.await.expect("the database is empty");
        let incarnation = Uuid::from_u128(2);
        let new = NewIncarnation {
            agent_name: "bench",
            address: "127.0.0.1:7070",
            incarnation,
            wal_kind: WalKind::Disk,
            lease: Duration::from_secs(3_600),
        };
        metadata
            .register_incarnation(&new, NOW_MS)
            .await
            .expect("it is the first one");
        let lease = metadata.acquire_lease(topic.id, 0, incarnation).await;
        raw.execute("CREATE TABLE counters (id BIGINT NOT NULL PRIMARY KEY, count BIGINT NOT NULL)")
            .await;
        raw.execute("INSERT INTO counters VALUES (1, 0)").await;
        Place {
            name,
            metadata,
            raw,
            topic,
            lease: lease.expect("nobody else holds it"),
        }
    }
}

/// The times of one thing that was done often.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    async fn add(&mut self, work: impl Future<Output = ()>) {
        let start = Instant::now();
        work.await;
        self.0.push(start.elapsed());
    }

    /// The time that `percent` of them do not exceed.
    fn percentile(&mut self, percent: usize) -> Duration {
        self.0.sort_unstable();
        self.0[(self.0.len() * percent / 100).min(self.0.len() - 1)]
    }

    fn print(&mut self, what: &str) {
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        let (p50, p99) = (us(self.percentile(50)), us(self.percentile(99)));
        println!("| {what} | {p50:.0} µs | {p99:.0} µs |");
    }
}

/// Prints the median of `query` against that of a lookup; a round of both at a time, so that a busy machine slows both.
async fn lookup(what: &str, mut query: impl AsyncFnMut(), mut cached: impl AsyncFnMut()) {
    let (mut queries, mut lookups) = (Times::default(), Times::default());
    cached().await;
    for _ in 0..ROUNDS {
        for _ in 0..QUERIES {
            queries.add(query()).await;
        }
        let round = async {
            for _ in 0..LOOKUPS {
                cached().await;
            }
        };
        lookups.add(round).await;
    }
    let (query, lookup) = (queries.percentile(50), lookups.percentile(50) / LOOKUPS);
    let ratio = query.as_secs_f64() / lookup.as_secs_f64();
    let met = ratio >= LOOKUP_RATIO_AIM && lookup < LOOKUP_AIM;
    println!(
        "| {what} | {:.1} µs | {:.0} ns | {ratio:.0}x{} |",
        query.as_secs_f64() * 1e6,
        lookup.as_nanos(),
        if met { "" } else { " (missed)" }
    );
}

async fn lookups(place: &Place) {
    let (metadata, name, id) = (&place.metadata, place.name, place.topic.id);
    lookup(
        &format!("topic, {name}"),
        async || {
            black_box(metadata.topic(TOPIC).await.expect("the database answers"));
        },
        async || {
            black_box(metadata.cached().topic(TOPIC).await.expect("the database answers"));
        },
    )
    .await;
    lookup(
        &format!("partition, {name}"),
        async || {
            black_box(metadata.partition(id, 7).await.expect("the database answers"));
        },
        async || {
            black_box(metadata.cached().partition(id, 7).await.expect("the database answers"));
        },
    )
    .await;
}

async fn commit(place: &Place, number: u64) {
    let segment = NewSegment {
        key: format!("{TOPIC}/0/seg_{number:020}_{number:032x}.bin"),
        base_offset: Offset(number * 1_000),
        end_offset: Offset((number + 1) * 1_000),
        record_count: 1_000,
        raw_bytes: 100_000,
        stored_bytes: 50_000,
        min_timestamp_ms: NOW_MS,
        max_timestamp_ms: NOW_MS,
        created_at_ms: NOW_MS,
        etag: Some("d41d8cd98f00b204e9800998ecf8427e".to_owned()),
    };
    let committed = place.metadata.commit_segment(&place.lease, &segment).await;
    committed.expect("the lease is ours");
}

async fn commits(place: &mut Place) {
    for number in 0..WARM_UP_COMMITS {
        commit(place, number).await;
    }
    let [mut commits, mut round_trips, mut transactions, mut updates] = std::array::from_fn(|_| Times::default());
    let before = place.metadata.stats().queries;
    for number in WARM_UP_COMMITS..WARM_UP_COMMITS + COMMITS {
        commits.add(commit(place, number)).await;
        round_trips.add(place.raw.execute("SELECT 1")).await;
        transactions.add(place.raw.empty_transaction()).await;
        updates
            .add(place.raw.execute("UPDATE counters SET count = count + 1 WHERE id = 1"))
            .await;
    }
    let statements = (place.metadata.stats().queries - before) as f64 / COMMITS as f64;
    println!("\n| {} | p50 | p99 |\n|---|---|---|", place.name);
    round_trips.print("SELECT 1");
    transactions.print("BEGIN, COMMIT");
    updates.print("one row set, synced");
    commits.print("commit_segment");
    let ratio = commits.percentile(50).as_secs_f64() / updates.percentile(50).as_secs_f64();
    println!(
        "{}: {statements} statements a commit; it takes {ratio:.2}x one row set, synced",
        place.name
    );
}

async fn run() {
    // On the disk of the target folder: a temporary folder may be in memory, where nothing is ever synced.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target folder takes files");
    let mut places = vec![Place::sqlite(directory.path()).await];
    let durable = Options::default()
        .setting("fsync = on")
        .setting("full_page_writes = on");
    let server = Server::start_with(&durable);
    let database = server.as_ref().map(Server::database);
    if let Some(database) = &database {
        places.push(Place::postgres(database.url()).await);
    }

    println!("| lookup | query, p50 | cached | aim: {LOOKUP_RATIO_AIM}x, under 1 µs |\n|---|---|---|---|");
    for place in &places {
        lookups(place).await;
    }
    for place in &mut places {
        commits(place).await;
        place.metadata.close().await;
    }
}

fn main() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build();
    runtime.expect("a runtime starts").block_on(run());
}
