//! The trial call itself: what new versions make of recent records, compared with what the versions before make of them.
//!
//! What counts is what a version would spoil. A record that the version before fails on too is no reason to refuse the new
//! one: else one such record would keep everybody from mending its module.

use std::collections::BTreeSet;

use millstream_batch::Batch;
use millstream_wasm::{Engine, Failed, Input, IsolationBudget, Limits, Module, Outcome, Runner, StageContext, Unheard};

use crate::{
    error::{BrokerError, Result},
    pipeline::{OnError, Side, Stage, Work},
};

/// Stages of one side, and the versions among them that are new.
pub(super) struct Trials {
    pub(super) side: Side,
    pub(super) context: StageContext,
    pub(super) engine: Engine,
    /// Those of the agent; a stage may set others.
    pub(super) limits: Limits,
    /// What a record may become.
    pub(super) record_bytes_max: usize,
    pub(super) stages: Vec<Stage>,
    /// The stages in force, where some of `stages` stand otherwise to each other.
    pub(super) former: Vec<Stage>,
    /// Never empty.
    pub(super) new: Vec<NewVersion>,
}

/// A version that did not run in the place of its stage with the same parameters and limits, or not behind the same stages.
pub(super) struct NewVersion {
    pub(super) position: usize,
    pub(super) version: u32,
    pub(super) module: Module,
    /// A shadow writes nothing, so it may fail.
    pub(super) is_shadow: bool,
    pub(super) before: Before,
}

/// What stood in the place of a version before.
pub(super) enum Before {
    /// Its stage is new.
    Nowhere,
    /// The same stage, as it is in force.
    Here(Box<Stage>),
    /// The same stage, behind other ones than now.
    Elsewhere,
}

impl Before {
    fn version(&self) -> Option<u32> {
        match self {
            Before::Here(stage) => Some(stage.spec.version),
            Before::Nowhere | Before::Elsewhere => None,
        }
    }
}

