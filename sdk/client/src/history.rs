//! The history of a pipeline.

use millstream_proto::v1;

use crate::{Admin, ClientError, Connection};

impl Admin {
    /// A page of the versions that a topic's pipeline has had, the newest first. With a partition, which of them wrote which of
    /// its offsets; with an offset too, only a range that holds it. The answer says what to ask for next.
    pub async fn pipeline_history(
        &self,
        request: v1::GetPipelineHistoryRequest,
    ) -> Result<v1::GetPipelineHistoryResponse, ClientError> {
        let get = |at: Connection| {
            let request = request.clone();
            async move {
                let answer = at.pipelines().get_pipeline_history(request).await;
                Ok(answer.map_err(|status| at.error(status))?.into_inner())
            }
        };
        let (_, history) = self.connection.follow(get).await?;
        Ok(history)
    }
}
