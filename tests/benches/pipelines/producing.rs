//! Producing through a filter: the agent's processor time, and the rate against that without a module.

use millstream_proto::v1::PipelineSide::Produce;
use millstream_tests::{Agent, Setup};

use crate::{
    load::{Load, WORD, add, contains, cost, keeps, produce},
    row,
};

const PARTITIONS: u32 = 4;
/// Times that what is compared is run, in turns.
const ROUNDS: usize = 3;
const MILLION: u64 = 1_000_000;

pub async fn run() {
    // Nothing becomes a segment meanwhile: this is about the way in.
    let agent = Setup::new()
        .env("MILLSTREAM_SEGMENT_BYTES", 1 << 30)
        .env("MILLSTREAM_TAIL_BYTES_MAX", 3_u64 << 30)
        .start();
    for (name, records) in [("16 KiB", 150), ("110 KB", 1_000), ("900 KB", 8_000)] {
        cpu(&agent, name, records).await;
    }
    rates(&agent).await;
}

async fn topics(agent: &Agent, name: &str) -> (String, String) {
    let grpc = agent.grpc().await;
    let (plain, filtered) = (format!("{name}-plain"), format!("{name}-filtered"));
    for topic in [&plain, &filtered] {
        grpc.create_topic(topic, PARTITIONS).await.expect("the topic is made");
    }
    grpc.deploy("contains", contains())
        .await
        .expect("the filter is deployed");
    add(&grpc, &filtered, Produce, keeps(WORD)).await;
    (plain, filtered)
}

/// Processor time for each million records of 100 bytes.
async fn cpu(agent: &Agent, name: &str, records: u64) {
    let grpc = agent.grpc().await;
    let (plain, filtered) = topics(agent, &format!("cpu-{records}")).await;
    let load = Load::new(records, 100);
    let times = MILLION / (records * u64::from(PARTITIONS));
    let millions = (times * records * u64::from(PARTITIONS)) as f64 / 1e6;
    let mut least = [f64::MAX; 2];
    for _ in 0..ROUNDS {
        for (topic, least) in [&plain, &filtered].into_iter().zip(&mut least) {
            let cost = cost(agent, produce(&grpc, topic, PARTITIONS, &load, times)).await;
            *least = least.min(cost.cpu_seconds / millions);
        }
    }
    let [without, with] = least;
    let aim = if records == 150 { "" } else { "< 0.4 s" };
    row(
        &format!("agent CPU a million records of 100 B produced through a filter, batches of {name}"),
        format!("{with:.2} s (without a filter {without:.2} s)"),
        aim,
    );
}

/// Records of 1 KiB a second.
async fn rates(agent: &Agent) {
    let grpc = agent.grpc().await;
    let (plain, filtered) = topics(agent, "rate").await;
    let load = Load::new(800, 1_024);
    let (mut best, times) = ([0.0_f64; 2], 60);
    for _ in 0..ROUNDS {
        for (topic, best) in [&plain, &filtered].into_iter().zip(&mut best) {
            let wall = produce(&grpc, topic, PARTITIONS, &load, times).await;
            let records = load.records * times * u64::from(PARTITIONS);
            *best = best.max(records as f64 / wall.as_secs_f64());
        }
        // What is in memory becomes segments between the rounds.
        for topic in [&plain, &filtered] {
            grpc.partitions(topic, true).await.expect("a flush is answered");
        }
    }
    let [without, with] = best;
    row(
        "records/s of 1 KiB produced through a filter, against without",
        format!("{:.2} ({with:.0} and {without:.0})", with / without),
        "0.8",
    );
}
