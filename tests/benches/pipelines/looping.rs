//! What producers of other partitions notice of a module that loops for ever.

use std::time::{Duration, Instant};

use futures::future::join_all;
use millstream_proto::v1::{self, PipelineSide::Produce};
use millstream_tests::{Agent, Grpc, record, wat};

use crate::{
    load::{Load, WORD, add, contains, keeps, ms, percentile},
    row,
};

const PARTITIONS: u32 = 4;
const ROUNDS: usize = 4;
const ROUND: Duration = Duration::from_secs(5);
/// Between two batches of a partition.
const PAUSE: Duration = Duration::from_millis(5);

pub async fn run() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.deploy("contains", contains())
        .await
        .expect("the filter is deployed");
    grpc.deploy("loops", wat::module(wat::LOOPS))
        .await
        .expect("the module is deployed");
    grpc.create_topic("others", PARTITIONS)
        .await
        .expect("the topic is made");
    grpc.create_topic("stuck", 1).await.expect("the topic is made");
    add(&grpc, "others", Produce, keeps(WORD)).await;
    let loops = v1::Stage {
        module: "loops".to_owned(),
        breaker: Some(v1::Breaker {
            failures: 0,
            cooldown_ms: 1,
        }),
        ..v1::Stage::default()
    };
    add(&grpc, "stuck", Produce, loops).await;

    let (mut without, mut with) = (Vec::new(), Vec::new());
    // What is cold is in no round.
    others(&grpc).await;
    for _ in 0..ROUNDS {
        without.extend(others(&grpc).await);
        let stuck = {
            let grpc = agent.grpc().await;
            tokio::spawn(async move {
                loop {
                    let produced = grpc.produce("stuck", 0, vec![record("v")]).await;
                    produced.expect_err("a module that loops refuses everything");
                }
            })
        };
        with.extend(others(&grpc).await);
        stuck.abort();
    }
    for (percent, aim) in [(50, ""), (99, "2")] {
        let (without, with) = (percentile(&mut without, percent), percentile(&mut with, percent));
        row(
            &format!("p{percent} of produce on other partitions while one loops for ever, against without"),
            format!(
                "{:.2} ({:.1} and {:.1} ms)",
                ms(with) / ms(without),
                ms(with),
                ms(without)
            ),
            aim,
        );
    }
}

/// How long batches of all partitions took.
async fn others(grpc: &Grpc) -> Vec<Duration> {
    let load = Load::new(100, 100);
    let until = Instant::now() + ROUND;
    let lanes = (0..PARTITIONS).map(|partition| {
        let (grpc, load) = (grpc.clone(), load.clone());
        tokio::spawn(async move {
            let mut times = Vec::new();
            while Instant::now() < until {
                let started = Instant::now();
                let produced = grpc.produce_batch("others", partition, load.batch.clone()).await;
                produced.expect("the batch is acknowledged");
                times.push(started.elapsed());
                tokio::time::sleep(PAUSE).await;
            }
            times
        })
    });
    let times = join_all(lanes).await.into_iter();
    times.flat_map(|times| times.expect("no lane panics")).collect()
}
