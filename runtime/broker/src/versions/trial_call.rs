//! What a stage has to pass before any partition runs it: it is configured with its parameters, and called on recent
//! records of its topic.
//!
//! A failure of the module refuses the change; a record that it rejects does not, that is its work. Each stage gets what
//! the stages before it make of the records, as it will. Recent records are what producers sent last, as they sent it; on
//! fetch, or where nobody produced since the start, they are what is stored. A topic without records tries nothing.

use millstream_batch::Batch;
use millstream_wasm::{Input, Instance, Module, ModuleError, StageContext};

use crate::{
    broker::Broker,
    error::{BrokerError, Result},
    pipeline::{ChangeOptions, Pipeline, PipelineSpec, Side, Stage, StageSpec, Work},
    topic::LiveTopic,
    versions::beginning_of,
};

/// Stages of one side, and the versions among them that are new.
struct Trials {
    side: Side,
    context: StageContext,
    limits: millstream_wasm::Limits,
    stages: Vec<Stage>,
    /// Position, version and module.
    new: Vec<(usize, u32, Module)>,
}

impl Broker {
    /// Configures every stage that is new in a pipeline, and calls it on recent records, off the data path.
    pub(crate) async fn try_stages(
        &self,
        live: &LiveTopic,
        before: &PipelineSpec,
        next: &Pipeline,
        options: ChangeOptions,
    ) -> Result<()> {
        for side in [Side::Produce, Side::Fetch] {
            let stages = next.side(side).to_vec();
            let new = stages.iter().enumerate().flat_map(|(position, stage)| {
                let new = new_versions(before.side(side), stage);
                new.into_iter()
                    .map(move |(version, module)| (position, version, module))
            });
            let trials = Trials {
                side,
                context: StageContext {
                    topic: live.topic().name.clone(),
                    on_fetch: side == Side::Fetch,
                },
                limits: self.shared().settings.module_limits.clone(),
                new: new.collect(),
                stages,
            };
            if trials.new.is_empty() {
                continue;
            }
            let recent = match options.no_trial_call {
                true => None,
                false => self.recent(live, side).await,
            };
            let pool = self.module_store().pool();
            pool.run("trying a module", move || trials.run(recent)).await??;
        }
        Ok(())
    }

    /// Recent records of a topic.
    async fn recent(&self, live: &LiveTopic, side: Side) -> Option<Batch> {
        if side == Side::Produce
            && let Some(batch) = live.sample.newest()
        {
            return beginning_of(&batch);
        }
        for partition in live.open_partitions() {
            match partition.newest(self.shared()).await {
                Ok(Some(batch)) => return beginning_of(&batch),
                Ok(None) => {}
                // Nothing to try it on is no reason to keep somebody from mending a module.
                Err(error) => tracing::warn!(topic = live.topic().name, %error, "no recent records for a trial call"),
            }
        }
        None
    }
}

/// The versions of a stage that did not run in its place with the same parameters and limits.
fn new_versions(before: &[StageSpec], stage: &Stage) -> Vec<(u32, Module)> {
    let spec = &stage.spec;
    let trial = spec
        .trial
        .as_ref()
        .zip(stage.trial.as_ref())
        .map(|(trial, module)| (trial.version, module.clone()));
    let versions = [(spec.version, stage.module.clone())].into_iter().chain(trial);
    let ran = |version: u32| {
        before.iter().any(|old| {
            let same = (&old.module, &old.params, &old.limits) == (&spec.module, &spec.params, &spec.limits);
            same && (old.version == version || old.trial.as_ref().is_some_and(|trial| trial.version == version))
        })
    };
    versions.filter(|(version, _)| !ran(*version)).collect()
}

impl Trials {
    fn run(&self, recent: Option<Batch>) -> Result<()> {
        let mut instances = Vec::with_capacity(self.new.len());
        for (position, version, module) in &self.new {
            let stage = &self.stages[*position];
            let instance = self.instance(stage, module).map_err(|source| BrokerError::BadModule {
                module: format!("module {}@{version}", stage.spec.module),
                source,
            })?;
            instances.push((*position, *version, instance));
        }
        let Some(batch) = recent else { return Ok(()) };
        let mut work = Work::new(self.side, &batch, batch.records().clone());
        for (position, stage) in self.stages.iter().enumerate() {
            for (_, version, instance) in instances.iter_mut().filter(|(at, ..)| *at == position) {
                match self.call(instance, &work, &batch) {
                    Err(source) if source.is_module_fault() => {
                        return Err(BrokerError::FailsOnRecent {
                            module: stage.spec.module.clone(),
                            version: *version,
                            source,
                        });
                    }
                    _ => {}
                }
            }
            // What comes next gets what comes out of the version in force. Where that fails nobody knows what it would be.
            let passed = self
                .instance(stage, &stage.module)
                .and_then(|mut instance| self.call(&mut instance, &work, &batch));
            let Ok(outcome) = passed else { return Ok(()) };
            if work.apply(&outcome, &[]).is_err() || work.count() == 0 {
                return Ok(());
            }
        }
        Ok(())
    }

    fn instance(&self, stage: &Stage, module: &Module) -> Result<Instance, ModuleError> {
        let params = stage.spec.params.iter();
        let params: Vec<_> = params.map(|(name, value)| (name.clone(), value.clone())).collect();
        Instance::new(module, &stage.limits(&self.limits), &self.context, &params)
    }

    fn call(
        &self,
        instance: &mut Instance,
        work: &Work,
        batch: &Batch,
    ) -> Result<millstream_wasm::Outcome, ModuleError> {
        instance.process(Input {
            partition: 0,
            first_offset: (self.side == Side::Fetch).then(|| batch.base_offset().0),
            append_time_ms: batch.header().max_timestamp_ms,
            base_timestamp_ms: work.base_timestamp_ms(),
            count: work.count(),
            records: work.records(),
        })
    }
}
