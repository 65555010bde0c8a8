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
use millstream_tests::{
    Agent, Grpc, Random, Setup,
    ledger::{Place, Producer, Seen},
    wat,
};
use tokio::{sync::watch, task::JoinSet};

const ROUNDS: u64 = 20;
/// Acknowledged batches after which a round's kill comes.
const BATCHES_PER_ROUND: std::ops::Range<u64> = 20..150;
/// Acknowledged batches after which a kill meets a flush.
const BATCHES_WHILE_FLUSHING: u64 = 5;
const PRODUCERS_PER_PARTITION: usize = 2;
/// Topics and their partitions; the second one drops every second record of a batch before it is stored.
const PLAIN: (&str, u32) = ("plain", 3);
const FILTERED: (&str, u32) = ("filtered", 2);

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
    let of = |(topic, partitions), step| (0..partitions).map(move |partition| Place { topic, partition, step });
    of(PLAIN, 1).chain(of(FILTERED, 2)).collect()
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
        .map(|(name, place)| Producer::new(name, place, random.fork()))
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
            1 => assert!(setup.kill9_at("read a write-ahead log of another incarnation")),
            3 => assert!(setup.kill9_at("recovered a partition")),
            _ => {}
        }
        agent = setup.start();

        let grpc = agent.grpc().await;
        for place in places() {
            seen.entry(place).or_default().read_on(&grpc, place).await;
        }
        for producer in &producers {
            seen[&producer.place()].assert_holds(producer);
        }
    }

    // What was read after each kill is what a last reader finds, from segments too.
    let agent = agent.restart();
    let grpc = agent.grpc().await;
    for place in places() {
        let mut whole = Seen::default();
        whole.read_on(&grpc, place).await;
        assert_eq!(whole, seen[&place]);
        let offsets = grpc.offsets(place.topic, place.partition).await.unwrap();
        assert_eq!(offsets, (0, whole.len() as u64));
    }
    let acked: usize = producers.iter().map(Producer::acked_batches).sum();
    println!("{acked} acknowledged batches");
}
