//! Random histories. Clients do what the contract asks of them; the network does what it likes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;

use super::super::members::{Beat, Group, Refusal, Seen};
use super::beat;

const TOPICS: [&str; 3] = ["t", "u", "v"];
/// Rounds of heartbeats, and the time between two: longer than every session together.
const ROUNDS: u32 = 80;
const ROUND_MS: i64 = 100;

#[derive(Clone, Debug)]
enum Step {
    Join {
        topics: u8,
        session_s: u32,
        lost: bool,
    },
    Beat {
        who: usize,
        lost: bool,
    },
    /// It stops reading what it was told to give up.
    GiveUp {
        who: usize,
    },
    /// One of its former heartbeats arrives again.
    Late {
        who: usize,
        which: usize,
    },
    Subscribe {
        who: usize,
        topics: u8,
    },
    Leave {
        who: usize,
    },
    /// It is never heard of again.
    Die {
        who: usize,
    },
    Pass {
        ms: i64,
    },
    Topic {
        which: usize,
        id: u8,
        partitions: u32,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..8_usize;
    prop_oneof![
        3 => (1..8_u8, 1..6_u32, prop::bool::weighted(0.1))
            .prop_map(|(topics, session_s, lost)| Step::Join { topics, session_s, lost }),
        12 => (who.clone(), prop::bool::weighted(0.2)).prop_map(|(who, lost)| Step::Beat { who, lost }),
        6 => who.clone().prop_map(|who| Step::GiveUp { who }),
        4 => (who.clone(), any::<usize>()).prop_map(|(who, which)| Step::Late { who, which }),
        1 => (who.clone(), 1..8_u8).prop_map(|(who, topics)| Step::Subscribe { who, topics }),
        1 => who.clone().prop_map(|who| Step::Leave { who }),
        1 => who.prop_map(|who| Step::Die { who }),
        4 => (0..1_500_i64).prop_map(|ms| Step::Pass { ms }),
        1 => (0..3_usize, 0..3_u8, 0..6_u32).prop_map(|(which, id, partitions)| Step::Topic { which, id, partitions }),
    ]
}

/// A member as it sees itself.
#[derive(Clone, Debug)]
struct Client {
    id: String,
    generation: u64,
    assigned: BTreeSet<(String, u32)>,
    reads: BTreeSet<(String, u32)>,
    sent: Vec<Beat>,
}

#[derive(Default)]
struct World {
    group: Group,
    seen: Seen,
    now_ms: i64,
    clients: Vec<Client>,
    joined: usize,
}

fn names(topics: u8) -> Vec<&'static str> {
    let chosen = TOPICS.iter().enumerate().filter(|(bit, _)| topics & (1 << bit) != 0);
    chosen.map(|(_, name)| *name).collect()
}

impl World {
    fn run(&mut self, step: Step) {
        let chosen = |who: usize| (!self.clients.is_empty()).then(|| who % self.clients.len());
        match step {
            Step::Join {
                topics,
                session_s,
                lost,
            } => self.join(topics, session_s * 1_000, lost),
            Step::Pass { ms } => self.now_ms += ms,
            Step::Topic {
                which, partitions: 0, ..
            } => drop(self.seen.remove(TOPICS[which])),
            Step::Topic { which, id, partitions } => {
                self.seen.insert(TOPICS[which].to_owned(), (id.to_string(), partitions));
            }
            Step::Beat { who, lost } => {
                if let Some(who) = chosen(who) {
                    self.beat(who, None, lost);
                }
            }
            Step::Subscribe { who, topics } => {
                if let Some(who) = chosen(who) {
                    self.beat(who, Some(topics), false);
                }
            }
            Step::GiveUp { who } => {
                if let Some(who) = chosen(who) {
                    let client = &mut self.clients[who];
                    client.reads.retain(|part| client.assigned.contains(part));
                }
            }
            Step::Late { who, which } => {
                if let Some(who) = chosen(who)
                    && !self.clients[who].sent.is_empty()
                {
                    let sent = &self.clients[who].sent;
                    let beat = sent[which % sent.len()].clone();
                    // Nobody waits for its answer any more.
                    let _ = self.group.beat(&beat, &self.seen, self.now_ms);
                }
            }
            Step::Leave { who } => {
                if let Some(who) = chosen(who) {
                    let client = self.clients.remove(who);
                    let left = self.group.leave(&client.id, self.now_ms);
                    assert!(matches!(left, Ok(()) | Err(Refusal::MemberUnknown)));
                }
            }
            Step::Die { who } => {
                if let Some(who) = chosen(who) {
                    self.clients.remove(who);
                }
            }
        }
    }

