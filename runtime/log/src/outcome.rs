//! What became of the records of one input batch.
//!
//! A pipeline may drop, multiply or refuse records, so a duplicate can only be answered as the original was when the
//! outcome of every input record is kept: how many records it became, and why. Most batches have one outcome for all
//! their records, so outcomes are kept and stored as runs:
//!
//! ```text
//! run*    varint  emitted << 2 | fate     (fate: 0 pipeline, 1 skipped, 2 dead-lettered, 3 passed)
//!         varint  length, at least 1      (input records in a row this holds for)
//! ```
//!
//! Two neighbouring runs always differ, so that one outcome has one encoding.

use crate::wire::{Fields, put_varint, varint_len};

/// Who decided about an input record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// The pipeline did its work, or there was none; no record out means that it was dropped.
    Pipeline,
    /// A stage failed on it and its policy is to skip.
    Skipped,
    /// A stage failed on it and it went to the dead-letter topic.
    DeadLettered,
    /// A stage failed on it and its policy is to pass it on as it was.
    Passed,
}

impl Fate {
    fn code(self) -> u64 {
        match self {
            Fate::Pipeline => 0,
            Fate::Skipped => 1,
            Fate::DeadLettered => 2,
            Fate::Passed => 3,
        }
    }

    fn from_code(code: u64) -> Fate {
        match code & 3 {
            0 => Fate::Pipeline,
            1 => Fate::Skipped,
            2 => Fate::DeadLettered,
            _ => Fate::Passed,
        }
    }
}

/// Input records in a row with the same outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// How many records each of them became.
    pub emitted: u32,
    /// Who decided.
    pub fate: Fate,
    /// How many input records there are in a row, at least one.
    pub length: u32,
}

/// The outcome of every record of one input batch, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    runs: Vec<Run>,
}

impl Outcome {
    /// Every one of `records` input records became one record: what a topic without a pipeline does.
    pub fn all_kept(records: u32) -> Outcome {
        let mut outcome = Outcome::default();
        outcome.push_run(Run {
            emitted: 1,
            fate: Fate::Pipeline,
            length: records,
        });
        outcome
    }

    /// Adds the outcome of the next input record.
    pub fn push(&mut self, emitted: u32, fate: Fate) {
        self.push_run(Run {
            emitted,
            fate,
            length: 1,
        });
    }

    /// Adds the outcome of the next `run.length` input records.
    pub fn push_run(&mut self, run: Run) {
        if run.length == 0 {
            return;
        }
        if let Some(last) = self.runs.last_mut()
            && last.emitted == run.emitted
            && last.fate == run.fate
            && let Some(length) = last.length.checked_add(run.length)
        {
            last.length = length;
            return;
        }
        self.runs.push(run);
    }

    /// The runs, in order.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// How many records each input record became, and who decided, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Fate)> + '_ {
        self.runs
            .iter()
            .flat_map(|run| std::iter::repeat_n((run.emitted, run.fate), run.length as usize))
    }

    /// How many input records it speaks of.
    pub fn input_count(&self) -> u64 {
        self.runs.iter().map(|run| u64::from(run.length)).sum()
    }

    /// How many records they became.
    pub fn emitted_count(&self) -> u64 {
        self.runs
            .iter()
            .map(|run| u64::from(run.emitted).saturating_mul(u64::from(run.length)))
            .fold(0, u64::saturating_add)
    }

    pub(crate) fn encoded_len(&self) -> usize {
        self.runs
            .iter()
            .map(|run| varint_len(first_word(run)) + varint_len(u64::from(run.length)))
            .sum()
    }

    pub(crate) fn encode_into(&self, out: &mut Vec<u8>) {
        for run in &self.runs {
            put_varint(out, first_word(run));
            put_varint(out, u64::from(run.length));
        }
    }

    /// Reads what [`Outcome::encode_into`] wrote; the whole of `bytes` belongs to it.
    pub(crate) fn decode(bytes: &[u8]) -> std::result::Result<Outcome, &'static str> {
        let mut fields = Fields::new(bytes);
        let mut outcome = Outcome::default();
        while !fields.rest().is_empty() {
            let word = fields.varint().ok_or("an outcome run is cut short")?;
            let length = fields.varint().ok_or("an outcome run is cut short")?;
            let emitted = u32::try_from(word >> 2).map_err(|_| "an outcome run emits more than 2^32 records")?;
            let length = u32::try_from(length).map_err(|_| "an outcome run is longer than 2^32 records")?;
            if length == 0 {
                return Err("an outcome run is empty");
            }
            outcome.runs.push(Run {
                emitted,
                fate: Fate::from_code(word),
                length,
            });
        }
        Ok(outcome)
    }
}

impl FromIterator<(u32, Fate)> for Outcome {
    fn from_iter<I: IntoIterator<Item = (u32, Fate)>>(outcomes: I) -> Outcome {
        let mut outcome = Outcome::default();
        for (emitted, fate) in outcomes {
            outcome.push(emitted, fate);
        }
        outcome
    }
}

fn first_word(run: &Run) -> u64 {
    u64::from(run.emitted) << 2 | run.fate.code()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_record_outcome() -> impl Strategy<Value = (u32, Fate)> {
        let fates = [Fate::Pipeline, Fate::Skipped, Fate::DeadLettered, Fate::Passed];
        (
            prop_oneof![Just(0u32), Just(1u32), any::<u32>()],
            proptest::sample::select(fates.to_vec()),
        )
    }

    proptest! {
        #[test]
        fn outcomes_round_trip_record_by_record(records in proptest::collection::vec(any_record_outcome(), 0..60)) {
            let outcome: Outcome = records.iter().copied().collect();
            prop_assert_eq!(outcome.iter().collect::<Vec<_>>(), records.clone());
            prop_assert_eq!(outcome.input_count(), records.len() as u64);
            let mut bytes = Vec::new();
            outcome.encode_into(&mut bytes);
            prop_assert_eq!(bytes.len(), outcome.encoded_len());
            prop_assert_eq!(Outcome::decode(&bytes), Ok(outcome));
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Outcome::decode(&bytes);
        }
    }

    #[test]
    fn a_batch_kept_whole_takes_two_varints() {
        let outcome = Outcome::all_kept(1000);
        assert_eq!(outcome.runs().len(), 1);
        assert_eq!(outcome.encoded_len(), 3);
        assert_eq!(outcome.emitted_count(), 1000);
    }

    #[test]
    fn an_empty_run_is_refused() {
        assert_eq!(Outcome::decode(&[4, 0]), Err("an outcome run is empty"));
    }
}
