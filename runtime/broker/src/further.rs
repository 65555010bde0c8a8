//! The stages that readers ask for: loaded, checked and configured once, before any record goes through them.

use std::{sync::Arc, time::Duration};

use millstream_wasm::{Instance, Module, ModuleError, StageContext};
use moka::future::Cache;

use crate::{
    broker::Broker,
    error::{BrokerError, Result},
    pipeline::{OnError, PipelineSpec, Side, Stage, StageSpec},
};

/// Stages kept ready, of all topics together.
const READY_MAX: u64 = 256;

/// Names whose current version is remembered.
const CURRENT_MAX: u64 = 1_000;

/// How long a module's current version is believed: a reader that follows it gets another one so much later.
const CURRENT_TTL: Duration = Duration::from_secs(1);

/// What readers have asked for. Clones share it.
#[derive(Clone)]
pub(crate) struct FurtherStages {
    /// By the topic and the stage in its stored form.
    ready: Cache<(String, String), Arc<Stage>>,
    current: Cache<String, u32>,
}

impl Default for FurtherStages {
    fn default() -> FurtherStages {
        FurtherStages {
            ready: Cache::new(READY_MAX),
            current: Cache::builder()
                .max_capacity(CURRENT_MAX)
                .time_to_live(CURRENT_TTL)
                .build(),
        }
    }
}

impl Broker {
    /// The stage, ready to run; version 0 is the module's current one.
    pub(crate) async fn further_stage(&self, topic: &str, mut spec: StageSpec) -> Result<Arc<Stage>> {
        spec.check_params()?;
        let further = self.shared().reads.further();
        if spec.version == 0 {
            spec.version = match further.current.get(&spec.module).await {
                Some(version) => version,
                None => {
                    let version = self.module_store().version(&spec.module, None).await?.version;
                    further.current.insert(spec.module.clone(), version).await;
                    version
                }
            };
        }
        let form = serde_json::to_string(&spec).expect("a struct of strings and numbers always becomes JSON");
        let key = (topic.to_owned(), form);
        if let Some(stage) = further.ready.get(&key).await {
            return Ok(stage);
        }
        let stage = Arc::new(self.make_ready(topic, spec).await?);
        further.ready.insert(key, stage.clone()).await;
        Ok(stage)
    }

    async fn make_ready(&self, topic: &str, mut spec: StageSpec) -> Result<Stage> {
        check_policy(&spec)?;
        let agent = &self.shared().settings.module_limits;
        spec.limits = spec.limits.within(agent);
        spec.limits.check(self.shared().settings.module_guest_memory_bytes)?;
        // What one reader asks for must not keep others from theirs; what it costs is bounded by the fetch.
        spec.breaker.failures = 0;
        let spec = PipelineSpec {
            fetch: vec![spec],
            ..PipelineSpec::default()
        };
        let pipeline = self.module_store().load(0, spec).await?;
        let mut stage = pipeline.fetch.into_iter().next().expect("one was loaded");
        stage.is_further = true;
        let (module, params) = (stage.module.clone(), stage.spec.params.clone());
        let context = StageContext {
            topic: topic.to_owned(),
            on_fetch: true,
        };
        let limits = stage.limits(agent);
        let configured = self.shared().pool.run("configuring a module", move || {
            let params: Vec<_> = params.into_iter().collect();
            Instance::new(&module, &limits, &context, &params)?;
            check_names(&module, &params)
        });
        configured.await?.map_err(|source| BrokerError::BadModule {
            module: format!("module {}@{}", stage.spec.module, stage.spec.version),
            source,
        })?;
        Ok(stage)
    }
}

/// A module may take what it does not describe for nothing; whoever set it meant something.
fn check_names(module: &Module, params: &[(String, String)]) -> Result<(), ModuleError> {
    let described = |name: &str| module.info().params.iter().any(|param| param.name == name);
    match params.iter().find(|(name, _)| !described(name)) {
        None => Ok(()),
        Some((name, _)) => Err(ModuleError::Refused {
            reason: format!("it describes no parameter {name:?}"),
        }),
    }
}

fn check_policy(spec: &StageSpec) -> Result<()> {
    match spec.on_error(Side::Fetch) {
        OnError::Skip | OnError::Pass | OnError::Halt => Ok(()),
        other @ (OnError::Reject | OnError::DeadLetter) => Err(BrokerError::OnErrorOnFetch { on_error: other.name() }),
    }
}
