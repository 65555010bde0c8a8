//! What is known of stages at work: figures, breakers, halts and what modules say. It outlives pipelines and partitions,
//! and ends with its topic.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use millstream_log::measure::seconds;
use millstream_wasm::Level;
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    BreakerSpec, Side,
    breaker::{Admission, Breaker, Change},
    fare::{Fare, Fares},
    figures::{OpenBreaker, PartitionHalt, StageFigures},
    logs::{Bucket, LogLine, ModuleLogs, Passage, tracing_level},
};
use crate::clock::Clock;

/// Stages of which figures are kept.
const MONITORS_MAX: usize = 10_000;
/// Modules of which log lines are kept.
const MODULE_LOGS_MAX: usize = 1_000;
/// Lines a second in which the agent says what became of a stage's batches.
const TOLD_PER_SECOND: u32 = 10;
/// Counters of its own that a module may have in one stage; more are ignored.
const COUNTERS_MAX: usize = 64;
/// Characters of an error that are kept.
const CAUSE_CHARS_MAX: usize = 500;

/// What a monitor watches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StageKey {
    pub(crate) topic_id: Uuid,
    pub(crate) topic: String,
    pub(crate) side: Side,
    pub(crate) module: String,
    pub(crate) version: u32,
    /// The stage's id in its pipeline, which it keeps wherever it is moved to: so figures and breakers go with it.
    pub(crate) stage: u32,
    /// Whether readers ask for it, behind the topic's stages. All of them together have one monitor, which is shown nowhere.
    pub(crate) is_further: bool,
}

/// Where one batch went through a stage.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) partition: u32,
    /// The base offset of a batch that is stored.
    pub(super) at: Option<u64>,
    /// Whether it decides about the version: see [`Fares`].
    pub(super) is_guarded: bool,
}

/// Everything that an agent knows of its stages at work.
pub(crate) struct Monitors {
    clock: Arc<dyn Clock>,
    stages: Mutex<BTreeMap<StageKey, Arc<Monitor>>>,
    logs: Mutex<BTreeMap<String, Arc<ModuleLogs>>>,
    halts: Mutex<HashMap<(Uuid, u32), PartitionHalt>>,
    /// Counts them, so that a batch need not take the lock.
    halts_count: AtomicUsize,
}

/// One stage at work, over all partitions.
pub(crate) struct Monitor {
    pub(crate) key: StageKey,
    pub(super) batches: AtomicU64,
    pub(super) failed_batches: AtomicU64,
    pub(super) records_in: AtomicU64,
    pub(super) records_out: AtomicU64,
    pub(super) rejected: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) skipped: AtomicU64,
    pub(super) dead_lettered: AtomicU64,
    pub(super) passed: AtomicU64,
    pub(super) shadow_differences: AtomicU64,
    pub(super) cpu_nanos: AtomicU64,
    /// How long each batch took in it.
    pub(super) seconds: Histogram,
    log_lines_dropped: AtomicU64,
    counters: Mutex<BTreeMap<String, u64>>,
    /// By partition; those that are closed without a failure are left out.
    breakers: Mutex<BTreeMap<u32, Breaker>>,
    /// Whether there are any, so that a batch need not take the lock.
    any_breaker: AtomicBool,
    pub(super) fare: Fare,
    bucket: Mutex<Bucket>,
    /// That of what the agent says of batches, which takes no lines from the module.
    told: Mutex<Bucket>,
    logs: Arc<ModuleLogs>,
    clock: Arc<dyn Clock>,
}

impl Monitors {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Monitors {
        Monitors {
            clock,
            stages: Mutex::default(),
            logs: Mutex::default(),
            halts: Mutex::default(),
            halts_count: AtomicUsize::new(0),
        }
    }

    /// The monitor of a stage. Where there are too many, those of stages that run nowhere make room; where all run, this
    /// one is not shown.
    pub(crate) fn stage(&self, key: StageKey) -> Arc<Monitor> {
        let mut stages = lock(&self.stages);
        if let Some(known) = stages.get(&key) {
            return known.clone();
        }
        let logs = self.module_logs(&key.module);
        let monitor = Arc::new(Monitor::new(key.clone(), logs, self.clock.clone()));
        if stages.len() >= MONITORS_MAX {
            stages.retain(|_, monitor| Arc::strong_count(monitor) > 1);
        }
        if stages.len() < MONITORS_MAX {
            stages.insert(key, monitor.clone());
        }
        monitor
    }

