//! The module host: compiles WebAssembly components, runs them under limits and trusts nothing they return.
//!
//! ```text
//! bytes -> Module::compile   sniffed, compiled, imports and exports checked, described once
//!       -> Instance::new     one sandbox per user of it, configured with the stage's parameters
//!       -> Instance::process records in, a checked Outcome out, as often as one likes
//! ```
//!
//! Invariants:
//! 1. A module reaches nothing but the interface `host` (log, count): no clock, no randomness, no files, no network.
//! 2. Every call runs under a CPU deadline, a memory limit and a bound on what it may hand back; so do the start
//!    functions that run before the first call.
//! 3. An [`Outcome`] has been checked: every number fits the input it answers and every record in it is well formed.
//! 4. After any error of an [`Instance`] it is dead; a new one costs microseconds.
//!
//! Calls are synchronous and keep their thread busy: they belong on a pool of CPU threads.

mod bindings;
mod check;
mod componentize;
mod engine;
mod error;
mod host;
mod info;
mod instance;
mod limits;
mod module;
mod outcome;
mod piece;
mod sandbox;
mod sniff;

pub use componentize::componentize;
pub use engine::Engine;
pub use error::{Call, ModuleError};
pub use info::{Info, ParamInfo};
pub use instance::{Input, Instance, StageContext};
pub use limits::{COMPONENT_BYTES_MAX, Limits};
pub use module::Module;
pub use outcome::{Outcome, Piece, Reject, Verdict};
