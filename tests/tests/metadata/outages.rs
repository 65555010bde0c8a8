//! Bad days of the database under a running agent: whatever was acknowledged is there afterwards, once and in order.

use std::time::Duration;

use millstream_tests::{Agent, Grpc, Setup, record, values};
use tonic::{Code, Status};

use crate::{Behind, on};

/// Longer than any test takes.
const LONG_LEASE_MS: u64 = 600_000;
const SHORT_LEASE_MS: u64 = 2_000;
/// Every batch is larger: each one becomes a segment.
const SEGMENT_BYTES: u64 = 1 << 10;
const FILL_BYTES: usize = 2_000;

fn setup(behind: &Behind, lease_ms: u64, segment_bytes: u64) -> Setup {
    on(&behind.url())
        .env("MILLSTREAM_LEASE_DURATION_MS", lease_ms)
        .env("MILLSTREAM_SEGMENT_BYTES", segment_bytes)
}

/// One producer of numbered records in partition 0 of topic `t`.
struct Numbers {
    grpc: Grpc,
    fill: String,
    acknowledged: Vec<String>,
    next: u64,
}

impl Numbers {
    async fn new(agent: &Agent) -> Numbers {
        let grpc = agent.grpc().await;
        grpc.create_topic("t", 1).await.unwrap();
        Numbers {
            grpc,
            fill: "x".repeat(FILL_BYTES),
            acknowledged: Vec::new(),
            next: 0,
        }
    }

    /// A record that is refused is never sent again.
    async fn produce(&mut self) -> Result<(), Status> {
        let value = format!("{} {}", self.next, self.fill);
        self.next += 1;
        self.grpc.produce("t", 0, vec![record(value.clone())]).await?;
        self.acknowledged.push(value);
        Ok(())
    }

    async fn produce_all(&mut self, count: usize) {
        for _ in 0..count {
            self.produce().await.unwrap();
        }
    }

    /// Produces until a record is taken.
    async fn produce_when_it_goes_again(&mut self) {
        while let Err(status) = self.produce().await {
            assert_eq!(status.code(), Code::Unavailable, "{status}");
            tokio::task::yield_now().await;
        }
    }

    async fn assert_all_read(&self) {
        let read = self.grpc.read("t", 0, 0).await.unwrap();
        assert_eq!(values(&read), self.acknowledged);
    }

    /// Everything becomes segments, and is there for the next agent too.
    async fn assert_all_stored(self, agent: Agent) {
        let partitions = self.grpc.partitions("t", true).await.unwrap();
        assert_eq!(partitions[0].committed_end, self.acknowledged.len() as u64);
        let agent = agent.kill9().start();
        let read = agent.grpc().await.read("t", 0, 0).await.unwrap();
        assert_eq!(values(&read), self.acknowledged);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_are_acknowledged_while_the_database_is_down_and_segments_are_committed_afterwards() {
    let behind = Behind::a_gate().await;
    let mut agent = setup(&behind, LONG_LEASE_MS, SEGMENT_BYTES).start();
    let mut numbers = Numbers::new(&agent).await;
    numbers.produce_all(20).await;
    behind.gate.close();
    numbers.produce_all(100).await;
    numbers.assert_all_read().await;
    agent.wait_for_log("committing a segment failed");
    behind.gate.open();
    numbers.produce_all(20).await;
    numbers.assert_all_stored(agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_runs_out_refuses_producers_until_the_database_is_back_and_readers_go_on() {
    let behind = Behind::a_gate().await;
    let agent = setup(&behind, SHORT_LEASE_MS, SEGMENT_BYTES).start();
    let mut numbers = Numbers::new(&agent).await;
    numbers.produce_all(5).await;
    behind.gate.close();
    let refused = loop {
        match numbers.produce().await {
            Ok(()) => tokio::task::yield_now().await,
            Err(status) => break status,
        }
    };
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(refused.message().contains("lease"), "{refused}");
    numbers.assert_all_read().await;
    behind.gate.open();
    numbers.produce_when_it_goes_again().await;
    numbers.produce_all(5).await;
    numbers.assert_all_stored(agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_producer_and_reader_wait_for_nothing_while_the_database_does_not_answer() {
    let behind = Behind::a_gate().await;
    // Segments are not made meanwhile: only the log and the tail take part.
    let agent = setup(&behind, LONG_LEASE_MS, 64 << 20).start();
    let mut numbers = Numbers::new(&agent).await;
    numbers.produce_all(5).await;
    behind.gate.stall();
    numbers.produce_all(100).await;
    numbers.assert_all_read().await;
    behind.gate.open();
    numbers.assert_all_stored(agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_hang_for_ever_are_given_up_and_the_lease_is_renewed_on_new_ones() {
    let behind = Behind::a_gate().await;
    let setup = setup(&behind, SHORT_LEASE_MS, SEGMENT_BYTES);
    let agent = setup.env("MILLSTREAM_METADATA_TIMEOUT_MS", 500).start();
    let mut numbers = Numbers::new(&agent).await;
    numbers.produce_all(5).await;
    behind.gate.stall();
    while numbers.produce().await.is_ok() {
        tokio::task::yield_now().await;
    }
    // What hangs keeps hanging: only new connections pass.
    behind.gate.lose_connections();
    numbers.produce_when_it_goes_again().await;
    numbers.assert_all_stored(agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_two_seconds_a_query_loses_nothing() {
    let behind = Behind::a_gate().await;
    let agent = setup(&behind, LONG_LEASE_MS, SEGMENT_BYTES).start();
    let mut numbers = Numbers::new(&agent).await;
    behind.gate.slow(Duration::from_secs(2));
    numbers.produce_all(10).await;
    numbers.assert_all_read().await;
    behind.gate.open();
    numbers.assert_all_stored(agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_killed_one_by_one_lose_nothing() {
    let behind = Behind::a_gate().await;
    let agent = setup(&behind, LONG_LEASE_MS, SEGMENT_BYTES).start();
    let mut numbers = Numbers::new(&agent).await;
    for _ in 0..50 {
        numbers.produce_all(3).await;
        behind.database.terminate_one();
    }
    numbers.assert_all_read().await;
    numbers.assert_all_stored(agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_waits_for_a_database_that_is_not_there_yet() {
    let behind = Behind::a_gate().await;
    behind.gate.close();
    let setup = setup(&behind, LONG_LEASE_MS, SEGMENT_BYTES);
    // It says what it waits for, and goes on by itself.
    let agent = tokio::task::block_in_place(|| setup.start_after("database", || behind.gate.open()));
    agent.grpc().await.assert_serves("t").await;
}