    /// The monitor of a stage that ran somewhere.
    pub(crate) fn find(&self, key: &StageKey) -> Option<Arc<Monitor>> {
        lock(&self.stages).get(key).cloned()
    }

    /// The figures of all stages, or of one topic's.
    pub(crate) fn figures(&self, topic_id: Option<Uuid>) -> Vec<StageFigures> {
        let stages: Vec<_> = lock(&self.stages).values().cloned().collect();
        let wanted = stages
            .iter()
            .filter(|monitor| !monitor.key.is_further && topic_id.is_none_or(|id| monitor.key.topic_id == id));
        wanted.map(|monitor| monitor.figures()).collect()
    }

    /// How a version of a module has fared.
    pub(crate) fn fared(&self, module: &str, version: u32) -> Fares {
        let monitors = self.of_version(module, version).into_iter();
        monitors
            .map(|monitor| ((monitor.key.topic_id, monitor.key.stage), monitor.fare.fared()))
            .collect()
    }

    /// A version of a module is to be looked at as a new one: what failed before may do so again, and breakers of before
    /// are closed.
    pub(crate) fn begin_anew(&self, module: &str, version: u32) {
        for monitor in self.of_version(module, version) {
            monitor.fare.begin_anew();
            monitor.close_breakers();
        }
    }

    /// A topic has another version of its pipeline: what that runs is tried at once, and what it does not run any more has
    /// no breakers.
    pub(crate) fn close_breakers(&self, topic_id: Uuid) {
        let stages = lock(&self.stages);
        let of_topic = stages.values().filter(|monitor| monitor.key.topic_id == topic_id);
        of_topic.for_each(|monitor| monitor.close_breakers());
    }

    fn of_version(&self, module: &str, version: u32) -> Vec<Arc<Monitor>> {
        let stages = lock(&self.stages);
        let ours = stages
            .values()
            .filter(|monitor| monitor.key.module == module && monitor.key.version == version);
        ours.filter(|monitor| !monitor.key.is_further).cloned().collect()
    }

    /// The lines of a module that ever said something, or of which something was said.
    pub(crate) fn known_logs(&self, module: &str) -> Option<Arc<ModuleLogs>> {
        lock(&self.logs).get(module).cloned()
    }

    /// The lines of a module.
    pub(crate) fn module_logs(&self, module: &str) -> Arc<ModuleLogs> {
        let mut logs = lock(&self.logs);
        if let Some(known) = logs.get(module) {
            return known.clone();
        }
        if logs.len() >= MODULE_LOGS_MAX {
            let silent = logs.iter().filter(|(_, logs)| Arc::strong_count(logs) == 1);
            let longest = silent
                .min_by_key(|(_, logs)| logs.last_ms())
                .map(|(name, _)| name.clone());
            longest.map(|name| logs.remove(&name));
        }
        let new = Arc::<ModuleLogs>::default();
        if logs.len() < MODULE_LOGS_MAX {
            logs.insert(module.to_owned(), new.clone());
        }
        new
    }

    /// Something that the agent says of a version of a module, wherever it runs; version 0 is a file that became none.
    pub(crate) fn say(&self, module: &str, version: u32, level: Level, text: &str) {
        self.module_logs(module).push(LogLine {
            timestamp_ms: self.clock.now_ms(),
            level: level.name(),
            topic: String::new(),
            partition: None,
            version,
            text: text.to_owned(),
        });
    }

    /// Lets go of a topic that was deleted.
    pub(crate) fn forget(&self, topic_id: Uuid) {
        lock(&self.stages).retain(|key, _| key.topic_id != topic_id);
        let mut halts = lock(&self.halts);
        halts.retain(|(topic, _), _| *topic != topic_id);
        self.halts_count.store(halts.len(), Relaxed);
    }

    /// From now on a partition takes nothing through this version of its pipeline.
    pub(super) fn halt(&self, topic_id: Uuid, halt: PartitionHalt) {
        let mut halts = lock(&self.halts);
        halts.insert((topic_id, halt.partition), halt);
        self.halts_count.store(halts.len(), Relaxed);
    }

