//! Twenty members that come, go and hang until enough has happened, while records are produced. What they did and were told is
//! judged from their history alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use millstream_proto::v1;
use millstream_tests::{Agent, Grpc, Random, record};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::Status;

use super::history::{Event, History, Life, What};
use super::{GROUP, PATIENCE, TOPIC, committed, offset, place, reason};

const MEMBERS: u64 = 20;
const PARTITIONS: u32 = 12;
/// How often the things must have happened that make it hard, until it is calm.
const ENOUGH: Tally = Tally {
    lives: 100,
    silent: 60,
    lost: 20,
    generations: 200,
};
/// How long that may take on a busy machine.
const ENOUGH_PATIENCE: Duration = Duration::from_secs(600);
/// Between two things that a member does, and two batches that are produced: the pace of the load, no wait for a state.
const TICK: Duration = Duration::from_millis(100);
/// What a busy machine may take beyond a session until a partition is read again.
const SLACK: Duration = Duration::from_secs(6);
/// Something happens to a member in one of so many ticks.
const CALM: u64 = 120;
/// Former heartbeats that may arrive again.
const FORMER_MAX: usize = 4;

/// How often something has happened.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    lives: usize,
    silent: usize,
    lost: usize,
    /// The greatest that anybody was told.
    generations: u64,
}

impl Tally {
    fn add(&mut self, what: &What) {
        match what {
            What::Joined { .. } => self.lives += 1,
            What::Silent => self.silent += 1,
            What::Lost => self.lost += 1,
            What::Owns { generation, .. } => self.generations = self.generations.max(*generation),
            _ => {}
        }
    }

    fn reaches(&self, other: &Tally) -> bool {
        self.lives >= other.lives
            && self.silent >= other.silent
            && self.lost >= other.lost
            && self.generations >= other.generations
    }
}

/// What all tasks share.
struct Stage {
    url: String,
    events: Mutex<(Vec<Event>, Tally)>,
    /// Something has happened.
    happened: Notify,
    lives: AtomicUsize,
    /// Nothing happens to members any more.
    calm: AtomicBool,
    done: AtomicBool,
    stale: AtomicUsize,
}

impl Stage {
    fn note(&self, life: Life, what: What) {
        let at = Instant::now();
        let mut events = self.events.lock().unwrap();
        events.1.add(&what);
        events.0.push(Event { at, life, what });
        self.happened.notify_waiters();
    }

    fn tally(&self) -> Tally {
        self.events.lock().unwrap().1
    }

    /// Waits until enough has happened.
    async fn wait_enough(&self) {
        loop {
            // Whatever happens from here on wakes.
            let happened = self.happened.notified();
            if self.tally().reaches(&ENOUGH) {
                return;
            }
            happened.await;
        }
    }

    /// Waits until everything that was produced is committed as read; what is committed then.
    async fn wait_committed(&self, grpc: &Grpc, ends: &BTreeMap<u32, u64>) -> BTreeMap<u32, u64> {
        loop {
            let happened = self.happened.notified();
            let stored: BTreeMap<u32, u64> = committed(grpc).await.into_iter().collect();
            if ends.iter().all(|(partition, end)| stored.get(partition) == Some(end)) {
                return stored;
            }
            happened.await;
        }
    }

    fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }
}

/// A member in one of its lives.
struct Reader {
    stage: Arc<Stage>,
    grpc: Grpc,
    random: Random,
    life: Life,
    session: Duration,
    id: String,
    generation: u64,
    /// Where to read on.
    owned: BTreeMap<u32, u64>,
    next_beat: Instant,
    former: Vec<v1::HeartbeatRequest>,
}

/// What ends a life.
enum End {
    Lost,
    Left,
    Died,
}

impl Reader {
    async fn join(stage: &Arc<Stage>, grpc: Grpc, random: Random) -> Reader {
        let mut reader = Reader {
            stage: stage.clone(),
            grpc,
            life: stage.lives.fetch_add(1, Ordering::Relaxed),
            session: Duration::ZERO,
            random,
            id: String::new(),
            generation: 0,
            owned: BTreeMap::new(),
            next_beat: Instant::now(),
            former: Vec::new(),
        };
        reader.session = Duration::from_millis(reader.random.within(2_000..4_000));
        reader.note(What::Joined {
            session: reader.session,
        });
        reader
    }

    fn note(&self, what: What) {
        self.stage.note(self.life, what);
    }

    /// Reads until something ends its life.
    async fn live(&mut self) -> Result<End, Status> {
        while !self.stage.is_done() {
            if self.next_beat <= Instant::now() {
                self.beat().await?;
            }
            self.read().await;
            if self.random.within(0..5) == 0 {
                self.commit_all().await?;
            }
            if !self.stage.is_calm()
                && self.random.within(0..CALM) == 0
                && let Some(end) = self.suffer().await?
            {
                return Ok(end);
            }
            tokio::time::sleep(TICK).await;
        }
        self.commit_all().await?;
        Ok(self.leave().await)
    }

