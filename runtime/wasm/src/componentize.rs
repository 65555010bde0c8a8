//! Makes the core module a compiler puts out a component.

use wit_component::ComponentEncoder;

use crate::ModuleError;
use crate::sniff::{Kind, sniff};

/// Wraps a core module that carries its world in a `component-type` section into a component, validated.
///
/// # Errors
/// [`ModuleError::NotWasm`], [`ModuleError::TooLarge`], [`ModuleError::NoWorld`] without that section, and
/// [`ModuleError::Componentize`] where the module does not fit the world it names.
pub fn componentize(core_module: &[u8]) -> Result<Vec<u8>, ModuleError> {
    if sniff(core_module)? == Kind::Component {
        return Err(ModuleError::Componentize {
            message: "it is a component already".into(),
        });
    }
    let (world, _) = wit_component::metadata::decode(core_module).map_err(refused)?;
    if world.is_none() {
        return Err(ModuleError::NoWorld);
    }
    ComponentEncoder::default()
        .module(core_module)
        .and_then(|encoder| encoder.validate(true).encode())
        .map_err(refused)
}

fn refused(error: impl std::fmt::Display) -> ModuleError {
    ModuleError::Componentize {
        message: format!("{error:#}"),
    }
}
