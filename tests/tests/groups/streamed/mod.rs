//! Members that are a stream: what a client needs that knows `Subscribe` and `CommitOffsets`, and nothing else of groups.

mod churn;
mod ending;
mod refusals;
mod sharing;

use std::collections::{BTreeMap, BTreeSet};

use futures::stream;
use millstream_proto::v1::{self, subscribe_request::Message};
use millstream_tests::Grpc;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::{BEAT, GROUP, PATIENCE, TOPIC, commit, place, reason};

/// Long enough that no test's member is taken for dead.
const SESSION_MS: u32 = 60_000;
/// Enough for everything that the tests read.
const CREDITS: u32 = 64 << 20;

/// A member, as a thin client is one.
struct Reader {
    grpc: Grpc,
    requests: mpsc::UnboundedSender<v1::SubscribeRequest>,
    answers: Streaming<v1::SubscribeResponse>,
    id: String,
    generation: u64,
    /// What it holds, and where it reads on.
    held: BTreeMap<u32, u64>,
    asked_back: BTreeSet<u32>,
    /// The partitions and offsets of all records that it read.
    read: Vec<(u32, u64)>,
    /// Why it could not read something.
    errors: Vec<String>,
    /// Which partitions it held in which generation.
    holdings: BTreeSet<(u64, u32)>,
}

impl Reader {
    async fn open(grpc: &Grpc, start: v1::SubscribeStart) -> Result<Reader, Status> {
        let (requests, queue) = mpsc::unbounded_channel();
        let next = |mut queue: mpsc::UnboundedReceiver<_>| async move {
            let request = queue.recv().await?;
            Some((request, queue))
        };
        requests.send(say(Message::Start(start))).expect("it is open");
        let answers = grpc.consumer().subscribe(stream::unfold(queue, next)).await?;
        Ok(Reader {
            grpc: grpc.clone(),
            requests,
            answers: answers.into_inner(),
            id: String::new(),
            generation: 0,
            held: BTreeMap::new(),
            asked_back: BTreeSet::new(),
            read: Vec::new(),
            errors: Vec::new(),
            holdings: BTreeSet::new(),
        })
    }

    /// Joins the group of the tests, and is told so.
    async fn join(grpc: &Grpc, session_ms: u32) -> Reader {
        let mut reader = Reader::open(grpc, start(session_ms)).await.unwrap();
        reader.next().await.unwrap();
        assert!(!reader.id.is_empty() && reader.generation > 0);
        reader
    }

    fn holdings(&self) -> (&String, &BTreeSet<(u64, u32)>) {
        (&self.id, &self.holdings)
    }

    fn ask(&self, message: Message) {
        // A call that has ended says so in its answers.
        let _ = self.requests.send(say(message));
    }

    /// Takes in the next answer.
    async fn next(&mut self) -> Result<(), Status> {
        let answer = self.answers.message().await?.expect("it ends only when it is ended");
        if let Some(membership) = answer.membership {
            assert!(answer.fetched.is_none() && answer.credit_bytes == 0);
            self.take_in(membership);
        }
        if let Some(fetched) = answer.fetched {
            let at = fetched.partition;
            assert!(!self.asked_back.contains(&at), "{at} was asked back");
            let next = self.held.get_mut(&at).expect("it reads what it was given");
            if let Some(record) = fetched.records.first() {
                assert!(record.offset == *next || !self.errors.is_empty());
            }
            match fetched.error {
                Some(error) => self.errors.push(error.reason),
                None => *next = fetched.next_offset,
            }
            self.read
                .extend(fetched.records.iter().map(|record| (at, record.offset)));
        }
        if answer.credit_bytes > 0 {
            self.ask(Message::CreditBytes(answer.credit_bytes));
        }
        Ok(())
    }

    fn take_in(&mut self, membership: v1::SubscribeMembership) {
        assert!(membership.generation >= self.generation, "generations only grow");
        self.id = membership.member_id;
        self.generation = membership.generation;
        for given in membership.given {
            assert!(self.held.insert(given.partition, given.offset).is_none());
        }
        for asked in membership.asked_back {
            assert!(self.held.contains_key(&asked.partition) && self.asked_back.insert(asked.partition));
        }
        self.holdings.extend(self.held.keys().map(|at| (self.generation, *at)));
    }

