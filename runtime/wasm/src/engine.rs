//! The engine: how modules are compiled and run, and the ticker that makes deadlines hold.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, EngineWeak};

use crate::ModuleError;
use crate::bindings;
use crate::cache::Cache;
use crate::guest_memory::{GuestMemory, GuestMemoryStats};
use crate::host::HostState;
use crate::limits::STACK_BYTES;

/// How often running modules are asked whether their time is up.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// What an engine may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineSettings {
    /// A folder of this engine's own on the local disk, where compiled modules are kept; without one each is compiled
    /// again by every process. It is made where it is missing.
    pub cache_dir: Option<PathBuf>,
    /// Memory of all instances together, in bytes.
    pub guest_memory_bytes_max: usize,
    /// Instances at a time. Each takes about four of the mappings a process may have.
    pub instances_max: usize,
}

impl Default for EngineSettings {
    fn default() -> EngineSettings {
        EngineSettings {
            cache_dir: None,
            guest_memory_bytes_max: 1 << 30,
            instances_max: 8_000,
        }
    }
}

/// Compiles modules and holds what they share. One per process; clones are the same engine.
#[derive(Clone)]
pub struct Engine {
    engine: wasmtime::Engine,
    linker: Arc<Linker<HostState>>,
    memory: Arc<GuestMemory>,
    cache: Option<Arc<Cache>>,
}

impl Engine {
    /// An engine with the default settings, as [`Engine::with`].
    ///
    /// # Errors
    /// As [`Engine::with`].
    pub fn new() -> Result<Engine, ModuleError> {
        Engine::with(EngineSettings::default())
    }

    /// Starts the engine and its ticker thread, which ends once nothing uses the engine any more.
    ///
    /// # Errors
    /// [`ModuleError::Engine`] where this machine cannot run it, or the folder for compiled modules is not this user's
    /// own.
    pub fn with(settings: EngineSettings) -> Result<Engine, ModuleError> {
        let engine = wasmtime::Engine::new(&config()).map_err(unusable)?;
        let mut linker = Linker::new(&engine);
        bindings::Module::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state).map_err(unusable)?;
        let cache = settings.cache_dir.map(|dir| Cache::open(dir, &engine)).transpose()?;
        let ticking = engine.weak();
        thread::Builder::new()
            .name("module-ticker".into())
            .spawn(move || tick(&ticking))
            .map_err(unusable)?;
        Ok(Engine {
            engine,
            linker: Arc::new(linker),
            memory: Arc::new(GuestMemory::new(
                settings.guest_memory_bytes_max,
                settings.instances_max,
            )),
            cache: cache.map(Arc::new),
        })
    }

    /// What the instances hold, and may hold.
    pub fn guest_memory(&self) -> GuestMemoryStats {
        self.memory.stats()
    }

    pub(crate) fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    pub(crate) fn cache(&self) -> Option<&Cache> {
        self.cache.as_deref()
    }

    pub(crate) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.engine
    }

    pub(crate) fn linker(&self) -> &Linker<HostState> {
        &self.linker
    }
}

/// The default 4 GiB reservation and signal-based traps stay: bounds checks in code cost far more.
fn config() -> Config {
    let mut config = Config::new();
    config.wasm_component_model(true);
    // A call costs a quarter without the bookkeeping for concurrent guests, and single-record batches feel that.
    config.concurrency_support(false);
    config.epoch_interruption(true);
    config.max_wasm_stack(STACK_BYTES);
    config
}

fn tick(engine: &EngineWeak) {
    while let Some(engine) = engine.upgrade() {
        engine.increment_epoch();
        drop(engine);
        thread::sleep(TICK);
    }
}

fn unusable(error: impl std::fmt::Display) -> ModuleError {
    ModuleError::Engine {
        message: format!("{error:#}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ticker_ends_with_its_engine() {
        let engine = wasmtime::Engine::new(&config()).unwrap();
        let ticking = engine.weak();
        let ticker = thread::spawn(move || tick(&ticking));
        drop(engine);
        ticker.join().unwrap();
    }
}
