//! The module host: compiles WebAssembly components, runs them under limits and trusts nothing they return.
//!
//! ```text
//! bytes -> Module::compile   sniffed, compiled, imports and exports checked, described once
//!       -> Runner::new       one stage at work; makes an instance when it first needs one, and anew when that is lost
//!       -> Runner::process   records in, a checked Outcome out, as often as one likes
//!       -> Runner::isolate   after a failure: which records are at fault, and what becomes of the others
//! ```
//!
//! Invariants:
//! 1. A module reaches nothing but the interface `host` (log, count): no clock, no randomness, no files, no network.
//! 2. Every call runs under a CPU deadline, a memory limit and a bound on what it may hand back; so do the start
//!    functions that run before the first call.
//! 3. An [`Outcome`] has been checked: every number fits the input it answers and every record in it is well formed.
//! 4. After any error an instance is dead and never called again; a new one costs microseconds.
//! 5. All instances of an engine together are bounded in number and memory; at the bound idle ones are given up.
//!
//! Calls are synchronous and keep their thread busy: they belong on a pool of CPU threads.

mod bindings;
mod cache;
mod check;
mod code_size;
mod componentize;
mod contract;
mod engine;
mod error;
mod guest_memory;
mod host;
mod info;
mod instance;
mod isolate;
mod limits;
mod module;
mod observer;
mod outcome;
mod piece;
mod runner;
mod sandbox;
mod sniff;

pub use componentize::componentize;
pub use engine::{Engine, EngineSettings};
pub use error::{Call, ModuleError};
pub use guest_memory::GuestMemoryStats;
pub use info::{Info, ParamInfo};
pub use instance::{Input, Instance, StageContext};
pub use isolate::{Failed, Isolated, IsolationBudget};
pub use limits::{COMPONENT_BYTES_MAX, Limits};
pub use module::Module;
pub use observer::{Level, Observer, Unheard};
pub use outcome::{Outcome, Piece, Reject, Verdict};
pub use runner::Runner;
