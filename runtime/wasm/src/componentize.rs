//! Makes the core module a compiler puts out a component.

use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::Resolve;

use crate::ModuleError;
use crate::sniff::{Kind, sniff};

/// The contract, as `sdk/wit` has it.
const MODULE_WIT: &str = include_str!("../../../sdk/wit/module.wit");

/// Wraps a core module into a component, validated. A core module says which world it is of in a `component-type`
/// section; one that has none, as every compiler but Rust's puts it out, is taken for one of the world `module`.
///
/// # Errors
/// [`ModuleError::NotWasm`], [`ModuleError::TooLarge`], and [`ModuleError::Componentize`] where it is a component already
/// or does not fit its world: what it does not export is named.
pub fn componentize(core_module: &[u8]) -> Result<Vec<u8>, ModuleError> {
    if sniff(core_module)? == Kind::Component {
        return Err(ModuleError::Componentize {
            message: "it is a component already".into(),
        });
    }
    let (world, _) = wit_component::metadata::decode(core_module).map_err(refused)?;
    if world.is_some() {
        return encode(core_module);
    }
    encode(&with_world(core_module)?)
}

fn encode(core_module: &[u8]) -> Result<Vec<u8>, ModuleError> {
    ComponentEncoder::default()
        .module(core_module)
        .and_then(|encoder| encoder.validate(true).encode())
        .map_err(refused)
}

fn with_world(core_module: &[u8]) -> Result<Vec<u8>, ModuleError> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("module.wit", MODULE_WIT).expect("the contract is WIT");
    let world = resolve
        .select_world(&[package], Some("module"))
        .expect("the contract has a world of this name");
    let mut with_world = core_module.to_owned();
    wit_component::embed_component_metadata(&mut with_world, &resolve, world, StringEncoding::UTF8).map_err(refused)?;
    Ok(with_world)
}

fn refused(error: impl std::fmt::Display) -> ModuleError {
    let message = format!("{error:#}");
    ModuleError::Componentize {
        message: match hint(&message) {
            Some(hint) => format!("{message}; {hint}"),
            None => message,
        },
    }
}

/// What is most often behind it.
fn hint(message: &str) -> Option<&'static str> {
    let is_of = |words: &[&str]| words.iter().any(|word| message.contains(word));
    match () {
        () if is_of(&["wasi_snapshot_preview1", "`env`"]) => {
            Some("modules get no WASI and nothing of `env`; build for wasm32-unknown-unknown")
        }
        () if is_of(&["failed to find export"]) => {
            Some("in Rust: no function has an attribute of the SDK, such as #[filter]")
        }
        () => None,
    }
}
