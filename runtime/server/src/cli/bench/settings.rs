//! What a run is asked to do, and how it is told.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use millstream_batch::Compression;
use millstream_client::{ProducerSettings, v1};
use serde::Serialize;

use super::{
    super::{Server, topic::Acks},
    values::Values,
};

/// Values of records are no smaller: each begins with its number.
const VALUE_BYTES_MIN: usize = 8;
const VALUE_BYTES_MAX: usize = 1 << 20;
/// A batch that an agent takes has 16 MiB at most, with what goes around the records.
const BATCH_BYTES_MAX: usize = 15 << 20;
/// A topic keeps its records in one of so many partitions.
const PARTITIONS_MAX: u32 = 100_000;

/// Arguments of every verb.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Records to send
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    records: u64,
    /// Bytes of each value, 8 to 1,048,576
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    value_bytes: usize,
    /// What values are made of
    #[arg(long, value_enum, default_value_t)]
    values: Filling,
    /// Take the values from this file, one a line, again and again
    #[arg(long, value_name = "FILE", conflicts_with_all = ["values", "value_bytes"])]
    values_from: Option<PathBuf>,
    /// Bytes of a batch, about
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    batch_bytes: usize,
    /// Partitions of the topic, which is made for the run and deleted afterwards
    #[arg(long, value_name = "N", default_value_t = 1)]
    partitions: u32,
    /// Producers, each with a connection of its own and its share of the partitions
    #[arg(long, value_name = "N", default_value_t = 1)]
    producers: u32,
    /// Batches of one partition under way at once, 1 to 5
    #[arg(long, value_name = "N", default_value_t = 5)]
    in_flight: usize,
    /// When a record counts as acknowledged
    #[arg(long, value_enum, default_value = "durable")]
    acks: Acks,
    /// How batches are compressed on their way
    #[arg(long, value_enum, default_value_t)]
    compression: Codec,
    /// How the topic's segments are compressed [default: as batches are on their way]
    #[arg(long, value_enum)]
    segment_compression: Option<Codec>,
    /// HOST:PORT of the agent's metrics, which tell its processor time and memory
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7080")]
    metrics: String,
    #[command(flatten)]
    pub server: Server,
}

/// What synthetic values are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Filling {
    /// Words, which compress as text does
    #[default]
    Text,
    /// Random bytes, which do not compress
    Random,
}

/// How batches are compressed on their way, and segments in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Not at all
    #[default]
    None,
    /// LZ4
    Lz4,
    /// Zstandard
    Zstd,
}

impl From<Codec> for v1::Compression {
    fn from(codec: Codec) -> v1::Compression {
        match codec {
            Codec::None => v1::Compression::None,
            Codec::Lz4 => v1::Compression::Lz4,
            Codec::Zstd => v1::Compression::Zstd,
        }
    }
}

impl From<Codec> for Compression {
    fn from(compression: Codec) -> Compression {
        match compression {
            Codec::None => Compression::None,
            Codec::Lz4 => Compression::Lz4,
            Codec::Zstd => Compression::Zstd,
        }
    }
}

/// What a run does, all of which it tells.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    pub records: u64,
    /// On the average, where they come from a file.
    pub value_bytes: usize,
    pub values_from: String,
    pub batch_bytes: usize,
    pub partitions: u32,
    pub producers: u32,
    pub in_flight: usize,
    pub acks: &'static str,
    pub compression: Codec,
    pub segment_compression: Codec,
    /// Records a second; absent: as many as go through.
    pub rate: Option<u64>,
    #[serde(skip)]
    pub values: Values,
    #[serde(skip)]
    pub metrics: String,
}

impl Settings {
    pub fn new(args: &LoadArgs, rate: Option<u64>) -> anyhow::Result<Settings> {
        within("--records", args.records, 1, u64::MAX >> 1)?;
        within("--value-bytes", args.value_bytes, VALUE_BYTES_MIN, VALUE_BYTES_MAX)?;
        within("--batch-bytes", args.batch_bytes, 1, BATCH_BYTES_MAX)?;
        within("--partitions", args.partitions, 1, PARTITIONS_MAX)?;
        within("--producers", args.producers, 1, args.partitions)?;
        within("--in-flight", args.in_flight, 1, 5)?;
        if let Some(rate) = rate {
            within("--rate", rate, 1, 10_000_000)?;
        }
        let (values, values_from) = match &args.values_from {
            Some(path) => (Values::from_file(path)?, path.display().to_string()),
            None => (
                Values::synthetic(args.values, args.value_bytes),
                format!("{:?}", args.values).to_lowercase(),
            ),
        };
        Ok(Settings {
            records: args.records,
            value_bytes: values.mean_bytes(),
            values_from,
            batch_bytes: args.batch_bytes,
            partitions: args.partitions,
            producers: args.producers,
            in_flight: args.in_flight,
            acks: match args.acks {
                Acks::Durable => "durable",
                Acks::Memory => "memory",
            },
            compression: args.compression,
            segment_compression: args.segment_compression.unwrap_or(args.compression),
            rate,
            values,
            metrics: args.metrics.clone(),
        })
    }

    /// How many records of the whole a partition gets.
    pub fn share(&self, partition: u32) -> u64 {
        let (each, more) = (
            self.records / u64::from(self.partitions),
            self.records % u64::from(self.partitions),
        );
        each + u64::from(u64::from(partition) < more)
    }

    pub fn producer(&self) -> ProducerSettings {
        ProducerSettings {
            acks: match self.acks {
                "memory" => v1::Acks::Memory,
                _ => v1::Acks::Durable,
            },
            in_flight_max: self.in_flight,
            batch_bytes: self.batch_bytes,
            buffer_bytes_max: (self.in_flight * self.batch_bytes * 2).clamp(4 << 20, 64 << 20),
            ..ProducerSettings::default()
        }
    }

    /// Of the run's topic.
    pub fn topic(&self) -> v1::TopicConfig {
        v1::TopicConfig {
            compression: v1::Compression::from(self.segment_compression).into(),
            ..v1::TopicConfig::default()
        }
    }

    /// As people read it.
    pub fn text(&self) -> String {
        let rate = self
            .rate
            .map_or("as many as go through".to_owned(), |rate| format!("{rate} a second"));
        format!(
            "{} records ({rate}) with values of {} bytes ({}), batches of {} bytes, {} on the way, {} partitions, {} producers, \
             acks {}, compression of batches {:?}, of segments {:?}",
            self.records,
            self.value_bytes,
            self.values_from,
            self.batch_bytes,
            self.in_flight,
            self.partitions,
            self.producers,
            self.acks,
            self.compression,
            self.segment_compression,
        )
    }
}

fn within<T: PartialOrd + std::fmt::Display>(flag: &str, value: T, least: T, most: T) -> anyhow::Result<()> {
    if value < least || value > most {
        anyhow::bail!("{flag} is {value}; allowed are {least} to {most}");
    }
    Ok(())
}
