//! One stage of one chain at work: its runner, its breaker, and the search for records at fault.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use millstream_wasm::{Failed, IsolationBudget, Level, ModuleError, Observer, Outcome, Runner, StageContext};
use tokio::time::Instant;

use super::{
    ChainContext, Monitor, OnError, Side, Stage, StageKey, Work,
    breaker::Admission,
    logs::LINES_PER_SECOND,
    monitor::Place,
    policy::Fault,
    shadow::{Given, Shadow},
};
use crate::error::{BrokerError, Result};

/// One stage of one chain.
pub(super) struct RunningStage {
    pub(super) stage: Stage,
    pub(super) on_error: OnError,
    pub(super) monitor: Arc<Monitor>,
    pub(super) side: Side,
    pub(super) partition: u32,
    runner: Runner,
    pub(super) budget: IsolationBudget,
    shadow: Option<Shadow>,
}

/// What a stage made of a batch.
pub(super) struct Ran {
    pub(super) outcome: Outcome,
    /// Ascending.
    pub(super) faults: Vec<Fault>,
    /// Whether it used up its deadline.
    pub(super) over_deadline: bool,
    given: Given,
}

impl Ran {
    /// What the offset deltas of its records count from; on fetch only.
    pub(super) fn first_offset(&self) -> u64 {
        self.given.first_offset.unwrap_or_default()
    }
}

impl RunningStage {
    pub(super) fn new(context: &ChainContext, side: Side, stage: &Stage) -> RunningStage {
        let (version, module) = stage.module_on(context.partition);
        let monitor = monitor(context, side, stage, version);
        let shadow = stage.shadow().map(|(version, module)| {
            let monitor = self::monitor(context, side, stage, version);
            let runner = runner(context, side, stage, module, monitor.clone());
            Shadow::new(runner, monitor, stage.is_guarded(), context.pool.clone())
        });
        RunningStage {
            on_error: stage.spec.on_error(side),
            runner: runner(context, side, stage, module, monitor.clone()),
            budget: IsolationBudget::of(&stage.limits(&context.limits)),
            monitor,
            side,
            partition: context.partition,
            shadow,
            stage: stage.clone(),
        }
    }

    /// Runs a batch through the module; `None` where its breaker is open and its policy is to pass. A record of which it
    /// makes one of more than `record_bytes_max` is one that it fails on.
    pub(super) fn run(
        &mut self,
        work: &Work,
        first_offset: Option<u64>,
        append_time_ms: i64,
        record_bytes_max: usize,
    ) -> Result<Option<Ran>> {
        if let Admission::Refused { retry_in, cause } = self.monitor.admit(self.partition) {
            if self.on_error == OnError::Pass {
                self.monitor.passed.fetch_add(work.count().into(), Relaxed);
                return Ok(None);
            }
            return Err(self.open_breaker(retry_in, cause));
        }
        let given = Given {
            partition: self.partition,
            first_offset,
            append_time_ms,
            base_timestamp_ms: work.base_timestamp_ms(),
            count: work.count(),
            records: work.records().clone(),
        };
        let (before, begun) = (self.runner.cpu_used(), Instant::now());
        let (outcome, failed, over_deadline) = match self.runner.process(given.input()) {
            Ok(outcome) => (outcome, Vec::new(), false),
            Err(error) => {
                let over_deadline = matches!(error, ModuleError::Deadline { .. });
                let isolated = self.runner.isolate(given.input(), error, self.budget);
                (isolated.outcome, isolated.failed, over_deadline)
            }
        };
        let cpu = self.runner.cpu_used().saturating_sub(before);
        self.monitor.cpu_nanos.fetch_add(cpu.as_nanos() as u64, Relaxed);
        self.monitor.seconds.observe(begun.elapsed().as_secs_f64());
        let faults = self.faults(work, &outcome, failed, record_bytes_max)?;
        self.record(&given, &faults);
        Ok(Some(Ran {
            outcome,
            faults,
            over_deadline,
            given,
        }))
    }

