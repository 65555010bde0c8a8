//! How the stages that follow a module's current version, or try another one, have fared with a version: what decides
//! whether the agent goes back. Stages that name their version, and those that readers ask for, do not count.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Stored batches that are remembered to have failed.
const FAILED_AT_MAX: usize = 1_000;

/// What has been counted since the agent started. Differences of two of these are what counts.
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

impl Fared {
    pub(super) fn add(&mut self, other: Fared) {
        self.batches += other.batches;
        self.failed += other.failed;
        self.opened += other.opened;
        self.cause = self.cause.take().or(other.cause);
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
}
