//! What is hot asks the database nothing: neither producing nor fetching.

use millstream_postgres::Server;
use millstream_tests::{Agent, Grpc, Setup, record};

use crate::on;

const ROUNDS: usize = 2_000;
/// How often the loop is measured until it meets none of what the agent does by the clock: its heartbeat, and what is
/// cached being read again.
const TRIES: usize = 5;
/// Longer than the loops last.
const BY_THE_CLOCK_MS: u64 = 600_000;

/// An agent that does by the clock what it does as seldom as it can.
fn quiet(setup: Setup) -> Setup {
    setup
        .env("MILLSTREAM_METADATA_CACHE_TTL_MS", BY_THE_CLOCK_MS)
        .env("MILLSTREAM_SWEEP_INTERVAL_MS", BY_THE_CLOCK_MS)
        .env("MILLSTREAM_LEASE_DURATION_MS", BY_THE_CLOCK_MS)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_loop_of_produce_and_fetch_asks_sqlite_nothing() {
    asks_nothing(quiet(Setup::new()).start()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_loop_of_produce_and_fetch_asks_postgres_nothing() {
    let database = Server::shared().database();
    asks_nothing(quiet(on(database.url())).start()).await;
}

async fn asks_nothing(agent: Agent) {
    let grpc = agent.grpc().await;
    grpc.create_topic("hot", 2).await.unwrap();
    // A segment to read from, and an open partition with a tail beside it.
    grpc.produce("hot", 0, vec![record("first")]).await.unwrap();
    grpc.partitions("hot", true).await.unwrap();
    hot_loop(&grpc, 1).await;

    let mut asked = Vec::new();
    for _ in 0..TRIES {
        let before = queries(&agent);
        hot_loop(&grpc, ROUNDS).await;
        match queries(&agent) - before {
            0.0 => return,
            queries => asked.push(queries),
        }
    }
    panic!(
        "{ROUNDS} rounds of produce and fetch, measured {TRIES} times, sent {asked:?} statements: {}",
        agent.log()
    );
}

async fn hot_loop(grpc: &Grpc, rounds: usize) {
    for _ in 0..rounds {
        grpc.produce("hot", 1, vec![record("next")]).await.unwrap();
        let (_, end) = grpc.offsets("hot", 1).await.unwrap();
        assert_eq!(grpc.fetch("hot", 1, end - 1).await.unwrap().records.len(), 1);
        assert_eq!(grpc.fetch("hot", 0, 0).await.unwrap().records.len(), 1);
    }
}

fn queries(agent: &Agent) -> f64 {
    agent.metric("millstream_metadata_queries_total")
}