    /// Takes in answers until the state has come.
    async fn until(&mut self, holds: impl Fn(&Reader) -> bool) {
        let come = async {
            while !holds(self) {
                self.next().await.unwrap();
            }
        };
        timeout(PATIENCE, come).await.expect("it comes");
    }

    /// Says again and again that it is at work, until it is told that it is no member any more.
    async fn end(&mut self) -> Status {
        let end = async {
            loop {
                tokio::select! {
                    next = self.next() => if let Err(status) = next { return status },
                    () = tokio::time::sleep(BEAT) => self.ask(Message::Alive(true)),
                }
            }
        };
        timeout(PATIENCE, end).await.expect("it is told")
    }

    /// Commits how far it has read these.
    async fn commit(&mut self, partitions: impl IntoIterator<Item = u32>) -> Result<(), Status> {
        let offsets: Vec<(u32, u64)> = partitions.into_iter().map(|at| (at, self.held[&at])).collect();
        while !offsets.is_empty() {
            match commit(&self.grpc, &self.id, self.generation, &offsets).await {
                Ok(failures) if failures.is_empty() => break,
                Ok(failures) => panic!("it holds what it commits: {failures:?}"),
                Err(status) if reason(&status) == "GENERATION_STALE" => {}
                Err(status) => return Err(status),
            }
            // The stream tells the present one.
            let stale = self.generation;
            while self.generation == stale {
                self.next().await?;
            }
        }
        Ok(())
    }

    /// Commits what it was asked for, and lets go of it.
    async fn release(&mut self) -> Result<(), Status> {
        let asked = self.asked_back.clone();
        self.commit(asked.clone()).await?;
        for at in &asked {
            self.held.remove(at);
            self.asked_back.remove(at);
        }
        let partitions = asked.into_iter().map(place).collect();
        self.ask(Message::Release(v1::PartitionList { partitions }));
        Ok(())
    }
}

/// A call that reads the topic of the tests as a member of their group.
fn start(session_ms: u32) -> v1::SubscribeStart {
    v1::SubscribeStart {
        topics: vec![TOPIC.to_owned()],
        credit_bytes: CREDITS,
        format: v1::FetchFormat::Records.into(),
        group: Some(v1::SubscribeGroup {
            name: GROUP.to_owned(),
            client_id: "thin".to_owned(),
            session_timeout_ms: session_ms,
        }),
        ..v1::SubscribeStart::default()
    }
}

fn say(message: Message) -> v1::SubscribeRequest {
    v1::SubscribeRequest { message: Some(message) }
}

/// The group's members and how many partitions each owns, in order of their ids.
async fn members(grpc: &Grpc) -> Vec<(String, usize)> {
    let request = v1::GetGroupRequest { name: GROUP.to_owned() };
    let group = grpc.groups().get_group(request).await.unwrap().into_inner();
    let members = group.members.into_iter();
    members.map(|member| (member.member_id, member.owned.len())).collect()
}

/// No partition was held by two of these in one generation.
fn check_generations<'a>(members: impl IntoIterator<Item = (&'a String, &'a BTreeSet<(u64, u32)>)>) {
    let mut holders = BTreeMap::new();
    for (id, holdings) in members {
        for holding in holdings {
            let before = holders.insert(*holding, id);
            assert!(before.is_none_or(|before| before == id), "two held {holding:?}");
        }
    }
}

/// What these have read, in order.
fn read_by<'a>(readers: impl IntoIterator<Item = &'a Reader>) -> Vec<(u32, u64)> {
    let read = readers.into_iter().flat_map(|reader| &reader.read);
    let mut read: Vec<(u32, u64)> = read.copied().collect();
    read.sort_unstable();
    read
}

/// The offsets of so many partitions.
fn offsets(partitions: u32, range: std::ops::Range<u64>) -> Vec<(u32, u64)> {
    let each = (0..partitions).flat_map(|at| range.clone().map(move |offset| (at, offset)));
    each.collect()
}
