//! A compiled module: checked against the contract, described once, shared by all its instances.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::component::{Component, types::ComponentItem};

use crate::Engine;
use crate::bindings::{HOST_FUNCTIONS, HOST_INTERFACE, ModuleIndices, TRANSFORM_INTERFACE};
use crate::error::{Call, ModuleError};
use crate::host::HostState;
use crate::info::Info;
use crate::limits::{Limits, SETUP_BYTES_MAX};
use crate::sandbox::{Sandbox, Template};
use crate::sniff::{Kind, sniff};

/// How much of its hash stands for a module that has not told its name yet.
const HASH_PREFIX: usize = 12;

/// A compiled module; clones share the compiled code.
#[derive(Clone)]
pub struct Module(Arc<Compiled>);

struct Compiled {
    template: Template,
    sha256: String,
    info: Info,
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
        let component = Component::from_binary(engine.wasmtime(), bytes).map_err(|error| ModuleError::Compile {
            message: format!("{error:#}"),
        })?;
        check_imports(engine, &component)?;
        check_exports(engine, &component)?;
        let pre = engine.linker().instantiate_pre(&component).map_err(other_world)?;
        let indices = ModuleIndices::new(&pre).map_err(other_world)?;
        let template = Template { pre, indices };
        let sha256 = hex(&Sha256::digest(bytes));
        let info = describe(&template, &sha256[..HASH_PREFIX])?;
        Ok(Module(Arc::new(Compiled { template, sha256, info })))
    }

    /// The SHA-256 of the component, in lower case hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.0.sha256
    }

    /// What the module says of itself.
    pub fn info(&self) -> &Info {
        &self.0.info
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

/// Everything imported must be on offer; what is not is named.
fn check_imports(engine: &Engine, component: &Component) -> Result<(), ModuleError> {
    let engine = engine.wasmtime();
    for (name, import) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(interface) = import.ty else {
            return Err(ModuleError::UnknownImport { name: name.into() });
        };
        if name != HOST_INTERFACE {
            return Err(ModuleError::UnknownImport { name: name.into() });
        }
        if let Some((function, _)) = interface
            .exports(engine)
            .find(|(function, _)| !HOST_FUNCTIONS.contains(function))
        {
            return Err(ModuleError::UnknownImport {
                name: format!("{name}#{function}"),
            });
        }
    }
    Ok(())
}

fn check_exports(engine: &Engine, component: &Component) -> Result<(), ModuleError> {
    match component
        .component_type()
        .get_export(engine.wasmtime(), TRANSFORM_INTERFACE)
    {
        Some(_) => Ok(()),
        None => Err(ModuleError::OtherWorld {
            message: format!("it does not export `{TRANSFORM_INTERFACE}`"),
        }),
    }
}

fn describe(template: &Template, name: &str) -> Result<Info, ModuleError> {
    let state = HostState::new(name, "", &Limits::default());
    let mut sandbox = Sandbox::start(template, state)?;
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
