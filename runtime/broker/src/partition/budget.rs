//! The agent's bound on the tails of all its partitions together.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;

/// Counts the bytes of all tails, batches still on their way into the WAL included. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct TailBudget {
    used: Arc<AtomicUsize>,
    /// Somebody should make room.
    pressed: Arc<Notify>,
    bytes_max: usize,
}

impl TailBudget {
    pub(crate) fn new(bytes_max: usize) -> TailBudget {
        TailBudget {
            used: Arc::default(),
            pressed: Arc::default(),
            bytes_max,
        }
    }

    /// Takes `bytes` unless that passes the bound; then says how much is used.
    pub(crate) fn take(&self, bytes: usize) -> Result<(), usize> {
        let fits = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.bytes_max);
        let taken = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits);
        if taken.map_or(true, |before| before + bytes > self.tight_from()) {
            self.pressed.notify_one();
        }
        taken.map(drop)
    }

    /// Takes `bytes` whatever the bound: what recovery finds must be held.
    pub(crate) fn force(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Resolves when bytes were taken above three quarters, or refused, since it last resolved.
    pub(crate) async fn pressed(&self) {
        self.pressed.notified().await;
    }

    /// What has to go into segments now, so that the bound is seldom met: above three quarters what is beyond one half.
    pub(crate) fn excess(&self) -> usize {
        match self.used() {
            used if used > self.tight_from() => used - self.bytes_max / 2,
            _ => 0,
        }
    }

    fn tight_from(&self) -> usize {
        self.bytes_max / 4 * 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_passes_the_bound_is_refused_and_presses() {
        let budget = TailBudget::new(100);
        budget.take(70).unwrap();
        assert_eq!(budget.excess(), 0);
        assert!(futures::poll!(std::pin::pin!(budget.pressed())).is_pending());
        assert_eq!(budget.take(31), Err(70));
        budget.pressed().await;
        budget.take(30).unwrap();
        assert_eq!(budget.excess(), 50);
        budget.pressed().await;
        budget.give_back(100);
        budget.take(100).unwrap();
    }
}