    /// Why a partition takes nothing through a version of its pipeline. A halt of an earlier version is over.
    pub(super) fn halted(&self, topic_id: Uuid, partition: u32, pipeline_version: u64) -> Option<PartitionHalt> {
        if self.halts_count.load(Relaxed) == 0 {
            return None;
        }
        let mut halts = lock(&self.halts);
        let key = (topic_id, partition);
        let halt = halts.get(&key)?.clone();
        if halt.pipeline_version == pipeline_version {
            return Some(halt);
        }
        halts.remove(&key);
        self.halts_count.store(halts.len(), Relaxed);
        None
    }

    /// The partitions of a topic that halted in a version of its pipeline.
    pub(crate) fn halts(&self, topic_id: Uuid, pipeline_version: u64) -> Vec<PartitionHalt> {
        let halts = lock(&self.halts);
        let of_topic = halts
            .iter()
            .filter(|((topic, _), halt)| *topic == topic_id && halt.pipeline_version == pipeline_version);
        let mut found: Vec<_> = of_topic.map(|(_, halt)| halt.clone()).collect();
        found.sort_by_key(|halt| halt.partition);
        found
    }
}

impl Monitor {
    fn new(key: StageKey, logs: Arc<ModuleLogs>, clock: Arc<dyn Clock>) -> Monitor {
        Monitor {
            key,
            batches: AtomicU64::default(),
            failed_batches: AtomicU64::default(),
            records_in: AtomicU64::default(),
            records_out: AtomicU64::default(),
            rejected: AtomicU64::default(),
            failed: AtomicU64::default(),
            skipped: AtomicU64::default(),
            dead_lettered: AtomicU64::default(),
            passed: AtomicU64::default(),
            shadow_differences: AtomicU64::default(),
            cpu_nanos: AtomicU64::default(),
            seconds: seconds(),
            log_lines_dropped: AtomicU64::default(),
            counters: Mutex::default(),
            breakers: Mutex::default(),
            any_breaker: AtomicBool::default(),
            fare: Fare::default(),
            bucket: Mutex::new(Bucket::new(Instant::now())),
            told: Mutex::new(Bucket::new(Instant::now())),
            logs,
            clock,
        }
    }

    /// Whether a batch may go through the stage on a partition.
    pub(super) fn admit(&self, partition: u32) -> Admission {
        if !self.any_breaker.load(Relaxed) {
            return Admission::Admitted;
        }
        match lock(&self.breakers).get_mut(&partition) {
            Some(breaker) => breaker.admit(Instant::now()),
            None => Admission::Admitted,
        }
    }

    fn close_breakers(&self) {
        let mut breakers = lock(&self.breakers);
        breakers.clear();
        self.any_breaker.store(false, Relaxed);
    }

    /// An admitted batch that says nothing about the stage.
    pub(super) fn give_back(&self, partition: u32) {
        if let Some(breaker) = lock(&self.breakers).get_mut(&partition) {
            breaker.give_back(Instant::now());
        }
    }

    /// How an admitted batch went: `cause` where it failed.
    pub(super) fn record(&self, place: Place, spec: &BreakerSpec, cause: Option<&str>) {
        let Place {
            partition,
            at,
            is_guarded,
        } = place;
        match cause {
            Some(_) if is_guarded => self.fare.failed(partition, at),
            None if is_guarded => self.fare.went_well(),
            _ => {}
        }
        if cause.is_some() {
            self.failed_batches.fetch_add(1, Relaxed);
        } else if !self.any_breaker.load(Relaxed) {
            return;
        }
        let cause = cause.map(short);
        let change = {
            let mut breakers = lock(&self.breakers);
            let breaker = breakers.entry(partition).or_default();
            let change = breaker.record(spec, cause.as_deref(), at, Instant::now());
            if breaker.is_new() {
                breakers.remove(&partition);
            }
            self.any_breaker.store(!breakers.is_empty(), Relaxed);
            change
        };
        match (change, cause) {
            (Some(Change::Opened { retry_in, again }), Some(cause)) => {
                if is_guarded && !again {
                    self.fare.opened(&cause);
                }
                let ms = retry_in.as_millis();
                self.say(
                    Level::Error,
                    &format!("breaker open on partition {partition}, tried again in {ms} ms: {cause}"),
                );
            }
            (Some(_), _) => self.say(Level::Info, &format!("breaker closed on partition {partition}")),
            (None, _) => {}
        }
    }

