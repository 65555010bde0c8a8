//! The rules of the cache, one by one, with loads and time under the test's control.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::advance;

use super::kind::{CacheStats, Kind};
use super::slot::Ages;
use super::{Cache, Uuid};
use crate::{MetaError, PipelineRow, Result, Topic};

const TTL: Duration = Duration::from_secs(5);
const ABSENT_TTL: Duration = Duration::from_secs(1);
const SECOND: Duration = Duration::from_secs(1);
const ENTRIES_MAX: u64 = 64;

/// A database of one number, and the cache before it.
#[derive(Clone)]
struct Fixture(Arc<Inner>);

struct Inner {
    kind: Kind<String, u64>,
    answer: Mutex<Answer>,
    loads: AtomicU64,
    /// A load takes its answer, then waits for one of these.
    permits: Semaphore,
}

#[derive(Clone, Copy)]
enum Answer {
    Value(u64),
    Absent,
    Unavailable,
    Damaged,
}

impl Answer {
    fn result(self) -> Result<Option<u64>> {
        let database = "test".to_owned();
        match self {
            Answer::Value(value) => Ok(Some(value)),
            Answer::Absent => Ok(None),
            Answer::Unavailable => Err(MetaError::Unavailable {
                database,
                reason: "it is down".into(),
            }),
            Answer::Damaged => Err(MetaError::Corrupt {
                database,
                reason: "a row is damaged".into(),
            }),
        }
    }
}

type Found = Result<Option<Arc<u64>>>;

impl Fixture {
    /// Its loads end as soon as they run.
    fn new(answer: Answer) -> Fixture {
        let fixture = Fixture::gated(answer);
        fixture.let_go(Semaphore::MAX_PERMITS);
        fixture
    }

    /// Its loads wait until they are [let go](Fixture::let_go).
    fn gated(answer: Answer) -> Fixture {
        Fixture::aged(answer, TTL, ABSENT_TTL)
    }

    fn aged(answer: Answer, present: Duration, absent: Duration) -> Fixture {
        let ages = Ages { present, absent };
        Fixture(Arc::new(Inner {
            kind: Kind::new("number", ENTRIES_MAX, ages),
            answer: Mutex::new(answer),
            loads: AtomicU64::new(0),
            permits: Semaphore::new(0),
        }))
    }

    fn let_go(&self, loads: usize) {
        self.0.permits.add_permits(loads);
    }

    async fn answers(&self, answer: Answer) {
        *self.0.answer.lock().await = answer;
    }

    async fn get(&self, key: &str) -> Found {
        let load = || {
            let inner = self.0.clone();
            async move {
                inner.loads.fetch_add(1, Ordering::SeqCst);
                let answer = *inner.answer.lock().await;
                inner.permits.acquire().await.expect("it stays open").forget();
                answer.result()
            }
        };
        self.0.kind.get(key, load).await
    }

    /// The number behind "key".
    async fn number(&self) -> Option<u64> {
        self.get("key").await.unwrap().map(|found| *found)
    }

    fn spawn(&self) -> JoinHandle<Found> {
        let fixture = self.clone();
        tokio::spawn(async move { fixture.get("key").await })
    }

    fn loads(&self) -> u64 {
        self.0.loads.load(Ordering::SeqCst)
    }

    fn stats(&self) -> CacheStats {
        self.0.kind.stats()
    }
}

