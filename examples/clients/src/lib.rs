//! Small programs that use the Rust client, to copy from. Each takes the agent's address, which is
//! `http://127.0.0.1:7070` where none is given:
//!
//! ```console
//! $ cargo run -p millstream-examples --example admin
//! $ cargo run -p millstream-examples --example produce
//! $ cargo run -p millstream-examples --example consume
//! $ cargo run -p millstream-examples --example group
//! ```

use std::env;

/// The agent's address: the first argument of the program.
pub fn server() -> String {
    env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:7070".to_owned())
}

/// The topic that the programs share.
pub const TOPIC: &str = "greetings";
