//! One side of a pipeline at work on one partition: a batch goes through its stages, and each stage's policy decides about
//! the records that it refuses or fails on.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use millstream_batch::{Batch, Offset};
use millstream_log::{Fate as RecordFate, Outcome};
use millstream_wasm::{Engine, Level, Limits};
use uuid::Uuid;

use super::{
    DeadLetters, Lane, Monitors, OnError, PartitionHalt, Pipeline, Pool, Side, Work,
    dead_letter::Letter,
    monitor::short,
    policy::{Fault, What, settle},
    running::{Ran, RunningStage},
    tell::tell,
    work::Fate,
};
use crate::error::{BrokerError, RejectedRecord, Result};

/// Bound on the uncompressed records of one batch.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// The stages of one side. They make their instances when they first need them.
pub(crate) struct Chain {
    context: ChainContext,
    side: Side,
    pipeline: Arc<Pipeline>,
    stages: Vec<RunningStage>,
    lane: Lane,
}

/// What a chain belongs to.
#[derive(Clone)]
pub(crate) struct ChainContext {
    pub(crate) topic_id: Uuid,
    pub(crate) topic: String,
    pub(crate) partition: u32,
    /// Those of the agent; a stage may set others.
    pub(crate) limits: Limits,
    pub(crate) engine: Engine,
    pub(crate) monitors: Arc<Monitors>,
    pub(crate) pool: Pool,
}

/// A batch that went through a produce chain.
pub(crate) struct Produced {
    /// `None` when every record was dropped.
    pub(crate) batch: Option<Batch>,
    pub(crate) fate: Fate,
    /// For each record the input record it came from; `None` where each came from its own.
    pub(crate) sources: Option<Vec<u32>>,
    /// Input records that a stage failed on, ascending, and what its policy made of them.
    pub(crate) failed: Vec<(u32, RecordFate)>,
    /// What has to be durable elsewhere before this batch is.
    pub(crate) dead_letters: Vec<DeadLetters>,
}

/// What a reader sees of one stored batch.
pub(crate) struct Visible {
    /// `None` where nothing of it is left.
    pub(crate) batch: Option<Batch>,
    /// Where the stages could not go on. Everything before it is decided, and in `batch` if it is visible.
    pub(crate) stop: Option<Stop>,
    /// Whether the same would come out again: no stage failed, and none was left out because of its breaker.
    pub(crate) repeatable: bool,
}

/// The first record that is not decided.
pub(crate) struct Stop {
    pub(crate) at: Offset,
    /// What to tell a reader who has come to it.
    pub(crate) error: BrokerError,
}

impl Produced {
    /// A batch that went through no stage.
    pub(crate) fn untouched(batch: Batch) -> Produced {
        Produced {
            batch: Some(batch),
            fate: Fate::default(),
            sources: None,
            failed: Vec::new(),
            dead_letters: Vec::new(),
        }
    }

    /// What each of `input_count` records became, for the WAL frame.
    pub(crate) fn outcome(&self, input_count: u32) -> Outcome {
        if self.sources.is_none() && self.failed.is_empty() {
            return Outcome::all_kept(input_count);
        }
        let mut counts = vec![0; input_count as usize];
        match &self.sources {
            Some(sources) => sources.iter().for_each(|source| counts[*source as usize] += 1),
            None => counts.fill(1),
        }
        let mut failed = self.failed.iter().peekable();
        let fates = (0..input_count).zip(counts).map(|(index, emitted)| {
            let failed = failed.next_if(|(failed, _)| *failed == index);
            let fate = failed.map_or(RecordFate::Pipeline, |(_, fate)| *fate);
            // One that was passed and dropped by a later stage, was dropped.
            match (emitted, fate) {
                (0, RecordFate::Passed) => (0, RecordFate::Pipeline),
                other => other,
            }
        });
        fates.collect()
    }
}

