//! What the measurements have in common: batches, a filter, and requests in flight.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use millstream_batch::{BatchBuilder, Compression};
use millstream_proto::v1;
use millstream_tests::{Agent, Grpc, Random, modules};

/// The filter: every fourth record contains it.
pub const WORD: &str = "timeout";
const WORDS: [&str; 8] = [
    "GET",
    "request",
    "upstream",
    "took",
    "time",
    "retry",
    "connection",
    "tile",
];
/// The records of every run are the same.
const SEED: u64 = 0x6d69_6c6c;
/// When records are made.
pub const BASE_TIMESTAMP_MS: i64 = 1_767_225_600_000;

/// An encoded batch, and the records in it.
#[derive(Clone)]
pub struct Load {
    pub batch: Bytes,
    pub records: u64,
}

impl Load {
    /// So many records with values of so many bytes, words of a log.
    pub fn new(records: u64, value_bytes: usize) -> Load {
        let mut random = Random::from_seed(SEED);
        let mut builder = BatchBuilder::new();
        for n in 0..records {
            let mut line = String::with_capacity(value_bytes + 16);
            let word_at = match random.within(0..4) {
                0 => random.within(0..value_bytes as u64 - 20) as usize,
                _ => usize::MAX,
            };
            while line.len() < value_bytes {
                match line.len() >= word_at && !line.contains(WORD) {
                    true => line.push_str(WORD),
                    false => line.push_str(WORDS[random.within(0..WORDS.len() as u64) as usize]),
                }
                line.push(' ');
            }
            line.truncate(value_bytes);
            builder.push(
                BASE_TIMESTAMP_MS + n as i64,
                None,
                Some(line.as_bytes()),
                std::iter::empty(),
            );
        }
        let batch = builder.build(Compression::None).to_bytes();
        Load { batch, records }
    }
}

/// The component of a filter by substring.
pub fn contains() -> Bytes {
    modules::component_of("examples/modules/contains")
}

/// A stage of [`contains`] that keeps records with a text.
pub fn keeps(text: &str) -> v1::Stage {
    v1::Stage {
        module: "contains".to_owned(),
        params: [("text".to_owned(), text.to_owned())].into(),
        ..v1::Stage::default()
    }
}

/// Adds a stage.
pub async fn add(grpc: &Grpc, topic: &str, side: v1::PipelineSide, stage: v1::Stage) {
    let request = v1::AddStageRequest {
        topic: topic.to_owned(),
        side: side.into(),
        stage: Some(stage),
        no_trial_call: true,
        ..v1::AddStageRequest::default()
    };
    grpc.pipelines().add_stage(request).await.expect("the stage is added");
}

/// Sends the load to every partition so many times, each partition's one after the other; the time it took.
pub async fn produce(grpc: &Grpc, topic: &str, partitions: u32, load: &Load, times: u64) -> Duration {
    let started = Instant::now();
    let lanes = (0..partitions).map(|partition| {
        let (grpc, topic, load) = (grpc.clone(), topic.to_owned(), load.clone());
        tokio::spawn(async move {
            for _ in 0..times {
                let produced = grpc.produce_batch(&topic, partition, load.batch.clone()).await;
                produced.expect("the batch is acknowledged");
            }
        })
    });
    for lane in join_all(lanes).await {
        lane.expect("no lane panics");
    }
    started.elapsed()
}

/// What something took: by the clock, and of the agent's processor time.
pub struct Cost {
    pub wall: Duration,
    pub cpu_seconds: f64,
}

/// Measures what something takes.
pub async fn cost<F: Future<Output = Duration>>(agent: &Agent, work: F) -> Cost {
    let before = agent.cpu_seconds();
    let wall = work.await;
    Cost {
        wall,
        cpu_seconds: agent.cpu_seconds() - before,
    }
}

/// The value below which so many of a hundred lie.
pub fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let last = times.len() - 1;
    times[(times.len() * percent / 100).min(last)]
}

pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
