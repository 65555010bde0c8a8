//! `millstream topic`.

mod view;

use clap::{Args, Subcommand, ValueEnum};
use millstream_client::{Admin, v1};

use super::{
    Server,
    output::{OutputFormat, print},
    retention::{Retention, RetentionBytes},
    time::Place,
};
pub use view::show_time;
use view::{PartitionStart, PartitionView, StatusView, TopicView, partition_table, start_table, topic_table};

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
        #[command(flatten)]
        settings: TopicSettings,
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
    /// Change settings of a topic; what is not given stays as it is
    Alter {
        /// The topic
        name: String,
        /// Add partitions until there are so many; none is ever taken away
        #[arg(long, value_name = "N")]
        partitions: Option<u32>,
        #[command(flatten)]
        settings: TopicSettings,
        #[command(flatten)]
        server: Server,
    },
    /// Let go of old records
    Truncate {
        /// The topic
        name: String,
        /// The first record to keep: its offset, or @TIME (in UTC, ending in Z, like @2026-01-23T15:00:00Z, or
        /// milliseconds since 1970)
        #[arg(long, value_name = "OFFSET|@TIME")]
        before: Place,
        /// Only in this partition [default: all of them]
        #[arg(long, value_name = "P")]
        partition: Option<u32>,
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

/// What can be set about a topic.
#[derive(Clone, Debug, Args)]
pub struct TopicSettings {
    /// How long records are kept, like 168h, 7d, 30m or forever [default of a new topic: 7d]
    #[arg(long, value_name = "DURATION")]
    retention: Option<Retention>,
    /// Bytes that each partition keeps in the object store, or forever [default of a new topic: forever]
    #[arg(long, value_name = "BYTES")]
    retention_bytes: Option<RetentionBytes>,
    /// How segments are compressed [default of a new topic: lz4]
    #[arg(long, value_enum)]
    compression: Option<Compression>,
    /// A segment is written at this size [default of a new topic: the agent's setting]
    #[arg(long, value_name = "BYTES")]
    segment_bytes: Option<u64>,
    /// A segment is written at this age, like 10m [default of a new topic: the agent's setting]
    #[arg(long, value_name = "DURATION")]
    segment_age: Option<humantime::Duration>,
    /// Largest record that is taken, as encoded [default of a new topic: 1048576]
    #[arg(long, value_name = "BYTES")]
    record_bytes_max: Option<u32>,
    /// What the timestamps of records tell [default of a new topic: create]
    #[arg(long, value_enum)]
    timestamps: Option<Timestamps>,
    /// When producers are answered that do not say otherwise [default of a new topic: durable]
    #[arg(long, value_enum)]
    acks: Option<Acks>,
}

impl TopicSettings {
    /// As the agent takes them.
    fn config(&self) -> v1::TopicConfig {
        v1::TopicConfig {
            retention_ms: self.retention.map(Retention::config_ms),
            retention_bytes: self.retention_bytes.map(RetentionBytes::config),
            compression: self
                .compression
                .map_or(v1::Compression::Unspecified, v1::Compression::from)
                .into(),
            record_bytes_max: self.record_bytes_max,
            segment_bytes: self.segment_bytes,
            segment_age_ms: self
                .segment_age
                .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            timestamp_type: self
                .timestamps
                .map_or(v1::TimestampType::Unspecified, v1::TimestampType::from)
                .into(),
            default_acks: self.acks.map_or(v1::Acks::Unspecified, v1::Acks::from).into(),
        }
    }

    /// Whether nothing is set.
    fn is_empty(&self) -> bool {
        self.config() == v1::TopicConfig::default()
    }
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

/// What timestamps tell.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Timestamps {
    /// When the record was made, as its producer says
    Create,
    /// When it was appended, by the agent's clock
    Append,
}

/// When the agent answers.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Acks {
    /// Once it is on stable storage
    Durable,
    /// Once it is in memory: it may still be lost
    Memory,
}

/// Runs a verb.
pub async fn run(command: TopicCommand, output: OutputFormat) -> anyhow::Result<()> {
    match command {
        TopicCommand::Create {
            name,
            partitions,
            settings,
            server,
        } => {
            let admin = server.admin().await?;
            let topic = admin.create_topic(&name, partitions, settings.config()).await?;
            print_topic(output, topic)
        }
        TopicCommand::Alter {
            name,
            partitions,
            settings,
            server,
        } => {
            if settings.is_empty() && partitions.is_none() {
                anyhow::bail!(
                    "nothing to change: give --partitions, --retention, --retention-bytes, --compression, --segment-bytes, \
                     --segment-age, --record-bytes-max, --timestamps or --acks"
                );
            }
            let admin = server.admin().await?;
            let topic = admin.alter_topic(&name, settings.config(), partitions).await?;
            print_topic(output, topic)
        }
        TopicCommand::Truncate {
            name,
            before,
            partition,
            server,
        } => {
            let starts = truncate(&server.admin().await?, &name, before, partition).await?;
            print(output, &starts, || start_table(&starts))
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
            let status = server.admin().await?.topic_status(&name, false).await?;
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

fn print_topic(output: OutputFormat, topic: v1::Topic) -> anyhow::Result<()> {
    let topic = TopicView::from(topic);
    print(output, &topic, || topic_table(std::slice::from_ref(&topic)))
}

/// Truncates one partition or all of them.
async fn truncate(
    admin: &Admin,
    topic: &str,
    before: Place,
    partition: Option<u32>,
) -> anyhow::Result<Vec<PartitionStart>> {
    let partitions = match partition {
        Some(partition) => partition..partition.saturating_add(1),
        None => 0..admin.topic(topic).await?.partitions,
    };
    if matches!(before, Place::Offset(_)) && partitions.len() > 1 {
        anyhow::bail!(
            "an offset belongs to one partition: add --partition, 0 to {}",
            partitions.end - 1
        );
    }
    let mut starts = Vec::new();
    for partition in partitions {
        let before_offset = match before {
            Place::Offset(offset) => offset,
            Place::Time(ms) => {
                let offsets = admin.offsets(topic, partition, Some(ms)).await?;
                // All that is there is older.
                offsets.offset_at.unwrap_or(offsets.high_watermark)
            }
        };
        let log_start_offset = admin.truncate_topic(topic, partition, before_offset).await?;
        starts.push(PartitionStart {
            partition,
            log_start_offset,
        });
    }
    Ok(starts)
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

impl From<Timestamps> for v1::TimestampType {
    fn from(timestamps: Timestamps) -> v1::TimestampType {
        match timestamps {
            Timestamps::Create => v1::TimestampType::Create,
            Timestamps::Append => v1::TimestampType::Append,
        }
    }
}

impl From<Acks> for v1::Acks {
    fn from(acks: Acks) -> v1::Acks {
        match acks {
            Acks::Durable => v1::Acks::Durable,
            Acks::Memory => v1::Acks::Memory,
        }
    }
}
