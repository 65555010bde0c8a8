use std::sync::Arc;

use sqlx::SqlitePool;
use uuid::Uuid;

use super::*;
use crate::cache::Cache;
use crate::database::sql;
use crate::{Metadata, NewIncarnation, TopicConfig, WalKind};

const NOW_MS: i64 = 1_700_000_000_000;

fn url(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

async fn create_topic(metadata: &Metadata, name: &str, partitions: u32) -> Result<()> {
    let id = Uuid::from_u128(u128::from(partitions));
    metadata
        .create_topic(id, name, partitions, &TopicConfig::default(), NOW_MS)
        .await
        .map(drop)
}

async fn on_writer(metadata: &Metadata, statement: &'static str) {
    metadata.database.write(sql(statement)).await.unwrap();
}

#[tokio::test]
async fn a_place_where_no_file_can_be_is_named() {
    let directory = tempfile::tempdir().unwrap();
    for place in [directory.path().join("missing/meta.db"), directory.path().to_path_buf()] {
        let error = Metadata::open(&url(&place)).await.unwrap_err();
        assert!(matches!(error, MetaError::CannotOpen { .. }), "{error:?}");
        assert!(error.to_string().contains(&*place.to_string_lossy()), "{error}");
    }
    assert!(!directory.path().join("missing").exists());
}

#[tokio::test]
async fn a_file_with_odd_characters_in_its_name_is_that_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("100% mill?mode=ro#1.db");
    create_topic(&Metadata::open(&url(&path)).await.unwrap(), "orders", 1)
        .await
        .unwrap();
    assert!(path.is_file());
    let slashes = format!("sqlite://{}", path.display());
    assert_eq!(Metadata::open(&slashes).await.unwrap().topics().await.unwrap().len(), 1);
}

#[tokio::test]
async fn every_connection_syncs_each_commit_and_holds_to_foreign_keys() {
    let directory = tempfile::tempdir().unwrap();
    let metadata = Metadata::open(&url(&directory.path().join("meta.db"))).await.unwrap();
    for pool in [&metadata.database.urgent, &metadata.database.readers] {
        let Pool::Sqlite(pool) = pool else {
            panic!("the URL names an SQLite file");
        };
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(pool).await.unwrap();
        let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(pool).await.unwrap();
        let foreign_keys: i64 = sqlx::query_scalar("PRAGMA foreign_keys").fetch_one(pool).await.unwrap();
        assert_eq!((mode.as_str(), synchronous, foreign_keys), ("wal", 2, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_file_opened_by_many_at_once_is_migrated_once() {
    for _ in 0..5 {
        let directory = tempfile::tempdir().unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..8 {
            let url = url(&directory.path().join("meta.db"));
            tasks.spawn(async move { create_topic(&Metadata::open(&url).await?, &format!("t{n}"), n + 1).await });
        }
        for answer in tasks.join_all().await {
            answer.unwrap();
        }
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let url = url(&directory.path().join("meta.db"));
    let metadata = Metadata::open(&url).await.unwrap();
    on_writer(
        &metadata,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (99, 'from later', TRUE, x'00', 0)",
    )
    .await;
    metadata.close().await;
    let error = Metadata::open(&url).await.unwrap_err();
    assert!(
        matches!(error, MetaError::SchemaNewer { found: 99, known, .. } if known < 99),
        "{error:?}"
    );
    assert!(error.to_string().contains("start the newer millstream"), "{error}");
}

#[tokio::test]
async fn a_database_of_something_else_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.db");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let pool = SqlitePool::connect_with(options).await.unwrap();
    sqlx::query("CREATE TABLE topics (subject TEXT)")
        .execute(&pool)
        .await
        .unwrap();
    let error = Metadata::open(&url(&path)).await.unwrap_err();
    assert!(matches!(error, MetaError::Migration { .. }), "{error:?}");
    let tables: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM sqlite_master")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(tables, 1);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_corrupt_and_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.db");
    let content = vec![b'x'; 8192];
    std::fs::write(&path, &content).unwrap();
    let error = Metadata::open(&url(&path)).await.unwrap_err();
    assert!(matches!(error, MetaError::Corrupt { .. }), "{error:?}");
    assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), content);
}

#[tokio::test]
async fn damage_inside_the_file_is_corrupt() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.db");
    Metadata::open(&url(&path)).await.unwrap().close().await;
    let mut content = std::fs::read(&path).unwrap();
    content[4096..].fill(0xff);
    std::fs::write(&path, &content).unwrap();
    let error = Metadata::open(&url(&path)).await.unwrap_err();
    assert!(matches!(error, MetaError::Corrupt { .. }), "{error:?}");
}

