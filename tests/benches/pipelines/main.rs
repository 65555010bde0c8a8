//! Pipelines on a running agent over gRPC: what records cost that go through a filter, what a module that loops does to
//! others, how long a deployment takes, and what many instances take in memory.
//!
//! Everything that is compared comes from one run, in turns, so that the ratios hold on a busy machine too. Arguments name
//! the measurements to run: `cargo bench --bench pipelines -- produce`.

mod consuming;
mod deploying;
mod instances;
mod load;
mod looping;
mod producing;

use std::env;

/// One line of the table.
fn row(what: &str, measured: impl std::fmt::Display, aim: &str) {
    println!("| {what} | {measured} | {aim} |");
}

fn main() {
    let wanted: Vec<String> = env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| name.contains(&**wanted));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime starts");
    println!("| what | measured | aim |");
    println!("|---|---|---|");
    runtime.block_on(async {
        if is_wanted("produce") {
            producing::run().await;
        }
        if is_wanted("consume") {
            consuming::run().await;
        }
        if is_wanted("looping") {
            looping::run().await;
        }
        if is_wanted("deploy") {
            deploying::run().await;
        }
        if is_wanted("instances") {
            instances::run().await;
        }
    });
}
