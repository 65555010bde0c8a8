//! `millstream bench`: how much an agent takes in and gives out, and how long that takes.
//!
//! It is a client like any other, over the client library. What it reads it checks: how many records there are, their order, and
//! every byte of their values. The agent's processor time and memory come from its metrics; beside the figures stand the
//! settings, and what the machine itself does.

mod consuming;
mod latencies;
mod machine;
mod producing;
mod report;
mod round_trip;
mod server;
mod settings;
mod values;

use clap::{Args, Subcommand};
use millstream_client::{Admin, Connection, v1};

use super::output::OutputFormat;
use machine::Machine;
use report::{Figures, Report};
use settings::{LoadArgs, Settings};

/// Verbs of `bench`.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Send records, as many as go through or at a rate
    Produce(ProduceArgs),
    /// Read records from the first one on, twice, after they were sent unmeasured
    Consume(ConsumeArgs),
    /// Send and read the same with and without a module
    Pipeline(PipelineArgs),
    /// Send records at a rate to a reader that waits for them
    E2e(E2eArgs),
}

/// Arguments of `bench produce`.
#[derive(Debug, Args)]
pub struct ProduceArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// Records a second, of all producers together [default: as many as go through]
    #[arg(long, value_name = "N")]
    rate: Option<u64>,
}

/// Arguments of `bench consume`.
#[derive(Debug, Args)]
pub struct ConsumeArgs {
    #[command(flatten)]
    load: LoadArgs,
}

/// Arguments of `bench pipeline`.
#[derive(Debug, Args)]
pub struct PipelineArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// A deployed module, and its version where that is not the current one: MODULE[@N]
    #[arg(long, value_name = "MODULE")]
    module: String,
    /// A parameter of the module
    #[arg(long = "param", value_name = "NAME=VALUE")]
    params: Vec<String>,
}

/// Arguments of `bench e2e`.
#[derive(Debug, Args)]
pub struct E2eArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// Records a second
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    rate: u64,
}

/// Runs a verb, on the runtime's threads as programs do: on the main thread every answer would wait for that to wake up.
pub async fn run(command: BenchCommand, output: OutputFormat) -> anyhow::Result<()> {
    let run = async move {
        match command {
            BenchCommand::Produce(args) => produce(args, output).await,
            BenchCommand::Consume(args) => consume(args, output).await,
            BenchCommand::Pipeline(args) => pipeline(args, output).await,
            BenchCommand::E2e(args) => e2e(args, output).await,
        }
    };
    tokio::spawn(run).await?
}

async fn produce(args: ProduceArgs, output: OutputFormat) -> anyhow::Result<()> {
    let bench = Bench::open(args.load, args.rate).await?;
    let produced = producing::run(&bench, &bench.topic).await;
    let checked = match &produced {
        Ok(_) => Some(consuming::run(&bench, &bench.topic, "checked").await),
        Err(_) => None,
    };
    bench.clean_up(&[&bench.topic]).await;
    let mut figures = vec![produced?];
    figures.extend(checked.transpose()?);
    bench.report("produce", figures, output)
}

async fn consume(args: ConsumeArgs, output: OutputFormat) -> anyhow::Result<()> {
    let bench = Bench::open(args.load, None).await?;
    let figures = async {
        producing::run(&bench, &bench.topic).await?;
        // Into segments: what is in memory would be read from there.
        bench.admin().topic_status(&bench.topic, true).await?;
        let first = consuming::run(&bench, &bench.topic, "consumed").await?;
        let again = consuming::run(&bench, &bench.topic, "consumed again").await?;
        anyhow::Ok(vec![first, again])
    };
    let figures = figures.await;
    bench.clean_up(&[&bench.topic]).await;
    bench.report("consume", figures?, output)
}

async fn pipeline(args: PipelineArgs, output: OutputFormat) -> anyhow::Result<()> {
    let stage = stage(&args)?;
    let bench = Bench::open(args.load, None).await?;
    let with = format!("{}-with", bench.topic);
    let figures = async {
        bench.create(&with).await?;
        bench.admin().add_stage(&with, v1::PipelineSide::Produce, stage).await?;
        let mut figures = Vec::new();
        // In turns, so that both meet the same machine.
        for round in 1..=2 {
            for (topic, what) in [(&bench.topic, "without"), (&with, "with the module")] {
                let mut produced = producing::run(&bench, topic).await?;
                produced.what = format!("{what}, round {round}");
                figures.push(produced);
            }
        }
        anyhow::Ok(figures)
    };
    let figures = figures.await;
    bench.clean_up(&[&bench.topic, &with]).await;
    bench.report("pipeline", figures?, output)
}

async fn e2e(args: E2eArgs, output: OutputFormat) -> anyhow::Result<()> {
    let bench = Bench::open(args.load, Some(args.rate)).await?;
    let figures = round_trip::run(&bench).await;
    bench.clean_up(&[&bench.topic]).await;
    bench.report("e2e", vec![figures?], output)
}

fn stage(args: &PipelineArgs) -> anyhow::Result<v1::Stage> {
    let (module, version) = match args.module.split_once('@') {
        Some((module, version)) => (module, version.parse()?),
        None => (args.module.as_str(), 0),
    };
    let params = args.params.iter().map(|param| {
        let (name, value) = param
            .split_once('=')
            .ok_or_else(|| anyhow::anyhow!("--param {param:?} is not NAME=VALUE"))?;
        Ok((name.to_owned(), value.to_owned()))
    });
    Ok(v1::Stage {
        module: module.to_owned(),
        version,
        params: params.collect::<anyhow::Result<_>>()?,
        ..v1::Stage::default()
    })
}

/// One run: an agent, a topic of its own, and what to send.
struct Bench {
    connection: Connection,
    settings: Settings,
    machine: Machine,
    topic: String,
}

impl Bench {
    async fn open(load: LoadArgs, rate: Option<u64>) -> anyhow::Result<Bench> {
        let settings = Settings::new(&load, rate)?;
        let connection = load.server.connect().await?;
        // Before the run, which leaves the agent at work for a while.
        let machine = tokio::task::spawn_blocking(machine::measure).await??;
        let topic = format!("bench-{:08x}", fastrand::u32(..));
        let bench = Bench {
            connection,
            settings,
            machine,
            topic,
        };
        bench.create(&bench.topic).await?;
        Ok(bench)
    }

    fn admin(&self) -> Admin {
        Admin::new(&self.connection)
    }

    /// A connection of its own for each producer and consumer, as programs have them.
    async fn connect(&self) -> anyhow::Result<Connection> {
        Ok(Connection::open(self.connection.url()).await?)
    }

    async fn create(&self, topic: &str) -> anyhow::Result<()> {
        let (partitions, config) = (self.settings.partitions, self.settings.topic());
        self.admin().create_topic(topic, partitions, config).await?;
        Ok(())
    }

    /// Deletes topics. Where that fails they are named: nobody else will look for them.
    async fn clean_up(&self, topics: &[&String]) {
        for topic in topics {
            if let Err(error) = self.admin().delete_topic(topic).await {
                tracing::warn!(topic, %error, "the bench's topic is left over");
            }
        }
    }

    fn report(&self, verb: &'static str, figures: Vec<Figures>, output: OutputFormat) -> anyhow::Result<()> {
        Report::new(verb, self.settings.clone(), self.machine, figures).print(output)
    }
}
