//! Deployed modules: their bytes in the object store by content, their versions in the metadata, compiled ones in memory.

use std::sync::Arc;

use bytes::Bytes;
use millstream_log::{LogError, Store};
use millstream_meta::{Metadata, ModuleVersion};
use millstream_wasm::{Engine, Module, ModuleError};
use moka::sync::Cache;
use serde::{Deserialize, Serialize};

use crate::{
    clock::Clock,
    error::{BrokerError, Result},
    names::check_module_name,
    pipeline::{Pipeline, PipelineSpec, Pool, Stage, StageSpec},
};

/// Compiled modules kept in memory.
const COMPILED_MAX: u64 = 256;

/// What is kept of a module's description of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleInfo {
    /// One line for people.
    pub summary: String,
    /// What a stage may set.
    pub params: Vec<ModuleParam>,
    /// The interfaces and functions that it imports, as the component names them.
    #[serde(default)]
    pub imports: Vec<String>,
}

impl ModuleInfo {
    /// What a deployed version says of itself.
    pub fn of(version: &ModuleVersion) -> Result<ModuleInfo> {
        let info = serde_json::from_str(&version.info_json);
        info.map_err(|source| BrokerError::StoredForm {
            what: "module description",
            source,
        })
    }
}

/// One parameter of a module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleParam {
    /// Its name.
    pub name: String,
    /// "string", "bool", "int", "float", or the allowed words with "|" between.
    pub kind: String,
    /// What holds where a stage does not set it.
    pub default: Option<String>,
    /// Whether a stage must set it.
    pub required: bool,
    /// For people.
    pub doc: String,
}

/// Deploys and loads modules.
#[derive(Clone)]
pub(crate) struct Modules {
    engine: Engine,
    metadata: Metadata,
    store: Store,
    /// A thread of its own: compiling takes long, and must not hold up what runs.
    pool: Pool,
    clock: Arc<dyn Clock>,
    /// By sha256. What a pipeline uses stays alive through the pipeline.
    compiled: Cache<String, Module>,
}

impl Modules {
    pub(crate) fn new(engine: Engine, metadata: Metadata, store: Store, clock: Arc<dyn Clock>) -> Modules {
        Modules {
            engine,
            metadata,
            store,
            pool: Pool::new(1),
            clock,
            compiled: Cache::new(COMPILED_MAX),
        }
    }

    /// The thread on which modules are tried before they reach a partition.
    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Compiles and describes the component, stores its bytes, then makes a version of it. The same bytes again give
    /// the version they have.
    pub(crate) async fn deploy(&self, name: &str, component: Bytes) -> Result<(ModuleVersion, bool)> {
        check_module_name(name)?;
        let size = component.len() as u64;
        let module = self.compile(name, component.clone()).await?;
        let info = serde_json::to_string(&described(&module)).expect("a struct of strings always becomes JSON");
        // The object is there before the version that names it: a crash between them leaves an orphan, never a hole.
        match self.store.put_new(&object_key(module.sha256()), vec![component]).await {
            // The key is the content's own hash, so whoever stored it stored the same.
            Ok(_) | Err(LogError::AlreadyExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let now_ms = self.clock.now_ms();
        Ok(self
            .metadata
            .deploy_module(name, module.sha256(), size, &info, now_ms)
            .await?)
    }

    /// The version of a module, or its current one.
    pub(crate) async fn version(&self, name: &str, version: Option<u32>) -> Result<ModuleVersion> {
        self.metadata
            .module(name, version)
            .await?
            .ok_or_else(|| BrokerError::UnknownModule {
                name: version.map_or_else(|| name.to_owned(), |version| format!("{name}@{version}")),
            })
    }

    /// Makes a stored pipeline ready to run; stages that have no ids get them.
    pub(crate) async fn load(&self, version: u64, mut spec: PipelineSpec) -> Result<Pipeline> {
        spec.number_stages();
        let produce = self.load_stages(&spec.produce).await?;
        let fetch = self.load_stages(&spec.fetch).await?;
        Ok(Pipeline {
            version,
            spec,
            produce,
            fetch,
        })
    }

    async fn load_stages(&self, specs: &[StageSpec]) -> Result<Vec<Stage>> {
        let mut stages = Vec::with_capacity(specs.len());
        for spec in specs {
            let trial = match &spec.trial {
                Some(trial) => Some(self.load_version(&spec.module, trial.version).await?),
                None => None,
            };
            stages.push(Stage {
                module: self.load_version(&spec.module, spec.version).await?,
                trial,
                spec: spec.clone(),
                is_further: false,
            });
        }
        Ok(stages)
    }

    /// A deployed version, compiled.
    pub(crate) async fn load_version(&self, name: &str, version: u32) -> Result<Module> {
        let version = self.version(name, Some(version)).await?;
        let module = match self.compiled.get(&version.sha256) {
            Some(module) => module,
            None => {
                let component = self.store.get(&object_key(&version.sha256)).await?;
                self.compile(&format!("{name}@{}", version.version), component).await?
            }
        };
        if module.sha256() != version.sha256 {
            let source = ModuleError::Compile {
                message: "its stored bytes have another sha256".to_owned(),
            };
            return Err(BrokerError::BadModule {
                module: name.to_owned(),
                source,
            });
        }
        Ok(module)
    }

    /// The bytes that were deployed.
    pub(crate) async fn component(&self, version: &ModuleVersion) -> Result<Bytes> {
        Ok(self.store.get(&object_key(&version.sha256)).await?)
    }

    async fn compile(&self, name: &str, component: Bytes) -> Result<Module> {
        let engine = self.engine.clone();
        let compiled = self
            .pool
            .run("compiling a module", move || Module::compile(&engine, &component))
            .await?;
        let module = compiled.map_err(|source| BrokerError::BadModule {
            module: format!("module {name}"),
            source,
        })?;
        self.compiled.insert(module.sha256().to_owned(), module.clone());
        Ok(module)
    }
}

fn object_key(sha256: &str) -> String {
    // The objects of a topic are two folders deep, so even one named "_modules" has none of these keys.
    format!("_modules/{sha256}.wasm")
}

fn described(module: &Module) -> ModuleInfo {
    let params = module.info().params.iter().map(|param| ModuleParam {
        name: param.name.clone(),
        kind: param.kind.clone(),
        default: param.default.clone(),
        required: param.required,
        doc: param.doc.clone(),
    });
    ModuleInfo {
        summary: module.info().summary.clone(),
        params: params.collect(),
        imports: module.imports().to_vec(),
    }
}
