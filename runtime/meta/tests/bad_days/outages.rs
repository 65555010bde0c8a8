//! The server is away, slow, full, or read-only.

use std::time::{Duration, Instant};

use millstream_meta::{CommitOutcome, MetaError, Metadata, MetadataSettings};
use millstream_postgres::{Database, Options, Server, Stop};
use sqlx::Connection as _;

use crate::{leases, new_segment, refused, says, session, settings};

/// Of a call while the server is away: it tries for a while, but not for ever.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_at_the_start_is_named_at_once_or_waited_for() {
    let Some(server) = Server::start() else { return };
    let database = server.database();
    server.stop(Stop::Fast);
    let start = Instant::now();
    let error = refused(database.url()).await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(matches!(error, MetaError::Unavailable { .. }), "{error:?}");
    says(&error, &[&format!("127.0.0.1:{}", server.port()), "start"]);

    let patient = MetadataSettings::at(database.url());
    let opening = tokio::spawn(async move { Metadata::open_with(&patient).await });
    server.start_again();
    let metadata = opening.await.unwrap().unwrap();
    assert!(metadata.topics().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn patience_ends_and_the_message_says_why() {
    let Some(server) = Server::start() else { return };
    let database = server.database();
    server.stop(Stop::Fast);
    let impatient = MetadataSettings {
        connect_patience: Duration::from_secs(1),
        ..settings(database.url())
    };
    let error = Metadata::open_with(&impatient).await.unwrap_err();
    says(&error, &[&format!("127.0.0.1:{}", server.port()), "start"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_fail_while_the_server_is_away_and_go_on_once_it_is_back() {
    let Some(server) = Server::start() else { return };
    let database = server.database();
    let impatient = MetadataSettings {
        statement_timeout: Duration::from_secs(1),
        ..settings(database.url())
    };
    let metadata = Metadata::open_with(&impatient).await.unwrap();
    let lease = leases(&metadata, 1).await.remove(0);
    for (n, how) in [Stop::Fast, Stop::Immediate].into_iter().enumerate() {
        let segment = new_segment(&format!("k{n}"), n as u64, n as u64 + 1);
        server.stop(how);
        let start = Instant::now();
        for error in [
            metadata.commit_segment(&lease, &segment).await.unwrap_err(),
            metadata.topics().await.unwrap_err(),
        ] {
            assert!(matches!(error, MetaError::Unavailable { .. }), "{error:?}");
            says(&error, &[&format!("127.0.0.1:{}", server.port()), "down"]);
        }
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
        server.start_again();
        assert_eq!(
            metadata.commit_segment(&lease, &segment).await.unwrap(),
            CommitOutcome::Committed
        );
        assert_eq!(metadata.topics().await.unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_meets_dead_connections_takes_new_ones() {
    let database = Server::shared().database();
    let metadata = Metadata::open(database.url()).await.unwrap();
    let lease = leases(&metadata, 1).await.remove(0);
    for n in 0..5 {
        assert!(database.terminate_connections() > 0);
        let segment = new_segment(&format!("k{n}"), n, n + 1);
        assert_eq!(
            metadata.commit_segment(&lease, &segment).await.unwrap(),
            CommitOutcome::Committed
        );
        assert!(database.terminate_connections() > 0);
        assert_eq!(metadata.topics().await.unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_takes_too_long_is_given_up_and_changes_nothing() {
    let database = Server::shared().database();
    let slow = MetadataSettings {
        statement_timeout: Duration::from_millis(300),
        ..settings(database.url())
    };
    let metadata = Metadata::open_with(&slow).await.unwrap();
    let lease = leases(&metadata, 1).await.remove(0);
    let mut other = session(database.url()).await;
    let mut lock = other.begin().await.unwrap();
    sqlx::query("UPDATE partitions SET epoch = epoch")
        .execute(&mut *lock)
        .await
        .unwrap();
    let start = Instant::now();
    let error = metadata
        .commit_segment(&lease, &new_segment("a", 0, 1))
        .await
        .unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(matches!(error, MetaError::Unavailable { .. }), "{error:?}");
    says(&error, &["lock"]);
    lock.rollback().await.unwrap();
    assert_eq!(database.sql("SELECT committed_end FROM partitions"), "0");

    database.sql(
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NEW; END'; \
         CREATE TRIGGER dawdle BEFORE INSERT ON segments FOR EACH ROW EXECUTE FUNCTION dawdle()",
    );
    let error = metadata
        .commit_segment(&lease, &new_segment("a", 0, 1))
        .await
        .unwrap_err();
    assert!(matches!(error, MetaError::Unavailable { .. }), "{error:?}");
    says(&error, &["longer than"]);
    assert_eq!(database.sql("SELECT committed_end FROM partitions"), "0");
    database.sql("DROP TRIGGER dawdle ON segments");
    assert_eq!(
        metadata.commit_segment(&lease, &new_segment("a", 0, 1)).await.unwrap(),
        CommitOutcome::Committed
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_free_connections_says_what_to_raise_or_lower() {
    let Some(server) = Server::start_with(&Options::default().setting("max_connections = 8")) else {
        return;
    };
    let database = server.database();
    let metadata = Metadata::open(database.url()).await.unwrap();
    metadata.close().await;
    let mut taken = Vec::new();
    let options: sqlx::postgres::PgConnectOptions = database.url().parse().unwrap();
    while let Ok(session) = sqlx::ConnectOptions::connect(&options).await {
        taken.push(session);
    }
    let error = refused(database.url()).await;
    assert!(matches!(error, MetaError::Unavailable { .. }), "{error:?}");
    says(&error, &["max_connections"]);
    taken.clear();
    let patient = MetadataSettings::at(database.url());
    Metadata::open_with(&patient).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_and_changes_nothing() {
    let database = Server::shared().database();
    let metadata = Metadata::open(database.url()).await.unwrap();
    let lease = leases(&metadata, 1).await.remove(0);
    database.sql(
        "CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN RAISE ''could not extend file'' USING ERRCODE = ''53100''; END'; \
         CREATE TRIGGER fill BEFORE INSERT ON segments FOR EACH ROW EXECUTE FUNCTION fill()",
    );
    let segment = new_segment("a", 0, 1);
    let error = metadata.commit_segment(&lease, &segment).await.unwrap_err();
    assert!(matches!(error, MetaError::DiskFull { .. }), "{error:?}");
    says(&error, &["free"]);
    assert_eq!(database.sql("SELECT committed_end FROM partitions"), "0");
    database.sql("DROP TRIGGER fill ON segments");
    assert_eq!(
        metadata.commit_segment(&lease, &segment).await.unwrap(),
        CommitOutcome::Committed
    );
}

#[track_caller]
fn is_read_only(error: &MetaError) {
    assert!(matches!(error, MetaError::ReadOnly { .. }), "{error:?}");
    says(error, &["read-only", "primary"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_set_to_read_only_is_refused_at_the_start() {
    let database = Server::shared().database();
    Metadata::open(database.url()).await.unwrap().close().await;
    database.sql(&format!(
        "ALTER DATABASE {} SET default_transaction_read_only = on",
        database.name()
    ));
    is_read_only(&refused(database.url()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_refused_with_or_without_a_schema_and_a_server_that_becomes_one_too() {
    let Some(server) = Server::start() else { return };
    let (made, empty): (Database, Database) = (server.database(), server.database());
    let metadata = Metadata::open(made.url()).await.unwrap();
    let lease = leases(&metadata, 1).await.remove(0);
    server.stop(Stop::Fast);
    std::fs::write(server.directory().join("data/standby.signal"), "").unwrap();
    server.start_again();
    assert_eq!(server.sql("SELECT pg_is_in_recovery()"), "t");
    is_read_only(&refused(made.url()).await);
    is_read_only(&refused(empty.url()).await);
    let segment = new_segment("a", 0, 1);
    is_read_only(&metadata.commit_segment(&lease, &segment).await.unwrap_err());
    assert_eq!(metadata.topics().await.unwrap().len(), 1, "reading goes on");
    server.sql("SELECT pg_promote()");
    assert_eq!(
        metadata.commit_segment(&lease, &segment).await.unwrap(),
        CommitOutcome::Committed
    );
}
