//! The `millstream` binary: the agent, and the command line for everything else.
//!
//! `cli` has a file for each noun and talks to an agent through `millstream-client`; `config` holds the agent's settings;
//! `parts` makes of them what `serve` runs, over `grpc` and `http`; `doctor` tries them out beforehand; `demo` shows the
//! whole of it at work.

#![allow(
    clippy::disallowed_methods,
    reason = "time and randomness come in here, and go down from here"
)]

mod cli;
mod config;
mod demo;
mod doctor;
mod grpc;
mod http;
mod logging;
mod metrics;
mod name;
mod parts;
mod serve;
mod watch;

use std::process::ExitCode;

use clap::Parser as _;

/// The system's allocator keeps what bursts of large answers have left behind. This one gives it back, and not at once: what is
/// let go of is taken again for the next batches, without the kernel clearing every page of it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return cli::report(&error.into()),
    };
    let result = runtime.block_on(cli.run());
    // A read from a terminal may still be waiting for a key: it must not hold up the end.
    runtime.shutdown_background();
    result.unwrap_or_else(|error| cli::report(&error))
}
