//! `TopicService`.

use bytes::Bytes;
use millstream_batch::{Compression, Offset};
use millstream_broker::{Acks, NewTopic, PartitionStatus, TimestampType, Topic, TopicChange, TopicConfig};
use millstream_proto::v1;
use tonic::{Request, Response, Status};

use super::{
    Api,
    enums::{acks, known},
    status::status,
};

const COMPRESSIONS: &str = "1 (none), 2 (lz4), 3 (zstd), and 0 for the default or as it is";
const TIMESTAMP_TYPES: &str = "1 (create), 2 (append), and 0 for the default or as it is";

#[tonic::async_trait]
impl v1::topic_service_server::TopicService for Api {
    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        let request = request.into_inner();
        let config = config(self.broker.topic_defaults(), &request.config.unwrap_or_default())?;
        let new = NewTopic {
            name: request.name,
            partitions: request.partitions,
            config,
        };
        let topic = self.broker.create_topic(new).await.map_err(status)?;
        Ok(Response::new(v1::CreateTopicResponse {
            topic: Some(topic_message(&topic)),
        }))
    }

    async fn list_topics(&self, _: Request<v1::ListTopicsRequest>) -> Result<Response<v1::ListTopicsResponse>, Status> {
        let topics = self.broker.topics().await.iter().map(topic_message).collect();
        Ok(Response::new(v1::ListTopicsResponse { topics }))
    }

    async fn get_topic(&self, request: Request<v1::GetTopicRequest>) -> Result<Response<v1::GetTopicResponse>, Status> {
        let request = request.into_inner();
        if request.without_partitions && !request.flush {
            let topic = self.told(self.broker.describe(&request.name).await).await?;
            return Ok(Response::new(v1::GetTopicResponse {
                topic: Some(topic_message(&topic)),
                partitions: Vec::new(),
            }));
        }
        let told = self.told(self.broker.topic(&request.name, request.flush).await);
        let (topic, partitions) = told.await?;
        Ok(Response::new(v1::GetTopicResponse {
            topic: Some(topic_message(&topic)),
            partitions: partitions.iter().map(partition_message).collect(),
        }))
    }

    async fn alter_topic(
        &self,
        request: Request<v1::AlterTopicRequest>,
    ) -> Result<Response<v1::AlterTopicResponse>, Status> {
        let request = request.into_inner();
        let change = TopicChange {
            partitions: request.partitions,
            ..change(&request.config.unwrap_or_default())?
        };
        let altered = self.broker.alter_topic(&request.name, change).await;
        let topic = self.told(altered).await?;
        Ok(Response::new(v1::AlterTopicResponse {
            topic: Some(topic_message(&topic)),
        }))
    }

    async fn truncate_topic(
        &self,
        request: Request<v1::TruncateTopicRequest>,
    ) -> Result<Response<v1::TruncateTopicResponse>, Status> {
        let request = request.into_inner();
        let before = Offset(request.before_offset);
        let truncated = self.broker.truncate(&request.name, request.partition, before).await;
        Ok(Response::new(v1::TruncateTopicResponse {
            log_start_offset: self.told(truncated).await?.0,
        }))
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        let deleted = self.broker.delete_topic(&request.into_inner().name).await;
        self.told(deleted).await?;
        Ok(Response::new(v1::DeleteTopicResponse {}))
    }
}

/// A new topic's settings: what the request leaves out is the agent's default.
fn config(defaults: &TopicConfig, asked: &v1::TopicConfig) -> Result<TopicConfig, Status> {
    let mut config = defaults.clone();
    change(asked)?.apply(&mut config);
    Ok(config)
}

/// What the request sets.
fn change(asked: &v1::TopicConfig) -> Result<TopicChange, Status> {
    let compression = match known(asked.compression, "compression", COMPRESSIONS)? {
        v1::Compression::Unspecified => None,
        v1::Compression::None => Some(Compression::None),
        v1::Compression::Lz4 => Some(Compression::Lz4),
        v1::Compression::Zstd => Some(Compression::Zstd),
    };
    let timestamp_type = match known(asked.timestamp_type, "timestamp_type", TIMESTAMP_TYPES)? {
        v1::TimestampType::Unspecified => None,
        v1::TimestampType::Create => Some(TimestampType::Create),
        v1::TimestampType::Append => Some(TimestampType::Append),
    };
    // On the wire 0 means without a bound.
    let bound = |asked: Option<u64>| asked.map(|bound| Some(bound).filter(|bound| *bound > 0));
    Ok(TopicChange {
        retention_ms: bound(asked.retention_ms),
        retention_bytes: bound(asked.retention_bytes),
        compression,
        segment_bytes: asked.segment_bytes,
        segment_age_ms: asked.segment_age_ms,
        record_bytes_max: asked.record_bytes_max,
        timestamp_type,
        default_acks: acks(asked.default_acks, "default_acks")?,
        partitions: None,
    })
}

fn topic_message(topic: &Topic) -> v1::Topic {
    let compression = match topic.config.compression {
        Compression::None => v1::Compression::None,
        Compression::Lz4 => v1::Compression::Lz4,
        Compression::Zstd => v1::Compression::Zstd,
    };
    let timestamp_type = match topic.config.timestamp_type {
        TimestampType::Create => v1::TimestampType::Create,
        TimestampType::Append => v1::TimestampType::Append,
    };
    let default_acks = match topic.config.default_acks {
        Acks::Durable => v1::Acks::Durable,
        Acks::Memory => v1::Acks::Memory,
    };
    v1::Topic {
        name: topic.name.clone(),
        id: Bytes::copy_from_slice(topic.id.as_bytes()),
        partitions: topic.partitions,
        config: Some(v1::TopicConfig {
            retention_ms: Some(topic.config.retention_ms.unwrap_or(0)),
            compression: compression.into(),
            record_bytes_max: Some(topic.config.record_bytes_max),
            retention_bytes: Some(topic.config.retention_bytes.unwrap_or(0)),
            segment_bytes: Some(topic.config.segment_bytes),
            segment_age_ms: Some(topic.config.segment_age_ms),
            timestamp_type: timestamp_type.into(),
            default_acks: default_acks.into(),
        }),
        created_at_ms: topic.created_at_ms,
    }
}

fn partition_message(partition: &PartitionStatus) -> v1::PartitionStatus {
    v1::PartitionStatus {
        partition: partition.partition,
        log_start_offset: partition.log_start.0,
        high_watermark: partition.high_watermark.0,
        committed_end: partition.committed_end.0,
        segment_count: partition.segment_count,
        raw_bytes: partition.raw_bytes,
        stored_bytes: partition.stored_bytes,
    }
}
