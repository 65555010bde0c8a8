//! The way back: for some time after a version came into force, or began to be tried, the guard looks at how its batches
//! fare on this agent, in stages that follow the module or try the version. Where too many fail by the module's fault, or a
//! breaker opened on it, the agent goes back to the version before, or ends the trial.
//!
//! What it counts is what this agent saw, so each agent guards for itself; the first one that goes back does so for all, and
//! the others find that it is done. It waits for nobody: the others switch by themselves. A start begins no watch: what was in force before it is not new.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use millstream_meta::MetaError;
use millstream_wasm::Level;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    broker::Broker,
    error::{BrokerError, Kind},
    pipeline::{Fared, Fares, Follows, Pipeline},
    settings::Settings,
};

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Versions that are watched at once; of more the oldest ones are let go.
const WATCHES_MAX: usize = 1_000;

/// What is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Watched {
    module: String,
    version: u32,
    is_trial: bool,
}

impl Watched {
    pub(crate) fn current(module: String, version: u32) -> Watched {
        let is_trial = false;
        Watched {
            module,
            version,
            is_trial,
        }
    }

    pub(crate) fn trial(module: String, version: u32) -> Watched {
        let is_trial = true;
        Watched {
            module,
            version,
            is_trial,
        }
    }
}

/// All watches of an agent.
#[derive(Default)]
pub(crate) struct Guard {
    watches: Mutex<Watches>,
}

#[derive(Default)]
struct Watches {
    next: u64,
    by_id: BTreeMap<u64, Watch>,
}

impl Watches {
    fn is_watched(&self, watched: &Watched) -> bool {
        self.by_id.values().any(|watch| watch.watched == *watched)
    }

    fn begin(&mut self, watch: Watch) -> Begun {
        // Of one module only what came last is looked at.
        let module = watch.watched.module.clone();
        let same = self.by_id.extract_if(.., |_, earlier| earlier.watched.module == module);
        let earlier = same.collect();
        if self.by_id.len() >= WATCHES_MAX {
            self.by_id.pop_first();
        }
        let id = self.next;
        self.next += 1;
        self.by_id.insert(id, watch);
        Begun { id, earlier }
    }
}

#[derive(Clone)]
struct Watch {
    watched: Watched,
    until: Instant,
    /// What was counted before.
    before: Fares,
}

/// A watch that was begun.
pub(crate) struct Begun {
    id: u64,
    /// The one that it took the place of.
    earlier: BTreeMap<u64, Watch>,
}

impl Guard {
    /// Watches a version from now on, as if it had never run.
    pub(crate) fn begin(&self, broker: &Broker, watched: Watched) -> Begun {
        let monitors = &broker.shared().monitors;
        monitors.begin_anew(&watched.module, watched.version);
        let before = monitors.fared(&watched.module, watched.version);
        let window = Duration::from_millis(broker.shared().settings.module_rollback_window_ms);
        let watch = Watch {
            until: Instant::now() + window,
            before,
            watched,
        };
        self.watches().begin(watch)
    }

    /// What was to be watched did not come into force: what was watched before is so again.
    pub(crate) fn take_back(&self, begun: Begun) {
        let mut watches = self.watches();
        // Where it is gone, another one came since.
        if watches.by_id.remove(&begun.id).is_some() {
            watches.by_id.extend(begun.earlier);
        }
    }

    fn end(&self, id: u64) {
        self.watches().by_id.remove(&id);
    }

    /// Watches what another agent brought into force, where it is newer than what ran.
    pub(crate) fn follow(&self, broker: &Broker, before: &Pipeline, next: &Pipeline) {
        let (before, next) = (&before.spec, &next.spec);
        let stages = |spec: &'_ crate::pipeline::PipelineSpec| [spec.produce.clone(), spec.fetch.clone()].concat();
        let old = stages(before);
        for stage in stages(next)
            .into_iter()
            .filter(|stage| stage.follows == Follows::Latest)
        {
            let mut ran = old.iter().filter(|old| old.module == stage.module);
            if let Some(trial) = &stage.trial
                && !ran
                    .clone()
                    .any(|old| old.trial.as_ref().is_some_and(|old| old.version == trial.version))
            {
                self.begin_once(broker, Watched::trial(stage.module.clone(), trial.version));
            } else if ran.clone().next().is_some() && ran.all(|old| old.version < stage.version) {
                self.begin_once(broker, Watched::current(stage.module.clone(), stage.version));
            }
        }
    }

    /// Each topic that follows the module brings the same version: what was counted since the first of them stays.
    fn begin_once(&self, broker: &Broker, watched: Watched) {
        if !self.watches().is_watched(&watched) {
            self.begin(broker, watched);
        }
    }

    fn watches(&self) -> MutexGuard<'_, Watches> {
        // Nothing panics while it holds this lock, and what it guards is whole between any two statements.
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The watches that found a version to fail too often, and why; those that are over end.
    fn look(&self, broker: &Broker) -> Vec<(u64, Watched, String)> {
        let mut watches = self.watches();
        let now = Instant::now();
        watches.by_id.retain(|_, watch| watch.until > now);
        if watches.by_id.is_empty() {
            return Vec::new();
        }
        let monitors = &broker.shared().monitors;
        let settings = &broker.shared().settings;
        let found = watches.by_id.iter().filter_map(|(id, watch)| {
            let fared = monitors.fared(&watch.watched.module, watch.watched.version);
            let why = verdict(settings, fared.since(&watch.before))?;
            Some((*id, watch.watched.clone(), why))
        });
        found.collect()
    }
}