    /// Something that the agent says of the module.
    pub(crate) fn say(&self, level: Level, text: &str) {
        self.push(level, None, text);
    }

    /// A line of the module, if there were not too many.
    pub(super) fn log(&self, level: Level, partition: u32, per_second: u32, text: &str) {
        self.limited(&self.bucket, level, partition, per_second, text);
    }

    /// Something that the agent says of a batch, if it did not say too much.
    pub(super) fn tell(&self, level: Level, partition: u32, text: &str) {
        self.limited(&self.told, level, partition, TOLD_PER_SECOND, text);
    }

    fn limited(&self, bucket: &Mutex<Bucket>, level: Level, partition: u32, per_second: u32, text: &str) {
        let passage = lock(bucket).take(per_second, Instant::now());
        let Passage::Through { dropped_before } = passage else {
            self.log_lines_dropped.fetch_add(1, Relaxed);
            return;
        };
        if dropped_before > 0 {
            let text = format!("{dropped_before} log lines were dropped, more than {per_second} a second");
            self.push(Level::Warn, None, &text);
        }
        self.push(level, Some(partition), text);
    }

    fn push(&self, level: Level, partition: Option<u32>, text: &str) {
        let StageKey {
            topic, module, version, ..
        } = &self.key;
        // The level of an event is fixed where it is written.
        macro_rules! event {
            ($level:expr) => {
                tracing::event!(target: "millstream::module", $level, topic, partition, module, version, "{text}")
            };
        }
        match tracing_level(level) {
            tracing::Level::ERROR => event!(tracing::Level::ERROR),
            tracing::Level::WARN => event!(tracing::Level::WARN),
            tracing::Level::INFO => event!(tracing::Level::INFO),
            tracing::Level::DEBUG => event!(tracing::Level::DEBUG),
            tracing::Level::TRACE => event!(tracing::Level::TRACE),
        }
        self.logs.push(LogLine {
            timestamp_ms: self.clock.now_ms(),
            level: level.name(),
            topic: topic.clone(),
            partition,
            version: *version,
            text: text.to_owned(),
        });
    }

    /// A counter of the module's own.
    pub(super) fn count(&self, name: &str, by: u64) {
        let mut counters = lock(&self.counters);
        if let Some(total) = counters.get_mut(name) {
            *total = total.saturating_add(by);
        } else if counters.len() < COUNTERS_MAX {
            counters.insert(name.to_owned(), by);
        }
    }

    /// As they are now.
    pub(crate) fn figures(&self) -> StageFigures {
        let now = Instant::now();
        let open = |(partition, breaker): (&u32, &Breaker)| {
            let (retry_in, cause) = breaker.seen(now)?;
            Some(OpenBreaker {
                partition: *partition,
                retry_in,
                cause: cause.to_owned(),
            })
        };
        let breakers = lock(&self.breakers).iter().filter_map(open).collect();
        let StageKey {
            topic,
            side,
            module,
            version,
            stage,
            ..
        } = self.key.clone();
        let value = |counter: &AtomicU64| counter.load(Relaxed);
        StageFigures {
            topic,
            side,
            module,
            version,
            stage,
            batches: value(&self.batches),
            failed_batches: value(&self.failed_batches),
            records_in: value(&self.records_in),
            records_out: value(&self.records_out),
            rejected: value(&self.rejected),
            failed: value(&self.failed),
            skipped: value(&self.skipped),
            dead_lettered: value(&self.dead_lettered),
            passed: value(&self.passed),
            shadow_differences: value(&self.shadow_differences),
            log_lines_dropped: value(&self.log_lines_dropped),
            cpu: Duration::from_nanos(value(&self.cpu_nanos)),
            seconds: self.seconds.clone(),
            counters: lock(&self.counters).clone(),
            breakers,
        }
    }
}

pub(super) fn short(text: &str) -> String {
    text.chars().take(CAUSE_CHARS_MAX).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these locks, and what they guard is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
