//! `millstream demo`.

/// Arguments of `millstream demo`.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {}

/// Runs the demonstration.
pub async fn run(_args: DemoArgs) -> anyhow::Result<()> {
    anyhow::bail!("the demonstration is not part of this build")
}
