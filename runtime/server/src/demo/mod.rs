//! `millstream demo`: an agent in this process, three topics, two modules, and a look at everything that comes back.
//!
//! `topics` says what there is, `generate` draws the records, `steps` goes through the agent over gRPC as any client
//! would, `check` compares what was read with what it must be, and `report` prints. The first difference ends the run.

mod check;
mod generate;
mod report;
mod steps;
mod topics;

use std::{
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use millstream_client::Connection;
use tempfile::TempDir;

use crate::{
    cli::output::{OutputFormat, print},
    config::Settings,
    logging::{self, LogFormat},
    serve::Agent,
};
use report::{Narrator, Report};
use steps::Steps;
use topics::TOPICS;

/// A port that the system chooses, on this machine only.
const ANY_PORT: &str = "127.0.0.1:0";

/// Arguments of `millstream demo`.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Folder with redact.wasm and json-filter.wasm
    #[arg(long, value_name = "DIR", default_value = "target/demo")]
    modules: PathBuf,
    /// Keep the agent's data in this folder [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Produce only so much of the records, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 100, hide = true,
        value_parser = clap::value_parser!(u64).range(1..=100))]
    scale: u64,
}

/// Runs the demonstration.
pub async fn run(args: DemoArgs, output: OutputFormat) -> anyhow::Result<()> {
    logging::init("off", LogFormat::Text)?;
    let started = Instant::now();
    let narrator = Narrator::new(output);
    let modules = steps::read_modules(&args.modules).await?;
    let home = Home::open(args.data_dir.clone())?;

    let agent = Agent::start(settings(home.path())).await?;
    narrator.say(&format!(
        "An agent on {}: SQLite, local files and a disk WAL in {}",
        agent.grpc_address,
        home.path().display()
    ))?;
    let connection = Connection::open(&format!("http://{}", agent.grpc_address)).await;
    let shown = match connection {
        Ok(connection) => {
            let steps = Steps::new(connection, narrator, args.scale);
            steps.run(modules, &progress(args.scale)).await
        }
        Err(error) => Err(error.into()),
    };
    agent.stop().await;
    let report = Report::new(shown?);

    print(output, &report, || report.text())?;
    narrator.say(&format!(
        "Every record was read back and compared: nothing lost, doubled, reordered or altered. {:.1} s in all.",
        started.elapsed().as_secs_f64()
    ))?;
    narrator.say(&what_next(&args))
}

fn settings(data_dir: &Path) -> Settings {
    Settings {
        data_dir: data_dir.to_owned(),
        listen: ANY_PORT.to_owned(),
        http: ANY_PORT.to_owned(),
        ..Settings::default()
    }
}

/// A bar for all records of all topics that shows only on a terminal.
fn progress(scale: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let records = TOPICS.iter().map(|topic| topic.records_at(scale)).sum();
    let style = ProgressStyle::with_template("  {bar:40} {human_pos}/{human_len} records, {eta} left, {msg}");
    ProgressBar::new(records).with_style(style.expect("the template is well-formed"))
}

/// The folder of the agent.
enum Home {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Home {
    /// Makes the folder. One that was named must not hold anything yet.
    fn open(named: Option<PathBuf>) -> anyhow::Result<Home> {
        let Some(dir) = named else {
            let dir = tempfile::Builder::new().prefix("millstream-demo-").tempdir();
            return Ok(Home::Temporary(dir.context("cannot make a temporary folder")?));
        };
        let cannot = || format!("cannot use the data folder {}", dir.display());
        std::fs::create_dir_all(&dir).with_context(cannot)?;
        if std::fs::read_dir(&dir).with_context(cannot)?.next().is_some() {
            bail!(
                "the data folder {} is not empty; the demonstration needs a new one",
                dir.display()
            );
        }
        Ok(Home::Kept(dir))
    }

    fn path(&self) -> &Path {
        match self {
            Home::Temporary(dir) => dir.path(),
            Home::Kept(dir) => dir,
        }
    }
}

/// Three commands to go on with.
fn what_next(args: &DemoArgs) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "millstream".to_owned());
    let modules = args.modules.display();
    let commands = match &args.data_dir {
        None => [
            format!("demo --modules {modules} --data-dir demo-data"),
            "serve --data-dir demo-data".to_owned(),
            "consume orders --max 3".to_owned(),
        ],
        Some(dir) => [
            format!("serve --data-dir {}", dir.display()),
            "consume orders --max 3".to_owned(),
            "pipeline show orders".to_owned(),
        ],
    };
    let lines = commands.map(|command| format!("\n  {program} {command}"));
    format!("Try next:{}", lines.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_holds_something_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Home::open(Some(dir.path().join("new"))).is_ok());
        let Err(error) = Home::open(Some(dir.path().to_owned())) else {
            panic!("it holds a folder");
        };
        assert!(error.to_string().contains("is not empty"), "{error}");
    }

    #[test]
    fn three_commands_are_named() {
        for data_dir in [None, Some(PathBuf::from("kept"))] {
            let args = DemoArgs {
                modules: PathBuf::from("m"),
                data_dir,
                scale: 100,
            };
            assert_eq!(what_next(&args).lines().count(), 4);
        }
    }
}