    fn join(&mut self, topics: u8, session_ms: u32, lost: bool) {
        self.joined += 1;
        let id = format!("{:03}", self.joined);
        let beat = Beat {
            session_ms,
            ..beat(&id, &names(topics))
        };
        let told = self.group.beat(&beat, &self.seen, self.now_ms).unwrap();
        if !lost {
            let assigned: BTreeSet<_> = told.assigned.into_iter().collect();
            self.clients.push(Client {
                id,
                generation: told.generation,
                reads: assigned.clone(),
                assigned,
                sent: Vec::new(),
            });
        }
    }

    fn beat(&mut self, who: usize, topics: Option<u8>, lost: bool) {
        let client = &mut self.clients[who];
        let beat = Beat {
            joins: false,
            generation: client.generation,
            owned: client.reads.iter().cloned().collect(),
            ..beat(&client.id, &topics.map(names).unwrap_or_default())
        };
        client.sent.push(beat.clone());
        match self.group.beat(&beat, &self.seen, self.now_ms) {
            Ok(_) if lost => {}
            Ok(told) => {
                assert!(told.generation >= client.generation);
                client.generation = told.generation;
                client.assigned = told.assigned.into_iter().collect();
                client.reads.extend(client.assigned.iter().cloned());
            }
            Err(refusal) => {
                assert_eq!(refusal, Refusal::MemberUnknown);
                self.clients.remove(who);
            }
        }
    }

    /// No partition is read by two members whose sessions last, nor held by two.
    fn check(&self, before: &BTreeMap<(String, u32), String>, generation: u64) -> BTreeMap<(String, u32), String> {
        let mut now = self.group.clone();
        now.end_sessions(self.now_ms);
        let mut readers: HashMap<&(String, u32), &str> = HashMap::new();
        for client in self
            .clients
            .iter()
            .filter(|client| now.members().contains_key(&client.id))
        {
            for part in &client.reads {
                let other = readers.insert(part, &client.id);
                assert_eq!(other, None, "{part:?} is read by {} too: {:#?}", client.id, self.group);
            }
        }
        let mut holders = BTreeMap::new();
        for (member, part) in self.group.holdings() {
            let (name, partition) = self.group.place(part);
            let other = holders.insert((name.to_owned(), partition), member.to_owned());
            assert_eq!(other, None, "{name}/{partition} is held twice: {:#?}", self.group);
        }
        assert!(self.group.generation >= generation);
        assert!(holders == *before || self.group.generation > generation);
        holders
    }

    /// Lets everybody do what is asked of it, for longer than what was lost is waited for.
    fn settle(&mut self) {
        for _ in 0..ROUNDS {
            self.now_ms += ROUND_MS;
            for who in (0..self.clients.len()).rev() {
                self.beat(who, None, false);
            }
            for client in &mut self.clients {
                client.reads.retain(|part| client.assigned.contains(part));
            }
        }
    }

    /// Everything that somebody wants is read, once, and evenly.
    fn check_settled(&self) {
        let mut read: BTreeSet<(String, u32)> = BTreeSet::new();
        let mut loads: BTreeMap<&BTreeSet<String>, Vec<usize>> = BTreeMap::new();
        for client in &self.clients {
            assert_eq!(client.reads, client.assigned);
            let topics = &self.group.members()[&client.id].topics;
            assert!(client.reads.iter().all(|(topic, _)| topics.contains(topic)));
            loads.entry(topics).or_default().push(client.reads.len());
            read.extend(client.reads.iter().cloned());
        }
        let (mut wanted, mut group) = (BTreeSet::<(String, u32)>::new(), self.group.clone());
        group.end_sessions(self.now_ms);
        for topic in group.wanted() {
            let partitions = self.seen.get(topic).map_or(0, |(_, partitions)| *partitions);
            wanted.extend((0..partitions).map(|partition| (topic.to_owned(), partition)));
        }
        assert_eq!(read, wanted, "{:#?}", self.group);
        for loads in loads.values() {
            let (least, most) = (loads.iter().min(), loads.iter().max());
            assert!(most.unwrap() - least.unwrap() <= 1, "{loads:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_partition_is_read_by_two_and_in_the_end_every_one_is_read(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::default();
        for topic in TOPICS {
            world.seen.insert(topic.to_owned(), ("0".to_owned(), 4));
        }
        let (mut holders, mut generation) = (BTreeMap::new(), 0);
        for step in steps {
            world.run(step);
            holders = world.check(&holders, generation);
            generation = world.group.generation;
        }
        world.settle();
        world.check_settled();
    }
}
