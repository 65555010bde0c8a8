//! The command line, noun then verb, one file per noun.
//!
//! Results go to standard output: a table for people, JSON under `--output json`. Errors are one line on standard error
//! and an exit code other than 0. Ctrl-C ends with 130.

mod agent;
mod bench;
mod consume;
mod group;
mod meta;
mod module;
mod others;
pub mod output;
mod pipeline;
mod produce;
mod record_json;
mod retention;
mod segment;
pub mod serve;
mod time;
mod topic;

use std::{
    env,
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use millstream_client::{Admin, Connection};

use crate::{demo, doctor};
use output::{OutputFormat, PipeClosed};

/// The exit code of a command that Ctrl-C ended: 128 and the number of SIGINT.
const EXIT_INTERRUPTED: u8 = 130;

/// Millstream: a broker whose partitions run WebAssembly modules on records.
#[derive(Debug, Parser)]
#[command(name = "millstream", version, arg_required_else_help = true)]
pub struct Cli {
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value_t)]
    output: OutputFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run an agent
    Serve(serve::ServeArgs),
    /// Show the whole of it at work on an agent of its own
    Demo(demo::DemoArgs),
    /// Try out what an agent with these settings would rely on: ports, disk, database and object store
    Doctor(doctor::DoctorArgs),
    /// Create, list, show, alter, truncate and delete topics
    #[command(subcommand)]
    Topic(topic::TopicCommand),
    /// Send records to a topic, one a line
    Produce(produce::ProduceArgs),
    /// Read the records of a topic
    Consume(consume::ConsumeArgs),
    /// Measure how much an agent takes in and gives out, and how long that takes
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// List, show, reset and delete consumer groups
    #[command(subcommand)]
    Group(group::GroupCommand),
    /// Begin, build and test modules; deploy, try, promote and roll back their versions
    #[command(subcommand)]
    Module(module::ModuleCommand),
    /// Bind modules to topics
    #[command(subcommand)]
    Pipeline(pipeline::PipelineCommand),
    /// List agents
    #[command(subcommand)]
    Agent(agent::AgentCommand),
    /// Export, import and rebuild the metadata
    #[command(subcommand)]
    Meta(meta::MetaCommand),
    /// Look into segment files
    #[command(subcommand)]
    Segment(segment::SegmentCommand),
}

/// Which agent a command talks to.
#[derive(Clone, Debug, Args)]
struct Server {
    /// The agent's gRPC address [env: MILLSTREAM_SERVER] [default: http://127.0.0.1:7070]
    // Where clap reads the variable itself, its usage lines say that the flag is required.
    #[arg(long = "server", value_name = "URL")]
    url: Option<String>,
}

/// Names the agent where no flag does.
const ENV_SERVER: &str = "MILLSTREAM_SERVER";
/// The agent where nothing names one.
const DEFAULT_SERVER: &str = "http://127.0.0.1:7070";

impl Server {
    async fn connect(&self) -> anyhow::Result<Connection> {
        let url = match &self.url {
            Some(url) => url.clone(),
            None => env::var(ENV_SERVER).unwrap_or_else(|_| DEFAULT_SERVER.to_owned()),
        };
        Ok(Connection::open(&url).await?)
    }

    async fn admin(&self) -> anyhow::Result<Admin> {
        Ok(Admin::new(&self.connect().await?))
    }
}

impl Cli {
    /// Runs the command that was given.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let output = self.output;
        match self.command {
            Command::Serve(args) => serve::run(args).await.map(|()| ExitCode::SUCCESS),
            Command::Produce(args) => produce::run(args, output).await,
            Command::Consume(args) => consume::run(args).await,
            Command::Demo(args) => interruptible(demo::run(args, output)).await,
            Command::Doctor(args) => interruptible(doctor::run(args, output)).await,
            Command::Topic(command) => interruptible(topic::run(command, output)).await,
            Command::Bench(command) => interruptible(bench::run(command, output)).await,
            Command::Group(command) => interruptible(group::run(command, output)).await,
            Command::Module(command) => interruptible(module::run(command, output)).await,
            Command::Pipeline(command) => interruptible(pipeline::run(command, output)).await,
            Command::Agent(command) => interruptible(agent::run(command, output)).await,
            Command::Meta(command) => interruptible(meta::run(command, output)).await,
            Command::Segment(command) => interruptible(segment::run(command, output)).await,
        }
    }
}

/// Runs a command that has nothing to finish when Ctrl-C ends it.
async fn interruptible(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    tokio::select! {
        result = command => result.map(|()| ExitCode::SUCCESS),
        signal = tokio::signal::ctrl_c() => {
            signal?;
            Ok(ExitCode::from(EXIT_INTERRUPTED))
        }
    }
}

