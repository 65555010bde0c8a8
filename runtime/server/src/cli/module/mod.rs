//! `millstream module`: from a crate to a deployed version.

mod build;
mod cargo;
mod component;
mod diff;
mod dry_run;
mod fate;
mod logs;
mod new;
mod sample;
mod test;
mod versions;
mod view;

use std::path::PathBuf;

use clap::Subcommand;

use super::{Server, output::OutputFormat};

/// Verbs of `module`.
#[derive(Debug, Subcommand)]
pub enum ModuleCommand {
    /// Write a Rust project of a module that builds and tests as it stands
    New(new::NewArgs),
    /// Make a component of a crate, or of a core module in any language
    Build {
        /// The crate's folder, or a core module's file
        #[arg(default_value = ".", value_name = "DIR|FILE.wasm")]
        source: PathBuf,
        /// Where the component goes [default: the crate's name with .wasm, here]
        #[arg(short = 'o', value_name = "FILE.wasm")]
        file: Option<PathBuf>,
    },
    /// Run a component on records without a broker, and show what becomes of each
    Test(test::TestArgs),
    /// Show which records come out differently of two versions
    ///
    /// It succeeds whether records differ or not; with --output json, `differ` counts them.
    Diff(diff::DiffArgs),
    /// Send a component to the agent as a module's next version, and switch every stage that follows it
    Deploy(versions::DeployArgs),
    /// List every version of every module
    List {
        #[command(flatten)]
        server: Server,
    },
    /// Show a version: its parameters, and what it imports
    Show(versions::ShowArgs),
    /// Make the version current, everywhere, that is being tried
    Promote(versions::PromoteArgs),
    /// Show what a module has logged lately on the agent
    Logs(logs::LogsArgs),
    /// Go back to the version before, or end what is being tried
    Rollback(versions::RollbackArgs),
}

/// Runs a verb.
pub async fn run(command: ModuleCommand, output: OutputFormat) -> anyhow::Result<()> {
    match command {
        ModuleCommand::New(args) => new::run(args, output),
        ModuleCommand::Build { source, file } => build::run(&source, file, output).await,
        ModuleCommand::Logs(args) => logs::run(args, output).await,
        ModuleCommand::Test(args) => test::run(args, output).await,
        ModuleCommand::Diff(args) => diff::run(args, output).await,
        ModuleCommand::Deploy(args) => versions::deploy(args, output).await,
        ModuleCommand::List { server } => versions::list(server, output).await,
        ModuleCommand::Show(args) => versions::show(args, output).await,
        ModuleCommand::Promote(args) => versions::promote(args, output).await,
        ModuleCommand::Rollback(args) => versions::rollback(args, output).await,
    }
}
