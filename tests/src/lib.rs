//! The harness of the end-to-end tests: it drives the built binary from outside, as an operator and a client would.
//!
//! - [`Setup`] says how an agent runs, [`Agent`] is one that does; it is killed when it goes out of scope, and what it
//!   logged is printed where the test fails.
//! - [`Grpc`] speaks to it over plain gRPC, [`raw`] in any bytes, [`Agent::cli`] over the command line.
//! - [`ledger`] holds what producers were told against what readers find; [`Gate`] makes outages.
//! - [`S3Server`] is a real S3 server over HTTP.
//! - [`modules`] builds modules, [`c`] compiles C, [`wat`] makes small ones that misbehave.
//!
//! Nothing sleeps to wait for a state: the agent's log, an answer or the end of a process is waited for. Ports are chosen
//! by the operating system, and every agent has a folder of its own, so tests run beside each other.

mod agent;
pub mod c;
mod cli;
mod disk;
mod gate;
mod grpc;
pub mod ledger;
pub mod modules;
mod paths;
mod python;
mod random;
pub mod raw;
mod s3;
mod skip;
pub mod wat;

pub use agent::{Agent, Ended, Setup};
pub use cli::{Ran, run};
pub use disk::SmallDisk;
pub use gate::Gate;
pub use grpc::{Grpc, place, record, values};
pub use paths::{binary, shared_data, target_dir, workspace};
pub use python::python_environment;
pub use random::Random;
pub use s3::{S3Server, on_s3};
pub use skip::skip;
