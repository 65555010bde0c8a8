//! Finds the records at fault after a module failed on a batch: what failed is halved, again and again, until single
//! records fail alone, and everything else goes through.

use std::ops::Range;
use std::time::Duration;

use millstream_batch::RecordIter;

use crate::check::OutputBudget;
use crate::instance::Input;
use crate::limits::PIECE_BYTES;
use crate::outcome::{Outcome, Piece, Reject, Verdict};
use crate::{Limits, ModuleError, Runner};

/// How many CPU deadlines a search may take unless told otherwise.
const DEADLINES: u32 = 4;
/// How many records a search may find at fault unless told otherwise.
const FAILURES_MAX: u32 = 100;

/// What a search for the records at fault may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IsolationBudget {
    /// CPU time of all its calls. The last one may pass it by a deadline.
    pub cpu: Duration,
    /// Records found at fault; at so many the search ends.
    pub failures_max: u32,
}

impl IsolationBudget {
    /// Four deadlines of CPU time, and 100 records.
    pub fn of(limits: &Limits) -> IsolationBudget {
        IsolationBudget {
            cpu: limits.cpu_deadline.saturating_mul(DEADLINES),
            failures_max: FAILURES_MAX,
        }
    }
}

/// What became of a batch that a module failed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolated {
    /// What came of the input, all of it: a record that failed is not kept.
    pub outcome: Outcome,
    /// The records that failed, ascending, never none.
    pub failed: Vec<Failed>,
}

/// Records that a module failed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Which records of the input.
    pub records: Range<u32>,
    /// What happened.
    pub error: ModuleError,
    /// Whether it is exactly one record, which failed when it was run alone. Otherwise the budget was used up, or the
    /// module could not be run at all, before these were decided.
    pub isolated: bool,
}

impl Runner {
    /// Searches for the records at fault, after [`Runner::process`] failed on `input` with the error `first`.
    ///
    /// An error that does not come of the records (no memory left on the agent, say) ends the search at once.
    pub fn isolate(&mut self, input: Input<'_>, first: ModuleError, budget: IsolationBudget) -> Isolated {
        let mut search = Search {
            cpu_max: self.cpu_used().saturating_add(budget.cpu),
            failures_left: budget.failures_max,
            output: OutputBudget::new(self.limits()),
            runner: self,
            input,
            marks: Vec::new(),
            outcome: Outcome::default(),
            failed: Vec::new(),
        };
        search.run(first);
        Isolated {
            outcome: search.outcome,
            failed: search.failed,
        }
    }
}

struct Search<'a> {
    runner: &'a mut Runner,
    input: Input<'a>,
    /// Where each record begins, and where the last one ends.
    marks: Vec<usize>,
    cpu_max: Duration,
    failures_left: u32,
    output: OutputBudget,
    outcome: Outcome,
    failed: Vec<Failed>,
}

/// Records to be tried, and the error of the records around them.
struct Open {
    records: Range<u32>,
    error: ModuleError,
}

