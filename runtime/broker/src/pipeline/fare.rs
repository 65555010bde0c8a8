//! How the stages that follow a module's current version, or try another one, have fared with a version: what decides
//! whether the agent goes back. Stages that name their version, and those that readers ask for, do not count.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use uuid::Uuid;

/// Stored batches that are remembered to have failed.
const FAILED_AT_MAX: usize = 1_000;

/// What has been counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fared {
    pub(crate) batches: u64,
    /// Of them those of which more than half failed by the module's fault.
    pub(crate) failed: u64,
    /// Breakers that were closed and opened.
    pub(crate) opened: u64,
    /// Why the last one did.
    pub(crate) cause: Option<String>,
}

/// What has been counted of a version since the agent started: by topic and stage, so that one that goes away takes nothing
/// from what the others count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fares(BTreeMap<(Uuid, u32), Fared>);

impl Fares {
    /// What came since, in the stages that there are now.
    pub(crate) fn since(&self, before: &Fares) -> Fared {
        let mut since = Fared::default();
        for (stage, fared) in &self.0 {
            let before = before.0.get(stage).cloned().unwrap_or_default();
            let opened = fared.opened.saturating_sub(before.opened);
            since.batches += fared.batches.saturating_sub(before.batches);
            since.failed += fared.failed.saturating_sub(before.failed);
            since.opened += opened;
            if opened > 0 && since.cause.is_none() {
                since.cause.clone_from(&fared.cause);
            }
        }
        since
    }
}

impl FromIterator<((Uuid, u32), Fared)> for Fares {
    fn from_iter<I: IntoIterator<Item = ((Uuid, u32), Fared)>>(fares: I) -> Fares {
        Fares(fares.into_iter().collect())
    }
}

/// What one monitor counts of it.
#[derive(Debug, Default)]
pub(super) struct Fare {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    fared: Fared,
    /// By partition and base offset: a batch that one reader asks for again and again counts once.
    failed_at: BTreeSet<(u32, u64)>,
}

impl Fare {
    /// One batch, as [`Fare::failed`] where it failed.
    pub(super) fn went_well(&self) {
        self.state().fared.batches += 1;
    }

    /// One batch that failed; `at` is the base offset of a stored one.
    pub(super) fn failed(&self, partition: u32, at: Option<u64>) {
        let mut state = self.state();
        if let Some(at) = at {
            let key = (partition, at);
            if state.failed_at.contains(&key) {
                return;
            }
            if state.failed_at.len() < FAILED_AT_MAX {
                state.failed_at.insert(key);
            }
        }
        state.fared.batches += 1;
        state.fared.failed += 1;
    }

    /// A breaker that was closed is open.
    pub(super) fn opened(&self, cause: &str) {
        let mut state = self.state();
        state.fared.opened += 1;
        state.fared.cause = Some(cause.to_owned());
    }

    pub(super) fn fared(&self) -> Fared {
        self.state().fared.clone()
    }

    /// What failed before may fail again, and counts then.
    pub(super) fn begin_anew(&self) {
        self.state().failed_at.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds this lock, and what it guards is whole between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_batch_that_fails_counts_once_and_anew_for_the_next_watch() {
        let fare = Fare::default();
        for _ in 0..10 {
            fare.failed(0, Some(7));
        }
        fare.failed(1, Some(7));
        fare.failed(0, None);
        fare.failed(0, None);
        fare.went_well();
        assert_eq!((fare.fared().batches, fare.fared().failed), (5, 4));
        fare.begin_anew();
        fare.failed(0, Some(7));
        assert_eq!(fare.fared().failed, 5);
    }

    #[test]
    fn a_stage_that_goes_away_takes_nothing_from_the_others() {
        let fared = |batches, failed, opened| Fared {
            batches,
            failed,
            opened,
            cause: (opened > 0).then(|| format!("opened {opened} times")),
        };
        let (topic, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let before: Fares = [((topic, 1), fared(1_000, 7, 1)), ((other, 1), fared(10, 5, 1))]
            .into_iter()
            .collect();
        let now: Fares = [((other, 1), fared(30, 6, 1)), ((other, 2), fared(5, 5, 2))]
            .into_iter()
            .collect();
        assert_eq!(now.since(&before), fared(25, 6, 2));
        let opened_before: Fares = [((other, 1), fared(30, 6, 1))].into_iter().collect();
        assert_eq!(opened_before.since(&before), fared(20, 1, 0));
    }
}