    /// Something that happens to members.
    async fn suffer(&mut self) -> Result<Option<End>, Status> {
        match self.random.within(0..10) {
            0..2 => {
                self.commit_all().await?;
                return Ok(Some(self.leave().await));
            }
            2..4 => {
                self.note(What::Silent);
                return Ok(Some(End::Died));
            }
            4..7 => {
                // It hangs, and goes on as if nothing had been.
                self.note(What::Silent);
                // The silence itself is what is tested: shorter than its session, or longer.
                let session_ms = self.session.as_millis() as u64;
                let hangs_ms = self.random.within(session_ms / 2..session_ms * 2);
                tokio::time::sleep(Duration::from_millis(hangs_ms)).await;
                self.read().await;
                let committed = self.commit_all().await;
                self.note(What::Back);
                committed?;
            }
            7..9 => {
                // The answer to a heartbeat gets lost.
                let (mut groups, request) = (self.grpc.groups(), self.request());
                tokio::spawn(async move { groups.heartbeat(request).await.map(drop) });
            }
            _ => {
                let former = self.former.first().cloned();
                if let Some(former) = former {
                    let _ = self.grpc.groups().heartbeat(former).await;
                }
            }
        }
        Ok(None)
    }

    fn request(&self) -> v1::HeartbeatRequest {
        let topics = match self.id.is_empty() {
            true => vec![TOPIC.to_owned()],
            false => Vec::new(),
        };
        v1::HeartbeatRequest {
            group: GROUP.to_owned(),
            member_id: self.id.clone(),
            generation: self.generation,
            client_id: format!("life {}", self.life),
            topics,
            session_timeout_ms: self.session.as_millis() as u32,
            owned: self.owned.keys().map(|partition| place(*partition)).collect(),
        }
    }

    async fn beat(&mut self) -> Result<(), Status> {
        let (request, sent) = (self.request(), Instant::now());
        if !self.id.is_empty() {
            self.former.truncate(FORMER_MAX - 1);
            self.former.insert(0, request.clone());
        }
        let answer = self.grpc.groups().heartbeat(request).await?.into_inner();
        self.note(What::Heard { sent });
        assert!(answer.generation >= self.generation, "generations only grow");
        self.id = answer.member_id;
        self.generation = answer.generation;
        self.next_beat = Instant::now() + Duration::from_millis(answer.heartbeat_interval_ms.into());
        let assigned: BTreeSet<u32> = answer.assigned.into_iter().map(|place| place.partition).collect();
        let mut partitions: BTreeSet<u32> = self.owned.keys().copied().collect();
        partitions.extend(&assigned);
        let generation = self.generation;
        self.note(What::Owns { generation, partitions });
        let lost: Vec<u32> = self
            .owned
            .keys()
            .filter(|partition| !assigned.contains(partition))
            .copied()
            .collect();
        if !lost.is_empty() {
            self.commit_all().await?;
            for partition in lost {
                self.owned.remove(&partition);
                self.note(What::GaveUp { partition });
            }
            self.next_beat = Instant::now();
        }
        let gained: Vec<u32> = assigned
            .into_iter()
            .filter(|partition| !self.owned.contains_key(partition))
            .collect();
        if !gained.is_empty() {
            let known: BTreeMap<u32, u64> = committed(&self.grpc).await.into_iter().collect();
            for partition in gained {
                self.owned
                    .insert(partition, known.get(&partition).copied().unwrap_or(0));
            }
            // It says so at once.
            self.next_beat = Instant::now();
        }
        Ok(())
    }

    async fn read(&mut self) {
        for (partition, next) in &mut self.owned {
            let fetched = self.grpc.fetch(TOPIC, *partition, *next).await.unwrap();
            let offsets: Vec<u64> = fetched.records.iter().map(|record| record.offset).collect();
            if !offsets.is_empty() {
                let partition = *partition;
                self.stage.note(self.life, What::Read { partition, offsets });
            }
            *next = fetched.next_offset;
        }
    }

