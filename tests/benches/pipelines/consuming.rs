//! Reading segments through a filter, for the first time and again.

use std::time::{Duration, Instant};

use millstream_proto::v1::{self, PipelineSide::Fetch};
use millstream_tests::{Grpc, Setup, place};

use crate::{
    load::{Cost, Load, WORD, add, contains, cost, keeps, produce},
    row,
};

const PARTITIONS: u32 = 2;
/// Batches of 8,000 records in each partition.
const BATCHES: u64 = 150;
const FETCH_BYTES: u32 = 1 << 20;
const ROUNDS: usize = 4;

pub async fn run() {
    let setup = Setup::new()
        .env("MILLSTREAM_BLOCK_CACHE_BYTES", 1 << 30)
        .env("MILLSTREAM_TAIL_BYTES_MAX", 1 << 30);
    for (what, cache) in [("not cached", 0), ("cached", 1_u64 << 30)] {
        let agent = setup.clone().env("MILLSTREAM_FETCH_CACHE_BYTES", cache).start();
        let grpc = agent.grpc().await;
        grpc.deploy("contains", contains())
            .await
            .expect("the filter is deployed");
        let load = Load::new(8_000, 100);
        for topic in ["plain", "filtered"] {
            if grpc.create_topic(topic, PARTITIONS).await.is_ok() {
                produce(&grpc, topic, PARTITIONS, &load, BATCHES).await;
                grpc.partitions(topic, true).await.expect("a flush is answered");
                if topic == "filtered" {
                    add(&grpc, topic, Fetch, keeps(WORD)).await;
                }
            }
        }
        let records = load.records * BATCHES * u64::from(PARTITIONS);
        let mut least = [(f64::MAX, f64::MAX); 2];
        for round in 0..=ROUNDS {
            for (topic, least) in ["plain", "filtered"].into_iter().zip(&mut least) {
                let Cost { wall, cpu_seconds } = cost(&agent, consume(&grpc, topic)).await;
                // The first one brings the blocks, and where they are cached the results, into memory.
                if round > 0 {
                    *least = (least.0.min(wall.as_secs_f64()), least.1.min(cpu_seconds));
                }
            }
        }
        let [plain, filtered] = least;
        let rate = |seconds: f64| records as f64 / seconds;
        let aims = if cache == 0 {
            ("2,000,000", "< 0.25 s")
        } else {
            ("", "")
        };
        row(
            &format!("records/s of 100 B consumed through a filter, result {what}"),
            format!("{:.0} (without a filter {:.0})", rate(filtered.0), rate(plain.0)),
            aims.0,
        );
        let per_million = |cpu: f64| cpu / (records as f64 / 1e6);
        row(
            &format!("agent CPU a million of them, result {what}"),
            format!(
                "{:.3} s (without a filter {:.3} s)",
                per_million(filtered.1),
                per_million(plain.1)
            ),
            aims.1,
        );
        agent.terminate();
    }
}

/// Reads every partition from its beginning to its end, all at once.
async fn consume(grpc: &Grpc, topic: &str) -> Duration {
    let started = Instant::now();
    let readers = (0..PARTITIONS).map(|partition| {
        let (grpc, topic) = (grpc.clone(), topic.to_owned());
        tokio::spawn(async move {
            let mut client = grpc.consumer();
            let mut offset = 0;
            loop {
                let request = v1::FetchRequest {
                    partitions: vec![place(&topic, partition, offset)],
                    max_bytes: FETCH_BYTES,
                    ..v1::FetchRequest::default()
                };
                let answer = client.fetch(request).await.expect("a fetch is answered").into_inner();
                let part = &answer.partitions[0];
                assert_eq!(part.error, None);
                offset = part.next_offset;
                if offset == part.high_watermark {
                    break;
                }
            }
        })
    });
    for reader in futures::future::join_all(readers).await {
        reader.expect("no reader panics");
    }
    started.elapsed()
}
