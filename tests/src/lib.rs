//! The harness of the end-to-end tests: it drives the built binary from outside, as an operator and a client would.
//!
//! - [`Setup`] says how an agent runs, [`Agent`] is one that does; it is killed when it goes out of scope, and what it
//!   logged is printed where the test fails.
//! - [`Grpc`] speaks to it over plain gRPC, [`Agent::cli`] over the command line.
//! - [`modules`] builds the ready-made modules, [`wat`] makes small ones that misbehave.
//!
//! Nothing sleeps to wait for a state: the agent's log, an answer or the end of a process is waited for. Ports are chosen
//! by the operating system, and every agent has a folder of its own, so tests run beside each other.

mod agent;
mod cli;
mod disk;
mod grpc;
pub mod modules;
mod paths;
mod random;
mod skip;
pub mod wat;

pub use agent::{Agent, Ended, Setup};
pub use cli::{Ran, run};
pub use disk::SmallDisk;
pub use grpc::{Grpc, record, values};
pub use paths::{binary, shared_data, target_dir, workspace};
pub use random::Random;
pub use skip::skip;