impl Chain {
    pub(crate) fn new(context: &ChainContext, side: Side, pipeline: Arc<Pipeline>) -> Chain {
        let stages = pipeline.side(side).iter();
        Chain {
            stages: stages.map(|stage| RunningStage::new(context, side, stage)).collect(),
            context: context.clone(),
            side,
            pipeline,
            lane: Lane::Fast,
        }
    }

    /// Where the next batch belongs: a chain with a stage that used up its deadline runs in the slow lane, until a batch
    /// of it stays under the deadline.
    pub(crate) fn lane(&self) -> Lane {
        self.lane
    }

    /// CPU time that its modules have used.
    pub(crate) fn cpu_used(&self) -> Duration {
        self.stages.iter().map(RunningStage::cpu_used).sum()
    }

    /// Runs a produced batch through all stages. Either every record that the stages keep comes out, or an error does.
    pub(crate) fn produce(&mut self, batch: Batch, append_time_ms: i64, limits: OutputLimits) -> Result<Produced> {
        self.check_halted()?;
        let original = decompressed(&batch)?;
        let mut work = Work::new(self.side, &batch, original.clone());
        let (mut failed, mut letters, mut over_deadline) = (Vec::new(), Vec::new(), false);
        for position in 0..self.stages.len() {
            if work.count() == 0 {
                break;
            }
            let Some(ran) = self.stages[position].run(&work, None, append_time_ms, limits.record_bytes_max)? else {
                continue;
            };
            over_deadline |= ran.over_deadline;
            self.lane = if over_deadline { Lane::Slow } else { Lane::Fast };
            self.produce_stage(position, ran, &mut work, &mut failed, &mut letters)?;
        }
        let fate = work.fate();
        let (stored, sources) = work.into_produced(batch.clone())?;
        if let Some(stored) = stored.as_ref().filter(|_| sources.is_some()) {
            self.check_output(stored, limits)?;
        }
        Ok(Produced {
            batch: stored,
            fate,
            sources,
            failed: last_fates(failed),
            dead_letters: DeadLetters::by_topic(letters, &batch, &original),
        })
    }

    /// Applies what a stage has made of a produced batch.
    fn produce_stage(
        &mut self,
        position: usize,
        ran: Ran,
        work: &mut Work,
        failed: &mut Vec<(u32, RecordFate)>,
        letters: &mut Vec<Letter>,
    ) -> Result<()> {
        let stage = &self.stages[position];
        let settled = settle(stage.on_error, &ran.faults);
        if settled.unsettled.is_some() {
            return Err(self.refuse(position, &ran.faults, work));
        }
        tell(stage, &settled, &ran, work);
        let dead_letter_topic = match settled.dropped.is_empty() {
            true => None,
            false => stage.stage.spec.dead_letter_topic(&self.context.topic),
        };
        let fate = match dead_letter_topic {
            None => RecordFate::Skipped,
            Some(_) => RecordFate::DeadLettered,
        };
        let mut gone = Vec::new();
        for (records, reason) in &settled.dropped {
            gone.extend(records.clone().map(|index| work.source(index)));
            if let Some(topic) = &dead_letter_topic {
                let of_fault = records.clone().map(|index| Letter {
                    topic: topic.clone(),
                    index: work.source(index),
                    module: stage.monitor.key.module.clone(),
                    version: stage.monitor.key.version,
                    error: reason.clone(),
                });
                letters.extend(of_fault);
            }
        }
        let passed = settled.passed.iter().map(|index| work.source(*index));
        failed.extend(passed.map(|source| (source, RecordFate::Passed)));
        work.apply(&ran.outcome, &settled.passed)?;
        if !gone.is_empty() {
            // What else came of such a record goes with it: a record is stored as a whole or not at all.
            gone.dedup();
            work.drop_sources(&gone)?;
            failed.extend(gone.into_iter().map(|source| (source, fate)));
        }
        stage.monitor.records_out.fetch_add(work.count().into(), Relaxed);
        stage.compare(ran);
        Ok(())
    }

