//! From a deployment to the first batch through the new version, while every partition is being written.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};
use futures::future::join_all;
use millstream_batch::{BatchBuilder, Compression};
use millstream_proto::v1::{self, PipelineSide::Produce};
use millstream_tests::{Agent, modules};
use tokio::time::sleep;

use crate::{
    load::{BASE_TIMESTAMP_MS, add, ms, percentile},
    row,
};

/// One of about 200 KB.
const MODULE: &str = "split";
const PARTITIONS: u32 = 4;
const DEPLOYMENTS: u8 = 50;
/// Between two batches of a partition, and between two deployments.
const PAUSE: Duration = Duration::from_millis(2);
const REST: Duration = Duration::from_millis(100);
/// How long a version may take to come into force on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

pub async fn run() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    let component = modules::component(MODULE);
    grpc.deploy(MODULE, component.clone())
        .await
        .expect("the module is deployed");
    grpc.create_topic("t", PARTITIONS).await.expect("the topic is made");
    let stage = v1::Stage {
        module: MODULE.to_owned(),
        ..v1::Stage::default()
    };
    add(&grpc, "t", Produce, stage).await;

    let (newest, ends) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let lanes: Vec<_> = (0..PARTITIONS)
        .map(|partition| {
            let (grpc, newest, ends) = (grpc.clone(), newest.clone(), ends.clone());
            tokio::spawn(async move {
                let load = arrays();
                let mut longest = Duration::ZERO;
                while !ends.load(Ordering::Relaxed) {
                    let started = Instant::now();
                    let produced = grpc.produce_batch("t", partition, load.clone()).await;
                    let answer = produced.expect("the batch is acknowledged");
                    longest = longest.max(started.elapsed());
                    newest.fetch_max(answer.pipeline_version, Ordering::Relaxed);
                    sleep(PAUSE).await;
                }
                longest
            })
        })
        .collect();

    let mut times = Vec::new();
    for n in 1..=DEPLOYMENTS {
        let before = newest.load(Ordering::Relaxed);
        let started = Instant::now();
        grpc.deploy(MODULE, another(&component, n))
            .await
            .expect("the version is deployed");
        while newest.load(Ordering::Relaxed) <= before.max(1) {
            assert!(
                started.elapsed() < PATIENCE,
                "no partition goes through version {}",
                n + 1
            );
            sleep(Duration::from_micros(100)).await;
        }
        times.push(started.elapsed());
        sleep(REST).await;
    }
    ends.store(true, Ordering::Relaxed);
    let longest = join_all(lanes)
        .await
        .into_iter()
        .map(|lane| lane.expect("no lane panics"));
    let longest = longest.max().expect("there are lanes");
    row(
        &format!(
            "deploy to first batch through the new version, {} KB, p50 and p99",
            component.len() / 1000
        ),
        format!(
            "{:.0} and {:.0} ms",
            ms(percentile(&mut times, 50)),
            ms(percentile(&mut times, 99))
        ),
        "p99 < 300 ms",
    );
    row(
        "longest wait of any batch meanwhile",
        format!("{:.0} ms", ms(longest)),
        "one batch",
    );
}

/// A batch of arrays, of each of which the module makes one record.
fn arrays() -> Bytes {
    let mut builder = BatchBuilder::new();
    for n in 0..100 {
        let array = format!(r#"[{{"seq":{n},"status":"paid","customer":"c-{n:05}","total_cents":{n}}}]"#);
        builder.push(BASE_TIMESTAMP_MS, None, Some(array.as_bytes()), std::iter::empty());
    }
    builder.build(Compression::None).to_bytes()
}

/// The same module with other bytes: a version of its own, compiled anew.
fn another(component: &Bytes, n: u8) -> Bytes {
    let mut another = BytesMut::from(&**component);
    another.put_slice(&[0, 3, 1, b'n', n]);
    another.freeze()
}
