//! `GroupService`.

use millstream_batch::Offset;
use millstream_broker::{
    CommitFailure, GroupCommit, GroupHeartbeat, GroupMemberView, GroupOffset, GroupPartition, GroupReset, GroupSummary,
    ResetTo, TopicPartition,
};
use millstream_proto::v1::{self, start_position::Position};
use tonic::{Request, Response, Status};

use super::{
    Api,
    status::{Refusal, missing, status},
};

#[tonic::async_trait]
impl v1::group_service_server::GroupService for Api {
    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        let request = request.into_inner();
        let heartbeat = GroupHeartbeat {
            group: request.group,
            member_id: request.member_id,
            generation: request.generation,
            client_id: request.client_id,
            topics: request.topics,
            session_timeout_ms: request.session_timeout_ms,
            owned: request.owned.into_iter().map(place).collect(),
        };
        let share = self.broker.group_heartbeat(heartbeat).await.map_err(status)?;
        Ok(Response::new(v1::HeartbeatResponse {
            member_id: share.member_id,
            generation: share.generation,
            assigned: share.assigned.into_iter().map(place_message).collect(),
            heartbeat_interval_ms: u32::try_from(share.interval.as_millis()).unwrap_or(u32::MAX),
        }))
    }

    async fn leave_group(
        &self,
        request: Request<v1::LeaveGroupRequest>,
    ) -> Result<Response<v1::LeaveGroupResponse>, Status> {
        let request = request.into_inner();
        let left = self.broker.leave_group(&request.group, &request.member_id).await;
        left.map_err(status)?;
        Ok(Response::new(v1::LeaveGroupResponse {}))
    }

    async fn commit_offsets(
        &self,
        request: Request<v1::CommitOffsetsRequest>,
    ) -> Result<Response<v1::CommitOffsetsResponse>, Status> {
        let request = request.into_inner();
        let commit = GroupCommit {
            group: request.group,
            member_id: request.member_id,
            generation: request.generation,
            offsets: request.offsets.into_iter().map(offset).collect(),
        };
        let failures = self.broker.group_commit(commit).await.map_err(status)?;
        Ok(Response::new(v1::CommitOffsetsResponse {
            failures: failures.into_iter().map(failure_message).collect(),
        }))
    }

    async fn fetch_offsets(
        &self,
        request: Request<v1::FetchOffsetsRequest>,
    ) -> Result<Response<v1::FetchOffsetsResponse>, Status> {
        let request = request.into_inner();
        let partitions: Vec<TopicPartition> = request.partitions.into_iter().map(place).collect();
        let offsets = self.broker.group_offsets(&request.group, &partitions).await;
        Ok(Response::new(v1::FetchOffsetsResponse {
            offsets: offsets.map_err(status)?.into_iter().map(offset_message).collect(),
        }))
    }

    async fn list_groups(&self, _: Request<v1::ListGroupsRequest>) -> Result<Response<v1::ListGroupsResponse>, Status> {
        let groups = self.broker.groups_list().await.map_err(status)?;
        Ok(Response::new(v1::ListGroupsResponse {
            groups: groups.into_iter().map(summary_message).collect(),
        }))
    }

    async fn get_group(&self, request: Request<v1::GetGroupRequest>) -> Result<Response<v1::GetGroupResponse>, Status> {
        let group = self.broker.group(&request.into_inner().name).await.map_err(status)?;
        Ok(Response::new(v1::GetGroupResponse {
            name: group.name,
            generation: group.generation,
            members: group.members.into_iter().map(member_message).collect(),
            partitions: group.partitions.into_iter().map(partition_message).collect(),
        }))
    }

    async fn reset_group(
        &self,
        request: Request<v1::ResetGroupRequest>,
    ) -> Result<Response<v1::ResetGroupResponse>, Status> {
        let request = request.into_inner();
        let reset = GroupReset {
            group: request.group,
            partitions: request.partitions.into_iter().map(place).collect(),
            topics: request.topics,
            to: reset_to(request.to)?,
            dry_run: request.dry_run,
        };
        let offsets = self.told(self.broker.reset_group(reset).await).await?;
        Ok(Response::new(v1::ResetGroupResponse {
            offsets: offsets.into_iter().map(offset_message).collect(),
        }))
    }

    async fn delete_group(
        &self,
        request: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        let deleted = self.broker.delete_group(&request.into_inner().name).await;
        deleted.map_err(status)?;
        Ok(Response::new(v1::DeleteGroupResponse {}))
    }
}

fn reset_to(to: Option<v1::StartPosition>) -> Result<ResetTo, Status> {
    match to.and_then(|to| to.position) {
        Some(Position::Earliest(true)) => Ok(ResetTo::Earliest),
        Some(Position::Latest(true)) => Ok(ResetTo::Latest),
        Some(Position::Offset(offset)) => Ok(ResetTo::Offset(Offset(offset))),
        Some(Position::TimestampMs(ms)) => Ok(ResetTo::Time(ms)),
        Some(Position::Earliest(false) | Position::Latest(false)) | None => Err(missing("position to go to")),
    }
}

pub(super) fn place(place: v1::TopicPartition) -> TopicPartition {
    (place.topic, place.partition)
}

pub(super) fn place_message((topic, partition): TopicPartition) -> v1::TopicPartition {
    v1::TopicPartition { topic, partition }
}

fn offset(offset: v1::CommittedOffset) -> GroupOffset {
    GroupOffset {
        topic: offset.topic,
        partition: offset.partition,
        offset: Offset(offset.offset),
        metadata: offset.metadata,
        committed_at_ms: offset.committed_at_ms,
    }
}

fn offset_message(offset: GroupOffset) -> v1::CommittedOffset {
    v1::CommittedOffset {
        topic: offset.topic,
        partition: offset.partition,
        offset: offset.offset.0,
        metadata: offset.metadata,
        committed_at_ms: offset.committed_at_ms,
    }
}

fn failure_message(failure: CommitFailure) -> v1::CommitFailure {
    v1::CommitFailure {
        topic: failure.topic,
        partition: failure.partition,
        error: Some(Refusal::from(failure.error).message()),
    }
}

fn summary_message(group: GroupSummary) -> v1::GroupSummary {
    v1::GroupSummary {
        name: group.name,
        generation: group.generation,
        member_count: u32::try_from(group.members).unwrap_or(u32::MAX),
        topics: group.topics.into_iter().collect(),
    }
}

fn member_message(member: GroupMemberView) -> v1::GroupMember {
    v1::GroupMember {
        member_id: member.id,
        client_id: member.client_id,
        topics: member.topics,
        generation: member.generation,
        session_timeout_ms: member.session_timeout_ms,
        session_left_ms: member.session_left_ms,
        owned: member.owned.into_iter().map(place_message).collect(),
    }
}

fn partition_message(partition: GroupPartition) -> v1::GroupPartition {
    let lag = partition.lag();
    let committed = partition.committed;
    v1::GroupPartition {
        topic: partition.topic,
        partition: partition.partition,
        member_id: partition.member_id,
        committed_offset: committed.as_ref().map(|committed| committed.offset.0),
        committed_at_ms: committed.as_ref().map_or(0, |committed| committed.committed_at_ms),
        metadata: committed.map(|committed| committed.metadata).unwrap_or_default(),
        log_start_offset: partition.log_start.0,
        high_watermark: partition.high_watermark.0,
        lag,
    }
}