/// Why a version has to go after what was counted since it came, where it has to.
fn verdict(settings: &Settings, since: Fared) -> Option<String> {
    let Fared {
        batches,
        failed,
        opened: _,
        cause,
    } = since;
    if failed == 0 {
        return None;
    }
    let percent = failed * 100 / batches.max(1);
    let too_many = failed * 100 > batches * u64::from(settings.module_rollback_error_percent);
    let enough = batches >= u64::from(settings.module_rollback_batches_min);
    match cause {
        Some(cause) => Some(format!(
            "its breaker opened after {failed} of {batches} batches failed: {cause}"
        )),
        None if enough && too_many => Some(format!("{percent}% of {batches} batches failed")),
        None => None,
    }
}

/// Looks again and again, as long as there is a broker.
pub(crate) async fn run(broker: Weak<Broker>) {
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let Some(broker) = broker.upgrade() else { return };
        if broker.is_stopping() {
            return;
        }
        for (id, watched, why) in broker.guard().look(&broker) {
            go_back(&broker, id, watched, why).await;
        }
    }
}

async fn go_back(broker: &Arc<Broker>, id: u64, watched: Watched, why: String) {
    let Watched {
        module,
        version,
        is_trial,
    } = &watched;
    let why = match last_error(broker, &watched) {
        Some(cause) if !why.contains(&cause) => format!("{why}: {cause}"),
        _ => why,
    };
    let reason = format!("rolled back, {why}");
    let done = match is_trial {
        true => broker.end_trial(module, *version, &reason).await,
        false => broker.roll_back(module, None, Some(*version), &reason).await.map(drop),
    };
    match done {
        Ok(()) => {
            tracing::error!(module, version, "a new version was taken back: {why}");
            let text = format!("version {version} was taken back: {why}");
            broker.shared().monitors.say(module, *version, Level::Error, &text);
        }
        // Another agent was quicker, or a person.
        Err(BrokerError::Meta(MetaError::Conflict { .. }) | BrokerError::NoTrial { .. }) => {}
        // The database is asked again with the next look.
        Err(error) if error.kind() == Kind::Unavailable => {
            tracing::warn!(module, version, %error, "a version that fails cannot be taken back now");
            return;
        }
        Err(error) => {
            tracing::error!(module, version, %error, "a version fails and cannot be taken back: {why}");
            let text = format!("version {version} fails ({why}) and cannot be taken back: {error}");
            broker.shared().monitors.say(module, *version, Level::Error, &text);
        }
    }
    broker.guard().end(id);
}

/// What the version, or the agent about it, said last of an error.
fn last_error(broker: &Broker, watched: &Watched) -> Option<String> {
    let (lines, _) = broker.shared().monitors.module_logs(&watched.module).follow();
    let mut errors = lines.iter().rev();
    let last = errors.find(|line| line.version == watched.version && line.level == "error");
    last.map(|line| line.text.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(batches: u64, failed: u64, breaker: Option<&str>) -> Option<String> {
        let since = Fared {
            batches,
            failed,
            opened: u64::from(breaker.is_some()),
            cause: breaker.map(str::to_owned),
        };
        verdict(&Settings::default(), since)
    }

    #[test]
    fn too_many_of_enough_batches_are_a_reason() {
        assert_eq!(judged(0, 0, None), None);
        assert_eq!(judged(19, 19, None), None);
        assert_eq!(judged(100, 10, None), None);
        assert_eq!(judged(100, 11, None).unwrap(), "11% of 100 batches failed");
        assert_eq!(judged(20, 20, None).unwrap(), "100% of 20 batches failed");
    }

    #[test]
    fn a_breaker_that_opened_is_enough() {
        assert!(judged(5, 5, Some("it traps")).unwrap().ends_with("it traps"));
        assert_eq!(judged(5, 5, None), None);
        assert_eq!(judged(0, 0, Some("it traps")), None);
    }

    #[test]
    fn where_the_new_version_does_not_come_the_one_before_is_watched_again() {
        let guard = Guard::default();
        let watch = |version| Watch {
            watched: Watched::current("m".to_owned(), version),
            until: Instant::now(),
            before: Fares::default(),
        };
        let watched = || -> Vec<u32> {
            let watches = guard.watches();
            watches.by_id.values().map(|watch| watch.watched.version).collect()
        };
        guard.watches().begin(watch(2));
        let begun = guard.watches().begin(watch(3));
        assert_eq!(watched(), [3]);
        guard.take_back(begun);
        assert_eq!(watched(), [2]);
        let overtaken = guard.watches().begin(watch(3));
        guard.watches().begin(watch(4));
        guard.take_back(overtaken);
        assert_eq!(watched(), [4]);
    }
}
