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
    /// What of it is left by partitions that are closed: no segment can be made of it until they open.
    left: Arc<AtomicUsize>,
    /// Somebody should make room.
    pressed: Arc<Notify>,
    bytes_max: usize,
}

impl TailBudget {
    pub(crate) fn new(bytes_max: usize) -> TailBudget {
        TailBudget {
            used: Arc::default(),
            left: Arc::default(),
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

    /// Notes that so many of the bytes taken belong to a partition that closed.
    pub(crate) fn leave(&self, bytes: usize) {
        self.left.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Gives back what a closed partition had left.
    pub(crate) fn give_back_left(&self, bytes: usize) {
        self.left.fetch_sub(bytes, Ordering::AcqRel);
        self.give_back(bytes);
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Resolves when bytes were taken above three quarters of the room, or refused, since it last resolved.
    pub(crate) async fn pressed(&self) {
        self.pressed.notified().await;
    }

    /// What has to go into segments now, so that the bound is seldom met: above three quarters of the room what is beyond
    /// one half of it.
    pub(crate) fn excess(&self) -> usize {
        // Each is read once: they move all the time.
        let (used, left) = (self.used(), self.left());
        let (open, room) = (used.saturating_sub(left), self.bytes_max.saturating_sub(left));
        match open > room / 4 * 3 {
            true => open - room / 2,
            false => 0,
        }
    }

    /// Whether closed partitions leave so little room that segments made to keep within it are small ones.
    pub(crate) fn is_cramped(&self) -> bool {
        self.room() < self.bytes_max / 4
    }

    fn tight_from(&self) -> usize {
        self.left() + self.room() / 4 * 3
    }

    /// What there is for partitions that are open.
    fn room(&self) -> usize {
        self.bytes_max.saturating_sub(self.left())
    }

    fn left(&self) -> usize {
        self.left.load(Ordering::Acquire)
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

    #[test]
    fn what_closed_partitions_left_asks_nothing_of_the_open_ones() {
        let budget = TailBudget::new(1_000);
        budget.force(800);
        assert_eq!(budget.excess(), 300);
        budget.leave(800);
        assert_eq!(budget.excess(), 0);
        assert!(budget.is_cramped());
        budget.take(150).unwrap();
        assert_eq!(budget.excess(), 0);
        budget.take(20).unwrap();
        assert_eq!(budget.excess(), 70, "above half of the 200 that there are");
        budget.force(1_000);
        budget.leave(1_000);
        assert_eq!(budget.excess(), 170, "there is no room at all");
        budget.give_back_left(1_000);
        budget.give_back_left(800);
        assert!(!budget.is_cramped());
        assert_eq!((budget.used(), budget.excess()), (170, 0));
    }
}
