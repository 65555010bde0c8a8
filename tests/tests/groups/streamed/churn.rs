//! Streams that come, go, break and hang while records are produced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use millstream_proto::v1::subscribe_request::Message;
use millstream_tests::{Agent, Grpc, Random, record};
use tokio::task::JoinSet;
use tonic::Status;

use super::super::{committed, reason};
use super::{BEAT, PATIENCE, Reader, TOPIC, check_generations};

const READERS: usize = 6;
const PARTITIONS: u32 = 8;
const DURATION: Duration = Duration::from_secs(20);
const SESSION_MS: u32 = 2_000;
/// Something happens to a reader in one of so many steps.
const CALM: u64 = 60;

/// What became of one call.
struct Life {
    id: String,
    read: Vec<(u32, u64)>,
    holdings: BTreeSet<(u64, u32)>,
}

struct Stage {
    url: String,
    /// Those that are over.
    lives: Mutex<Vec<Life>>,
    /// Nothing happens to readers any more.
    calm: AtomicBool,
    done: AtomicBool,
}

/// Reads until something happens to it.
async fn live(stage: &Stage, reader: &mut Reader, random: &mut Random) -> Result<(), Status> {
    while !stage.done.load(Ordering::Relaxed) {
        tokio::select! {
            next = reader.next() => next?,
            () = tokio::time::sleep(BEAT) => reader.ask(Message::Alive(true)),
        }
        if !reader.asked_back.is_empty() {
            reader.release().await?;
        }
        if random.within(0..5) == 0 {
            let held: Vec<u32> = reader.held.keys().copied().collect();
            reader.commit(held).await?;
        }
        if !stage.calm.load(Ordering::Relaxed) && random.within(0..CALM) == 0 {
            if random.within(0..2) == 0 {
                // It hangs, and goes on as if nothing had been.
                let hangs_ms = random.within(0..2 * u64::from(SESSION_MS));
                tokio::time::sleep(Duration::from_millis(hangs_ms)).await;
            } else {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// One reader, life after life.
async fn lives(stage: Arc<Stage>, mut random: Random) {
    while !stage.done.load(Ordering::Relaxed) {
        let grpc = Grpc::connect(&stage.url).await;
        let mut reader = Reader::join(&grpc, SESSION_MS).await;
        if let Err(status) = live(&stage, &mut reader, &mut random).await {
            let reason = reason(&status);
            let known = ["MEMBER_HUNG", "MEMBER_UNKNOWN", "RELEASE_OVERDUE"];
            assert!(known.contains(&reason.as_str()), "{status}");
        }
        // What is left of it breaks here.
        let Reader { id, read, holdings, .. } = reader;
        stage.lives.lock().unwrap().push(Life { id, read, holdings });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_come_go_and_hang_read_everything_and_nothing_at_once() {
    let mut random = Random::seeded();
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic(TOPIC, PARTITIONS).await.unwrap();
    let stage = Arc::new(Stage {
        url: agent.url(),
        lives: Mutex::default(),
        calm: AtomicBool::new(false),
        done: AtomicBool::new(false),
    });
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        readers.spawn(lives(stage.clone(), random.fork()));
    }
    let (begun, mut ends) = (Instant::now(), BTreeMap::new());
    while begun.elapsed() < DURATION {
        let partition = random.within(0..PARTITIONS.into()) as u32;
        let records = (0..random.within(1..20)).map(|n| record(n.to_string())).collect();
        let answer = grpc.produce(TOPIC, partition, records).await.unwrap();
        ends.insert(partition, answer.base_offset + u64::from(answer.record_count));
        tokio::time::sleep(BEAT).await;
    }
    stage.calm.store(true, Ordering::Relaxed);
    let until = Instant::now() + PATIENCE;
    while !ends.iter().map(|(at, end)| (*at, *end)).eq(committed(&grpc).await) {
        assert!(Instant::now() < until, "not everything is read");
        tokio::time::sleep(BEAT).await;
    }
    stage.done.store(true, Ordering::Relaxed);
    while let Some(ended) = readers.join_next().await {
        ended.unwrap();
    }
    let lives = std::mem::take(&mut *stage.lives.lock().unwrap());
    check_generations(lives.iter().map(|life| (&life.id, &life.holdings)));
    let read: BTreeSet<(u32, u64)> = lives.iter().flat_map(|life| &life.read).copied().collect();
    let all = ends.iter().flat_map(|(at, end)| (0..*end).map(|offset| (*at, offset)));
    assert!(read.into_iter().eq(all), "a record was left out");
    println!("{} lives", lives.len());
    assert!(lives.len() > 2 * READERS, "too little happened");
}
