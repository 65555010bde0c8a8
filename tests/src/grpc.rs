//! Plain gRPC, as generated from the protos: what a client of any language can do.

use std::collections::HashMap;

use bytes::Bytes;
use millstream_proto::v1::{
    self, cluster_service_client::ClusterServiceClient, consumer_service_client::ConsumerServiceClient,
    group_service_client::GroupServiceClient, module_service_client::ModuleServiceClient,
    pipeline_service_client::PipelineServiceClient, produce_request::Payload,
    producer_service_client::ProducerServiceClient, topic_service_client::TopicServiceClient,
};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

/// Bound on a message either way.
const MESSAGE_BYTES_MAX: usize = 65 << 20;
/// Bound on one fetch.
const FETCH_BYTES: u32 = 16 << 20;

/// One connection to an agent. Clones share it.
#[derive(Clone, Debug)]
pub struct Grpc {
    channel: Channel,
}

impl Grpc {
    /// Connects.
    ///
    /// # Panics
    /// Where nobody answers.
    pub async fn connect(url: &str) -> Grpc {
        let endpoint = Endpoint::from_shared(url.to_owned()).expect("an agent's address is a URL");
        Grpc {
            channel: endpoint.connect().await.expect("a serving agent takes connections"),
        }
    }

    /// The connection, for clients of other services.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// `TopicService`.
    pub fn topics(&self) -> TopicServiceClient<Channel> {
        TopicServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// `ProducerService`.
    pub fn producer(&self) -> ProducerServiceClient<Channel> {
        ProducerServiceClient::new(self.channel.clone()).max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// `ConsumerService`.
    pub fn consumer(&self) -> ConsumerServiceClient<Channel> {
        ConsumerServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// `GroupService`.
    pub fn groups(&self) -> GroupServiceClient<Channel> {
        GroupServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// `ModuleService`.
    pub fn modules(&self) -> ModuleServiceClient<Channel> {
        ModuleServiceClient::new(self.channel.clone()).max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// `ClusterService`.
    pub fn cluster(&self) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(self.channel.clone())
    }

    /// `PipelineService`.
    pub fn pipelines(&self) -> PipelineServiceClient<Channel> {
        PipelineServiceClient::new(self.channel.clone())
    }

    /// Makes a topic with the default settings.
    pub async fn create_topic(&self, name: &str, partitions: u32) -> Result<v1::Topic, Status> {
        let request = v1::CreateTopicRequest {
            name: name.to_owned(),
            partitions,
            config: None,
        };
        let answer = self.topics().create_topic(request).await?.into_inner();
        Ok(answer.topic.expect("a created topic is answered"))
    }

    /// A topic's partitions; with `flush` everything durable is in segments then.
    pub async fn partitions(&self, topic: &str, flush: bool) -> Result<Vec<v1::PartitionStatus>, Status> {
        let request = v1::GetTopicRequest {
            name: topic.to_owned(),
            flush,
            without_partitions: false,
        };
        Ok(self.topics().get_topic(request).await?.into_inner().partitions)
    }

    /// Produces one batch of plain records.
    pub async fn produce(
        &self,
        topic: &str,
        partition: u32,
        records: Vec<v1::Record>,
    ) -> Result<v1::ProduceResponse, Status> {
        let payload = Payload::Records(v1::RecordList { records });
        self.produce_payload(topic, partition, payload).await
    }

    /// Produces one encoded batch.
    pub async fn produce_batch(
        &self,
        topic: &str,
        partition: u32,
        batch: Bytes,
    ) -> Result<v1::ProduceResponse, Status> {
        self.produce_payload(topic, partition, Payload::Batch(batch)).await
    }

    async fn produce_payload(
        &self,
        topic: &str,
        partition: u32,
        payload: Payload,
    ) -> Result<v1::ProduceResponse, Status> {
        let request = v1::ProduceRequest {
            topic: topic.to_owned(),
            partition,
            payload: Some(payload),
            acks: v1::Acks::Durable.into(),
        };
        Ok(self.producer().produce(request).await?.into_inner())
    }

    /// One fetch of plain records, without waiting.
    pub async fn fetch(&self, topic: &str, partition: u32, offset: u64) -> Result<v1::FetchedPartition, Status> {
        let request = v1::FetchRequest {
            partitions: vec![place(topic, partition, offset)],
            max_bytes: FETCH_BYTES,
            format: v1::FetchFormat::Records.into(),
            ..v1::FetchRequest::default()
        };
        self.fetch_one(request).await
    }

    /// A fetch from one partition; what is wrong with that is an error.
    pub async fn fetch_one(&self, request: v1::FetchRequest) -> Result<v1::FetchedPartition, Status> {
        let answer = self.consumer().fetch(request).await?.into_inner();
        let [part]: [_; 1] = answer.partitions.try_into().expect("a part for each partition");
        match part.error {
            Some(error) => Err(Status::new(error.code.into(), error.message)),
            None => Ok(part),
        }
    }

    /// Every record from `offset` up to the high watermark found by the first fetch.
    pub async fn read(&self, topic: &str, partition: u32, offset: u64) -> Result<Vec<v1::Record>, Status> {
        let (mut records, mut next, mut end) = (Vec::new(), offset, None);
        while end.is_none_or(|end| next < end) {
            let fetched = self.fetch(topic, partition, next).await?;
            let end = *end.get_or_insert(fetched.high_watermark);
            assert!(
                fetched.next_offset > next || next == end,
                "a fetch at {next} of {end} does not move on"
            );
            next = fetched.next_offset;
            records.extend(fetched.records.into_iter().filter(|record| record.offset < end));
        }
        Ok(records)
    }

    /// The offsets between which a partition can be read.
    pub async fn offsets(&self, topic: &str, partition: u32) -> Result<(u64, u64), Status> {
        let request = v1::ListOffsetsRequest {
            topic: topic.to_owned(),
            partition,
            timestamp_ms: None,
        };
        let answer = self.consumer().list_offsets(request).await?.into_inner();
        Ok((answer.log_start_offset, answer.high_watermark))
    }

    /// Deploys a component.
    pub async fn deploy(&self, name: &str, component: impl Into<Bytes>) -> Result<v1::ModuleVersion, Status> {
        let request = v1::DeployModuleRequest {
            name: name.to_owned(),
            component: component.into(),
            ..v1::DeployModuleRequest::default()
        };
        let answer = self.modules().deploy_module(request).await?.into_inner();
        Ok(answer.module.expect("a deployed module is answered"))
    }

    /// Appends a module's latest version to a topic's pipeline.
    pub async fn add_stage(
        &self,
        topic: &str,
        side: v1::PipelineSide,
        module: &str,
        params: &[(&str, &str)],
    ) -> Result<v1::Pipeline, Status> {
        self.add(topic, side, module, params, false).await
    }

    /// The same without the trial call on recent records, which a module that fails would not pass.
    pub async fn add_stage_untried(
        &self,
        topic: &str,
        side: v1::PipelineSide,
        module: &str,
    ) -> Result<v1::Pipeline, Status> {
        self.add(topic, side, module, &[], true).await
    }

    async fn add(
        &self,
        topic: &str,
        side: v1::PipelineSide,
        module: &str,
        params: &[(&str, &str)],
        no_trial_call: bool,
    ) -> Result<v1::Pipeline, Status> {
        let params: HashMap<String, String> = params
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let request = v1::AddStageRequest {
            topic: topic.to_owned(),
            side: side.into(),
            stage: Some(v1::Stage {
                module: module.to_owned(),
                params,
                ..v1::Stage::default()
            }),
            no_trial_call,
            ..v1::AddStageRequest::default()
        };
        let answer = self.pipelines().add_stage(request).await?.into_inner();
        Ok(answer.pipeline.expect("a changed pipeline is answered"))
    }

    /// Removes the first stage of a side.
    pub async fn remove_stage(&self, topic: &str, side: v1::PipelineSide) -> Result<v1::Pipeline, Status> {
        let request = v1::RemoveStageRequest {
            topic: topic.to_owned(),
            side: side.into(),
            ..v1::RemoveStageRequest::default()
        };
        let answer = self.pipelines().remove_stage(request).await?.into_inner();
        Ok(answer.pipeline.expect("a changed pipeline is answered"))
    }

    /// Makes sure that the agent works: a topic of that name is made, written and read.
    ///
    /// # Panics
    /// Where it does not.
    pub async fn assert_serves(&self, topic: &str) {
        self.create_topic(topic, 1).await.unwrap();
        let answer = self.produce(topic, 0, vec![record("works")]).await.unwrap();
        assert_eq!((answer.base_offset, answer.record_count), (0, 1));
        assert_eq!(values(&self.read(topic, 0, 0).await.unwrap()), ["works"]);
    }
}

/// A place in a partition.
pub fn place(topic: &str, partition: u32, offset: u64) -> v1::FetchPartition {
    v1::FetchPartition {
        topic: topic.to_owned(),
        partition,
        offset,
    }
}

/// A record that is a value and nothing else.
pub fn record(value: impl Into<Bytes>) -> v1::Record {
    v1::Record {
        value: Some(value.into()),
        ..v1::Record::default()
    }
}

/// The records' values as text; nothing for null.
pub fn values(records: &[v1::Record]) -> Vec<String> {
    let value = |record: &v1::Record| String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
    records.iter().map(value).collect()
}
