//! A compiled module: checked against the contract, described once, shared by all its instances.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use crate::Engine;
use crate::bindings::ModuleIndices;
use crate::code_size;
use crate::contract::Surface;
use crate::error::{Call, ModuleError};
use crate::guest_memory::GuestMemory;
use crate::info::Info;
use crate::limits::{Limits, SETUP_BYTES_MAX};
use crate::observer::Unheard;
use crate::sandbox::{Sandbox, Template};
use crate::sniff::{Kind, sniff};

/// A compiled module; clones share the compiled code.
#[derive(Clone)]
pub struct Module(Arc<Compiled>);

struct Compiled {
    template: Template,
    memory: Arc<GuestMemory>,
    sha256: String,
    info: Info,
    surface: Surface,
}

impl Module {
    /// Compiles a component of world `module`, up to [`COMPONENT_BYTES_MAX`](crate::COMPONENT_BYTES_MAX), and lets it
    /// describe itself in a throwaway instance under the default limits. Takes tens of milliseconds and more.
    ///
    /// # Errors
    /// Says what the bytes are instead, what is imported that no host offers, or how describing it failed.
    pub fn compile(engine: &Engine, bytes: &[u8]) -> Result<Module, ModuleError> {
        if sniff(bytes)? == Kind::Core {
            return Err(ModuleError::CoreModule);
        }
        let sha256: [u8; 32] = Sha256::digest(bytes).into();
        let component = compiled(engine, bytes, &sha256)?;
        let surface = Surface::check(engine, &component.component_type())?;
        let pre = engine.linker().instantiate_pre(&component).map_err(other_world)?;
        let indices = ModuleIndices::new(&pre).map_err(other_world)?;
        let template = Template { pre, indices };
        let info = describe(&template, engine)?;
        Ok(Module(Arc::new(Compiled {
            template,
            memory: engine.memory().clone(),
            sha256: hex(&sha256),
            info,
            surface,
        })))
    }

    /// What [`Module::sha256`] is of a component's bytes.
    pub fn sha256_of(component: &[u8]) -> String {
        let sha256: [u8; 32] = Sha256::digest(component).into();
        hex(&sha256)
    }

    /// The SHA-256 of the component, in lower case hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.0.sha256
    }

    /// What the module says of itself.
    pub fn info(&self) -> &Info {
        &self.0.info
    }

    /// The interfaces it imports, by name; all of them are offered.
    pub fn imports(&self) -> &[String] {
        &self.0.surface.imports
    }

    /// The interfaces it exports, by name.
    pub fn exports(&self) -> &[String] {
        &self.0.surface.exports
    }

    pub(crate) fn memory(&self) -> &Arc<GuestMemory> {
        &self.0.memory
    }

    pub(crate) fn template(&self) -> &Template {
        &self.0.template
    }
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Module")
            .field("name", &self.0.info.name)
            .field("sha256", &self.0.sha256)
            .finish_non_exhaustive()
    }
}

/// From the cache where it is there, else compiled and kept for the next time.
fn compiled(engine: &Engine, bytes: &[u8], sha256: &[u8; 32]) -> Result<Component, ModuleError> {
    let kept = engine.cache().and_then(|cache| cache.load(engine.wasmtime(), sha256));
    if let Some(component) = kept {
        return Ok(component);
    }
    code_size::check(bytes)?;
    let component = Component::from_binary(engine.wasmtime(), bytes).map_err(|error| ModuleError::Compile {
        message: format!("{error:#}"),
    })?;
    if let Some(cache) = engine.cache() {
        cache.keep(sha256, &component);
    }
    Ok(component)
}

fn describe(template: &Template, engine: &Engine) -> Result<Info, ModuleError> {
    let mut sandbox = Sandbox::start(template, engine.memory(), &Limits::default(), Arc::new(Unheard))?;
    let info = sandbox.call(Call::Describe, SETUP_BYTES_MAX, |store, guest| {
        guest.call_describe(store)
    })?;
    Info::try_from(info)
}

fn other_world(error: wasmtime::Error) -> ModuleError {
    ModuleError::OtherWorld {
        message: format!("{error:#}"),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
