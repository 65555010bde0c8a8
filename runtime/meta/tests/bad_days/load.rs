//! Connections are killed under a running load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millstream_batch::Offset;
use millstream_meta::{Lease, MetaError, Metadata, MetadataSettings};
use millstream_postgres::{Database, Server, Stop};
use tokio::task::JoinSet;

use crate::{INCARNATION, leases, new_segment};

/// Agents that commit, each to a partition of its own.
const WRITERS: u32 = 6;
/// Segments of each.
const SEGMENTS: u64 = 200;
/// Connections that are ended, one by one.
const KILLS: u32 = 60;
/// How often a call is made again that may have happened.
const TRIES: u64 = 200;

/// What one writer met.
struct Written {
    /// The lease it has in the end.
    lease: Lease,
    /// Answers that did not come.
    lost: u64,
    /// Statements that were sent again before anybody noticed.
    retries: u64,
}

/// Makes a call until it is answered; how often the answer was lost.
async fn until_answered<T, F>(mut call: impl FnMut() -> F) -> (T, u64)
where
    F: Future<Output = Result<T, MetaError>>,
{
    for lost in 0..TRIES {
        match call().await {
            Ok(answer) => return (answer, lost),
            Err(MetaError::Unavailable { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("no answer to {TRIES} calls");
}

/// Commits segments one after the other, each until it is told to be committed, and takes its lease anew now and then.
async fn commit(metadata: Metadata, mut lease: Lease) -> Written {
    let mut lost = 0;
    for n in 0..SEGMENTS {
        let segment = new_segment(&format!("{}-{n}", lease.partition), n, n + 1);
        let (_, again) = until_answered(|| metadata.commit_segment(&lease, &segment)).await;
        lost += again;
        if n % 5 == 0 {
            let acquire = || metadata.acquire_lease(lease.topic_id, lease.partition, INCARNATION);
            let (next, again) = until_answered(acquire).await;
            assert!(next.epoch > lease.epoch && next.committed_end == segment.end_offset);
            (lease, lost) = (next, lost + again);
        }
    }
    let retries = metadata.stats().retries;
    Written { lease, lost, retries }
}

async fn all_are_there_exactly_once(metadata: &Metadata, leases: &[Lease]) {
    for lease in leases {
        let rows = metadata
            .segments(lease.topic_id, lease.partition, Offset(0), u32::MAX)
            .await
            .unwrap();
        let keys: Vec<_> = rows.iter().map(|row| row.key.clone()).collect();
        let expected: Vec<_> = (0..SEGMENTS).map(|n| format!("{}-{n}", lease.partition)).collect();
        assert_eq!(keys, expected);
        let row = metadata
            .partition(lease.topic_id, lease.partition)
            .await
            .unwrap()
            .unwrap();
        assert_eq!((row.committed_end, row.epoch), (Offset(SEGMENTS), lease.epoch));
    }
}

/// Hurts the database while it is written to; what is there afterwards is what was acknowledged.
async fn under_load(database: &Database, mut hurt: impl FnMut() + Send + 'static) {
    let settings = MetadataSettings {
        connections_max: 4,
        ..MetadataSettings::at(database.url())
    };
    let metadata = Metadata::open_with(&settings).await.unwrap();
    let leases = leases(&metadata, WRITERS).await;
    let done = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for lease in leases.clone() {
        let metadata = Metadata::open_with(&settings).await.unwrap();
        tasks.spawn(commit(metadata, lease));
    }
    let hurting = tokio::task::spawn_blocking({
        let done = done.clone();
        move || {
            while !done.load(Ordering::Relaxed) {
                hurt();
            }
        }
    });
    let written = tasks.join_all().await;
    done.store(true, Ordering::Relaxed);
    hurting.await.unwrap();
    let sum = |count: fn(&Written) -> u64| written.iter().map(count).sum::<u64>();
    let (lost, retries) = (sum(|of| of.lost), sum(|of| of.retries));
    println!("{lost} answers lost, {retries} statements sent again");
    assert!(lost + retries > 0, "nothing of it was noticed");
    let leases: Vec<Lease> = written.into_iter().map(|of| of.lease).collect();
    let fresh = Metadata::open_with(&settings).await.unwrap();
    all_are_there_exactly_once(&fresh, &leases).await;
    all_are_there_exactly_once(&metadata, &leases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_killed_one_by_one_lose_and_double_nothing() {
    let database = Arc::new(Server::shared().database());
    let mut killed = 0;
    let killer = database.clone();
    under_load(&database, move || {
        if killed < KILLS && killer.terminate_one() {
            killed += 1;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_crashes_under_load_loses_and_doubles_nothing() {
    let Some(server) = Server::start() else { return };
    let database = server.database();
    let server = Arc::new(server);
    let (mut crashes, crashing) = (0, server.clone());
    under_load(&database, move || {
        if crashes < 3 {
            std::thread::sleep(Duration::from_millis(100));
            crashing.stop(Stop::Immediate);
            crashing.start_again();
            crashes += 1;
        }
    })
    .await;
}
