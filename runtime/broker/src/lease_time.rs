//! Lease time: until when this agent may count on its leases.
//!
//! All leases of an agent live and die together, with the one row that its keeper renews. That row carries the database's
//! time; here a deadline is counted on this machine's monotonic clock, from before the database was asked, less a margin. So
//! it is over here before it is over there, however long the answer took and though the two clocks run a little apart.
//!
//! What makes a take-over safe is the seal of the log and the epoch, never this clock: an agent that was paused beyond its
//! deadline in the midst of an append finds its log sealed. The deadline keeps it from acknowledging for long what somebody
//! else may be about to take over, and tells its clients why.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use crate::error::{BrokerError, Result};

/// The part of the lease time that is not counted on: a tenth.
const MARGIN_PART: u32 = 10;
/// The part of the lease time that others get to come back in: a third, which is longer than any of them waits to try again.
const SETTLING_PART: u32 = 3;

/// The deadline, shared by the keeper that moves it and everybody who goes by it.
#[derive(Debug)]
pub(crate) struct LeaseTime {
    duration: Duration,
    began: Instant,
    /// Microseconds after `began` at which the renewal was asked for that was answered last.
    asked_us: AtomicU64,
    /// Until when, in the same measure, others that were away as we were may still be on their way back.
    settled_us: AtomicU64,
    lapses: AtomicU64,
}

impl LeaseTime {
    /// The registration counts as a renewal; it was asked for at `asked`.
    pub(crate) fn new(duration: Duration, asked: Instant) -> LeaseTime {
        LeaseTime {
            duration,
            began: asked,
            asked_us: AtomicU64::new(0),
            settled_us: AtomicU64::new(0),
            lapses: AtomicU64::new(0),
        }
    }

    pub(crate) fn duration(&self) -> Duration {
        self.duration
    }

    /// A renewal was answered that was asked for at `asked`.
    pub(crate) fn renewed(&self, asked: Instant) {
        self.asked_us.fetch_max(self.us_at(asked), Ordering::AcqRel);
    }

    /// The deadline had passed, and is ahead again. A database that was away was so for everybody: the others renew their
    /// leases in the time that follows, and what they lead is left to them as long.
    pub(crate) fn came_back(&self) {
        let settled = Instant::now() + self.duration / SETTLING_PART;
        self.settled_us.store(self.us_at(settled), Ordering::Release);
    }

    /// Whether an agent whose lease time is over may only have been away as long as we were.
    pub(crate) fn is_settling(&self) -> bool {
        self.is_over() || self.us_at(Instant::now()) < self.settled_us.load(Ordering::Acquire)
    }

    /// How long the leases can still be counted on; zero where they cannot.
    pub(crate) fn left(&self) -> Duration {
        (self.duration - self.duration / MARGIN_PART).saturating_sub(self.silent())
    }

    pub(crate) fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// Fails where the deadline is over.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_over() {
            let silent_s = self.silent().as_secs();
            return Err(BrokerError::LeaseLapsed { silent_s });
        }
        Ok(())
    }

    pub(crate) fn count_lapse(&self) {
        self.lapses.fetch_add(1, Ordering::Relaxed);
    }

    /// How often the deadline has passed.
    pub(crate) fn lapses(&self) -> u64 {
        self.lapses.load(Ordering::Relaxed)
    }

    fn us_at(&self, at: Instant) -> u64 {
        let us = at.saturating_duration_since(self.began).as_micros();
        u64::try_from(us).unwrap_or(u64::MAX)
    }

    /// Since the last renewal that was answered was asked for.
    fn silent(&self) -> Duration {
        let asked = Duration::from_micros(self.asked_us.load(Ordering::Acquire));
        self.began.elapsed().saturating_sub(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_counted_from_before_it_was_asked_for_less_a_tenth() {
        let time = LeaseTime::new(Duration::from_secs(10), Instant::now());
        assert_eq!(time.left(), Duration::from_secs(9));
        let asked = Instant::now();
        tokio::time::advance(Duration::from_secs(4)).await;
        time.renewed(asked);
        assert_eq!(time.left(), Duration::from_secs(5));
        tokio::time::advance(Duration::from_millis(4_999)).await;
        assert!(time.check().is_ok());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(matches!(time.check(), Err(BrokerError::LeaseLapsed { silent_s: 9 })));
        time.renewed(Instant::now());
        assert_eq!(time.left(), Duration::from_secs(9));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_lapse_others_get_time_to_come_back() {
        let time = LeaseTime::new(Duration::from_secs(9), Instant::now());
        assert!(!time.is_settling());
        tokio::time::advance(Duration::from_secs(20)).await;
        assert!(time.is_settling());
        time.renewed(Instant::now());
        time.came_back();
        assert!(time.is_settling() && !time.is_over());
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(!time.is_settling());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_late_does_not_shorten_the_time() {
        let time = LeaseTime::new(Duration::from_secs(10), Instant::now());
        let early = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        time.renewed(Instant::now());
        time.renewed(early);
        assert_eq!(time.left(), Duration::from_secs(9));
    }
}
