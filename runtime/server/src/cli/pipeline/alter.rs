//! `millstream pipeline alter`: changing a stage in its place.

use clap::Args;
use millstream_client::v1;

use super::{
    Param, Side, expected_version,
    words::{LimitArgs, OnError, milliseconds, policy, unique, version},
};
use crate::cli::Server;

/// Arguments of `pipeline alter`.
#[derive(Debug, Args)]
pub struct AlterArgs {
    /// The topic
    topic: String,
    /// The side it is on
    #[arg(long, value_enum)]
    on: Side,
    /// Its position as `pipeline show` has it, counted from 0
    #[arg(long, value_name = "N")]
    position: u32,
    /// Set a parameter of the module; may repeat
    #[arg(long = "param", value_name = "NAME=VALUE")]
    params: Vec<Param>,
    /// Leave a parameter to the module's default again; may repeat
    #[arg(long = "unset-param", value_name = "NAME")]
    unset_params: Vec<String>,
    /// What happens to a record that the module refuses or fails on
    #[arg(long, value_enum)]
    on_error: Option<OnError>,
    /// Where dead letters go, made where it is missing; '' for TOPIC.dead-letter
    #[arg(long, value_name = "TOPIC")]
    dead_letter: Option<String>,
    /// Give all limits back to the agent, but for those that are named beside
    #[arg(long)]
    default_limits: bool,
    #[command(flatten)]
    limits: LimitArgs,
    /// Failed batches in a row after which the module is left alone for a while; 0 for never
    #[arg(long, value_name = "N")]
    breaker_failures: Option<u32>,
    /// How long it is left alone before a batch is tried; doubles while that fails
    #[arg(long, value_name = "TIME")]
    breaker_cooldown: Option<humantime::Duration>,
    /// Run this version of the module, or follow its current one
    #[arg(long = "version", value_name = "N|latest", value_parser = version)]
    module_version: Option<u32>,
    /// Put it at this position; others make room
    #[arg(long, value_name = "N")]
    move_to: Option<u32>,
    /// Leave out the trial call on recent records of the topic
    #[arg(long, alias = "no-trial-call")]
    no_trial: bool,
    /// Only where the pipeline is at this version [default: the one that it is at when the command begins]
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
    #[command(flatten)]
    server: Server,
}

impl AlterArgs {
    fn change(&mut self) -> anyhow::Result<v1::StageChange> {
        let limits = std::mem::take(&mut self.limits).message();
        let change = v1::StageChange {
            set_params: unique(std::mem::take(&mut self.params))?,
            unset_params: std::mem::take(&mut self.unset_params),
            on_error: policy(self.on_error, self.dead_letter.as_deref())?.into(),
            dead_letter_topic: self.dead_letter.take(),
            default_limits: self.default_limits,
            limits: (limits != v1::StageLimits::default()).then_some(limits),
            breaker_failures: self.breaker_failures,
            breaker_cooldown_ms: self.breaker_cooldown.map(milliseconds),
            version: self.module_version,
            move_to: self.move_to,
        };
        if change == v1::StageChange::default() {
            anyhow::bail!("nothing to change is named; `millstream pipeline alter --help` shows what can be");
        }
        Ok(change)
    }
}

/// Runs `pipeline alter`: the topic, and its pipeline then.
pub(super) async fn run(mut args: AlterArgs) -> anyhow::Result<(String, v1::Pipeline)> {
    let change = args.change()?;
    let admin = args.server.admin().await?;
    let expected = expected_version(&admin, &args.topic, args.if_version).await?;
    let request = v1::AlterStageRequest {
        topic: args.topic.clone(),
        side: v1::PipelineSide::from(args.on).into(),
        position: args.position,
        change: Some(change),
        no_trial_call: args.no_trial,
        expected_version: Some(expected),
    };
    Ok((args.topic, admin.alter_stage(request).await?))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: AlterArgs,
    }

    fn change(words: &str) -> anyhow::Result<v1::StageChange> {
        let all = format!("alter t --on produce --position 1 {words}");
        Command::try_parse_from(all.split_whitespace())?.args.change()
    }

    #[test]
    fn only_what_is_named_is_asked_for() {
        assert!(change("").unwrap_err().to_string().starts_with("nothing to change"));
        assert!(change("--param a=1 --param a=2").is_err());
        let moved = v1::StageChange {
            move_to: Some(0),
            ..v1::StageChange::default()
        };
        assert_eq!(change("--move-to 0").unwrap(), moved);
        let follows = change("--version latest --unset-param a --cpu-ms 5").unwrap();
        assert_eq!((follows.version, follows.unset_params), (Some(0), vec!["a".to_owned()]));
        assert_eq!(follows.limits.unwrap().cpu_ms, Some(5));
        assert!(change("--version 0").is_err());
    }

    #[test]
    fn a_topic_for_dead_letters_asks_for_them() {
        let letters = change("--dead-letter lost").unwrap();
        assert_eq!(letters.on_error(), v1::OnError::DeadLetter);
        assert_eq!(letters.dead_letter_topic.as_deref(), Some("lost"));
        assert!(change("--dead-letter lost --on-error skip").is_err());
    }
}
