//! The ledger: which records were acknowledged, which were not, and the first failure.

use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use millstream_proto::v1;

use super::{ProduceError, Totals};
use crate::{ClientError, Reject};

/// Runs of records that are remembered as not acknowledged; beyond them the last run takes in all that follows.
const RUNS_MAX: usize = 10_000;

/// Shared by a producer and its driver.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    totals: Totals,
    unacknowledged: Vec<Range<u64>>,
    failure: Option<ClientError>,
    rejects: Vec<Reject>,
}

impl Ledger {
    pub(super) fn acknowledged(&self, numbers: &Numbers, answer: &v1::ProduceResponse) {
        let mut state = self.lock();
        state.totals.acknowledged += numbers.count();
        state.totals.stored += u64::from(answer.record_count);
        state.totals.changed += u64::from(answer.changed_count);
        state.totals.dropped += u64::from(answer.dropped_count);
        state.totals.batches += 1;
    }

    /// The batch was refused, lost or never sent. The first such error is the one that is told.
    pub(super) fn failed(&self, numbers: &Numbers, error: &ClientError) {
        let mut state = self.lock();
        if state.failure.is_none() {
            if let ClientError::Refused { rejects, .. } = error {
                let in_order_of_send = |reject: &Reject| {
                    let index = numbers.nth(reject.index)?;
                    Some(Reject {
                        index,
                        reason: reject.reason.clone(),
                    })
                };
                state.rejects = rejects.iter().filter_map(in_order_of_send).collect();
            }
            state.failure = Some(error.clone());
        }
        state.unacknowledged.extend_from_slice(&numbers.runs);
        if state.unacknowledged.len() > RUNS_MAX {
            state.unacknowledged = merged(std::mem::take(&mut state.unacknowledged));
        }
    }

    pub(super) fn totals(&self) -> Totals {
        self.lock().totals
    }

    /// The failure as the caller sees it, if there was one since it was last told.
    pub(super) fn take_error(&self) -> Option<ProduceError> {
        let mut state = self.lock();
        let cause = Box::new(state.failure.take()?);
        Some(ProduceError {
            cause,
            totals: state.totals,
            unacknowledged: merged(std::mem::take(&mut state.unacknowledged)),
            rejects: std::mem::take(&mut state.rejects),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In order, adjacent ones made one, and the bound kept.
fn merged(mut runs: Vec<Range<u64>>) -> Vec<Range<u64>> {
    runs.sort_unstable_by_key(|run| run.start);
    let mut merged = Numbers::default();
    for run in runs {
        merged.push_run(run);
    }
    if merged.runs.len() > RUNS_MAX {
        let end = merged.runs.last().map_or(0, |last| last.end);
        merged.runs.truncate(RUNS_MAX);
        merged.runs[RUNS_MAX - 1].end = end;
    }
    merged.runs
}

/// The records of a batch, by their number in the order of `send`: runs in ascending order.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    runs: Vec<Range<u64>>,
}

impl Numbers {
    pub(super) fn of(run: Range<u64>) -> Numbers {
        let mut numbers = Numbers::default();
        numbers.push_run(run);
        numbers
    }

    pub(super) fn push(&mut self, number: u64) {
        self.push_run(number..number + 1);
    }

    fn push_run(&mut self, run: Range<u64>) {
        match self.runs.last_mut() {
            Some(last) if last.end == run.start => last.end = run.end,
            _ => self.runs.push(run),
        }
    }

    /// The first record.
    pub(super) fn first(&self) -> Option<u64> {
        self.runs.first().map(|run| run.start)
    }

    pub(super) fn count(&self) -> u64 {
        self.runs.iter().map(|run| run.end - run.start).sum()
    }

    /// The record at a position within the batch.
    fn nth(&self, mut index: u64) -> Option<u64> {
        for run in &self.runs {
            let length = run.end - run.start;
            if index < length {
                return Some(run.start + index);
            }
            index -= length;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(numbers: &[u64]) -> Numbers {
        let mut of = Numbers::default();
        numbers.iter().for_each(|number| of.push(*number));
        of
    }

    #[test]
    fn positions_in_a_batch_lead_back_to_the_order_of_send() {
        let numbers = numbers(&[0, 1, 2, 7, 9, 10]);
        assert_eq!(numbers.runs, [0..3, 7..8, 9..11]);
        assert_eq!(numbers.count(), 6);
        assert_eq!(
            [0, 2, 3, 5, 6].map(|i| numbers.nth(i)),
            [Some(0), Some(2), Some(7), Some(10), None]
        );
    }

    #[test]
    fn the_first_failure_is_told_with_all_that_was_not_acknowledged() {
        let ledger = Ledger::default();
        let answer = v1::ProduceResponse {
            record_count: 1,
            changed_count: 1,
            dropped_count: 1,
            ..Default::default()
        };
        ledger.acknowledged(&numbers(&[0, 2]), &answer);
        let refused = |message: &str, index| ClientError::Refused {
            code: crate::Code::InvalidArgument,
            reason: String::new(),
            message: message.into(),
            summary: None,
            rejects: vec![Reject {
                index,
                reason: "why".to_owned(),
            }],
            retry_after: None,
            leader: None,
        };
        ledger.failed(&numbers(&[4, 6]), &refused("first", 1));
        ledger.failed(&numbers(&[1, 3]), &refused("second", 0));
        ledger.failed(&numbers(&[5]), &ClientError::Abandoned);

        let error = ledger.take_error().unwrap();

        assert_eq!(error.to_string(), "first");
        assert_eq!(error.unacknowledged, [1..2, 3..7]);
        assert_eq!(
            error.rejects,
            [Reject {
                index: 6,
                reason: "why".to_owned()
            }]
        );
        assert_eq!(
            error.totals,
            Totals {
                acknowledged: 2,
                stored: 1,
                changed: 1,
                dropped: 1,
                batches: 1
            }
        );
        assert!(ledger.take_error().is_none(), "it is told once");
    }
}
