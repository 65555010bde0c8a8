//! What the uploads of an agent share: how many run at once, and which keys may still be committed.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Segments that are being committed at once.
const COMMITS_AT_ONCE: usize = 16;

/// Counts, bounds and keys of all uploads. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Uploads {
    turns: Arc<Semaphore>,
    turns_max: usize,
    commits: Arc<Semaphore>,
    live: Arc<Mutex<HashSet<String>>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    done: AtomicU64,
    retries: AtomicU64,
    merges: AtomicU64,
}

impl Uploads {
    pub(crate) fn new(at_once_max: usize) -> Uploads {
        let turns_max = at_once_max.max(1);
        Uploads {
            turns: Arc::new(Semaphore::new(turns_max)),
            turns_max,
            commits: Arc::new(Semaphore::new(COMMITS_AT_ONCE)),
            live: Arc::default(),
            counts: Arc::default(),
        }
    }

    /// Waits in line. Taken before anything is encoded: the bound is also one on encoded segments in memory. Held for
    /// one try only, so that one which fails does not keep the others from theirs.
    pub(crate) async fn turn(&self) -> OwnedSemaphorePermit {
        let turn = self.turns.clone().acquire_owned().await;
        turn.expect("the semaphore is never closed")
    }

    /// Waits until not too many wait for the database: others need it too, the renewal of the leases before all.
    pub(crate) async fn commit_turn(&self) -> SemaphorePermit<'_> {
        self.commits.acquire().await.expect("the semaphore is never closed")
    }

    /// A key that is going to be put, and may be committed until the answer is dropped.
    pub(crate) fn live_key(&self, key: String) -> LiveKey {
        self.live().insert(key.clone());
        LiveKey {
            key,
            all: self.live.clone(),
        }
    }

    /// The keys that may still be committed.
    pub(crate) fn live_keys(&self) -> HashSet<String> {
        self.live().clone()
    }

    pub(crate) fn count_done(&self) {
        self.counts.done.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_retry(&self) {
        self.counts.retries.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_merge(&self) {
        self.counts.merges.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn running(&self) -> usize {
        self.turns_max - self.turns.available_permits()
    }

    /// Uploads that were committed, tries that failed, and merges that were committed.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let Counts { done, retries, merges } = &*self.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(done), read(retries), read(merges))
    }

    fn live(&self) -> MutexGuard<'_, HashSet<String>> {
        lock(&self.live)
    }
}

/// A key that may still be committed.
#[derive(Debug)]
pub(crate) struct LiveKey {
    key: String,
    all: Arc<Mutex<HashSet<String>>>,
}

impl LiveKey {
    pub(crate) fn as_str(&self) -> &str {
        &self.key
    }
}

impl Drop for LiveKey {
    fn drop(&mut self) {
        lock(&self.all).remove(&self.key);
    }
}

fn lock(live: &Mutex<HashSet<String>>) -> MutexGuard<'_, HashSet<String>> {
    // Nothing panics while it holds this lock, and a set is whole between any two statements.
    live.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_lives_until_it_is_dropped() {
        let uploads = Uploads::new(1);
        let key = uploads.live_key("a".to_owned());
        assert!(uploads.live_keys().contains(key.as_str()));
        drop(key);
        assert!(uploads.live_keys().is_empty());
    }

    #[tokio::test]
    async fn no_more_than_the_bound_run_at_once() {
        let uploads = Uploads::new(2);
        let turns = [uploads.turn().await, uploads.turn().await];
        assert_eq!(uploads.running(), 2);
        assert!(futures::poll!(std::pin::pin!(uploads.turn())).is_pending());
        drop(turns);
        assert_eq!(uploads.running(), 0);
    }
}
