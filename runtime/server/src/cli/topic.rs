//! `millstream topic`.

use std::time::{Duration, UNIX_EPOCH};

use clap::{Subcommand, ValueEnum};
use indicatif::{BinaryBytes, HumanCount};
use millstream_client::v1;
use serde::Serialize;
use uuid::Uuid;

use super::{
    Server,
    output::{Column, OutputFormat, print, table},
    retention::Retention,
};

/// Verbs of `topic`.
#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Create a topic
    Create {
        /// 1 to 249 characters of a-z, A-Z, 0-9, '.', '_' and '-'
        name: String,
        /// How many partitions, 1 to 100,000
        #[arg(long, value_name = "N", default_value_t = 1)]
        partitions: u32,
        /// How long records are kept, like 168h, 7d, 30m or forever [default: 7d]
        #[arg(long, value_name = "DURATION")]
        retention: Option<Retention>,
        /// How segments are compressed [default: lz4]
        #[arg(long, value_enum)]
        compression: Option<Compression>,
        #[command(flatten)]
        server: Server,
    },
    /// List all topics
    List {
        #[command(flatten)]
        server: Server,
    },
    /// Show a topic and its partitions
    Show {
        /// The topic
        name: String,
        #[command(flatten)]
        server: Server,
    },
    /// Delete a topic with its records
    Delete {
        /// The topic
        name: String,
        #[command(flatten)]
        server: Server,
    },
}

/// How the blocks of segments are compressed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Compression {
    /// Fast
    Lz4,
    /// Not at all
    None,
    /// Small
    Zstd,
}

/// Runs a verb.
pub async fn run(command: TopicCommand, output: OutputFormat) -> anyhow::Result<()> {
    match command {
        TopicCommand::Create {
            name,
            partitions,
            retention,
            compression,
            server,
        } => {
            let config = v1::TopicConfig {
                retention_ms: retention.map(Retention::config_ms),
                compression: compression
                    .map_or(v1::Compression::Unspecified, v1::Compression::from)
                    .into(),
                record_bytes_max: None,
            };
            let topic = TopicView::from(server.admin().await?.create_topic(&name, partitions, config).await?);
            print(output, &topic, || topic_table(std::slice::from_ref(&topic)))
        }
        TopicCommand::List { server } => {
            let topics: Vec<_> = server
                .admin()
                .await?
                .topics()
                .await?
                .into_iter()
                .map(TopicView::from)
                .collect();
            print(output, &topics, || topic_table(&topics))
        }
        TopicCommand::Show { name, server } => {
            let status = server.admin().await?.topic(&name, false).await?;
            let view = StatusView {
                topic: status.topic.into(),
                status: status.partitions.into_iter().map(PartitionView::from).collect(),
            };
            print(output, &view, || {
                format!(
                    "{}\n{}",
                    topic_table(std::slice::from_ref(&view.topic)),
                    partition_table(&view.status)
                )
            })
        }
        TopicCommand::Delete { name, server } => {
            server.admin().await?.delete_topic(&name).await?;
            print(output, &serde_json::json!({ "deleted": name }), || {
                format!("topic {name} is deleted")
            })
        }
    }
}

/// A topic as `--output json` shows it.
#[derive(Serialize)]
struct TopicView {
    name: String,
    id: String,
    partitions: u32,
    retention: Retention,
    retention_ms: u64,
    compression: &'static str,
    record_bytes_max: u32,
    created_at_ms: i64,
}

#[derive(Serialize)]
struct StatusView {
    #[serde(flatten)]
    topic: TopicView,
    status: Vec<PartitionView>,
}

#[derive(Serialize)]
struct PartitionView {
    partition: u32,
    log_start_offset: u64,
    high_watermark: u64,
    committed_end: u64,
    segment_count: u64,
    raw_bytes: u64,
    stored_bytes: u64,
}

