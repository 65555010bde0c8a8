//! What a component imports and exports, held against what is offered.

use wasmtime::component::types::{Component, ComponentItem};

use crate::bindings::{CONTRACT_VERSION, HOST_FUNCTIONS, HOST_INTERFACE, TRANSFORM_INTERFACE};
use crate::{Engine, ModuleError};

/// What the names of all interfaces of the contract begin with, up to their version.
const PACKAGE: &str = "millstream:module/";

/// The names of what a component imports and exports, where all of it fits the contract.
pub struct Surface {
    pub imports: Vec<String>,
    pub exports: Vec<String>,
}

impl Surface {
    /// # Errors
    /// [`ModuleError::NewerContract`], [`ModuleError::UnknownImport`] by its name, or [`ModuleError::OtherWorld`].
    pub fn check(engine: &Engine, component: &Component) -> Result<Surface, ModuleError> {
        let engine = engine.wasmtime();
        let imports: Vec<String> = component.imports(engine).map(|(name, _)| name.to_owned()).collect();
        let exports: Vec<String> = component.exports(engine).map(|(name, _)| name.to_owned()).collect();
        let offers_ours = exports.iter().any(|name| name == TRANSFORM_INTERFACE);
        // A module may offer a later contract beside ours; one that needs a later one of us cannot run.
        let needed = imports.iter().chain(exports.iter().filter(|_| !offers_ours));
        if let Some(version) = needed
            .filter_map(|name| version(name))
            .find(|version| is_newer(version))
        {
            return Err(ModuleError::NewerContract {
                version: version.to_owned(),
            });
        }
        check_imports(engine, component)?;
        if !offers_ours {
            return Err(ModuleError::OtherWorld {
                message: format!("it does not export `{TRANSFORM_INTERFACE}`"),
            });
        }
        Ok(Surface { imports, exports })
    }
}

/// Everything imported must be on offer; what is not is named.
fn check_imports(engine: &wasmtime::Engine, component: &Component) -> Result<(), ModuleError> {
    for (name, import) in component.imports(engine) {
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

/// The version of the contract that an interface is of; `None` for interfaces of anything else.
fn version(interface: &str) -> Option<&str> {
    interface
        .strip_prefix(PACKAGE)?
        .split_once('@')
        .map(|(_, version)| version)
}

fn is_newer(version: &str) -> bool {
    numbers(version) > numbers(CONTRACT_VERSION)
}

/// The numbers of a version, without what may follow them (`-rc.1`).
fn numbers(version: &str) -> Vec<u64> {
    let release = version.split(['-', '+']).next().unwrap_or_default();
    release
        .split('.')
        .map(|number| number.parse().unwrap_or(u64::MAX))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_version_of_the_contract_is_newer() {
        for newer in ["1.0.1", "1.1.0", "2.0.0", "10.0.0", "1.1.0-rc.1"] {
            assert!(is_newer(newer), "{newer}");
        }
        for not_newer in [CONTRACT_VERSION, "0.9.0", "1.0.0-rc.1"] {
            assert!(!is_newer(not_newer), "{not_newer}");
        }
    }

    #[test]
    fn only_interfaces_of_the_contract_have_its_version() {
        assert_eq!(version("millstream:module/host@1.2.0"), Some("1.2.0"));
        assert_eq!(version("millstream:module/host"), None);
        assert_eq!(version("wasi:cli/environment@9.2.0"), None);
    }
}
