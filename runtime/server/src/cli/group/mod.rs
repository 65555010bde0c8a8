//! `millstream group`.

mod view;

use std::str::FromStr;

use clap::Subcommand;
use millstream_client::v1::{self, start_position::Position};

use super::{
    Server,
    output::{OutputFormat, print},
    time::Place,
};
use view::{GroupView, OffsetView, SummaryView, offset_table, summary_table};

/// Verbs of `group`.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List all groups
    List {
        #[command(flatten)]
        server: Server,
    },
    /// Show a group: its members, what each reads, and how far it is behind
    Show {
        /// The group
        name: String,
        #[command(flatten)]
        server: Server,
    },
    /// Move the committed offsets of a group without members
    ///
    /// All of them move, or none after an error. One agent has to lead all that is moved: where several lead the partitions,
    /// reset them one by one with --topic and --partition.
    Reset {
        /// The group
        name: String,
        /// Where it goes on reading: earliest, latest, an offset, or @TIME (in UTC, ending in Z, like @2026-01-23T15:00:00Z, or
        /// milliseconds since 1970): the first record at or after it
        #[arg(long, value_name = "earliest|latest|OFFSET|@TIME", allow_hyphen_values = true)]
        to: Target,
        /// Only in this topic; may repeat [default: wherever it has committed offsets]
        #[arg(long = "topic", value_name = "TOPIC")]
        topics: Vec<String>,
        /// Only this partition of the topic
        #[arg(long, value_name = "P", requires = "topics")]
        partition: Option<u32>,
        /// Show where it would go on, and change nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        server: Server,
    },
    /// Forget a group without members, and what it has committed
    Delete {
        /// The group
        name: String,
        #[command(flatten)]
        server: Server,
    },
}

/// `--to`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target(Position);

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        let position = match text {
            "earliest" => Position::Earliest(true),
            "latest" => Position::Latest(true),
            _ => match text.parse() {
                Ok(Place::Offset(offset)) => Position::Offset(offset),
                Ok(Place::Time(ms)) => Position::TimestampMs(ms),
                Err(reason) if text.starts_with('@') => return Err(reason),
                Err(_) => return Err("it is none of earliest, latest, an offset and @TIME".to_owned()),
            },
        };
        Ok(Target(position))
    }
}

/// Runs a verb.
pub async fn run(command: GroupCommand, output: OutputFormat) -> anyhow::Result<()> {
    match command {
        GroupCommand::List { server } => {
            let groups = server.admin().await?.groups().await?;
            let groups: Vec<SummaryView> = groups.into_iter().map(SummaryView::from).collect();
            print(output, &groups, || summary_table(&groups))
        }
        GroupCommand::Show { name, server } => {
            let group = GroupView::from(server.admin().await?.group(&name).await?);
            print(output, &group, || group.text())
        }
        GroupCommand::Reset {
            name,
            to,
            topics,
            partition,
            dry_run,
            server,
        } => {
            let (topics, partitions) = places(topics, partition)?;
            let request = v1::ResetGroupRequest {
                group: name,
                partitions,
                topics,
                to: Some(v1::StartPosition { position: Some(to.0) }),
                dry_run,
            };
            let offsets = server.admin().await?.reset_group(request).await?;
            let offsets: Vec<OffsetView> = offsets.into_iter().map(OffsetView::from).collect();
            print(output, &offsets, || offset_table(&offsets))
        }
        GroupCommand::Delete { name, server } => {
            server.admin().await?.delete_group(&name).await?;
            print(output, &serde_json::json!({ "deleted": name }), || {
                format!("deleted {name}")
            })
        }
    }
}

/// Whole topics, or one partition of one.
fn places(topics: Vec<String>, partition: Option<u32>) -> anyhow::Result<(Vec<String>, Vec<v1::TopicPartition>)> {
    match (partition, topics.as_slice()) {
        (None, _) => Ok((topics, Vec::new())),
        (Some(partition), [topic]) => {
            let topic = topic.clone();
            Ok((Vec::new(), vec![v1::TopicPartition { topic, partition }]))
        }
        (Some(_), _) => anyhow::bail!("a partition belongs to one topic: name one --topic with --partition"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_word_an_offset_or_a_time() {
        for (text, position) in [
            ("earliest", Position::Earliest(true)),
            ("latest", Position::Latest(true)),
            ("17", Position::Offset(17)),
            ("@5", Position::TimestampMs(5)),
        ] {
            assert_eq!(text.parse(), Ok(Target(position)), "{text}");
        }
        for text in ["", "-1", "soon", "@soon", "5x"] {
            assert!(text.parse::<Target>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_partition_needs_its_topic() {
        let topics = |count| vec!["t".to_owned(); count];
        assert!(places(topics(2), Some(1)).is_err());
        assert_eq!(places(topics(1), Some(1)).unwrap().1[0].partition, 1);
        assert_eq!(places(topics(2), None).unwrap().0.len(), 2);
    }
}
