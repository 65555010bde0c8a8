//! What a thousand instances take in memory: once they are made, and after each has seen large batches.

use futures::{StreamExt as _, stream};
use millstream_proto::v1::PipelineSide::Produce;
use millstream_tests::{Grpc, Setup};

use crate::{
    load::{Load, add, contains, keeps},
    row,
};

const PARTITIONS: u32 = 1_000;
const AT_ONCE: usize = 8;
/// The bound on what all modules hold together.
const GUEST_MEMORY_BYTES: u64 = 512 << 20;

pub async fn run() {
    let agent = Setup::new()
        .env("MILLSTREAM_MODULE_GUEST_MEMORY_BYTES", GUEST_MEMORY_BYTES)
        .start();
    let grpc = agent.grpc().await;
    grpc.deploy("contains", contains())
        .await
        .expect("the filter is deployed");
    grpc.create_topic("t", PARTITIONS).await.expect("the topic is made");
    let (small, large) = (Load::new(1, 100), Load::new(9_000, 100));
    // Every partition is open, and has had a batch, before there is a stage.
    for _ in 0..2 {
        to_all(&grpc, &small).await;
    }
    let without = agent.resident_bytes();
    // Nothing contains it, so nothing more is kept.
    add(&grpc, "t", Produce, keeps("no such text")).await;
    to_all(&grpc, &small).await;
    let idle = agent.resident_bytes();
    // What was given up for others takes nothing any more.
    let instances = agent.metric("millstream_module_instances");
    let kib = idle.saturating_sub(without) as f64 / instances / 1024.0;
    row(
        &format!("resident memory of an instance that has seen one record, of {instances}"),
        format!("{kib:.1} KiB"),
        "< 16 KiB",
    );

    to_all(&grpc, &large).await;
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    let guests = agent.metric("millstream_module_memory_bytes");
    row(
        "guest memory after each of 1,000 has seen 1 MB",
        format!(
            "{:.0} MiB (the agent: {:.0} MiB)",
            mib(guests),
            mib(agent.resident_bytes() as f64)
        ),
        &format!("< {:.0} MiB", mib(GUEST_MEMORY_BYTES as f64)),
    );
}

async fn to_all(grpc: &Grpc, load: &Load) {
    stream::iter(0..PARTITIONS)
        .for_each_concurrent(AT_ONCE, async |partition| {
            let produced = grpc.produce_batch("t", partition, load.batch.clone()).await;
            produced.expect("the batch is acknowledged");
        })
        .await;
}