    /// Lets the version beside do the same, behind the batch.
    pub(super) fn compare(&self, ran: Ran) {
        if let Some(shadow) = &self.shadow {
            shadow.compare(ran.given, ran.outcome);
        }
    }

    pub(super) fn cpu_used(&self) -> Duration {
        self.runner.cpu_used()
    }

    fn faults(
        &self,
        work: &Work,
        outcome: &Outcome,
        mut failed: Vec<Failed>,
        record_bytes_max: usize,
    ) -> Result<Vec<Fault>> {
        failed.extend(work.oversized(outcome, record_bytes_max)?);
        if self.side == Side::Fetch {
            failed.extend(work.multiplied(outcome).into_iter().map(|(index, count)| Failed {
                records: index..index + 1,
                error: ModuleError::Output {
                    what: format!("it made {count} records of one; on fetch a record may become one or none"),
                },
                isolated: true,
            }));
        }
        if failed.is_empty() && outcome.rejects.is_empty() {
            return Ok(Vec::new());
        }
        Ok(Fault::all(outcome, failed))
    }

    fn record(&self, given: &Given, faults: &[Fault]) {
        let (monitor, count) = (&self.monitor, given.count);
        monitor.batches.fetch_add(1, Relaxed);
        monitor.records_in.fetch_add(count.into(), Relaxed);
        let failures = || faults.iter().filter(|fault| fault.is_failure());
        let failed: u64 = failures().map(|fault| u64::from(fault.count())).sum();
        let rejected = faults
            .iter()
            .filter(|fault| matches!(fault.what, super::policy::What::Rejected(_)));
        monitor.rejected.fetch_add(rejected.count() as u64, Relaxed);
        monitor.failed.fetch_add(failed, Relaxed);
        // The agent had no room for the module: that says nothing about it.
        if faults.iter().any(|fault| fault.is_of_agent()) {
            return monitor.give_back(self.partition);
        }
        let cause = failures().next().filter(|_| failed * 2 > count.into());
        let cause = cause.map(|fault| fault.reason());
        let place = Place {
            partition: self.partition,
            at: given.first_offset,
            is_guarded: self.stage.is_guarded(),
        };
        monitor.record(place, &self.stage.spec.breaker, cause.as_deref());
    }

    fn open_breaker(&self, retry_in: Duration, cause: String) -> BrokerError {
        let StageKey {
            topic, module, version, ..
        } = self.monitor.key.clone();
        BrokerError::BreakerOpen {
            topic,
            partition: self.partition,
            side: self.side.name(),
            module,
            version,
            retry_in_ms: retry_in.as_millis() as u64,
            cause,
        }
    }
}

fn monitor(context: &ChainContext, side: Side, stage: &Stage, version: u32) -> Arc<Monitor> {
    context.monitors.stage(StageKey {
        topic_id: context.topic_id,
        topic: context.topic.clone(),
        side,
        module: stage.spec.module.clone(),
        version,
        stage: stage.spec.id,
        is_further: stage.is_further,
    })
}

fn runner(
    context: &ChainContext,
    side: Side,
    stage: &Stage,
    module: &millstream_wasm::Module,
    monitor: Arc<Monitor>,
) -> Runner {
    let voice = Voice {
        monitor,
        partition: context.partition,
        lines_per_second: stage.spec.limits.log_lines_per_second.unwrap_or(LINES_PER_SECOND),
    };
    let params = stage.spec.params.iter();
    Runner::new(
        &context.engine,
        module.clone(),
        stage.limits(&context.limits),
        StageContext {
            topic: context.topic.clone(),
            on_fetch: side == Side::Fetch,
        },
        params.map(|(name, value)| (name.clone(), value.clone())).collect(),
        Arc::new(voice),
    )
}

/// Hears what a module says.
struct Voice {
    monitor: Arc<Monitor>,
    partition: u32,
    lines_per_second: u32,
}

impl Observer for Voice {
    fn log(&self, level: Level, line: &str) {
        self.monitor.log(level, self.partition, self.lines_per_second, line);
    }

    fn count(&self, name: &str, by: u64) {
        self.monitor.count(name, by);
    }
}