/// Tells why a command failed. A closed pipe, as under `| head`, is no failure.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if error.is::<PipeClosed>() {
        return ExitCode::SUCCESS;
    }
    // Where standard error is closed as well there is nobody left to tell.
    let _ = writeln!(io::stderr(), "error: {}", one_line(&format!("{error:#}")));
    ExitCode::FAILURE
}

/// Errors from afar may come in several lines.
fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_error_is_one_line() {
        assert_eq!(
            one_line("no such thing\n\n  caused by: a\n"),
            "no such thing; caused by: a"
        );
    }

    #[test]
    fn a_server_can_be_named_behind_every_client_command() {
        for line in [
            "millstream topic list --server http://a:1 --output json",
            "millstream --output json topic show t --server http://a:1",
            "millstream topic create t --partitions 3 --retention 168h --compression zstd",
            "millstream topic create t --retention-bytes 1000 --segment-bytes 100 --segment-age 1m",
            "millstream topic alter t --retention forever --retention-bytes forever --compression none",
            "millstream topic alter t --segment-bytes 1000000 --segment-age 30s",
            "millstream topic alter t --partitions 4 --timestamps append --acks memory --record-bytes-max 5",
            "millstream topic truncate t --before 17 --partition 1",
            "millstream topic truncate t --before @2026-01-23T15:00:00Z",
            "millstream topic delete t",
            "millstream consume t --from @2026-01-23T15:00:00Z",
            "millstream consume t --from @1769180400000",
            "millstream consume t --group g --from latest --follow",
            "millstream doctor --data-dir d --store s3://b/p --config c --output json",
            "millstream produce t --file f --key-field user --acks memory",
            "millstream consume t --partition 1 --from 17 --max 3 --follow --format json",
            "millstream bench produce --records 5 --value-bytes 8 --batch-bytes 9 --partitions 2 --producers 2 --rate 7",
            "millstream bench consume --values random --acks memory --compression zstd --in-flight 1 --output json",
            "millstream bench pipeline --module m@2 --param a=b --values-from f --server http://a:1",
            "millstream bench e2e --rate 10 --metrics a:1",
            "millstream group list --output json",
            "millstream group show g",
            "millstream group reset g --to earliest",
            "millstream group reset g --to @2026-01-23T15:00:00Z --topic a --topic b --dry-run",
            "millstream group reset g --to 17 --topic t --partition 3",
            "millstream group delete g",
            "millstream module new mask --dir d --sdk s",
            "millstream module build dir -o x.wasm",
            "millstream module test x.wasm --input f --format json --param a=b --expect g --on-fetch --output json",
            "millstream module test x.wasm --from t --partition 1 --offset 5 --max 10 --server http://a:1",
            "millstream module diff m@3 x.wasm --from t --partition 1 --offset 5 --max 10 --param a=b",
            "millstream module deploy x.wasm --name x --server http://a:1",
            "millstream module deploy x.wasm --canary 0,1 --no-trial",
            "millstream module deploy x.wasm --shadow",
            "millstream module list",
            "millstream module show m@3",
            "millstream module promote m",
            "millstream module rollback m --to 2",
            "millstream pipeline history t --partition 1 --offset 5",
            "millstream module logs m --topic t --follow",
            "millstream pipeline add t m@3 --on produce --param a=b --param c=d=e",
            "millstream pipeline add t m --on produce --on-error dead-letter --dead-letter d --breaker-failures 0",
            "millstream pipeline add t m --on fetch --cpu-ms 5 --memory 9 --output-growth 2 --breaker-cooldown 1s --no-trial",
            "millstream pipeline show t",
            "millstream pipeline pause t --on fetch",
            "millstream pipeline resume t",
            "millstream pipeline redrive t.dead-letter --max 10",
            "millstream pipeline remove t 0 --on fetch",
            "millstream meta export --out f --data-dir d --metadata postgres://a@b/c --config c --output json",
            "millstream meta import f --running --data-dir d --metadata sqlite:m",
            "millstream meta rebuild --dry-run --on-gap keep-back --data-dir d --store s3://b/p --metadata sqlite:m",
            "millstream agent list --server http://a:1 --output json",
            "millstream segment dump f --output json",
            "millstream serve --data-dir d --listen a:1 --http a:2 --metadata sqlite:m --store file:s --config c",
            "millstream serve --log-format json",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }

    #[test]
    fn one_key_is_enough() {
        let line = "millstream produce t --key a --key-field b";
        assert!(Cli::try_parse_from(line.split(' ')).is_err());
    }
}