#[tokio::test]
async fn a_file_locked_by_another_is_unavailable_until_it_is_free_and_reads_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.db");
    let place = path.to_str().unwrap();
    let metadata = Metadata {
        database: open(&path, Duration::from_millis(20)).await.unwrap(),
        cache: Arc::new(Cache::new(Duration::ZERO)),
    };
    let other = SqlitePool::connect_with(SqliteConnectOptions::new().filename(&path))
        .await
        .unwrap();
    let lock = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let error = create_topic(&metadata, "orders", 1).await.unwrap_err();
    assert!(matches!(error, MetaError::Unavailable { .. }), "{error:?}");
    assert!(
        error.to_string().contains(place) && error.to_string().contains("another process"),
        "{error}"
    );
    assert!(metadata.topics().await.unwrap().is_empty());
    lock.rollback().await.unwrap();
    create_topic(&metadata, "orders", 1).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_changes_nothing_and_is_over_when_there_is_space() {
    let directory = tempfile::tempdir().unwrap();
    let metadata = Metadata::open(&url(&directory.path().join("meta.db"))).await.unwrap();
    on_writer(&metadata, "PRAGMA max_page_count = 60").await;
    let error = create_topic(&metadata, "orders", 100_000).await.unwrap_err();
    assert!(matches!(error, MetaError::DiskFull { .. }), "{error:?}");
    assert!(metadata.topics().await.unwrap().is_empty());
    on_writer(&metadata, "PRAGMA max_page_count = 1000000").await;
    create_topic(&metadata, "orders", 100_000).await.unwrap();
}

#[tokio::test]
async fn a_database_that_cannot_be_written_is_read_only() {
    let directory = tempfile::tempdir().unwrap();
    let metadata = Metadata::open(&url(&directory.path().join("meta.db"))).await.unwrap();
    on_writer(&metadata, "PRAGMA query_only = TRUE").await;
    let error = create_topic(&metadata, "orders", 1).await.unwrap_err();
    assert!(matches!(error, MetaError::ReadOnly { .. }), "{error:?}");
    // Opening meets the same: it ends with the check that the migrations make.
    let Pool::Sqlite(writer) = &metadata.database.urgent else {
        panic!("the URL names an SQLite file");
    };
    let error = migrate::sqlite(&mut writer.acquire().await.unwrap(), "here")
        .await
        .unwrap_err();
    assert!(matches!(error, MetaError::ReadOnly { .. }), "{error:?}");
}

#[tokio::test]
async fn a_closed_database_is_unavailable() {
    let directory = tempfile::tempdir().unwrap();
    let metadata = Metadata::open(&url(&directory.path().join("meta.db"))).await.unwrap();
    metadata.close().await;
    assert!(matches!(metadata.topics().await, Err(MetaError::Unavailable { .. })));
}

#[tokio::test]
async fn a_call_given_up_halfway_leaves_no_trace_and_no_lock() {
    let directory = tempfile::tempdir().unwrap();
    let metadata = Metadata::open(&url(&directory.path().join("meta.db"))).await.unwrap();
    let given_up = metadata.database.transaction(|mut tx| async move {
        let agent = sql("INSERT INTO agents (name, incarnation, registered_at_ms) VALUES ('a', zeroblob(16), 0)");
        tx.execute(agent).await?;
        std::future::pending::<Result<()>>().await
    });
    tokio::time::timeout(Duration::from_millis(100), given_up)
        .await
        .unwrap_err();
    create_topic(&metadata, "orders", 1).await.unwrap();
    let agents = metadata.agents().await.unwrap();
    assert!(agents.is_empty());
}

#[tokio::test]
async fn what_is_urgent_passes_those_who_wait_to_write() {
    const WAITING: u32 = 50;
    let directory = tempfile::tempdir().unwrap();
    let metadata = Metadata::open(&url(&directory.path().join("meta.db"))).await.unwrap();
    let new = NewIncarnation {
        agent_name: "a",
        address: "host:7070",
        incarnation: Uuid::from_u128(1),
        wal_kind: WalKind::Disk,
        lease: Duration::from_secs(60),
    };
    metadata.register_incarnation(&new, NOW_MS).await.unwrap();
    let writing = metadata.database.begin_once().await.unwrap();
    let waiting: Vec<_> = (1..=WAITING)
        .map(|n| {
            let metadata = metadata.clone();
            tokio::spawn(async move { create_topic(&metadata, &n.to_string(), n).await })
        })
        .collect();
    // All of them wait: on the one thread of a test nothing else runs.
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
    let renewal = metadata.renew_leases(new.incarnation, new.lease);
    let ((), renewed) = tokio::join!(async { drop(writing) }, renewal);
    renewed.unwrap();
    // One had asked for the connection before, and another may have been quick.
    assert!(waiting.iter().filter(|one| one.is_finished()).count() < 5);
    for one in waiting {
        one.await.unwrap().unwrap();
    }
}