impl From<v1::Topic> for TopicView {
    fn from(topic: v1::Topic) -> TopicView {
        let config = topic.config.unwrap_or_default();
        let retention_ms = config.retention_ms.unwrap_or_default();
        let compression = match config.compression() {
            v1::Compression::None => "none",
            v1::Compression::Unspecified | v1::Compression::Lz4 => "lz4",
            v1::Compression::Zstd => "zstd",
        };
        TopicView {
            name: topic.name,
            id: Uuid::from_slice(&topic.id).map_or_else(|_| String::new(), |id| id.to_string()),
            partitions: topic.partitions,
            retention: Retention::from_config_ms(retention_ms),
            retention_ms,
            compression,
            record_bytes_max: config.record_bytes_max.unwrap_or_default(),
            created_at_ms: topic.created_at_ms,
        }
    }
}

impl From<v1::PartitionStatus> for PartitionView {
    fn from(status: v1::PartitionStatus) -> PartitionView {
        let v1::PartitionStatus {
            partition,
            log_start_offset,
            high_watermark,
            committed_end,
            segment_count,
            raw_bytes,
            stored_bytes,
        } = status;
        PartitionView {
            partition,
            log_start_offset,
            high_watermark,
            committed_end,
            segment_count,
            raw_bytes,
            stored_bytes,
        }
    }
}

impl From<Compression> for v1::Compression {
    fn from(compression: Compression) -> v1::Compression {
        match compression {
            Compression::Lz4 => v1::Compression::Lz4,
            Compression::None => v1::Compression::None,
            Compression::Zstd => v1::Compression::Zstd,
        }
    }
}

fn topic_table(topics: &[TopicView]) -> String {
    let columns = [
        Column::Left("topic"),
        Column::Right("partitions"),
        Column::Right("retention"),
        Column::Left("compression"),
        Column::Left("created"),
    ];
    let rows = topics.iter().map(|topic| {
        vec![
            topic.name.clone(),
            HumanCount(topic.partitions.into()).to_string(),
            topic.retention.to_string(),
            topic.compression.to_owned(),
            show_time(topic.created_at_ms),
        ]
    });
    table(&columns, rows)
}

fn partition_table(partitions: &[PartitionView]) -> String {
    let columns = [
        Column::Right("partition"),
        Column::Right("from"),
        Column::Right("to"),
        Column::Right("in segments to"),
        Column::Right("segments"),
        Column::Right("raw"),
        Column::Right("stored"),
    ];
    let rows = partitions.iter().map(|status| {
        vec![
            status.partition.to_string(),
            HumanCount(status.log_start_offset).to_string(),
            HumanCount(status.high_watermark).to_string(),
            HumanCount(status.committed_end).to_string(),
            HumanCount(status.segment_count).to_string(),
            BinaryBytes(status.raw_bytes).to_string(),
            BinaryBytes(status.stored_bytes).to_string(),
        ]
    });
    table(&columns, rows)
}

/// Milliseconds since the Unix epoch as a date and time in UTC.
pub fn show_time(ms: i64) -> String {
    u64::try_from(ms)
        .ok()
        .and_then(|ms| UNIX_EPOCH.checked_add(Duration::from_millis(ms)))
        // RFC 3339 ends with the year 9999.
        .filter(|_| ms < 253_402_300_800_000)
        .map_or_else(
            || ms.to_string(),
            |time| humantime::format_rfc3339_seconds(time).to_string(),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_utc_and_absurd_ones_as_they_are() {
        assert_eq!(show_time(1_735_689_600_999), "2025-01-01T00:00:00Z");
        assert_eq!(show_time(-1), "-1");
        assert_eq!(show_time(i64::MAX), i64::MAX.to_string());
    }

    #[test]
    fn a_topic_in_json_has_plain_fields() {
        let topic = v1::Topic {
            name: "orders".to_owned(),
            id: vec![1; 16].into(),
            partitions: 3,
            config: Some(v1::TopicConfig {
                retention_ms: Some(604_800_000),
                compression: v1::Compression::Zstd.into(),
                record_bytes_max: Some(1 << 20),
            }),
            created_at_ms: 5,
        };
        let json = serde_json::to_value(TopicView::from(topic)).unwrap();
        let expected = serde_json::json!({
            "name": "orders", "id": "01010101-0101-0101-0101-010101010101", "partitions": 3, "retention": "7d",
            "retention_ms": 604_800_000, "compression": "zstd", "record_bytes_max": 1_048_576, "created_at_ms": 5,
        });
        assert_eq!(json, expected);
    }
}
