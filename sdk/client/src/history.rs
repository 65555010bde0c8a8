//! The history of a pipeline.

use millstream_proto::v1;

use crate::{Admin, ClientError};

impl Admin {
    /// The versions that a topic's pipeline has had, the newest first. With a partition, which of them wrote which of its
    /// offsets; with an offset too, only a range that holds it.
    pub async fn pipeline_history(
        &self,
        topic: &str,
        partition: Option<u32>,
        offset: Option<u64>,
    ) -> Result<v1::GetPipelineHistoryResponse, ClientError> {
        let request = v1::GetPipelineHistoryRequest {
            topic: topic.to_owned(),
            partition,
            offset,
        };
        let answer = self.connection.pipelines().get_pipeline_history(request).await;
        Ok(answer.map_err(|status| self.error(status))?.into_inner())
    }
}