    /// Runs a stored batch through all stages for a reader. Where a stage's policy is to stop at a record, or its breaker
    /// is open, what is before that is answered, with where it stopped.
    ///
    /// # Errors
    /// The stored batch is damaged.
    pub(crate) fn fetch(&mut self, batch: Batch) -> Result<Visible> {
        let base = batch.base_offset();
        let mut work = Work::new(self.side, &batch, decompressed(&batch)?);
        let append_time_ms = batch.header().max_timestamp_ms;
        let (mut stopped, mut repeatable, mut over_deadline) = (None, true, false);
        for position in 0..self.stages.len() {
            if work.count() == 0 {
                break;
            }
            let ran = match self.stages[position].run(&work, Some(base.0), append_time_ms, usize::MAX) {
                Ok(Some(ran)) => ran,
                Ok(None) => {
                    repeatable = false;
                    continue;
                }
                Err(error) => {
                    let first = work.source(0);
                    work.cut_at(first)?;
                    stopped = Some((first, error));
                    break;
                }
            };
            over_deadline |= ran.over_deadline;
            self.lane = if over_deadline { Lane::Slow } else { Lane::Fast };
            repeatable &= !ran.faults.iter().any(Fault::is_failure);
            if let Some(stop) = self.fetch_stage(position, ran, &mut work)? {
                stopped = Some(stop);
            }
        }
        let at = stopped.as_ref().map(|(first, _)| *first);
        Ok(Visible {
            batch: work.into_fetched(batch, at)?,
            repeatable: repeatable && stopped.is_none(),
            stop: stopped.map(|(first, error)| Stop {
                at: base + u64::from(first),
                error,
            }),
        })
    }

    /// Applies what a stage has made of a stored batch; where it stops, by its place in the batch.
    fn fetch_stage(&mut self, position: usize, ran: Ran, work: &mut Work) -> Result<Option<(u32, BrokerError)>> {
        let stage = &self.stages[position];
        let settled = settle(stage.on_error, &ran.faults);
        tell(stage, &settled, &ran, work);
        let stop = settled.unsettled.map(|i| {
            let fault = &ran.faults[i];
            let (first, key) = (work.source(fault.records.start), &stage.monitor.key);
            let error = BrokerError::ModuleOnFetch {
                module: key.module.clone(),
                version: key.version,
                offset: Offset(ran.first_offset() + u64::from(first)),
                source: fault.error(),
            };
            (first, error)
        });
        work.apply(&ran.outcome, &settled.passed)?;
        if let Some((first, _)) = &stop {
            work.cut_at(*first)?;
        }
        stage.monitor.records_out.fetch_add(work.count().into(), Relaxed);
        stage.compare(ran);
        Ok(stop)
    }

    /// The error for a produced batch that a stage's policy does not settle; halts the partition where that is the policy.
    fn refuse(&self, position: usize, faults: &[Fault], work: &Work) -> BrokerError {
        let stage = &self.stages[position];
        let (module, version) = (stage.monitor.key.module.clone(), stage.monitor.key.version);
        let failure = faults.iter().find(|fault| fault.is_failure());
        if let Some(failure) = failure.filter(|_| stage.on_error == OnError::Halt) {
            let cause = match failure.what {
                What::Failed(_) => format!("record {}: {}", work.source(failure.records.start), failure.reason()),
                _ => failure.reason().to_string(),
            };
            return self.halt(position, short(&cause));
        }
        let undecided = |fault: &&Fault| matches!(fault.what, What::Undecided(_));
        if let Some(fault) = faults.iter().find(undecided)
            && (fault.is_of_agent() || faults.len() == 1 || stage.on_error == OnError::Skip)
        {
            let source = fault.error();
            if stage.on_error == OnError::Skip && source.is_of_records() {
                return BrokerError::SearchEnded {
                    module,
                    version,
                    records_max: stage.budget.failures_max,
                    cpu_ms: stage.budget.cpu.as_millis() as u64,
                    index: work.source(fault.records.start),
                    source,
                };
            }
            return BrokerError::ModuleOnProduce {
                module,
                version,
                source,
            };
        }
        let named = faults.iter().filter(|fault| !undecided(fault));
        let mut rejects: Vec<_> = named
            .map(|fault| RejectedRecord {
                index: work.source(fault.records.start),
                reason: fault.reason(),
                failed: fault.is_failure(),
            })
            .collect();
        rejects.dedup_by_key(|reject| reject.index);
        BrokerError::Rejected {
            module,
            version,
            count: work.input_count(),
            rejects,
        }
    }

