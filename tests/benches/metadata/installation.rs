//! An installation of many partitions and segments: how long a start takes until it is of use, and what a partition costs.

use std::time::Instant;

use futures::StreamExt as _;
use millstream_tests::{Agent, Grpc, Setup, record};

use crate::place::Place;
use crate::seconds;

const TOPIC: &str = "many";
const PARTITIONS: u32 = 10_000;
const SEGMENTS_A_PARTITION: u64 = 100;
const SEGMENT_RECORDS: u64 = 1_000;
/// Where the real records begin.
const FILLED: u64 = SEGMENTS_A_PARTITION * SEGMENT_RECORDS;
/// The partition that holds a record in a real segment, and one that nobody used before.
const READ: u32 = 0;
const WRITTEN: u32 = 1;
const PRODUCERS: usize = 64;
const NOW_MS: i64 = 4_000_000_000_000;

pub async fn measure(place: &Place) {
    let segments = u64::from(PARTITIONS) * SEGMENTS_A_PARTITION;
    println!(
        "\n| {PARTITIONS} partitions, {segments} segments | {} |\n|---|---|",
        place.name()
    );
    let setup = filled(place).await;

    let (agent, grpc) = start(&setup, "a graceful stop").await;
    let (before, started) = (agent.resident_bytes(), Instant::now());
    open_all(&grpc).await;
    let (after, time) = (agent.resident_bytes(), started.elapsed());
    let each_ms = time.as_secs_f64() * 1e3 / f64::from(PARTITIONS);
    row(
        "one record to each partition",
        format!("{}, {each_ms:.2} ms each", seconds(time)),
    );
    let each = after.saturating_sub(before) / u64::from(PARTITIONS);
    let memory = format!("{} to {} MiB, {each} bytes a partition", before >> 20, after >> 20);
    row("resident memory meanwhile", memory);

    let setup = agent.kill9();
    let (_agent, grpc) = start(&setup, "a kill -9, all partitions written since").await;
    let started = Instant::now();
    let answers = futures::stream::iter(0..PARTITIONS).map(|partition| read_one(&grpc, partition));
    answers.buffer_unordered(PRODUCERS).collect::<()>().await;
    row("a fetch from each partition then", seconds(started.elapsed()));
}

/// The installation, with an agent that has stopped.
async fn filled(place: &Place) -> Setup {
    let agent = place.setup().start();
    let grpc = agent.grpc().await;
    let started = Instant::now();
    grpc.create_topic(TOPIC, PARTITIONS).await.expect("the topic is made");
    row("the topic is made", seconds(started.elapsed()));
    let setup = agent.terminate();

    let started = Instant::now();
    place.fill(&setup, SEGMENTS_A_PARTITION, SEGMENT_RECORDS, NOW_MS).await;
    row("filled by SQL", seconds(started.elapsed()));

    let agent = setup.start();
    let grpc = agent.grpc().await;
    produce(&grpc, READ).await;
    let partitions = grpc.partitions(TOPIC, true).await.expect("a flush is answered");
    assert_eq!(partitions[READ as usize].committed_end, FILLED + 1);
    agent.terminate()
}

/// Starts an agent, and prints how long that takes until it answers.
async fn start(setup: &Setup, after: &str) -> (Agent, Grpc) {
    let started = Instant::now();
    let print = |what: &str| row(&format!("after {after}: start to {what}"), seconds(started.elapsed()));
    let agent = setup.start();
    print("serving");
    let grpc = agent.grpc().await;
    read_one(&grpc, READ).await;
    print("the first fetch");
    produce(&grpc, WRITTEN).await;
    print("the first produce");
    (agent, grpc)
}

fn row(what: &str, figure: String) {
    println!("| {what} | {figure} |");
}

async fn read_one(grpc: &Grpc, partition: u32) {
    let fetched = grpc.fetch(TOPIC, partition, FILLED).await.expect("a fetch is answered");
    assert_eq!(fetched.records[0].offset, FILLED, "partition {partition}");
}

async fn open_all(grpc: &Grpc) {
    let answers = futures::stream::iter(0..PARTITIONS).map(|partition| produce(grpc, partition));
    answers.buffer_unordered(PRODUCERS).collect::<()>().await;
}

async fn produce(grpc: &Grpc, partition: u32) {
    let answer = grpc.produce(TOPIC, partition, vec![record("a record")]).await;
    let answer = answer.expect("a record is taken");
    assert!(answer.base_offset >= FILLED, "partition {partition}");
}
