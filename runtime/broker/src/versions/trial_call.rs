//! What a stage has to pass before any partition runs it: it is configured with its parameters, and called on recent
//! records of its topic.
//!
//! A new version that fails on records which the version before gets through refuses the change; a record that it rejects
//! does not, that is its work. Each stage gets what the stages before it make of the records, as it will; so does one that is
//! moved, or stands behind one that is inserted. Recent records are what producers sent last, as they sent it; on fetch, or
//! where nobody produced since the start, they are what is stored. A topic without records tries nothing.

use millstream_batch::Batch;
use millstream_wasm::{Module, StageContext};

use super::trial_run::{Before, NewVersion, Trials};
use crate::{
    broker::Broker,
    error::Result,
    pipeline::{ChangeOptions, Pipeline, PipelineSpec, Side, Stage, StageSpec},
    topic::LiveTopic,
    versions::beginning_of,
};

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
            let new = self.new_versions(before.side(side), next.side(side)).await;
            if new.is_empty() {
                continue;
            }
            let trials = Trials {
                side,
                context: StageContext {
                    topic: live.topic().name.clone(),
                    on_fetch: side == Side::Fetch,
                },
                engine: self.shared().engine.clone(),
                limits: self.shared().settings.module_limits.clone(),
                record_bytes_max: match side {
                    Side::Produce => live.topic().config.record_bytes_max as usize,
                    Side::Fetch => usize::MAX,
                },
                stages: next.side(side).to_vec(),
                former: match new.iter().any(|new| matches!(new.before, Before::Elsewhere)) {
                    true => self.in_force_all(before.side(side)).await,
                    false => Vec::new(),
                },
                new,
            };
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

    /// The versions that did not run in their place with the same parameters and limits, or not behind the same stages.
    async fn new_versions(&self, before: &[StageSpec], next: &[Stage]) -> Vec<NewVersion> {
        let mut new = Vec::new();
        for (position, stage) in next.iter().enumerate() {
            let is_displaced = is_displaced(before, next, position);
            for (version, module, is_shadow) in versions(stage) {
                if !is_displaced && ran(before, &stage.spec, version) {
                    continue;
                }
                let old = before.iter().find(|old| old.id == stage.spec.id);
                let in_force = match old {
                    Some(old) if !is_displaced => self.in_force(old).await,
                    _ => None,
                };
                new.push(NewVersion {
                    position,
                    version,
                    module,
                    is_shadow,
                    before: match in_force {
                        Some(old) => Before::Here(Box::new(old)),
                        None if is_displaced => Before::Elsewhere,
                        None => Before::Nowhere,
                    },
                });
            }
        }
        new
    }

    /// The stages of a side as they are in force; none where one of them cannot be had.
    async fn in_force_all(&self, specs: &[StageSpec]) -> Vec<Stage> {
        let mut stages = Vec::new();
        for spec in specs {
            match self.in_force(spec).await {
                Some(stage) => stages.push(stage),
                None => return Vec::new(),
            }
        }
        stages
    }

    /// A stage as it is in force.
    async fn in_force(&self, spec: &StageSpec) -> Option<Stage> {
        match self.module_store().load_version(&spec.module, spec.version).await {
            Ok(module) => Some(Stage {
                spec: spec.clone(),
                module,
                trial: None,
                is_further: false,
            }),
            // Then the new version is judged by itself.
            Err(error) => {
                let (module, version) = (&spec.module, spec.version);
                tracing::warn!(module, version, %error, "a new version cannot be compared with the one in force");
                None
            }
        }
    }
}

/// What a stage runs: the version in force and the one that is tried, and whether that is a shadow.
fn versions(stage: &Stage) -> impl Iterator<Item = (u32, Module, bool)> {
    let spec = &stage.spec;
    let trial = spec.trial.as_ref().zip(stage.trial.as_ref());
    let trial = trial.map(|(trial, module)| (trial.version, module.clone(), spec.shadow().is_some()));
    [(spec.version, stage.module.clone(), false)].into_iter().chain(trial)
}

/// Whether a stage that was there stands otherwise to the others: it was moved, or another one past it, or one was put before
/// it. One that was taken away is no reason to try what came behind it.
fn is_displaced(before: &[StageSpec], next: &[Stage], position: usize) -> bool {
    let id = next[position].spec.id;
    let Some(was_at) = before.iter().position(|old| old.id == id) else {
        return false;
    };
    let is_left = |old: &&StageSpec| next.iter().any(|stage| stage.spec.id == old.id);
    let stood_before = before[..was_at].iter().filter(is_left).map(|old| old.id);
    !stood_before.eq(next[..position].iter().map(|stage| stage.spec.id))
}

fn ran(before: &[StageSpec], spec: &StageSpec, version: u32) -> bool {
    before.iter().any(|old| {
        let same = (&old.module, &old.params, &old.limits) == (&spec.module, &spec.params, &spec.limits);
        // A shadow may fail, so that it ran says nothing.
        let tried = old.trial.as_ref().filter(|_| old.shadow().is_none());
        same && (old.version == version || tried.is_some_and(|trial| trial.version == version))
    })
}