    async fn commit_all(&mut self) -> Result<(), Status> {
        let offsets: Vec<v1::CommittedOffset> = self
            .owned
            .iter()
            .map(|(partition, at)| offset(*partition, *at))
            .collect();
        if offsets.is_empty() {
            return Ok(());
        }
        let request = v1::CommitOffsetsRequest {
            group: GROUP.to_owned(),
            member_id: self.id.clone(),
            generation: self.generation,
            offsets: offsets.clone(),
        };
        let sent = Instant::now();
        let answer = match self.grpc.groups().commit_offsets(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if reason(&status) == "GENERATION_STALE" => {
                self.stage.stale.fetch_add(1, Ordering::Relaxed);
                self.next_beat = Instant::now();
                return Ok(());
            }
            Err(status) => return Err(status),
        };
        assert!(
            answer.failures.is_empty(),
            "it owns what it commits: {:?}",
            answer.failures
        );
        for v1::CommittedOffset { partition, offset, .. } in offsets {
            self.note(What::Committed {
                partition,
                offset,
                sent,
            });
        }
        Ok(())
    }

    async fn leave(&mut self) -> End {
        self.note(What::Left);
        let request = v1::LeaveGroupRequest {
            group: GROUP.to_owned(),
            member_id: self.id.clone(),
        };
        match self.grpc.groups().leave_group(request).await {
            Ok(_) => End::Left,
            Err(status) => {
                assert_eq!(reason(&status), "MEMBER_UNKNOWN");
                self.note(What::Lost);
                End::Lost
            }
        }
    }
}

/// One member, life after life.
async fn member(stage: Arc<Stage>, mut random: Random) {
    while !stage.is_done() {
        // A connection of its own, which goes with it.
        let grpc = Grpc::connect(&stage.url).await;
        let mut reader = Reader::join(&stage, grpc, random.fork()).await;
        match reader.live().await {
            Ok(End::Left | End::Lost | End::Died) => {}
            Err(status) => {
                assert_eq!(reason(&status), "MEMBER_UNKNOWN", "{status}");
                reader.note(What::Lost);
            }
        }
        if !stage.is_calm() {
            // Its absence is a part of what happens, too.
            tokio::time::sleep(Duration::from_millis(random.within(0..3_000))).await;
        }
    }
}

/// Produces until nothing happens any more; how many records each partition has then.
async fn produce(stage: Arc<Stage>, grpc: Grpc, mut random: Random) -> BTreeMap<u32, u64> {
    let mut ends: BTreeMap<u32, u64> = BTreeMap::new();
    while !stage.is_calm() {
        let partition = random.within(0..PARTITIONS.into()) as u32;
        let records = (0..random.within(1..20)).map(|n| record(n.to_string())).collect();
        let answer = grpc.produce(TOPIC, partition, records).await.unwrap();
        ends.insert(partition, answer.base_offset + u64::from(answer.record_count));
        tokio::time::sleep(TICK).await;
    }
    ends
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_members_that_come_go_and_hang_read_everything_and_nothing_at_once() {
    let mut random = Random::seeded();
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic(TOPIC, PARTITIONS).await.unwrap();
    let stage = Arc::new(Stage {
        url: agent.url(),
        events: Mutex::default(),
        happened: Notify::new(),
        lives: AtomicUsize::new(0),
        calm: AtomicBool::new(false),
        done: AtomicBool::new(false),
        stale: AtomicUsize::new(0),
    });
    let producer = tokio::spawn(produce(stage.clone(), grpc.clone(), random.fork()));
    let mut members = JoinSet::new();
    for _ in 0..MEMBERS {
        members.spawn(member(stage.clone(), random.fork()));
    }
    let enough = timeout(ENOUGH_PATIENCE, stage.wait_enough()).await;
    enough.unwrap_or_else(|_| panic!("too little happened: {:?}", stage.tally()));
    stage.calm.store(true, Ordering::Relaxed);
    let ends = producer.await.unwrap();

    let stored = timeout(PATIENCE, stage.wait_committed(&grpc, &ends)).await;
    let stored = stored.expect("everything is read");
    stage.done.store(true, Ordering::Relaxed);
    while let Some(ended) = members.join_next().await {
        ended.unwrap();
    }

    let mut events = std::mem::take(&mut stage.events.lock().unwrap().0);
    events.sort_by_key(|event| event.at);
    let history = History(events);
    let generations = history.check_generations();
    let longest = history.check_holds(SLACK);
    let commits = history.check_commits(&stored);
    let reads = history.check_reads(&ends, &stored);
    let lives = history.count(|what| matches!(what, What::Joined { .. }));
    let silent = history.count(|what| matches!(what, What::Silent));
    let lost = history.count(|what| matches!(what, What::Lost));
    println!(
        "{lives} lives, {silent} silent, {lost} told that their session is over, {} stale commits; {generations} generations, \
         {commits} commits, {reads} reads of {} records; replaced at most {longest:?} after a session",
        stage.stale.load(Ordering::Relaxed),
        ends.values().sum::<u64>(),
    );
    let left = grpc
        .groups()
        .list_groups(v1::ListGroupsRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(left.groups[0].name, GROUP);
}
