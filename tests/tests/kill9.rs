//! Crashes: the agent is killed while producers write, again and again, and nothing that it acknowledged may be lost,
//! doubled or moved.
//!
//! Small segments and WAL files make commits, trimming and recovery meet the kills at every step.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use millstream_proto::v1;
use millstream_tests::{Agent, Grpc, Random, Setup, record, wat};
use tokio::{sync::watch, task::JoinSet};
use tonic::Status;

const ROUNDS: u64 = 20;
/// Acknowledged batches after which a round's kill comes.
const BATCHES_PER_ROUND: std::ops::Range<u64> = 20..150;
/// Acknowledged batches after which a kill meets a flush.
const BATCHES_WHILE_FLUSHING: u64 = 5;
/// Records of one batch at most.
const RECORDS_MAX: u64 = 20;
const PRODUCERS_PER_PARTITION: usize = 2;
/// Topics and their partitions; the second one drops every second record of a batch before it is stored.
const PLAIN: (&str, u32) = ("plain", 3);
const FILTERED: (&str, u32) = ("filtered", 2);
/// What a record carries beside its name.
const FILL_BYTES: usize = 500;

/// A topic's name and a partition of it.
type Place = (&'static str, u32);

/// One producer and everything that was acknowledged to it.
struct Producer {
    name: usize,
    place: Place,
    next: u64,
    random: Random,
    acked: Vec<Acked>,
}

/// An acknowledged batch: the numbers of the records that were stored, from `base_offset` on.
struct Acked {
    base_offset: u64,
    stored: Vec<u64>,
}

impl Producer {
    /// Produces until the agent is gone.
    async fn run(mut self, grpc: Grpc, acks: Arc<watch::Sender<u64>>, killed: Arc<AtomicBool>) -> Producer {
        loop {
            match self.produce(&grpc).await {
                Ok(acked) => self.acked.push(acked),
                Err(status) => {
                    assert!(killed.load(Ordering::Acquire), "a living agent refused: {status}");
                    return self;
                }
            }
            acks.send_modify(|acks| *acks += 1);
        }
    }

    async fn produce(&mut self, grpc: &Grpc) -> Result<Acked, Status> {
        let numbers: Vec<u64> = (self.next..)
            .take(self.random.within(1..RECORDS_MAX) as usize)
            .collect();
        self.next += numbers.len() as u64;
        let fill = "x".repeat(FILL_BYTES);
        let value = |number: &u64| record(format!("{} {number} {fill}", self.name));
        let records = numbers.iter().map(value).collect();
        let answer = grpc.produce(self.place.0, self.place.1, records).await?;

        let step = if self.place.0 == FILTERED.0 { 2 } else { 1 };
        let stored: Vec<u64> = numbers.iter().copied().step_by(step).collect();
        assert_eq!(answer.record_count as usize, stored.len());
        assert_eq!(answer.dropped_count as usize, numbers.len() - stored.len());
        Ok(Acked {
            base_offset: answer.base_offset,
            stored,
        })
    }
}

/// What was read of a partition, in the order of its offsets: who wrote it, and its number.
#[derive(Default)]
struct Seen {
    records: Vec<(usize, u64)>,
    last_of: HashMap<usize, u64>,
}

impl Seen {
    /// Reads what is new. Each producer's numbers grow, so none is there twice and none out of order.
    async fn read_on(&mut self, grpc: &Grpc, (topic, partition): Place) {
        let from = self.records.len() as u64;
        for record in grpc.read(topic, partition, from).await.unwrap() {
            assert_eq!(record.offset, self.records.len() as u64, "{topic}/{partition}: a hole");
            let value = str::from_utf8(record.value.as_deref().unwrap()).unwrap();
            let mut words = value.split(' ');
            let by: usize = words.next().unwrap().parse().unwrap();
            let number: u64 = words.next().unwrap().parse().unwrap();
            let last = self.last_of.insert(by, number);
            assert!(
                last.is_none_or(|last| last < number),
                "{topic}/{partition}: {number} of {by} at {} behind {last:?}",
                record.offset
            );
            self.records.push((by, number));
        }
    }

    fn assert_holds(&self, producer: &Producer) {
        for acked in &producer.acked {
            let start = acked.base_offset as usize;
            let found = self.records.get(start..start + acked.stored.len());
            let found = found.unwrap_or_else(|| panic!("acknowledged records at {start} are lost"));
            let expected: Vec<_> = acked.stored.iter().map(|number| (producer.name, *number)).collect();
            assert_eq!(found, expected, "{:?} at {start}", producer.place);
        }
    }
}

/// What happens right before a kill.
#[derive(Debug)]
enum Before {
    /// Nothing: producers write.
    Produce,
    /// Everything durable has just become segments.
    Flushed,
    /// It is becoming segments.
    Flushing,
}

fn places() -> Vec<Place> {
    let of = |(topic, partitions)| (0..partitions).map(move |partition| (topic, partition));
    of(PLAIN).chain(of(FILTERED)).collect()
}

async fn create_topics(agent: &Agent) {
    let grpc = agent.grpc().await;
    for (topic, partitions) in [PLAIN, FILTERED] {
        grpc.create_topic(topic, partitions).await.unwrap();
    }
    grpc.deploy("halves", wat::module(wat::HALVES)).await.unwrap();
    let added = grpc
        .add_stage(FILTERED.0, v1::PipelineSide::Produce, "halves", &[])
        .await;
    added.unwrap();
}

/// Lets the producers write until enough is acknowledged, kills the agent, and returns when all have noticed.
async fn produce_and_kill(
    agent: Agent,
    producers: Vec<Producer>,
    batches: u64,
    before: Before,
) -> (Setup, Vec<Producer>) {
    let grpc = agent.grpc().await;
    let acks = Arc::new(watch::Sender::new(0));
    let killed = Arc::<AtomicBool>::default();
    let mut running = JoinSet::new();
    for producer in producers {
        running.spawn(producer.run(grpc.clone(), acks.clone(), killed.clone()));
    }
    tokio::select! {
        ended = running.join_next() => panic!("a producer has ended: {:?}", ended.map(|ended| ended.err())),
        () = wait_until(before, batches, &acks, grpc) => {}
    }
    killed.store(true, Ordering::Release);
    let setup = agent.kill9();
    (setup, running.join_all().await)
}

/// Waits for the moment of the kill.
async fn wait_until(before: Before, batches: u64, acks: &watch::Sender<u64>, grpc: Grpc) {
    let acked = async |batches| drop(acks.subscribe().wait_for(|acks| *acks >= batches).await.unwrap());
    let flush = async move { grpc.partitions(PLAIN.0, true).await };
    acked(batches).await;
    match before {
        Before::Produce => {}
        Before::Flushed => drop(flush.await.unwrap()),
        Before::Flushing => {
            tokio::spawn(flush);
            let now = *acks.borrow();
            acked(now + BATCHES_WHILE_FLUSHING).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_lose_double_and_reorder_nothing() {
    let mut random = Random::seeded();
    let mut setup = Setup::new()
        .env("MILLSTREAM_SEGMENT_BYTES", 64 << 10)
        .env("MILLSTREAM_WAL_FILE_BYTES", 1 << 20);
    let mut producers: Vec<Producer> = places()
        .into_iter()
        .flat_map(|place| [place; PRODUCERS_PER_PARTITION])
        .enumerate()
        .map(|(name, place)| Producer {
            name,
            place,
            next: 0,
            random: random.fork(),
            acked: Vec::new(),
        })
        .collect();
    let mut agent = setup.start();
    create_topics(&agent).await;
    let mut seen: HashMap<Place, Seen> = HashMap::new();

    for round in 0..ROUNDS {
        let before = match round % 3 {
            0 => Before::Produce,
            1 => Before::Flushed,
            _ => Before::Flushing,
        };
        println!("round {round}: {before:?}");
        let batches = random.within(BATCHES_PER_ROUND);
        (setup, producers) = produce_and_kill(agent, producers, batches, before).await;
        // A crash may also meet the recovery from the last one.
        match round % 5 {
            1 => assert!(setup.kill9_at("read a write-ahead log of an earlier incarnation")),
            3 => assert!(setup.kill9_at("recovered a partition")),
            _ => {}
        }
        agent = setup.start();

        let grpc = agent.grpc().await;
        for place in places() {
            seen.entry(place).or_default().read_on(&grpc, place).await;
        }
        for producer in &producers {
            seen[&producer.place].assert_holds(producer);
        }
    }

    // What was read after each kill is what a last reader finds, from segments too.
    let agent = agent.restart();
    let grpc = agent.grpc().await;
    for place in places() {
        let mut whole = Seen::default();
        whole.read_on(&grpc, place).await;
        assert_eq!(whole.records, seen[&place].records);
        assert_eq!(
            grpc.offsets(place.0, place.1).await.unwrap(),
            (0, whole.records.len() as u64)
        );
    }
    let acked: usize = producers.iter().map(|producer| producer.acked.len()).sum();
    println!("{acked} acknowledged batches");
}
