//! Memory while the store is down: 1,000 partitions take 10 records a second each for two minutes, and nothing can become
//! a segment. Then the store is back, and everything drains. Prints the resident memory against the sum of the bounds.

use std::time::{Duration, Instant};

use millstream_batch::{BatchBuilder, Compression};
use millstream_log::S3Settings;
use millstream_tests::{Agent, Gate, Grpc, S3Server, Setup, on_s3};
use tokio::{task::JoinSet, time};
use tonic::Code;

const PARTITIONS: u32 = 1_000;
const RECORDS_PER_SECOND: u32 = 10;
const VALUE_BYTES: usize = 1_000;
const OUTAGE: Duration = Duration::from_secs(120);
const PRODUCERS: u32 = 50;
/// How long the drain may take before it counts as stuck.
const DRAIN_MAX: Duration = Duration::from_secs(300);

/// The bounds under test, in bytes.
const BOUNDS: [(&str, u64); 5] = [
    ("MILLSTREAM_TAIL_BYTES_MAX", 256 << 20),
    ("MILLSTREAM_INDEX_CACHE_BYTES", 64 << 20),
    ("MILLSTREAM_BLOCK_CACHE_BYTES", 128 << 20),
    ("MILLSTREAM_IN_FLIGHT_BYTES_MAX", 128 << 20),
    // Four uploads at once, each with an encoded segment.
    ("MILLSTREAM_SEGMENT_BYTES", 16 << 20),
];
const UPLOADS_MAX: u64 = 4;

#[derive(Default)]
struct Counts {
    acked: u64,
    refused: u64,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime starts").block_on(run());
}

async fn run() {
    let server = match S3Server::start() {
        Ok(server) => server,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let gate = Gate::before(server.address()).await;
    let bucket = S3Settings {
        endpoint: Some(gate.url()),
        ..server.bucket("outage")
    };
    let mut setup = on_s3(Setup::new(), &bucket);
    for (name, value) in BOUNDS {
        setup = setup.env(name, value);
    }
    let agent = setup.env("MILLSTREAM_UPLOADS_MAX", UPLOADS_MAX).start();
    let grpc = agent.grpc().await;
    grpc.create_topic("sensors", PARTITIONS)
        .await
        .expect("the topic is made");

    let before = agent.resident_bytes();
    gate.close();
    let produced = produce(&agent, &grpc).await;
    let during = agent.resident_bytes();
    gate.open();
    let drained = drain(&grpc).await;

    let bounds: u64 = BOUNDS[..4].iter().map(|(_, bytes)| bytes).sum::<u64>() + BOUNDS[4].1 * UPLOADS_MAX;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!("| what | measured |");
    println!("|---|---|");
    println!("| acknowledged, refused | {}, {} |", produced.acked, produced.refused);
    println!("| resident before | {:.0} MiB |", mib(before));
    println!(
        "| resident at the end of the outage (aim: bounds + 300 MiB) | {:.0} MiB |",
        mib(during)
    );
    println!("| sum of the bounds | {:.0} MiB |", mib(bounds));
    println!("| drained in | {:.1} s |", drained.as_secs_f64());
}

async fn produce(agent: &Agent, grpc: &Grpc) -> Counts {
    let until = Instant::now() + OUTAGE;
    let mut producers = JoinSet::new();
    for first in 0..PRODUCERS {
        producers.spawn(produce_some(grpc.clone(), first, until));
    }
    let mut peak = 0;
    let mut counts = Counts::default();
    let mut ticks = time::interval(Duration::from_secs(10));
    loop {
        tokio::select! {
            ended = producers.join_next() => match ended {
                Some(some) => {
                    let some = some.expect("no producer panics");
                    counts.acked += some.acked;
                    counts.refused += some.refused;
                }
                None => break,
            },
            _ = ticks.tick() => peak = peak.max(agent.resident_bytes()),
        }
    }
    println!("peak {:.0} MiB", peak as f64 / f64::from(1 << 20));
    counts
}

/// One record to every `PRODUCERS`th partition, ten times a second.
async fn produce_some(grpc: Grpc, first: u32, until: Instant) -> Counts {
    // As clients send it: an encoded batch of one record.
    let mut builder = BatchBuilder::new();
    builder.push(0, None, Some(&[b'x'; VALUE_BYTES]), std::iter::empty());
    let batch = builder.build(Compression::None).to_bytes();
    let mut counts = Counts::default();
    let mut ticks = time::interval(Duration::from_secs(1) / RECORDS_PER_SECOND);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Skip);
    while Instant::now() < until {
        ticks.tick().await;
        let round = (first..PARTITIONS).step_by(PRODUCERS as usize);
        let answers = round.map(|partition| grpc.produce_batch("sensors", partition, batch.clone()));
        for answer in futures::future::join_all(answers).await {
            match answer {
                Ok(_) => counts.acked += 1,
                Err(status) if status.code() == Code::ResourceExhausted => counts.refused += 1,
                Err(status) => panic!("{status}"),
            }
        }
    }
    counts
}

async fn drain(grpc: &Grpc) -> Duration {
    let started = Instant::now();
    let flushed = time::timeout(DRAIN_MAX, grpc.partitions("sensors", true)).await;
    let partitions = flushed.expect("it drains").expect("a flush is answered");
    assert!(
        partitions
            .iter()
            .all(|partition| partition.committed_end == partition.high_watermark)
    );
    started.elapsed()
}
