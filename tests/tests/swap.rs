//! A module that is swapped under load, over the network: nothing is lost, doubled, reordered, or seen by half of each of two
//! versions.

use std::{
    collections::BTreeSet,
    env,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use millstream_proto::v1::PipelineSide::Produce;
use millstream_tests::{Agent, Grpc, record, values, wat};

/// How long, where the environment does not say.
const SECONDS: u64 = 8;
/// Between two swaps.
const SWAP_INTERVAL: Duration = Duration::from_millis(50);
const PARTITIONS: u32 = 4;
const RECORDS: u64 = 50;
/// Versions that take turns.
const STAMPS: RangeInclusive<char> = 'a'..='z';

/// Produces until it is told to stop; batches as they were acknowledged, and the pipeline versions that they went through.
async fn produce(grpc: Grpc, partition: u32, done: Arc<AtomicBool>) -> Vec<(u64, u64)> {
    let (mut next, mut acknowledged) = (0, Vec::new());
    while !done.load(Ordering::Relaxed) {
        let records = (next..next + RECORDS).map(|n| record(format!("#{n}"))).collect();
        let answer = grpc.produce("t", partition, records).await.unwrap();
        assert_eq!((answer.base_offset, u64::from(answer.record_count)), (next, RECORDS));
        acknowledged.push((next, answer.pipeline_version));
        next += RECORDS;
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_swapped_every_50_ms_under_load_loses_doubles_reorders_and_mixes_nothing() {
    let seconds = env::var("MILLSTREAM_SWAP_SECONDS").map_or(SECONDS, |text| text.parse().unwrap());
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", PARTITIONS).await.unwrap();
    grpc.deploy("m", wat::stamps('a')).await.unwrap();
    grpc.add_stage("t", Produce, "m", &[]).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let mut producers = Vec::new();
    for partition in 0..PARTITIONS {
        producers.push(tokio::spawn(produce(agent.grpc().await, partition, done.clone())));
    }

    let components: Vec<_> = STAMPS.map(wat::stamps).collect();
    let (start, mut swaps) = (Instant::now(), 0);
    let mut pace = tokio::time::interval(SWAP_INTERVAL);
    while start.elapsed() < Duration::from_secs(seconds) {
        pace.tick().await;
        swaps += 1;
        grpc.deploy("m", components[swaps % components.len()].clone())
            .await
            .unwrap();
    }
    done.store(true, Ordering::Relaxed);

    let mut all = 0;
    for (partition, producer) in (0..).zip(producers) {
        let acknowledged = producer.await.unwrap();
        let read = values(&grpc.read("t", partition, 0).await.unwrap());
        assert_eq!(read.len() as u64, acknowledged.len() as u64 * RECORDS);
        let (mut former, mut versions) = (0, BTreeSet::new());
        for (base, version) in acknowledged {
            assert!(
                version >= former,
                "a batch behind version {former} went through {version}"
            );
            (former, _) = (version, versions.insert(version));
            // Stages that follow switch with each swap: version 1 of the pipeline was the stage's.
            let expected = STAMPS.clone().nth((version as usize - 1) % components.len()).unwrap();
            for n in base..base + RECORDS {
                assert_eq!(
                    read[n as usize],
                    format!("{expected}{n}"),
                    "of pipeline version {version}"
                );
            }
        }
        assert!(versions.len() > 1, "partition {partition} never switched");
        all += read.len();
    }
    println!("{swaps} swaps, {all} records");
}
