//! The write-ahead log in the object store: how long an acknowledgement takes, and how many PUTs there are, for 1, 100 and
//! 1,000 partitions at the same rate, and for none. Against a real S3 server on this machine.

use std::time::{Duration, Instant};

use bytes::Bytes;
use millstream_log::Store;
use millstream_tests::{Agent, Grpc, S3Server, Setup, on_s3, record};
use tokio::{task::JoinSet, time};

const PARTITIONS: [u32; 3] = [1, 100, 1_000];
const REQUESTS_PER_SECOND: u32 = 200;
const MEASURED: Duration = Duration::from_secs(10);
const VALUE_BYTES: usize = 1_000;
const PUTS: usize = 100;
/// The default.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);
/// What an acknowledgement may take besides the interval and one PUT.
const ROOM: Duration = Duration::from_millis(5);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime starts").block_on(run());
}

async fn run() {
    let server = match S3Server::start() {
        Ok(server) => server,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let bucket = server.bucket("object-wal");
    let put = p50_of_a_put(&Store::s3(&bucket).expect("the settings are right")).await;
    let setup = on_s3(Setup::new(), &bucket).env("MILLSTREAM_WAL", "object");
    let agent = setup.start();
    let grpc = agent.grpc().await;

    let aim = FLUSH_INTERVAL + put + ROOM;
    println!("one PUT of what a flush holds: p50 {put:?}; aim for p50: under {aim:?}");
    println!("| partitions | ack p50 | ack p99 | PUTs/s |");
    println!("|---|---|---|---|");
    for partitions in PARTITIONS {
        let (mut latencies, puts) = measure(&agent, &grpc, partitions).await;
        latencies.sort_unstable();
        let at = |share: f64| latencies[(latencies.len() as f64 * share) as usize];
        println!("| {partitions} | {:?} | {:?} | {puts:.1} |", at(0.5), at(0.99));
    }
    let before = groups(&agent);
    time::sleep(MEASURED).await;
    println!(
        "| idle | | | {:.1} |",
        (groups(&agent) - before) / MEASURED.as_secs_f64()
    );
}

/// What the store takes for one object of the size that a flush interval brings.
async fn p50_of_a_put(store: &Store) -> Duration {
    let bytes = VALUE_BYTES * REQUESTS_PER_SECOND as usize * FLUSH_INTERVAL.as_millis() as usize / 1_000;
    let body = Bytes::from(vec![b'x'; bytes]);
    let mut taken = Vec::new();
    for number in 0..PUTS {
        let started = Instant::now();
        let put = store.put_new(&format!("puts/{number}"), vec![body.clone()]).await;
        put.expect("a PUT succeeds");
        taken.push(started.elapsed());
    }
    taken.sort_unstable();
    taken[PUTS / 2]
}

async fn measure(agent: &Agent, grpc: &Grpc, partitions: u32) -> (Vec<Duration>, f64) {
    let topic = format!("of-{partitions}");
    grpc.create_topic(&topic, partitions).await.expect("the topic is made");
    // Opening a partition is not what is measured.
    let opened = (0..partitions).map(|partition| grpc.produce(&topic, partition, vec![record("first")]));
    for answer in futures::future::join_all(opened).await {
        answer.expect("a first record is taken");
    }

    let (groups_before, started) = (groups(agent), Instant::now());
    let mut requests = JoinSet::new();
    let mut ticks = time::interval(Duration::from_secs(1) / REQUESTS_PER_SECOND);
    let mut partition = 0;
    while started.elapsed() < MEASURED {
        ticks.tick().await;
        let (grpc, topic) = (grpc.clone(), topic.clone());
        requests.spawn(async move {
            let sent = Instant::now();
            let answer = grpc
                .produce(&topic, partition, vec![record(vec![b'x'; VALUE_BYTES])])
                .await;
            answer.expect("a record is taken");
            sent.elapsed()
        });
        partition = (partition + 1) % partitions;
    }
    let puts = (groups(agent) - groups_before) / started.elapsed().as_secs_f64();
    (requests.join_all().await, puts)
}

fn groups(agent: &Agent) -> f64 {
    agent.metric("millstream_wal_groups_total")
}