    fn halt(&self, position: usize, cause: String) -> BrokerError {
        let monitor = &self.stages[position].monitor;
        let partition = self.context.partition;
        monitor.say(Level::Error, &format!("partition {partition} halted: {cause}"));
        let halt = PartitionHalt {
            partition,
            pipeline_version: self.pipeline.version,
            stage: monitor.key.stage,
            module: monitor.key.module.clone(),
            version: monitor.key.version,
            cause,
        };
        self.context.monitors.halt(self.context.topic_id, halt.clone());
        self.halted(halt)
    }

    fn check_halted(&self) -> Result<()> {
        let ChainContext {
            monitors,
            topic_id,
            partition,
            ..
        } = &self.context;
        match monitors.halted(*topic_id, *partition, self.pipeline.version) {
            None => Ok(()),
            Some(halt) => Err(self.halted(halt)),
        }
    }

    fn halted(&self, halt: PartitionHalt) -> BrokerError {
        BrokerError::Halted {
            topic: self.context.topic.clone(),
            partition: halt.partition,
            module: halt.module,
            version: halt.version,
            cause: halt.cause,
        }
    }

    /// What a module made is held to the limits that hold for what a client sends.
    fn check_output(&self, batch: &Batch, limits: OutputLimits) -> Result<()> {
        let last = self.stages.last().expect("a chain that changed a batch has a stage");
        let (module, version) = (last.monitor.key.module.clone(), last.monitor.key.version);
        if batch.encoded_len() > limits.batch_bytes_max {
            let (bytes, bytes_max) = (batch.encoded_len(), limits.batch_bytes_max);
            return Err(BrokerError::OutputTooLarge {
                module,
                version,
                bytes,
                bytes_max,
            });
        }
        Ok(())
    }
}

/// For each record what the last stage did with it, ascending; `failed` is in the order of the stages.
fn last_fates(mut failed: Vec<(u32, RecordFate)>) -> Vec<(u32, RecordFate)> {
    failed.sort_by_key(|(index, _)| *index);
    failed.dedup_by(|later, earlier| {
        let is_same = later.0 == earlier.0;
        if is_same {
            *earlier = *later;
        }
        is_same
    });
    failed
}

fn decompressed(batch: &Batch) -> Result<Bytes> {
    batch
        .decompressed(DECOMPRESSED_BYTES_MAX)
        .map_err(BrokerError::StoredBatch)
}

/// Bounds on what a produce chain puts out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutputLimits {
    pub(crate) batch_bytes_max: usize,
    pub(crate) record_bytes_max: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_last_stage_did_with_a_record_is_its_fate() {
        use RecordFate::{DeadLettered, Passed, Pipeline, Skipped};
        let failed = last_fates(vec![
            (1, Passed),
            (3, Passed),
            (5, Passed),
            (0, Skipped),
            (1, DeadLettered),
        ]);
        assert_eq!(failed, [(0, Skipped), (1, DeadLettered), (3, Passed), (5, Passed)]);
        let produced = Produced {
            batch: None,
            fate: Fate::default(),
            // A later stage dropped the one at 5.
            sources: Some(vec![2, 3, 4]),
            failed,
            dead_letters: Vec::new(),
        };
        let expected = [
            (0, Skipped),
            (0, DeadLettered),
            (1, Pipeline),
            (1, Passed),
            (1, Pipeline),
            (0, Pipeline),
        ];
        assert_eq!(produced.outcome(6), expected.into_iter().collect());
    }
}
