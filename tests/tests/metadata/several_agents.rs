//! Two agents on one PostgreSQL and one object store.

use std::fs;

use millstream_postgres::Server;
use millstream_tests::{Agent, Setup, record, values};
use tempfile::TempDir;
use tonic::Code;

use crate::on;

const LEASE_MS: u64 = 2_000;

/// What two agents share.
pub struct Shared {
    database: millstream_postgres::Database,
    objects: TempDir,
}

impl Shared {
    pub fn new() -> Shared {
        Shared {
            database: Server::shared().database(),
            objects: TempDir::with_prefix("millstream-objects-").unwrap(),
        }
    }

    pub fn agent(&self, name: &str, wal: &str) -> Setup {
        on(self.database.url())
            .env("MILLSTREAM_STORE", format!("file:{}", self.objects.path().display()))
            .env("MILLSTREAM_AGENT_NAME", name)
            .env("MILLSTREAM_WAL", wal)
            .env("MILLSTREAM_LEASE_DURATION_MS", LEASE_MS)
    }
}

async fn produce(agent: &Agent, numbers: std::ops::Range<u32>) {
    let grpc = agent.grpc().await;
    for number in numbers {
        grpc.produce("t", 0, vec![record(number.to_string())]).await.unwrap();
    }
}

async fn assert_holds(agent: &Agent, count: u32) {
    let read = agent.grpc().await.read("t", 0, 0).await.unwrap();
    let expected: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    assert_eq!(values(&read), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_is_led_by_one_agent_and_the_other_says_by_which() {
    let shared = Shared::new();
    let (a, b) = (shared.agent("a", "disk").start(), shared.agent("b", "disk").start());
    a.grpc().await.create_topic("t", 2).await.unwrap();
    produce(&a, 0..10).await;
    // The other one knows the topic that it did not make.
    let refused = b.grpc().await.produce("t", 0, vec![record("x")]).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(refused.message().contains(a.grpc_address()), "{refused}");
    b.grpc().await.produce("t", 1, vec![record("y")]).await.unwrap();
    produce(&a, 10..20).await;
    assert_holds(&a, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_the_name_of_a_living_one_does_not_start_and_disturbs_nobody() {
    let shared = Shared::new();
    let a = shared.agent("a", "disk").start();
    a.grpc().await.create_topic("t", 1).await.unwrap();
    produce(&a, 0..10).await;
    let setup = shared.agent("a", "disk");
    let ended = tokio::task::block_in_place(|| setup.try_start()).expect_err("two agents of one name");
    assert!(ended.error().contains(a.grpc_address()), "{}", ended.error());
    assert!(ended.error().contains("agent_name"), "{}", ended.error());
    produce(&a, 10..20).await;
    assert_holds(&a, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_agent_left_in_the_store_is_taken_over_once_its_lease_is_over() {
    let shared = Shared::new();
    let (a, b) = (shared.agent("a", "object").start(), shared.agent("b", "object").start());
    a.grpc().await.create_topic("t", 1).await.unwrap();
    produce(&a, 0..50).await;
    let lost = a.kill9();
    fs::remove_dir_all(lost.data_dir()).unwrap();
    let grpc = b.grpc().await;
    while let Err(refused) = grpc.produce("t", 0, vec![record("50")]).await {
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        tokio::task::yield_now().await;
    }
    produce(&b, 51..100).await;
    assert_holds(&b, 100).await;
    // Back again it finds another in its place.
    let a = lost.start();
    let refused = a.grpc().await.produce("t", 0, vec![record("x")]).await.unwrap_err();
    assert!(refused.message().contains(b.grpc_address()), "{refused}");
    b.terminate();
    // It still names the other for a moment, and is asked again.
    let grpc = a.grpc().await;
    while let Err(refused) = grpc.produce("t", 0, vec![record("100")]).await {
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        tokio::task::yield_now().await;
    }
    produce(&a, 101..110).await;
    assert_holds(&a, 110).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_the_disk_of_a_dead_agent_waits_for_it() {
    let shared = Shared::new();
    let (a, b) = (shared.agent("a", "disk").start(), shared.agent("b", "disk").start());
    a.grpc().await.create_topic("t", 1).await.unwrap();
    produce(&a, 0..50).await;
    let setup = a.kill9();
    let grpc = b.grpc().await;
    loop {
        let refused = grpc.produce("t", 0, vec![record("x")]).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        // At first it may still live, for all that is known; then its log is what is missed.
        if refused.message().contains("write-ahead log") {
            break;
        }
        tokio::task::yield_now().await;
    }
    let a = setup.start();
    produce(&a, 50..60).await;
    assert_holds(&a, 60).await;
}
