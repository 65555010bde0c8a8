//! The breaker of one stage on one partition: after so many failed batches in a row the stage is left alone for a while,
//! then one batch is its trial.

use std::time::Duration;

use tokio::time::Instant;

use super::BreakerSpec;

/// The longest that a breaker stays open before a batch is tried.
const COOLDOWN_MAX: Duration = Duration::from_secs(60);

/// How long a trial may be on its way; then its batch was lost, and another one is tried.
const TRIAL_PATIENCE: Duration = Duration::from_secs(60);

/// Stored batches that a breaker remembers.
const FAILED_AT_MAX: usize = 64;

/// One breaker. What is not kept anywhere is closed, without a failure.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    state: State,
    failures_in_a_row: u32,
    /// Stored batches that failed in this row, so that one which is read again and again counts once.
    failed_at: Vec<u64>,
    cause: String,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Closed,
    Open {
        until: Instant,
        cooldown: Duration,
    },
    Trying {
        since: Instant,
        cooldown: Duration,
    },
}

/// Whether a batch may go through a stage.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Admitted,
    /// Not before the breaker is tried again.
    Refused {
        retry_in: Duration,
        cause: String,
    },
}

/// What a batch did to a breaker.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// `again` where it was open, and its trial failed.
    Opened {
        retry_in: Duration,
        again: bool,
    },
    Closed,
}

impl Breaker {
    /// Asks for a batch; who is admitted says with [`Breaker::record`] how it went.
    pub(super) fn admit(&mut self, now: Instant) -> Admission {
        let (due, cooldown) = match self.state {
            State::Closed => return Admission::Admitted,
            State::Open { until, cooldown } => (until, cooldown),
            State::Trying { since, cooldown } => (since + TRIAL_PATIENCE, cooldown),
        };
        if now >= due {
            self.state = State::Trying { since: now, cooldown };
            return Admission::Admitted;
        }
        let retry_in = match self.state {
            State::Trying { cooldown, .. } => cooldown,
            _ => due - now,
        };
        Admission::Refused {
            retry_in,
            cause: self.cause.clone(),
        }
    }

    /// How a batch went: `cause` where it failed; `at` is the base offset of one that is stored.
    pub(super) fn record(
        &mut self,
        spec: &BreakerSpec,
        cause: Option<&str>,
        at: Option<u64>,
        now: Instant,
    ) -> Option<Change> {
        let Some(cause) = cause else {
            let was_open = self.is_open();
            *self = Breaker::default();
            return was_open.then_some(Change::Closed);
        };
        self.cause = cause.to_owned();
        if self.state == State::Closed && self.is_known(at) {
            return None;
        }
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        let again = self.is_open();
        let cooldown = match self.state {
            State::Trying { cooldown, .. } => (cooldown * 2).min(COOLDOWN_MAX),
            // One that was admitted before it opened.
            State::Open { .. } => return None,
            State::Closed if spec.failures > 0 && self.failures_in_a_row >= spec.failures => {
                Duration::from_millis(spec.cooldown_ms).min(COOLDOWN_MAX)
            }
            State::Closed => return None,
        };
        let until = now + cooldown;
        self.state = State::Open { until, cooldown };
        Some(Change::Opened {
            retry_in: cooldown,
            again,
        })
    }

    /// Whether a stored batch has failed in this row before; from now on it has.
    fn is_known(&mut self, at: Option<u64>) -> bool {
        let Some(at) = at else { return false };
        if self.failed_at.contains(&at) {
            return true;
        }
        if self.failed_at.len() < FAILED_AT_MAX {
            self.failed_at.push(at);
        }
        false
    }

