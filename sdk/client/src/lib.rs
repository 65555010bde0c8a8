//! The Millstream client.
//!
//! A [`Connection`] is one HTTP/2 connection to an agent, shared by everything that is made from it:
//!
//! - [`Admin`] creates and describes topics, deploys modules and binds them into pipelines;
//! - [`Producer`] collects records into batches and sends them, in order within each partition;
//! - [`Consumer`] reads partitions of one or several topics, as a stream of records;
//! - [`GroupConsumer`] shares the partitions of some topics with the other members of its group.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use futures::StreamExt;
//! use millstream_client::{Connection, Consumer, ConsumerSettings, NewRecord, Producer, ProducerSettings, Start};
//!
//! let connection = Connection::open("http://127.0.0.1:7070").await?;
//! let producer = Producer::open(&connection, "orders", ProducerSettings::default()).await?;
//! let record = NewRecord { timestamp_ms: 1_735_689_600_000, value: Some(b"hello"), ..NewRecord::default() };
//! let delivered = producer.send(record).await?.await?;
//! println!("partition {}, offset {:?}", delivered.partition, delivered.offset);
//! producer.close().await?;
//!
//! let mut consumer = Consumer::open(&connection, "orders", 0, Start::Earliest, ConsumerSettings::default()).await?;
//! while let Some(consumed) = consumer.next().await {
//!     let record = consumed?.record;
//!     println!("{}: {:?}", record.offset, record.value);
//! }
//! # Ok(())
//! # }
//! ```

mod admin;
mod agents;
mod connection;
mod consumer;
mod error;
#[cfg(test)]
mod fake;
mod group;
mod groups;
mod history;
mod logs;
mod modules;
mod partitioner;
mod pipelines;
mod producer;

pub use admin::{Admin, TopicStatus};
pub use connection::Connection;
pub use consumer::{Chunk, Consumed, Consumer, ConsumerSettings, Position, Record, Start};
pub use error::{ClientError, Reject};
pub use group::{Change, GroupConsumer, GroupConsumerSettings, GroupMember, GroupSettings, TopicPartition};
pub use logs::LogLines;
pub use millstream_proto::v1;
pub use partitioner::{murmur2, partition_for_key};
pub use producer::{BatchDelivery, Delivered, Delivery, NewRecord, ProduceError, Producer, ProducerSettings, Totals};
pub use tonic::Code;
