//! What becomes of the records that a stage refuses or fails on.

use std::{ops::Range, sync::Arc};

use millstream_wasm::{Failed, ModuleError, Outcome};

use super::OnError;

/// Records at fault, by their indexes in the stage's input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) records: Range<u32>,
    pub(super) what: What,
}

/// What is wrong with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// The module refused the record; its words.
    Rejected(Arc<str>),
    /// The module failed on the record alone.
    Failed(ModuleError),
    /// The module failed, and the search for the records at fault ended before these were decided.
    Undecided(ModuleError),
}

/// What a policy makes of a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// Records that go on as they came, ascending.
    pub(super) passed: Vec<u32>,
    /// Records that are dropped here, ascending, and why.
    pub(super) dropped: Vec<(Range<u32>, Arc<str>)>,
    /// Which fault the policy does not settle: the first one. Nothing behind it is decided.
    pub(super) unsettled: Option<usize>,
}

impl Fault {
    /// All that went wrong with a batch, ascending.
    pub(super) fn all(outcome: &Outcome, failed: Vec<Failed>) -> Vec<Fault> {
        let rejects = outcome.rejects.iter().map(|reject| Fault {
            records: reject.index..reject.index + 1,
            what: What::Rejected(reject.reason.clone()),
        });
        let failed = failed.into_iter().map(|failed| Fault {
            records: failed.records,
            what: match failed.isolated {
                true => What::Failed(failed.error),
                false => What::Undecided(failed.error),
            },
        });
        let mut all: Vec<Fault> = rejects.chain(failed).collect();
        all.sort_by_key(|fault| fault.records.start);
        all
    }

    pub(super) fn count(&self) -> u32 {
        self.records.end - self.records.start
    }

    /// Whether the module failed; otherwise it refused, or the agent had no room for it.
    pub(super) fn is_failure(&self) -> bool {
        match &self.what {
            What::Rejected(_) => false,
            What::Failed(error) | What::Undecided(error) => error.is_module_fault(),
        }
    }

    /// Whether the agent had no room for the module: then nothing is wrong with the records.
    pub(super) fn is_of_agent(&self) -> bool {
        matches!(&self.what, What::Undecided(error) if !error.is_module_fault())
    }

    /// For people.
    pub(super) fn reason(&self) -> Arc<str> {
        match &self.what {
            What::Rejected(reason) => reason.clone(),
            What::Failed(error) | What::Undecided(error) => error.to_string().into(),
        }
    }

    /// The same as each of the records is told: those that are not decided may be innocent.
    pub(super) fn told(&self) -> Arc<str> {
        match &self.what {
            What::Undecided(error) => {
                format!("not decided: the search for the records at fault ended; around it: {error}").into()
            }
            _ => self.reason(),
        }
    }

    /// As an error of the module.
    pub(super) fn error(&self) -> ModuleError {
        match &self.what {
            What::Rejected(reason) => ModuleError::Failed {
                message: format!("it rejected the record: {reason}"),
            },
            What::Failed(error) | What::Undecided(error) => error.clone(),
        }
    }

    fn is_settled_by(&self, on_error: OnError) -> bool {
        if self.is_of_agent() {
            return false;
        }
        match on_error {
            OnError::Reject | OnError::Halt => false,
            // Innocent records are not dropped.
            OnError::Skip => !matches!(self.what, What::Undecided(_)),
            OnError::DeadLetter | OnError::Pass => true,
        }
    }
}

/// Applies a policy to what went wrong, ascending.
pub(super) fn settle(on_error: OnError, faults: &[Fault]) -> Settled {
    let mut settled = Settled::default();
    for (i, fault) in faults.iter().enumerate() {
        if !fault.is_settled_by(on_error) {
            settled.unsettled = Some(i);
            break;
        }
        match on_error {
            OnError::Pass => settled.passed.extend(fault.records.clone()),
            _ => settled.dropped.push((fault.records.clone(), fault.told())),
        }
    }
    settled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{BrokerError, Kind};

    fn fault(records: Range<u32>, what: What) -> Fault {
        Fault { records, what }
    }

    fn faults() -> Vec<Fault> {
        vec![
            fault(1..2, What::Rejected("no".into())),
            fault(3..4, What::Failed(failed())),
            fault(6..9, What::Undecided(failed())),
        ]
    }

    fn failed() -> ModuleError {
        ModuleError::Failed {
            message: "x".to_owned(),
        }
    }

    #[test]
    fn every_policy_settles_what_it_may() {
        let reject = settle(OnError::Reject, &faults());
        assert_eq!(reject.unsettled, Some(0));
        assert_eq!(settle(OnError::Halt, &faults()), reject);
        let skip = settle(OnError::Skip, &faults());
        assert_eq!(skip.unsettled, Some(2), "innocents are not dropped");
        assert_eq!(
            skip.dropped.iter().map(|(of, _)| of.clone()).collect::<Vec<_>>(),
            [1..2, 3..4]
        );
        let dead = settle(OnError::DeadLetter, &faults());
        assert_eq!((dead.unsettled, dead.dropped.len()), (None, 3));
        assert_eq!(&*dead.dropped[1].1, "the module failed: x");
        assert!(dead.dropped[2].1.starts_with("not decided: "), "{}", dead.dropped[2].1);
        assert_eq!(settle(OnError::Pass, &faults()).passed, [1, 3, 6, 7, 8]);
    }

    #[test]
    fn a_module_that_the_agent_has_no_room_for_is_not_a_bad_one() {
        let kind = |source| {
            let module = "m".to_owned();
            BrokerError::BadModule { module, source }.kind()
        };
        assert_eq!(kind(ModuleError::AgentInstances { limit: 1 }), Kind::Exhausted);
        assert_eq!(kind(ModuleError::NotWasm), Kind::Invalid);
    }

    #[test]
    fn no_policy_settles_that_the_agent_had_no_room() {
        let no_room = What::Undecided(ModuleError::AgentInstances { limit: 1 });
        for on_error in [OnError::Skip, OnError::DeadLetter, OnError::Pass] {
            let settled = settle(on_error, &[fault(0..9, no_room.clone())]);
            assert_eq!(settled.unsettled, Some(0));
        }
    }
}