    /// An admitted batch that says nothing about the stage: where it was the trial, another one is tried later.
    pub(super) fn give_back(&mut self, now: Instant) {
        if let State::Trying { cooldown, .. } = self.state {
            let until = now + cooldown;
            self.state = State::Open { until, cooldown };
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.state != State::Closed
    }

    /// Whether there is nothing to remember.
    pub(super) fn is_new(&self) -> bool {
        !self.is_open() && self.failures_in_a_row == 0
    }

    /// How long until a batch is tried, and why it is open.
    pub(super) fn seen(&self, now: Instant) -> Option<(Duration, &str)> {
        match self.state {
            State::Closed => None,
            State::Open { until, .. } => Some((until.saturating_duration_since(now), &self.cause)),
            State::Trying { .. } => Some((Duration::ZERO, &self.cause)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: BreakerSpec = BreakerSpec {
        failures: 2,
        cooldown_ms: 1_000,
    };

    const OPENED: Change = Change::Opened {
        retry_in: Duration::from_secs(1),
        again: false,
    };

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_by_trial() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        assert_eq!(breaker.record(&SPEC, Some("a"), None, now), None);
        assert_eq!(breaker.record(&SPEC, None, None, now), None);
        assert!(breaker.is_new(), "a batch that went well ends the row");
        assert_eq!(breaker.record(&SPEC, Some("a"), None, now), None);
        let opened = breaker.record(&SPEC, Some("b"), None, now);
        assert_eq!(opened, Some(OPENED));
        let refused = Admission::Refused {
            retry_in: seconds(1),
            cause: "b".to_owned(),
        };
        assert_eq!(breaker.admit(now), refused);
        assert_eq!(breaker.admit(now + seconds(1)), Admission::Admitted);
        assert!(
            matches!(breaker.admit(now + seconds(1)), Admission::Refused { .. }),
            "one batch is tried"
        );
        assert_eq!(
            breaker.record(&SPEC, None, None, now + seconds(1)),
            Some(Change::Closed)
        );
        assert!(breaker.is_new());
    }

    #[test]
    fn the_pause_doubles_while_trials_fail_up_to_a_bound() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        breaker.record(&SPEC, Some("a"), None, now);
        breaker.record(&SPEC, Some("a"), None, now);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            now += COOLDOWN_MAX;
            assert_eq!(breaker.admit(now), Admission::Admitted);
            match breaker.record(&SPEC, Some("a"), None, now) {
                Some(Change::Opened { retry_in, again: true }) => pauses.push(retry_in.as_secs()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn one_that_is_off_never_opens_and_a_lost_trial_is_followed_by_another() {
        let off = BreakerSpec {
            failures: 0,
            ..SPEC.clone()
        };
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..1_000 {
            assert_eq!(breaker.record(&off, Some("a"), None, now), None);
        }
        assert_eq!(breaker.admit(now), Admission::Admitted);

        let mut breaker = Breaker::default();
        breaker.record(&SPEC, Some("a"), None, now);
        breaker.record(&SPEC, Some("a"), None, now);
        assert_eq!(breaker.admit(now + seconds(1)), Admission::Admitted);
        assert_eq!(breaker.admit(now + seconds(1) + TRIAL_PATIENCE), Admission::Admitted);
    }

    #[test]
    fn a_stored_batch_counts_once_however_often_it_is_read() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..100 {
            assert_eq!(breaker.record(&SPEC, Some("a"), Some(7), now), None);
        }
        assert_eq!(breaker.record(&SPEC, Some("a"), Some(8), now), Some(OPENED));
        assert_eq!(breaker.admit(now + seconds(1)), Admission::Admitted);
        let again = breaker.record(&SPEC, Some("a"), Some(7), now + seconds(1));
        assert!(matches!(again, Some(Change::Opened { again: true, .. })), "{again:?}");
    }

    #[test]
    fn a_trial_that_says_nothing_is_followed_by_another_after_the_same_pause() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        breaker.record(&SPEC, Some("a"), None, now);
        breaker.record(&SPEC, Some("a"), None, now);
        assert_eq!(breaker.admit(now + seconds(1)), Admission::Admitted);
        breaker.give_back(now + seconds(1));
        assert!(matches!(
            breaker.admit(now + seconds(1)),
            Admission::Refused { retry_in, .. } if retry_in == seconds(1)
        ));
        assert_eq!(breaker.admit(now + seconds(2)), Admission::Admitted);
    }
}
