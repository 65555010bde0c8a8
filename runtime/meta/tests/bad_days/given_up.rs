//! Callers that give up, and transactions that come too late.

use std::time::{Duration, Instant};

use millstream_batch::Offset;
use millstream_meta::{Metadata, MetadataSettings};
use millstream_postgres::Server;
use sqlx::Connection as _;

use crate::{INCARNATION, LEASE, leases, session, settings};

/// Far less than a statement may take.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_given_up_leaves_its_place_to_the_next() {
    let database = Server::shared().database();
    let one_writer = MetadataSettings {
        connections_max: 3,
        statement_timeout: Duration::from_secs(120),
        ..settings(database.url())
    };
    let metadata = Metadata::open_with(&one_writer).await.unwrap();
    let lease = leases(&metadata, 1).await.remove(0);
    let mut other = session(database.url()).await;
    let mut lock = other.begin().await.unwrap();
    let locked = sqlx::query("UPDATE wal_streams SET deleted = deleted");
    locked.execute(&mut *lock).await.unwrap();

    // A statement by itself, and one that is urgent.
    let given_up = metadata.move_trim_floor(INCARNATION, 1);
    tokio::time::timeout(Duration::from_millis(200), given_up)
        .await
        .unwrap_err();
    let locked = sqlx::query("UPDATE agents SET name = name");
    locked.execute(&mut *lock).await.unwrap();
    let given_up = metadata.leave(INCARNATION);
    tokio::time::timeout(Duration::from_millis(200), given_up)
        .await
        .unwrap_err();

    let start = Instant::now();
    metadata.truncate(&lease, Offset(0), 0).await.unwrap();
    assert_eq!(metadata.holds_leases(&[lease]).await.unwrap(), [true]);
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    lock.rollback().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_saw_the_lease_time_before_a_renewal_takes_nothing_over_after_it() {
    let database = Server::shared().database();
    let metadata = Metadata::open(database.url()).await.unwrap();
    let lease = leases(&metadata, 1).await.remove(0);
    database.sql("UPDATE agents SET lease_expires_at_ms = 1");
    // What acquiring does, by another agent.
    let mut other = session(database.url()).await;
    let mut taking = other.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE").await.unwrap();
    let seen = sqlx::query_scalar(
        "SELECT a.lease_expires_at_ms FROM partitions p JOIN partition_leases l USING (topic_id, partition) \
         JOIN agents a ON a.incarnation = l.incarnation",
    );
    let seen: i64 = seen.fetch_one(&mut *taking).await.unwrap();
    assert_eq!(seen, 1, "its time was over");

    metadata.renew_leases(INCARNATION, LEASE).await.unwrap();
    assert_eq!(
        metadata.holds_leases(std::slice::from_ref(&lease)).await.unwrap(),
        [true]
    );
    let take = sqlx::query("UPDATE partitions SET epoch = epoch + 1").execute(&mut *taking);
    let taken = match take.await {
        Ok(_) => taking.commit().await,
        Err(error) => Err(error),
    };
    let error = taken.unwrap_err();
    let state = error.as_database_error().and_then(|error| error.code());
    assert_eq!(state.as_deref(), Some("40001"), "{error}");
    assert_eq!(metadata.holds_leases(&[lease]).await.unwrap(), [true]);
}