impl Trials {
    /// Configures what is new, and calls it on recent records.
    ///
    /// # Errors
    /// [`BrokerError::BadModule`] for one that refuses its parameters, [`BrokerError::FailsOnRecent`] for one that fails.
    pub(super) fn run(&self, recent: Option<Batch>) -> Result<()> {
        let mut tried = Vec::with_capacity(self.new.len());
        for new in &self.new {
            let stage = &self.stages[new.position];
            let mut runner = self.runner(stage, &new.module);
            runner.prepare().map_err(|source| BrokerError::BadModule {
                module: format!("module {}@{}", stage.spec.module, new.version),
                source,
            })?;
            tried.push((new, runner));
        }
        let Some(batch) = recent else { return Ok(()) };
        let failed_before = self.failed_before(&batch);
        let mut work = Work::new(self.side, &batch, batch.records().clone());
        for (position, stage) in self.stages.iter().enumerate() {
            for (new, runner) in tried.iter_mut().filter(|(new, _)| new.position == position) {
                if !new.is_shadow {
                    self.judge(new, runner, work.clone(), &batch, &failed_before)?;
                }
            }
            let is_last = self.new.iter().all(|new| new.position <= position);
            if is_last || self.go_on(stage, &mut work, &batch).is_err() || work.count() == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Refuses a version that fails where the one before does not. Where there was none before, it may fail on as many
    /// records as its policy bears; so may one that stood elsewhere, of records that failed nowhere then.
    fn judge(
        &self,
        new: &NewVersion,
        runner: &mut Runner,
        mut work: Work,
        batch: &Batch,
        failed_before: &[u32],
    ) -> Result<()> {
        let stage = &self.stages[new.position];
        // What the version before was not tried on to the end says nothing about either.
        let mut undecided_before = BTreeSet::new();
        if let Before::Elsewhere = new.before {
            work.drop_sources(failed_before)?;
        }
        if let Before::Here(before) = &new.before {
            let (_, failed) = self.call(&mut self.runner(before, &before.module), &work, batch)?;
            check_room(&before.spec.module, before.spec.version, &failed)?;
            let mut bad = Vec::new();
            for failed in failed {
                let sources = failed.records.map(|index| work.source(index));
                match failed.isolated {
                    true => bad.extend(sources),
                    false => undecided_before.extend(sources),
                }
            }
            bad.dedup();
            work.drop_sources(&bad)?;
        }
        let (_, mut failed) = self.call(runner, &work, batch)?;
        check_room(&stage.spec.module, new.version, &failed)?;
        failed.retain(|failed| {
            let mut sources = failed.records.clone().map(|index| work.source(index));
            sources.any(|source| !undecided_before.contains(&source))
        });
        let Some(source) = failed.first().map(|failed| failed.error.clone()) else {
            return Ok(());
        };
        let (decided, undecided): (Vec<_>, Vec<_>) = failed.iter().partition(|failed| failed.isolated);
        let (failed, undecided) = (count(&decided), count(&undecided));
        let bears_some = match stage.spec.on_error(self.side) {
            OnError::Skip | OnError::Pass | OnError::DeadLetter => true,
            OnError::Reject | OnError::Halt => false,
        };
        if new.before.version().is_none() && bears_some && (failed + undecided) * 2 <= u64::from(work.count()) {
            return Ok(());
        }
        Err(BrokerError::FailsOnRecent {
            module: stage.spec.module.clone(),
            version: new.version,
            failed,
            undecided,
            count: work.count(),
            before: new.before.version(),
            displaced: matches!(new.before, Before::Elsewhere),
            source,
        })
    }

    /// The records that the stages in force fail on, ascending.
    fn failed_before(&self, batch: &Batch) -> Vec<u32> {
        let mut work = Work::new(self.side, batch, batch.records().clone());
        let mut all_failed = BTreeSet::new();
        for stage in &self.former {
            match self.go_on(stage, &mut work, batch) {
                Ok(failed) => all_failed.extend(failed),
                Err(_) => break,
            }
            if work.count() == 0 {
                break;
            }
        }
        all_failed.into_iter().collect()
    }

    /// What comes next gets what comes out of the version in force; which records that failed on.
    fn go_on(&self, stage: &Stage, work: &mut Work, batch: &Batch) -> Result<Vec<u32>> {
        let (outcome, failed) = self.call(&mut self.runner(stage, &stage.module), work, batch)?;
        let records = failed.iter().flat_map(|failed| failed.records.clone());
        let sources = records.map(|index| work.source(index)).collect();
        let mut passed = Vec::new();
        if stage.spec.on_error(self.side) == OnError::Pass {
            passed.extend(outcome.rejects.iter().map(|reject| reject.index));
            passed.extend(failed.into_iter().flat_map(|failed| failed.records));
            passed.sort_unstable();
        }
        work.apply(&outcome, &passed)?;
        Ok(sources)
    }

    fn runner(&self, stage: &Stage, module: &Module) -> Runner {
        let params = stage.spec.params.iter();
        Runner::new(
            &self.engine,
            module.clone(),
            stage.limits(&self.limits),
            self.context.clone(),
            params.map(|(name, value)| (name.clone(), value.clone())).collect(),
            std::sync::Arc::new(Unheard),
        )
    }

    /// What a version makes of records, and those that it fails on, ascending.
    fn call(&self, runner: &mut Runner, work: &Work, batch: &Batch) -> Result<(Outcome, Vec<Failed>)> {
        let input = Input {
            partition: 0,
            first_offset: (self.side == Side::Fetch).then(|| batch.base_offset().0),
            append_time_ms: batch.header().max_timestamp_ms,
            base_timestamp_ms: work.base_timestamp_ms(),
            count: work.count(),
            records: work.records(),
        };
        let (outcome, mut failed) = match runner.process(input) {
            Ok(outcome) => (outcome, Vec::new()),
            Err(error) => {
                let found = runner.isolate(input, error, budget(runner.limits()));
                (found.outcome, found.failed)
            }
        };
        failed.extend(work.oversized(&outcome, self.record_bytes_max)?);
        failed.sort_by_key(|failed| failed.records.start);
        Ok((outcome, failed))
    }
}

/// Fails where the agent had no room for the module: then nothing was tried.
fn check_room(module: &str, version: u32, failed: &[Failed]) -> Result<()> {
    match failed.iter().find(|failed| !failed.error.is_module_fault()) {
        None => Ok(()),
        Some(failed) => Err(BrokerError::BadModule {
            module: format!("module {module}@{version}"),
            source: failed.error.clone(),
        }),
    }
}

/// CPU time bounds the search; how many records fail is what it is to tell.
fn budget(limits: &Limits) -> IsolationBudget {
    IsolationBudget {
        failures_max: u32::MAX,
        ..IsolationBudget::of(limits)
    }
}

fn count(failed: &[&Failed]) -> u64 {
    failed.iter().map(|failed| failed.records.len() as u64).sum()
}

#[cfg(test)]
mod tests {
    use millstream_wasm::ModuleError;

    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_module_that_had_no_room_was_not_tried() {
        let failed = |error| Failed {
            records: 0..9,
            error,
            isolated: false,
        };
        let error = check_room("m", 2, &[failed(ModuleError::AgentInstances { limit: 1 })]).unwrap_err();
        assert_eq!(error.kind(), Kind::Exhausted);
        assert!(error.to_string().contains("m@2"), "{error}");
        let message = "x".to_owned();
        assert!(check_room("m", 2, &[failed(ModuleError::Failed { message })]).is_ok());
    }
}
