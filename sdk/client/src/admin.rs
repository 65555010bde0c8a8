//! Topics and agents: one method per call, unwrapped from its envelope. `modules.rs` and `pipelines.rs` have the others.

use millstream_proto::v1;

use crate::{ClientError, Connection};

/// A topic with the state of each of its partitions.
#[derive(Clone, Debug)]
pub struct TopicStatus {
    /// The topic; its configuration is complete.
    pub topic: v1::Topic,
    /// In order of partition.
    pub partitions: Vec<v1::PartitionStatus>,
}

/// Administration by way of one agent. What only the leader of a partition knows is asked of that. Every method fails with [`ClientError`]; the proto of its call names the codes.
#[derive(Clone, Debug)]
pub struct Admin {
    pub(crate) connection: Connection,
}

impl Admin {
    /// Administers the agent behind a connection.
    pub fn new(connection: &Connection) -> Admin {
        Admin {
            connection: connection.clone(),
        }
    }

    /// All agents of the installation, in order of name; only the one that answers tells its version.
    pub async fn agents(&self) -> Result<Vec<v1::Agent>, ClientError> {
        let answer = self.connection.cluster().list_agents(v1::ListAgentsRequest {}).await;
        Ok(answer.map_err(|status| self.error(status))?.into_inner().agents)
    }

    /// Creates a topic of `partitions` partitions.
    pub async fn create_topic(
        &self,
        name: &str,
        partitions: u32,
        config: v1::TopicConfig,
    ) -> Result<v1::Topic, ClientError> {
        let request = v1::CreateTopicRequest {
            name: name.to_owned(),
            partitions,
            config: Some(config),
        };
        let answer = self
            .connection
            .topics()
            .create_topic(request)
            .await
            .map_err(|status| self.error(status))?;
        present(answer.into_inner().topic, "topic")
    }

    /// All topics in order of name.
    pub async fn topics(&self) -> Result<Vec<v1::Topic>, ClientError> {
        let request = v1::ListTopicsRequest {};
        let answer = self
            .connection
            .topics()
            .list_topics(request)
            .await
            .map_err(|status| self.error(status))?;
        Ok(answer.into_inner().topics)
    }

    /// One topic, without its partitions: answered also while the agent's database is down.
    pub async fn topic(&self, name: &str) -> Result<v1::Topic, ClientError> {
        let request = v1::GetTopicRequest {
            name: name.to_owned(),
            flush: false,
            without_partitions: true,
        };
        present(self.get_topic(request).await?.topic, "topic")
    }

    /// One topic and its partitions. With `flush` what is only in the write-ahead log goes into segments first.
    pub async fn topic_status(&self, name: &str, flush: bool) -> Result<TopicStatus, ClientError> {
        let request = v1::GetTopicRequest {
            name: name.to_owned(),
            flush,
            without_partitions: false,
        };
        let v1::GetTopicResponse { topic, partitions } = self.get_topic(request).await?;
        Ok(TopicStatus {
            topic: present(topic, "topic")?,
            partitions,
        })
    }

    async fn get_topic(&self, request: v1::GetTopicRequest) -> Result<v1::GetTopicResponse, ClientError> {
        let answer = self.connection.topics().get_topic(request).await;
        Ok(answer.map_err(|status| self.error(status))?.into_inner())
    }

    /// Changes a topic's settings, and adds partitions until it has `partitions` of them; what is left out stays as it is.
    pub async fn alter_topic(
        &self,
        name: &str,
        config: v1::TopicConfig,
        partitions: Option<u32>,
    ) -> Result<v1::Topic, ClientError> {
        let request = v1::AlterTopicRequest {
            name: name.to_owned(),
            config: Some(config),
            partitions,
        };
        let answer = self
            .connection
            .topics()
            .alter_topic(request)
            .await
            .map_err(|status| self.error(status))?;
        present(answer.into_inner().topic, "topic")
    }

    /// Lets go of a partition's records below `before_offset`; the first offset that can be read then.
    pub async fn truncate_topic(&self, name: &str, partition: u32, before_offset: u64) -> Result<u64, ClientError> {
        let request = v1::TruncateTopicRequest {
            name: name.to_owned(),
            partition,
            before_offset,
        };
        let truncate = |at: Connection| {
            let request = request.clone();
            async move {
                let answer = at.topics().truncate_topic(request).await;
                Ok(answer.map_err(|status| at.error(status))?.into_inner())
            }
        };
        let (_, answer) = self.connection.follow(truncate).await?;
        Ok(answer.log_start_offset)
    }

    /// The offsets between which a partition can be read and, where a timestamp is given (ms since the Unix epoch), the
    /// first record of that time or later.
    pub async fn offsets(
        &self,
        topic: &str,
        partition: u32,
        timestamp_ms: Option<i64>,
    ) -> Result<v1::ListOffsetsResponse, ClientError> {
        let (_, offsets) = self.offsets_at(topic, partition, timestamp_ms).await?;
        Ok(offsets)
    }

    /// The same, and the agent that leads the partition.
    pub(crate) async fn offsets_at(
        &self,
        topic: &str,
        partition: u32,
        timestamp_ms: Option<i64>,
    ) -> Result<(Connection, v1::ListOffsetsResponse), ClientError> {
        let request = v1::ListOffsetsRequest {
            topic: topic.to_owned(),
            partition,
            timestamp_ms,
        };
        let list = |at: Connection| {
            let request = request.clone();
            async move {
                let answer = at.consumer().list_offsets(request).await;
                Ok(answer.map_err(|status| at.error(status))?.into_inner())
            }
        };
        self.connection.follow(list).await
    }

    /// Deletes a topic with its records.
    pub async fn delete_topic(&self, name: &str) -> Result<(), ClientError> {
        let request = v1::DeleteTopicRequest { name: name.to_owned() };
        self.connection
            .topics()
            .delete_topic(request)
            .await
            .map_err(|status| self.error(status))?;
        Ok(())
    }

    pub(crate) fn error(&self, status: tonic::Status) -> ClientError {
        self.connection.error(status)
    }
}

pub(crate) fn present<T>(field: Option<T>, name: &str) -> Result<T, ClientError> {
    field.ok_or_else(|| ClientError::BadAnswer {
        reason: format!("it has no {name}"),
    })
}
