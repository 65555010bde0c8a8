//! The agent's log: lines on standard error, chosen by `MILLSTREAM_LOG`.

use std::{
    env,
    io::{self, IsTerminal as _},
};

use tracing_subscriber::EnvFilter;

/// Begins to log what `MILLSTREAM_LOG` asks for, and `default` without it. Once in a process.
///
/// # Errors
/// The variable is no filter.
pub fn init(default: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(env::var("MILLSTREAM_LOG").as_deref().unwrap_or(default))
        .map_err(|error| anyhow::anyhow!("MILLSTREAM_LOG: {error}"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    Ok(())
}
