//! What an agent asks of its database while it serves, and what a large installation costs it: the start, the first
//! answers, memory. On both databases; the PostgreSQL is durable.

mod installation;
mod place;

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use millstream_postgres::{Options, Server};
use millstream_tests::{Agent, Grpc, record};

use place::Place;

const FETCHES: u32 = 100_000;
/// The aim: queries that so many fetches may cause.
const FETCHES_A_QUERY: u32 = 10_000;
const REQUESTS_AT_ONCE: usize = 8;
const RECORDS: usize = 100;
const VALUE_BYTES: usize = 100;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime starts").block_on(run());
}

async fn run() {
    let durable = Options::default()
        .setting("fsync = on")
        .setting("full_page_writes = on");
    let server = Server::start_with(&durable);
    let places = || {
        [
            Some(Place::Sqlite),
            server.as_ref().map(|server| Place::Postgres(server.database())),
        ]
    };

    println!("| {FETCHES} fetches | time | queries | per 10,000 fetches | in as much idle time |");
    println!("|---|---|---|---|---|");
    for place in places().into_iter().flatten() {
        warm_fetches(&place).await;
    }
    for place in places().into_iter().flatten() {
        installation::measure(&place).await;
    }
}

/// Queries while a warm topic is read. What the agent asks by the clock, as its heartbeat, is in them.
async fn warm_fetches(place: &Place) {
    let agent = place.setup().start();
    let grpc = agent.grpc().await;
    grpc.create_topic("warm", 1).await.expect("the topic is made");
    let records = (0..RECORDS).map(|_| record(vec![b'x'; VALUE_BYTES])).collect();
    grpc.produce("warm", 0, records).await.expect("records are taken");
    grpc.partitions("warm", true).await.expect("a flush is answered");
    fetch(&grpc).await;

    let (before, started) = (queries(&agent), Instant::now());
    let fetches = futures::stream::iter(0..FETCHES).map(|_| fetch(&grpc));
    fetches.buffer_unordered(REQUESTS_AT_ONCE).collect::<()>().await;
    let (while_fetching, time) = (queries(&agent) - before, started.elapsed());

    let before = queries(&agent);
    tokio::time::sleep(time).await;
    let idle = queries(&agent) - before;
    let share = while_fetching * f64::from(FETCHES_A_QUERY) / f64::from(FETCHES);
    let missed = if share <= 1.0 { "" } else { " (missed)" };
    println!(
        "| {} | {} | {while_fetching} | {share:.2}{missed} | {idle} |",
        place.name(),
        seconds(time)
    );
}

async fn fetch(grpc: &Grpc) {
    let fetched = grpc.fetch("warm", 0, 0).await.expect("a fetch is answered");
    assert_eq!(fetched.records.len(), RECORDS);
}

fn queries(agent: &Agent) -> f64 {
    agent.metric("millstream_metadata_queries_total")
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