/// Lets everything that can run do so: on the one thread of a test nothing else does.
async fn settle() {
    for _ in 0..64 {
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_young_answer_comes_from_memory() {
    let fixture = Fixture::new(Answer::Value(1));
    assert_eq!(fixture.number().await, Some(1));
    fixture.answers(Answer::Value(2)).await;
    advance(TTL - Duration::from_millis(1)).await;
    assert_eq!(fixture.number().await, Some(1));
    settle().await;
    assert_eq!(fixture.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_ageing_answer_comes_from_memory_and_is_read_again_once_in_the_background() {
    let fixture = Fixture::gated(Answer::Value(1));
    fixture.let_go(1);
    assert_eq!(fixture.number().await, Some(1));
    fixture.answers(Answer::Value(2)).await;
    advance(TTL).await;
    for _ in 0..10 {
        assert_eq!(fixture.number().await, Some(1));
        settle().await;
    }
    assert_eq!(fixture.loads(), 2, "one refresh, however many ask");
    fixture.let_go(1);
    settle().await;
    assert_eq!(fixture.number().await, Some(2));
    let stats = fixture.stats();
    assert_eq!((stats.hits, stats.misses, stats.refreshes), (11, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_old_answer_is_waited_for_by_all_with_one_load() {
    let fixture = Fixture::gated(Answer::Value(1));
    fixture.let_go(1);
    assert_eq!(fixture.number().await, Some(1));
    fixture.answers(Answer::Value(2)).await;
    advance(TTL * 2).await;
    let waiting: Vec<_> = (0..16).map(|_| fixture.spawn()).collect();
    settle().await;
    assert!(waiting.iter().all(|lookup| !lookup.is_finished()));
    fixture.let_go(1);
    for lookup in waiting {
        assert_eq!(lookup.await.unwrap().unwrap().as_deref(), Some(&2));
    }
    assert_eq!(fixture.loads(), 2);
}

#[tokio::test(start_paused = true)]
async fn many_that_ask_for_the_same_cause_one_load() {
    let fixture = Fixture::gated(Answer::Value(7));
    let waiting: Vec<_> = (0..16).map(|_| fixture.spawn()).collect();
    settle().await;
    assert_eq!(fixture.loads(), 1);
    fixture.let_go(1);
    for lookup in waiting {
        assert_eq!(lookup.await.unwrap().unwrap().as_deref(), Some(&7));
    }
    let stats = fixture.stats();
    assert_eq!((stats.hits, stats.misses, stats.entries), (0, 16, 1));
    assert_eq!(fixture.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn many_that_ask_while_there_is_no_database_share_one_failure() {
    let fixture = Fixture::gated(Answer::Unavailable);
    let waiting: Vec<_> = (0..16).map(|_| fixture.spawn()).collect();
    settle().await;
    fixture.let_go(1);
    for lookup in waiting {
        let error = lookup.await.unwrap().unwrap_err();
        assert!(matches!(error, MetaError::Unavailable { .. }), "{error}");
    }
    assert_eq!(fixture.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_is_not_shared_is_not_remembered() {
    let fixture = Fixture::new(Answer::Damaged);
    assert!(matches!(fixture.get("key").await, Err(MetaError::Corrupt { .. })));
    fixture.answers(Answer::Value(1)).await;
    assert_eq!(fixture.number().await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_is_given_up_leaves_its_load_running() {
    let fixture = Fixture::gated(Answer::Value(3));
    let (first, second) = (fixture.spawn(), fixture.spawn());
    settle().await;
    first.abort();
    settle().await;
    fixture.let_go(1);
    assert_eq!(second.await.unwrap().unwrap().as_deref(), Some(&3));

    fixture.0.kind.forget("key");
    let alone = fixture.spawn();
    settle().await;
    alone.abort();
    settle().await;
    fixture.let_go(1);
    settle().await;
    assert_eq!(fixture.number().await, Some(3));
    assert_eq!(fixture.loads(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_old_answer_is_given_on_while_the_database_is_unavailable() {
    let fixture = Fixture::new(Answer::Value(1));
    assert_eq!(fixture.number().await, Some(1));
    fixture.answers(Answer::Unavailable).await;
    advance(TTL * 100).await;
    assert_eq!(fixture.number().await, Some(1), "after a load that failed");
    let after_the_first = fixture.loads();
    for _ in 0..100 {
        assert_eq!(fixture.number().await, Some(1));
        settle().await;
    }
    assert_eq!(fixture.loads(), after_the_first, "it is not asked for each");
    advance(SECOND).await;
    assert_eq!(fixture.number().await, Some(1));
    settle().await;
    assert_eq!(fixture.loads(), after_the_first + 1, "about once a second it is");

    fixture.answers(Answer::Value(2)).await;
    advance(SECOND).await;
    assert_eq!(fixture.number().await, Some(1));
    settle().await;
    assert_eq!(fixture.number().await, Some(2), "it is back");
}

#[tokio::test(start_paused = true)]
async fn a_slow_database_that_is_down_keeps_nobody_waiting_twice() {
    let fixture = Fixture::gated(Answer::Value(1));
    fixture.let_go(1);
    fixture.number().await;
    fixture.answers(Answer::Unavailable).await;
    advance(TTL * 2).await;
    fixture.let_go(1);
    assert_eq!(fixture.number().await, Some(1));
    // From here on no load ends any more.
    advance(SECOND).await;
    assert_eq!(fixture.number().await, Some(1));
    settle().await;
    assert_eq!(fixture.number().await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_is_read_again() {
    let fixture = Fixture::new(Answer::Value(1));
    assert_eq!(fixture.number().await, Some(1));
    fixture.answers(Answer::Value(2)).await;
    fixture.0.kind.forget("key");
    assert_eq!(fixture.number().await, Some(2));
    fixture.answers(Answer::Value(3)).await;
    fixture.0.kind.forget_all();
    assert_eq!(fixture.number().await, Some(3));
}

/// A load that runs while the key is forgotten does not bring back what it read.
async fn a_running_load_is_forgotten_too(forget: impl Fn(&Kind<String, u64>)) {
    let fixture = Fixture::gated(Answer::Value(1));
    let before = fixture.spawn();
    settle().await;
    fixture.answers(Answer::Value(2)).await;
    forget(&fixture.0.kind);

    // Who asks now does not wait for the old load, and does not get what it read.
    let after = fixture.spawn();
    settle().await;
    assert_eq!(fixture.loads(), 2);
    fixture.let_go(2);
    assert_eq!(after.await.unwrap().unwrap().as_deref(), Some(&2));
    assert_eq!(before.await.unwrap().unwrap().as_deref(), Some(&1));
    assert_eq!(fixture.number().await, Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_load_that_began_before_a_change_never_fills_the_cache() {
    a_running_load_is_forgotten_too(|kind| kind.forget("key")).await;
    a_running_load_is_forgotten_too(|kind| kind.forget_all()).await;
}

#[tokio::test(start_paused = true)]
async fn a_background_load_that_began_before_a_change_never_fills_the_cache() {
    let fixture = Fixture::gated(Answer::Value(1));
    fixture.let_go(1);
    fixture.number().await;
    advance(TTL).await;
    fixture.number().await;
    settle().await;
    assert_eq!(fixture.loads(), 2);
    fixture.answers(Answer::Value(2)).await;
    fixture.0.kind.forget("key");
    fixture.let_go(2);
    assert_eq!(fixture.number().await, Some(2));
    settle().await;
    assert_eq!(fixture.number().await, Some(2));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_remembered_for_a_shorter_time() {
    let fixture = Fixture::new(Answer::Absent);
    assert_eq!(fixture.number().await, None);
    fixture.answers(Answer::Value(1)).await;
    advance(ABSENT_TTL - Duration::from_millis(1)).await;
    assert_eq!(fixture.number().await, None);
    assert_eq!(fixture.loads(), 1);
    advance(ABSENT_TTL + Duration::from_millis(1)).await;
    assert_eq!(fixture.number().await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn that_a_topic_has_no_pipeline_is_remembered_as_long_as_a_pipeline() {
    let cache = Cache::new(TTL);
    let (id, topics, pipelines) = (Uuid::nil(), AtomicU64::new(0), AtomicU64::new(0));
    for _ in 0..TTL.as_secs() {
        let no_topic = || {
            topics.fetch_add(1, Ordering::Relaxed);
            async { Ok(None::<Topic>) }
        };
        let no_pipeline = || {
            pipelines.fetch_add(1, Ordering::Relaxed);
            async { Ok(None::<PipelineRow>) }
        };
        assert!(cache.topic("t", no_topic).await.unwrap().is_none());
        assert!(cache.pipeline(id, no_pipeline).await.unwrap().is_none());
        settle().await;
        advance(SECOND).await;
    }
    assert!(topics.load(Ordering::Relaxed) > 1);
    assert_eq!(pipelines.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_time_to_live_of_nothing_asks_each_time() {
    let fixture = Fixture::aged(Answer::Value(1), Duration::ZERO, Duration::ZERO);
    fixture.let_go(3);
    for asked in 1..=3 {
        assert_eq!(fixture.number().await, Some(1));
        assert_eq!(fixture.loads(), asked);
    }
}

#[tokio::test(start_paused = true)]
async fn the_number_of_entries_is_bounded_and_what_is_used_stays() {
    let fixture = Fixture::new(Answer::Value(1));
    fixture.get("used").await.unwrap();
    for other in 0..ENTRIES_MAX * 20 {
        fixture.get(&format!("other {other}")).await.unwrap();
        fixture.get("used").await.unwrap();
    }
    let stats = fixture.stats();
    assert!(stats.entries <= ENTRIES_MAX, "{stats:?}");
    assert_eq!(fixture.loads(), ENTRIES_MAX * 20 + 1, "what is used was read once");
}

/// How many reads moka collects before it looks after its own (`READ_LOG_FLUSH_POINT`), which allocates once.
const MOKA_UPKEEP_READS: u64 = 64;

#[test]
fn a_hit_allocates_nothing_but_for_the_upkeep_of_moka() {
    const HITS: u64 = 10_000;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime starts");
    let fixture = Fixture::new(Answer::Value(1));
    let hits = async |count| {
        for _ in 0..count {
            assert_eq!(fixture.number().await, Some(1));
        }
    };
    runtime.block_on(hits(HITS));
    let allocated = allocation_counter::measure(|| runtime.block_on(hits(HITS)));
    assert!(allocated.count_total <= HITS / MOKA_UPKEEP_READS, "{allocated:?}");
    assert_eq!(fixture.loads(), 1);
}
