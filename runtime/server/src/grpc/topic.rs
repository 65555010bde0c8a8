//! `TopicService`.

use bytes::Bytes;
use millstream_batch::Compression;
use millstream_broker::{NewTopic, PartitionStatus, Topic, TopicConfig};
use millstream_proto::v1;
use tonic::{Request, Response, Status};

use super::{Api, status::status};

#[tonic::async_trait]
impl v1::topic_service_server::TopicService for Api {
    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        let request = request.into_inner();
        let config = config(self.broker.topic_defaults(), request.config.unwrap_or_default());
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
        let topics = self.broker.topics().iter().map(topic_message).collect();
        Ok(Response::new(v1::ListTopicsResponse { topics }))
    }

    async fn get_topic(&self, request: Request<v1::GetTopicRequest>) -> Result<Response<v1::GetTopicResponse>, Status> {
        let request = request.into_inner();
        let (topic, partitions) = self.broker.topic(&request.name, request.flush).await.map_err(status)?;
        Ok(Response::new(v1::GetTopicResponse {
            topic: Some(topic_message(&topic)),
            partitions: partitions.iter().map(partition_message).collect(),
        }))
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        self.broker
            .delete_topic(&request.into_inner().name)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::DeleteTopicResponse {}))
    }
}

fn config(defaults: &TopicConfig, asked: v1::TopicConfig) -> TopicConfig {
    let compression = match asked.compression() {
        v1::Compression::Unspecified => defaults.compression,
        v1::Compression::None => Compression::None,
        v1::Compression::Lz4 => Compression::Lz4,
        v1::Compression::Zstd => Compression::Zstd,
    };
    let retention_ms = match asked.retention_ms {
        None => defaults.retention_ms,
        Some(0) => None,
        Some(ms) => Some(ms),
    };
    let record_bytes_max = asked.record_bytes_max.unwrap_or(defaults.record_bytes_max);
    TopicConfig {
        retention_ms,
        compression,
        record_bytes_max,
        ..defaults.clone()
    }
}

fn topic_message(topic: &Topic) -> v1::Topic {
    let compression = match topic.config.compression {
        Compression::None => v1::Compression::None,
        Compression::Lz4 => v1::Compression::Lz4,
        Compression::Zstd => v1::Compression::Zstd,
    };
    v1::Topic {
        name: topic.name.clone(),
        id: Bytes::copy_from_slice(topic.id.as_bytes()),
        partitions: topic.partitions,
        config: Some(v1::TopicConfig {
            retention_ms: Some(topic.config.retention_ms.unwrap_or(0)),
            compression: compression.into(),
            record_bytes_max: Some(topic.config.record_bytes_max),
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