impl Search<'_> {
    fn run(&mut self, first: ModuleError) {
        let all = 0..self.input.count;
        match self.find_marks() {
            Ok(marks) => self.marks = marks,
            Err(error) => {
                self.marks = vec![0; all.len()];
                self.marks.push(self.input.records.len());
                return self.fail(all, error, false);
            }
        }
        if !first.is_of_records() || all.is_empty() {
            return self.fail(all, first, false);
        }
        // What is left to do: contiguous, the next on top, up to the end of the input.
        let mut open = Vec::new();
        if let Some(error) = self.failed_alone(&all, first, &mut open) {
            self.fail(all, error, true);
        }
        while let Some(Open { records, error }) = open.pop() {
            if self.failures_left == 0 || self.runner.cpu_used() >= self.cpu_max {
                return self.fail(records.start..self.input.count, error, false);
            }
            // Each try is one call of the module, so that each is under one deadline.
            if self.bytes(&records).len() > PIECE_BYTES && records.len() > 1 {
                halve(&records, error, &mut open);
                continue;
            }
            match self.attempt(&records, &error) {
                Ok(outcome) => self.append(&records, outcome),
                Err(error) if !error.is_of_records() || self.output.is_used_up() => {
                    return self.fail(records.start..self.input.count, error, false);
                }
                Err(error) => {
                    if let Some(error) = self.failed_alone(&records, error, &mut open) {
                        self.failures_left -= 1;
                        self.fail(records, error, true);
                    }
                }
            }
        }
    }

    /// After a failure: gives the error back where it was one record alone, else its halves come next.
    fn failed_alone(&self, records: &Range<u32>, error: ModuleError, open: &mut Vec<Open>) -> Option<ModuleError> {
        if records.len() == 1 {
            return Some(error);
        }
        if self.bytes(records).len() > PIECE_BYTES {
            let records = records.clone();
            open.push(Open { records, error });
        } else {
            halve(records, error, open);
        }
        None
    }

    fn attempt(&mut self, records: &Range<u32>, around: &ModuleError) -> Result<Outcome, ModuleError> {
        let deadline = self.deadline(records, around);
        let input = Input {
            count: records.len() as u32,
            records: &self.input.records[self.bytes(records)],
            ..self.input
        };
        let before = self.output.clone();
        let outcome = self.runner.attempt(&input, &mut self.output, deadline);
        if outcome.is_err() && !self.output.is_used_up() {
            self.output = before;
        }
        outcome
    }

    /// One record alone has the whole deadline. Where the records around ran into it, several share the budget with all
    /// the tries to come, less one deadline for the record at fault and one for what follows it: or a record that loops
    /// for ever would use it all up before it is found.
    fn deadline(&self, records: &Range<u32>, around: &ModuleError) -> Duration {
        let whole = self.runner.limits().cpu_deadline;
        let halvings = records.len().next_power_of_two().trailing_zeros();
        if halvings == 0 || !matches!(around, ModuleError::Deadline { .. }) {
            return whole;
        }
        let left = self.cpu_max.saturating_sub(self.runner.cpu_used());
        (left.saturating_sub(whole * 2) / halvings).clamp(SHARE_MIN.min(whole), whole)
    }

    fn append(&mut self, records: &Range<u32>, outcome: Outcome) {
        let start = self.marks[records.start as usize];
        self.outcome
            .pieces
            .extend(outcome.pieces.into_iter().map(|piece| Piece {
                records: start + piece.records.start..start + piece.records.end,
                ..piece
            }));
        self.outcome.rejects.extend(outcome.rejects.into_iter().map(|r| Reject {
            index: records.start + r.index,
            ..r
        }));
    }

    /// Says of records that they failed, and keeps none of them.
    fn fail(&mut self, records: Range<u32>, error: ModuleError, isolated: bool) {
        let count = records.len() as u32;
        if count > 0 {
            self.outcome.pieces.push(Piece {
                count,
                records: self.bytes(&records),
                verdict: Verdict::Keep(vec![0; count.div_ceil(8) as usize]),
            });
        }
        self.failed.push(Failed {
            records,
            error,
            isolated,
        });
    }

    fn bytes(&self, records: &Range<u32>) -> Range<usize> {
        self.marks[records.start as usize]..self.marks[records.end as usize]
    }

    fn find_marks(&self) -> Result<Vec<usize>, ModuleError> {
        let Input { count, records, .. } = self.input;
        let mut marks = vec![0];
        let mut end = 0;
        for record in RecordIter::new(records) {
            let record = record.map_err(|error| ModuleError::Input {
                what: error.to_string(),
            })?;
            end += record.encoded().len();
            marks.push(end);
        }
        if marks.len() - 1 != count as usize {
            let what = format!("{} records instead of {count}", marks.len() - 1);
            return Err(ModuleError::Input { what });
        }
        Ok(marks)
    }
}

/// The least that several records get while they are tried.
const SHARE_MIN: Duration = Duration::from_millis(2);

fn halve(records: &Range<u32>, error: ModuleError, open: &mut Vec<Open>) {
    let middle = records.start + (records.end - records.start) / 2;
    let (left, right) = (records.start..middle, middle..records.end);
    open.push(Open {
        records: right,
        error: error.clone(),
    });
    open.push(Open { records: left, error });
}
