//! Two agents over one database and one store, to which anything happens: what was acknowledged is there, once and in order.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use millstream_broker::{Acks, Broker, TopicConfig, WalKind};

use crate::support::{World, batch, read_all, topic, until};

const NAMES: [&str; 2] = ["a", "b"];
const PARTITIONS: u32 = 2;
const STEPS: usize = 120;
const HISTORIES: u64 = 6;

/// A generator of Marsaglia's xorshift family: enough for tests.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

#[derive(Default)]
struct Ledger {
    /// Values by offset.
    acknowledged: BTreeMap<u64, u64>,
    sent: HashSet<u64>,
}

impl Ledger {
    /// Holds what a reader found against it. Where it is `whole`, everything acknowledged must be there.
    fn check(&self, partition: u32, found: &[(u64, u64)], whole: bool) {
        let offsets: Vec<u64> = found.iter().map(|(offset, _)| *offset).collect();
        let contiguous: Vec<u64> = (0..found.len() as u64).collect();
        assert_eq!(offsets, contiguous, "partition {partition}: no gap, and none twice");
        let values: HashSet<u64> = found.iter().map(|(_, value)| *value).collect();
        assert_eq!(
            values.len(),
            found.len(),
            "partition {partition}: a record is there twice"
        );
        assert!(
            values.is_subset(&self.sent),
            "partition {partition}: a record that nobody sent"
        );
        for (offset, value) in &self.acknowledged {
            let there = found.get(*offset as usize).map(|(_, value)| *value);
            let right = there == Some(*value) || (there.is_none() && !whole);
            assert!(
                right,
                "partition {partition}: {value} was acknowledged at {offset}, there is {there:?}"
            );
        }
    }
}

struct History {
    world: World,
    random: Random,
    agents: Vec<Arc<Broker>>,
    ledgers: Vec<Ledger>,
    next_value: u64,
}

impl History {
    async fn begin(seed: u64) -> History {
        let mut world = World::new();
        world.wal = WalKind::Object;
        let agents = vec![world.agent(NAMES[0], |_| {}).await, world.agent(NAMES[1], |_| {}).await];
        topic(&agents[0], "t", TopicConfig::default()).await;
        History {
            world,
            random: Random(seed | 1),
            agents,
            ledgers: (0..PARTITIONS).map(|_| Ledger::default()).collect(),
            next_value: 0,
        }
    }

    async fn step(&mut self) {
        let agent = self.random.below(2) as usize;
        match self.random.below(100) {
            0..=49 => self.produce(&[agent]).await,
            50..=64 => self.produce(&[0, 1]).await,
            65..=74 => self.world.expire(NAMES[agent]).await,
            75..=79 => {
                // The lease time is over between what the two do.
                self.world.expire(NAMES[agent]).await;
                self.produce(&[1 - agent, agent]).await;
            }
            80..=84 => self.read(agent).await,
            85..=88 => drop(self.agents[agent].topic("t", true).await),
            89..=92 => drop(self.agents[agent].sweep().await),
            93..=96 => self.restart(agent, false).await,
            _ => self.restart(agent, true).await,
        }
        // Whoever fails for good is started again.
        for agent in 0..2 {
            if self.agents[agent].failure().borrow().is_some() {
                self.restart(agent, false).await;
            }
        }
    }

    /// Several batches at once, of the agents in turn.
    async fn produce(&mut self, by: &[usize]) {
        let partition = self.random.below(u64::from(PARTITIONS)) as u32;
        let ledger = &mut self.ledgers[partition as usize];
        let mut sent = Vec::new();
        for agent in by.iter().cycle().take(2 * by.len()) {
            let values = self.next_value..self.next_value + 1 + self.random.below(5);
            self.next_value = values.end;
            ledger.sent.extend(values.clone());
            let broker = self.agents[*agent].clone();
            sent.push((
                values.clone(),
                tokio::spawn(async move { broker.produce("t", partition, batch(values), Acks::Durable).await }),
            ));
        }
        for (values, answer) in sent {
            let Ok(receipt) = answer.await.unwrap() else { continue };
            for (offset, value) in (receipt.base_offset.0..).zip(values) {
                let before = ledger.acknowledged.insert(offset, value);
                assert_eq!(before, None, "partition {partition}: offset {offset} was given twice");
            }
        }
    }

    async fn read(&mut self, agent: usize) {
        for partition in 0..PARTITIONS {
            let broker = &self.agents[agent];
            if broker.offsets("t", partition).await.is_ok() {
                let found = read_all(broker, "t", partition).await;
                // Who was taken over without knowing reads what was durable then.
                self.ledgers[partition as usize].check(partition, &found, false);
            }
        }
    }

    async fn restart(&mut self, agent: usize, gracefully: bool) {
        if gracefully {
            self.agents[agent].stop().await;
        }
        // In another's hands its log may be read while it starts: it is started until it starts.
        let opened = tokio::time::timeout(Duration::from_secs(30), async {
            loop {
                let disk = format!("wal-of-{}", NAMES[agent]);
                match self.world.open_agent(NAMES[agent], &disk, |_| {}).await {
                    Ok(broker) => return broker,
                    Err(error) => println!("{} does not start: {error}", NAMES[agent]),
                }
            }
        });
        self.agents[agent] = opened.await.expect("it starts");
    }

    async fn end(mut self) {
        for agent in 0..2 {
            self.restart(agent, false).await;
        }
        self.world.expire(NAMES[1]).await;
        for partition in 0..PARTITIONS {
            let broker = &self.agents[0];
            until("it can be read", async || broker.offsets("t", partition).await.is_ok()).await;
            let found = read_all(broker, "t", partition).await;
            self.ledgers[partition as usize].check(partition, &found, true);
        }
        let acknowledged: usize = self.ledgers.iter().map(|ledger| ledger.acknowledged.len()).sum();
        println!("{acknowledged} records acknowledged");
        assert!(acknowledged > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_agents_to_which_anything_happens_lose_nothing_and_repeat_nothing() {
    let given = std::env::var("MILLSTREAM_HISTORY_SEED")
        .ok()
        .map(|seed| seed.parse().unwrap());
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let (first, count) = given.map_or((now, HISTORIES), |seed| (seed, 1));
    for seed in (first..).take(count as usize) {
        println!("MILLSTREAM_HISTORY_SEED={seed}");
        let mut history = History::begin(seed).await;
        for _ in 0..STEPS {
            history.step().await;
        }
        history.end().await;
    }
}
