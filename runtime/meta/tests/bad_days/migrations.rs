//! Migrating a database that others migrate, that is newer, or that was left half done.

use millstream_meta::{MetaError, Metadata, TopicConfig};
use millstream_postgres::{Database, Server};
use sqlx::Connection as _;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{NOW_MS, refused, says, session};

/// Agents that start at once.
const AGENTS: u32 = 10;

async fn is_usable(metadata: &Metadata, name: &str, id: u128) -> Result<(), MetaError> {
    let config = TopicConfig::default();
    metadata
        .create_topic(Uuid::from_u128(id), name, 2, &config, NOW_MS)
        .await?;
    Ok(())
}

fn tables(database: &Database) -> String {
    database.sql("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'")
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_agents_that_start_at_once_on_a_new_database_migrate_it_once() {
    let database = Server::shared().database();
    let mut tasks = JoinSet::new();
    for n in 0..AGENTS {
        let url = database.url().to_owned();
        tasks.spawn(async move {
            let metadata = Metadata::open(&url).await?;
            is_usable(&metadata, &format!("topic-{n}"), n.into()).await
        });
    }
    for answer in tasks.join_all().await {
        answer.unwrap();
    }
    assert_eq!(database.sql("SELECT count(*) FROM topics"), AGENTS.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_is_refused_and_left_alone() {
    let database = Server::shared().database();
    Metadata::open(database.url()).await.unwrap().close().await;
    database.sql(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (99, 'from later', TRUE, '', 0)",
    );
    let before = tables(&database);
    let error = refused(database.url()).await;
    assert!(matches!(error, MetaError::SchemaNewer { found: 99, .. }), "{error:?}");
    says(&error, &["start the newer millstream"]);
    assert_eq!(tables(&database), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_marked_half_done_says_what_to_do() {
    let database = Server::shared().database();
    Metadata::open(database.url()).await.unwrap().close().await;
    database.sql("UPDATE _sqlx_migrations SET success = FALSE WHERE version = 2");
    let error = refused(database.url()).await;
    assert!(matches!(error, MetaError::Migration { .. }), "{error:?}");
    says(&error, &["migration 2", "restore a backup", "empty database"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_is_not_ours_says_what_to_do() {
    let database = Server::shared().database();
    Metadata::open(database.url()).await.unwrap().close().await;
    database.sql("UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 1");
    let error = refused(database.url()).await;
    assert!(matches!(error, MetaError::Migration { .. }), "{error:?}");
    says(&error, &["migration 1", "start the millstream that made"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_something_else_is_refused_and_left_alone() {
    let database = Server::shared().database();
    database.sql("CREATE TABLE topics (subject TEXT)");
    let error = refused(database.url()).await;
    assert!(matches!(error, MetaError::Migration { .. }), "{error:?}");
    says(&error, &["database of millstream", "empty database"]);
    assert_eq!(tables(&database), "1", "all or none");
}

/// Waits until a session of millstream waits for a lock, which is what stops it in the midst of migrating.
async fn wait_until_blocked(database: &Database) {
    let blocked = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                   AND application_name = 'millstream' AND wait_event_type = 'Lock'";
    while database.sql(blocked) == "0" {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_killed_while_it_migrates_leaves_a_database_that_the_next_start_finishes() {
    // Others that make a table of this name, and are not done, stop a migration where it makes it.
    for table in ["topics", "segments", "identity", "consumer_offsets"] {
        let database = Server::shared().database();
        let mut other = session(database.url()).await;
        let mut in_the_way = other.begin().await.unwrap();
        let make = format!("CREATE TABLE {table} (n INT)");
        sqlx::query(sqlx::AssertSqlSafe(make))
            .execute(&mut *in_the_way)
            .await
            .unwrap();
        let url = database.url().to_owned();
        let opening = tokio::spawn(async move { Metadata::open(&url).await });
        wait_until_blocked(&database).await;
        database.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND application_name = 'millstream'",
        );
        let error = opening.await.unwrap().unwrap_err();
        assert!(matches!(error, MetaError::Unavailable { .. }), "{table}: {error:?}");
        in_the_way.rollback().await.unwrap();
        assert_eq!(tables(&database), "0", "{table}: all or none");
        let metadata = Metadata::open(database.url()).await.unwrap();
        is_usable(&metadata, "orders", 1).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_while_it_migrates_lets_the_others_finish() {
    let database = Server::shared().database();
    let mut other = session(database.url()).await;
    let mut in_the_way = other.begin().await.unwrap();
    sqlx::query("CREATE TABLE segments (n INT)")
        .execute(&mut *in_the_way)
        .await
        .unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let url = database.url().to_owned();
        tasks.spawn(async move { Metadata::open(&url).await });
    }
    wait_until_blocked(&database).await;
    // The one that waits for the table: all others wait for that one.
    database.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid) \
         WHERE datname = current_database() AND locktype = 'advisory' AND granted",
    );
    in_the_way.rollback().await.unwrap();
    let answers = tasks.join_all().await;
    let failed = answers.iter().filter(|answer| answer.is_err()).count();
    assert!(failed <= 1, "{answers:?}");
    is_usable(answers.iter().flatten().next().unwrap(), "orders", 1)
        .await
        .unwrap();
}
