//! Minutes of produce and consume while the agent is killed and the store goes away, at random, and a verdict.
//!
//! `MILLSTREAM_SOAK_MINUTES` says how long (10), `MILLSTREAM_TEST_SEED` repeats a run's choices. Every start takes one of
//! the two kinds of write-ahead log, so that each recovers what the other left.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use millstream_log::S3Settings;
use millstream_tests::{
    Agent, Gate, Grpc, Random, S3Server, Setup,
    ledger::{Place, Producer, Seen},
    on_s3,
};
use tokio::{sync::watch, task::JoinSet, time};

const MINUTES: u64 = 10;
const TOPICS: [(&str, u32); 2] = [("orders", 4), ("clicks", 2)];
const PRODUCERS_PER_PARTITION: usize = 2;
/// How long an agent runs before it is killed, and how long the store is away, in milliseconds.
const LIFE_MS: std::ops::Range<u64> = 500..8_000;
const OUTAGE_MS: std::ops::Range<u64> = 100..3_000;

#[derive(Debug, Default)]
struct Counts {
    kills: u64,
    outages: u64,
    rereads: u64,
}

struct Soak {
    random: Random,
    gate: Gate,
    setup: Setup,
    producers: Vec<Producer>,
    seen: HashMap<Place, Seen>,
    counts: Counts,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime starts");
    // A check that fails panics, with what it found.
    match catch_unwind(AssertUnwindSafe(|| runtime.block_on(run()))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => {
            println!("verdict: FAILED, see above");
            ExitCode::FAILURE
        }
    }
}

async fn run() {
    let minutes =
        std::env::var("MILLSTREAM_SOAK_MINUTES").map_or(MINUTES, |text| text.parse().expect("minutes are a number"));
    let server = S3Server::start().expect("an S3 server starts");
    let gate = Gate::before(server.address()).await;
    let bucket = S3Settings {
        endpoint: Some(gate.url()),
        ..server.bucket("soak")
    };
    let setup = on_s3(Setup::new(), &bucket)
        .env("MILLSTREAM_SEGMENT_BYTES", 256 << 10)
        .env("MILLSTREAM_WAL_FILE_BYTES", 1 << 20)
        .env("MILLSTREAM_WAL_BYTES_MAX", 8 << 20);
    let mut random = Random::seeded();
    let mut soak = Soak {
        producers: producers(&mut random),
        seen: HashMap::new(),
        counts: Counts::default(),
        random,
        gate,
        setup,
    };
    let agent = soak.start();
    let grpc = agent.grpc().await;
    for (topic, partitions) in TOPICS {
        grpc.create_topic(topic, partitions).await.expect("the topic is made");
    }
    agent.kill9();

    let until = Instant::now() + Duration::from_secs(60 * minutes);
    while Instant::now() < until {
        soak.live_and_die().await;
    }
    soak.verdict().await;
}

fn places() -> impl Iterator<Item = Place> {
    let of = |(topic, partitions)| {
        (0..partitions).map(move |partition| Place {
            topic,
            partition,
            step: 1,
        })
    };
    TOPICS.into_iter().flat_map(of)
}

fn producers(random: &mut Random) -> Vec<Producer> {
    let named = places().flat_map(|place| [place; PRODUCERS_PER_PARTITION]).enumerate();
    named
        .map(|(name, place)| Producer::new(name, place, random.fork()))
        .collect()
}

impl Soak {
    /// Starts an agent, with the store there, on either kind of write-ahead log.
    fn start(&mut self) -> Agent {
        self.gate.open();
        let kind = ["disk", "object"][self.random.within(0..2) as usize];
        self.setup.clone().env("MILLSTREAM_WAL", kind).start()
    }

    /// One life of an agent: what was acknowledged before is there; then producers, a reader and outages, and the kill.
    async fn live_and_die(&mut self) {
        let agent = self.start();
        let grpc = agent.grpc().await;
        self.check(&grpc).await;

        let acks = Arc::new(watch::Sender::new(0));
        let killed = Arc::<AtomicBool>::default();
        let mut running = JoinSet::new();
        for producer in self.producers.drain(..) {
            running.spawn(producer.run(grpc.clone(), acks.clone(), killed.clone()));
        }
        let life = time::sleep(Duration::from_millis(self.random.within(LIFE_MS)));
        tokio::select! {
            ended = running.join_next() => panic!("a producer has ended: {:?}", ended.map(|ended| ended.err())),
            () = life => {}
            () = self.outages() => {}
        }
        killed.store(true, Ordering::Release);
        agent.kill9();
        self.counts.kills += 1;
        self.producers = running.join_all().await;
    }

    /// Takes the store away and brings it back, again and again.
    async fn outages(&mut self) {
        loop {
            time::sleep(Duration::from_millis(self.random.within(OUTAGE_MS))).await;
            self.gate.close();
            self.counts.outages += 1;
            time::sleep(Duration::from_millis(self.random.within(OUTAGE_MS))).await;
            self.gate.open();
        }
    }

    /// Everything acknowledged is there, once and in order.
    async fn check(&mut self, grpc: &Grpc) {
        for place in places() {
            self.seen.entry(place).or_default().read_on(grpc, place).await;
        }
        for producer in &self.producers {
            self.seen[&producer.place()].assert_holds(producer);
        }
        self.counts.rereads += 1;
    }

    async fn verdict(mut self) {
        let agent = self.start();
        let grpc = agent.grpc().await;
        self.check(&grpc).await;
        // From segments alone, from the beginning.
        let agent = agent.restart();
        let grpc = agent.grpc().await;
        for place in places() {
            let mut whole = Seen::default();
            whole.read_on(&grpc, place).await;
            assert_eq!(whole, self.seen[&place]);
        }
        let sum = |of: fn(&Producer) -> u64| self.producers.iter().map(of).sum::<u64>();
        let read: usize = self.seen.values().map(Seen::len).sum();
        println!(
            "kills: {}, outages of the store: {}, checks: {}",
            self.counts.kills, self.counts.outages, self.counts.rereads
        );
        println!(
            "acknowledged: {} batches, {} records; refused for want of room: {}; read: {read} records",
            sum(|p| p.acked_batches() as u64),
            sum(|p| p.acked_records() as u64),
            sum(Producer::refused_batches)
        );
        println!("verdict: every acknowledged record is there, once and in order");
    }
}
