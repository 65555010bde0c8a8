//! `millstream pipeline`: which modules a topic's records go through.

mod alter;
mod history;
mod redrive;
mod view;
mod words;

use clap::Subcommand;
use millstream_client::{Admin, v1};

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
    /// Add a module to a topic's pipeline, behind those that there are or at a position
    Add {
        /// The topic
        topic: String,
        /// The module; it follows the module's current version where none is pinned
        #[arg(value_name = "MODULE[@N|@latest]")]
        module: ModuleRef,
        /// Between the client and the log, or between the log and every reader
        #[arg(long, value_enum)]
        on: Side,
        /// Put it before the module at this position, as `pipeline show` has it, counted from 0 [default: behind all]
        #[arg(long, value_name = "N")]
        position: Option<u32>,
        #[command(flatten)]
        stage: Box<StageArgs>,
        /// Leave out the trial call on recent records of the topic
        #[arg(long, alias = "no-trial-call")]
        no_trial: bool,
        /// Only where the pipeline is at this version [default, with --position: the one that it is at when the command begins]
        #[arg(long, value_name = "N")]
        if_version: Option<u64>,
        #[command(flatten)]
        server: Server,
    },
    /// Change a module's parameters, policy, limits or version in a topic's pipeline, or move it
    ///
    /// Every record goes through the stage as it was or as it is then: it switches between two batches. What is not named stays
    /// as it is.
    Alter(Box<alter::AlterArgs>),
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
        /// Only where the pipeline is at this version [default: the one that it is at when the command begins]
        #[arg(long, value_name = "N")]
        if_version: Option<u64>,
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
            position,
            stage,
            no_trial,
            if_version,
            server,
        } => {
            let stage = stage.stage(module)?;
            let admin = server.admin().await?;
            let expected_version = match position.is_some() || if_version.is_some() {
                true => Some(expected_version(&admin, &topic, if_version).await?),
                false => None,
            };
            let request = v1::AddStageRequest {
                topic: topic.clone(),
                side: v1::PipelineSide::from(on).into(),
                stage: Some(stage),
                no_trial_call: no_trial,
                position,
                expected_version,
            };
            (topic, admin.add_stage_with(request).await?, Vec::new())
        }
        PipelineCommand::Alter(args) => {
            let (topic, pipeline) = alter::run(*args).await?;
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
            if_version,
            server,
        } => {
            let admin = server.admin().await?;
            let expected = expected_version(&admin, &topic, if_version).await?;
            let pipeline = admin.remove_stage(&topic, on.into(), position, Some(expected)).await?;
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

/// The version that a change goes by: the one that is named, or what the pipeline is at. So a position is that of the stage
/// which the user could see, whatever others change meanwhile.
async fn expected_version(admin: &Admin, topic: &str, named: Option<u64>) -> anyhow::Result<u64> {
    match named {
        Some(version) => Ok(version),
        None => Ok(admin.pipeline(topic).await?.0.version),
    }
}
