//! `millstream pipeline`: which modules a topic's records go through.

mod history;
mod redrive;
mod view;
mod words;

use clap::Subcommand;
use millstream_client::v1;

use super::{
    Server,
    output::{OutputFormat, print},
};
use view::PipelineView;
pub use words::{ModuleRef, Param, Side};
use words::{StageArgs, side_or_both};

/// Verbs of `pipeline`.
#[derive(Debug, Subcommand)]
pub enum PipelineCommand {
    /// Append a module to a topic's pipeline
    Add {
        /// The topic
        topic: String,
        /// The module; it follows the module's current version where none is pinned
        #[arg(value_name = "MODULE[@N|@latest]")]
        module: ModuleRef,
        /// Between the client and the log, or between the log and every reader
        #[arg(long, value_enum)]
        on: Side,
        #[command(flatten)]
        stage: Box<StageArgs>,
        /// Leave out the trial call on recent records of the topic
        #[arg(long)]
        no_trial: bool,
        #[command(flatten)]
        server: Server,
    },
    /// Show a topic's pipeline, and how its stages fare on the agent
    Show {
        /// The topic
        topic: String,
        #[command(flatten)]
        server: Server,
    },
    /// Remove a module from a topic's pipeline
    Remove {
        /// The topic
        topic: String,
        /// Its position as `pipeline show` has it, counted from 0
        position: u32,
        /// The side it is on
        #[arg(long, value_enum)]
        on: Side,
        #[command(flatten)]
        server: Server,
    },
    /// Refuse every request to a topic until it is resumed
    Pause {
        /// The topic
        topic: String,
        /// Only producers, or only readers
        #[arg(long, value_enum)]
        on: Option<Side>,
        #[command(flatten)]
        server: Server,
    },
    /// End a pause, and let partitions go on that a failing module halted
    Resume {
        /// The topic
        topic: String,
        /// Only producers, or only readers
        #[arg(long, value_enum)]
        on: Option<Side>,
        #[command(flatten)]
        server: Server,
    },
    /// Show which pipelines a topic has had and why, and which of them wrote which offsets of a partition
    History(history::HistoryArgs),
    /// Send the records of a dead-letter topic through the pipeline of the topic that they came from again
    ///
    /// What was sent is taken from the dead-letter topic. Where that is interrupted records may be sent twice; none is lost.
    Redrive(redrive::RedriveArgs),
}

/// Runs a verb.
pub async fn run(command: PipelineCommand, output: OutputFormat) -> anyhow::Result<()> {
    let (topic, pipeline, status) = match command {
        PipelineCommand::History(args) => return history::run(args, output).await,
        PipelineCommand::Redrive(args) => return redrive::run(args, output).await,
        PipelineCommand::Add {
            topic,
            module,
            on,
            stage,
            no_trial,
            server,
        } => {
            let stage = stage.stage(module)?;
            let admin = server.admin().await?;
            let pipeline = admin.add_stage_with(&topic, on.into(), stage, no_trial).await?;
            (topic, pipeline, Vec::new())
        }
        PipelineCommand::Show { topic, server } => {
            let (pipeline, status) = server.admin().await?.pipeline(&topic).await?;
            (topic, pipeline, status)
        }
        PipelineCommand::Remove {
            topic,
            position,
            on,
            server,
        } => {
            let pipeline = server.admin().await?.remove_stage(&topic, on.into(), position).await?;
            (topic, pipeline, Vec::new())
        }
        PipelineCommand::Pause { topic, on, server } => {
            let pipeline = server.admin().await?.pause_pipeline(&topic, side_or_both(on)).await?;
            (topic, pipeline, Vec::new())
        }
        PipelineCommand::Resume { topic, on, server } => {
            let pipeline = server.admin().await?.resume_pipeline(&topic, side_or_both(on)).await?;
            (topic, pipeline, Vec::<v1::StageStatus>::new())
        }
    };
    let view = PipelineView::new(topic, pipeline, status);
    print(output, &view, || view.text())
}
