//! The ledger: which records were acknowledged, which were not, and the first failure.

use std::{ops::Range, sync::Arc};

use millstream_proto::v1;
use tokio::sync::watch;

use super::{ProduceError, Totals};
use crate::{ClientError, Reject};

/// Shared by a producer and its lanes.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    state: Arc<watch::Sender<State>>,
}

#[derive(Debug, Default)]
struct State {
    totals: Totals,
    /// Batches that were sealed and are neither answered nor discarded.
    open_batches: u64,
    unacknowledged: Vec<Range<u64>>,
    failure: Option<ClientError>,
    rejects: Vec<Reject>,
}

impl Ledger {
    /// A batch was sealed; exactly one of the next three calls settles it.
    pub(super) fn sealed(&self) {
        self.state.send_modify(|state| state.open_batches += 1);
    }

    pub(super) fn acknowledged(&self, sequences: &Sequences, answer: &v1::ProduceResponse) {
        self.state.send_modify(|state| {
            state.totals.acknowledged += sequences.count();
            state.totals.stored += u64::from(answer.record_count);
            state.totals.changed += u64::from(answer.changed_count);
            state.totals.dropped += u64::from(answer.dropped_count);
            state.totals.batches += 1;
            state.open_batches -= 1;
        });
    }

    /// The batch was refused or lost. The first such error is the one that is told.
    pub(super) fn failed_with(&self, sequences: &Sequences, error: ClientError) {
        self.state.send_modify(|state| {
            if state.failure.is_none() {
                if let ClientError::Refused { rejects, .. } = &error {
                    let in_order_of_send = |reject: &Reject| {
                        let index = sequences.nth(reject.index)?;
                        Some(Reject {
                            index,
                            reason: reject.reason.clone(),
                        })
                    };
                    state.rejects = rejects.iter().filter_map(in_order_of_send).collect();
                }
                state.failure = Some(error);
            }
            state.unacknowledged.extend_from_slice(&sequences.runs);
            state.open_batches -= 1;
        });
    }

    /// The batch never left.
    pub(super) fn discarded(&self, sequences: &Sequences) {
        self.state.send_modify(|state| {
            state.unacknowledged.extend_from_slice(&sequences.runs);
            state.open_batches -= 1;
        });
    }

    pub(super) fn failed(&self) -> bool {
        self.state.borrow().failure.is_some()
    }

    pub(super) fn totals(&self) -> Totals {
        self.state.borrow().totals
    }

    /// Waits until every sealed batch is settled.
    pub(super) async fn settled(&self) {
        let settled = |state: &State| state.open_batches == 0;
        self.state
            .subscribe()
            .wait_for(settled)
            .await
            .expect("this ledger holds the sender");
    }

    /// Every record not acknowledged, in order and merged.
    pub(super) fn unacknowledged(&self) -> Vec<Range<u64>> {
        let mut runs = self.state.borrow().unacknowledged.clone();
        runs.sort_unstable_by_key(|run| run.start);
        let mut merged = Sequences::default();
        for run in runs {
            merged.push_run(run);
        }
        merged.runs
    }

    /// The failure as the caller sees it.
    pub(super) fn error(&self) -> ProduceError {
        let unacknowledged = self.unacknowledged();
        let state = self.state.borrow();
        ProduceError {
            cause: Box::new(state.failure.clone().expect("it is asked for after a failure")),
            totals: state.totals,
            unacknowledged,
            rejects: state.rejects.clone(),
        }
    }
}

/// The records of a batch, by their number in the order of `send`: runs in ascending order.
#[derive(Debug, Default)]
pub(super) struct Sequences {
    runs: Vec<Range<u64>>,
}

impl Sequences {
    pub(super) fn of(sequence: u64) -> Sequences {
        let mut sequences = Sequences::default();
        sequences.push(sequence);
        sequences
    }

    pub(super) fn push(&mut self, sequence: u64) {
        self.push_run(sequence..sequence + 1);
    }

    fn push_run(&mut self, run: Range<u64>) {
        match self.runs.last_mut() {
            Some(last) if last.end == run.start => last.end = run.end,
            _ => self.runs.push(run),
        }
    }

    fn count(&self) -> u64 {
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

    fn sequences(numbers: &[u64]) -> Sequences {
        let mut sequences = Sequences::default();
        numbers.iter().for_each(|number| sequences.push(*number));
        sequences
    }

    #[test]
    fn positions_in_a_batch_lead_back_to_the_order_of_send() {
        let sequences = sequences(&[0, 1, 2, 7, 9, 10]);
        assert_eq!(sequences.runs, [0..3, 7..8, 9..11]);
        assert_eq!(sequences.count(), 6);
        assert_eq!(
            [0, 2, 3, 5, 6].map(|i| sequences.nth(i)),
            [Some(0), Some(2), Some(7), Some(10), None]
        );
    }

    #[test]
    fn the_first_failure_is_told_with_all_that_was_not_acknowledged() {
        let ledger = Ledger::default();
        (0..4).for_each(|_| ledger.sealed());
        let answer = v1::ProduceResponse {
            record_count: 1,
            changed_count: 1,
            dropped_count: 1,
            ..Default::default()
        };
        ledger.acknowledged(&sequences(&[0, 2]), &answer);
        let refused = |message: &str, index| ClientError::Refused {
            code: crate::Code::InvalidArgument,
            reason: String::new(),
            message: message.to_owned(),
            summary: None,
            rejects: vec![Reject {
                index,
                reason: "why".to_owned(),
            }],
            retry_after: None,
        };
        ledger.failed_with(&sequences(&[4, 6]), refused("first", 1));
        ledger.failed_with(&sequences(&[1, 3]), refused("second", 0));
        ledger.discarded(&sequences(&[5]));

        let error = ledger.error();

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
    }
}
