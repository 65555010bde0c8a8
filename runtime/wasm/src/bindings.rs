//! The contract between the broker and a module, generated from `sdk/wit`. Nothing in here is trusted yet.
#![allow(missing_docs)]

wasmtime::component::bindgen!({
    path: "../../sdk/wit",
    world: "module",
    ownership: Borrowing { duplicate_if_necessary: true },
});

pub use exports::millstream::module::transform;
pub use millstream::module::host;

/// The version of the contract that is offered.
pub const CONTRACT_VERSION: &str = "1.0.0";
/// The one interface a module may import.
pub const HOST_INTERFACE: &str = "millstream:module/host@1.0.0";
/// The functions of [`HOST_INTERFACE`].
pub const HOST_FUNCTIONS: [&str; 2] = ["log", "count"];
/// The interface a module must export.
pub const TRANSFORM_INTERFACE: &str = "millstream:module/transform@1.0.0";
