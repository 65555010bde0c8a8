//! Consumer groups, as their operator sees them.

use millstream_proto::v1;

use crate::{Admin, ClientError, Connection};

impl Admin {
    /// All groups in order of name.
    pub async fn groups(&self) -> Result<Vec<v1::GroupSummary>, ClientError> {
        let answer = self.connection.groups().list_groups(v1::ListGroupsRequest {}).await;
        Ok(answer.map_err(|status| self.error(status))?.into_inner().groups)
    }

    /// One group: its members, what they own, and how far it is behind.
    pub async fn group(&self, name: &str) -> Result<v1::GetGroupResponse, ClientError> {
        let request = v1::GetGroupRequest { name: name.to_owned() };
        let answer = self.connection.groups().get_group(request).await;
        Ok(answer.map_err(|status| self.error(status))?.into_inner())
    }

    /// What a group has committed: of these partitions, or of all where there are none.
    pub async fn committed_offsets(
        &self,
        group: &str,
        partitions: Vec<v1::TopicPartition>,
    ) -> Result<Vec<v1::CommittedOffset>, ClientError> {
        let request = v1::FetchOffsetsRequest {
            group: group.to_owned(),
            partitions,
        };
        let answer = self.connection.groups().fetch_offsets(request).await;
        Ok(answer.map_err(|status| self.error(status))?.into_inner().offsets)
    }

    /// Moves the committed offsets of a group without members; where it goes on reading then. One agent has to lead all that
    /// is moved.
    pub async fn reset_group(&self, request: v1::ResetGroupRequest) -> Result<Vec<v1::CommittedOffset>, ClientError> {
        let reset = |at: Connection| {
            let request = request.clone();
            async move {
                let answer = at.groups().reset_group(request).await;
                Ok(answer.map_err(|status| at.error(status))?.into_inner())
            }
        };
        let (_, answer) = self.connection.follow(reset).await?;
        Ok(answer.offsets)
    }

    /// Forgets a group without members, and what it has committed.
    pub async fn delete_group(&self, name: &str) -> Result<(), ClientError> {
        let request = v1::DeleteGroupRequest { name: name.to_owned() };
        let answer = self.connection.groups().delete_group(request).await;
        answer.map(drop).map_err(|status| self.error(status))
    }
}
