//! Groups as tables and as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::HumanCount;
use millstream_client::v1;
use serde::Serialize;

use crate::cli::output::{Column, table};

/// A group in a list.
#[derive(Serialize)]
pub(super) struct SummaryView {
    name: String,
    generation: u64,
    members: u32,
    topics: Vec<String>,
}

/// A group.
#[derive(Serialize)]
pub(super) struct GroupView {
    name: String,
    generation: u64,
    lag: u64,
    members: Vec<MemberView>,
    partitions: Vec<PartitionView>,
}

#[derive(Serialize)]
struct MemberView {
    member_id: String,
    client_id: String,
    topics: Vec<String>,
    generation: u64,
    session_timeout_ms: u32,
    session_left_ms: u64,
    owned: Vec<PlaceView>,
}

#[derive(Serialize)]
struct PlaceView {
    topic: String,
    partition: u32,
}

#[derive(Serialize)]
struct PartitionView {
    topic: String,
    partition: u32,
    member_id: Option<String>,
    committed_offset: Option<u64>,
    metadata: String,
    committed_at_ms: Option<i64>,
    log_start_offset: u64,
    high_watermark: u64,
    lag: u64,
}

/// Where a group goes on reading a partition.
#[derive(Serialize)]
pub(super) struct OffsetView {
    topic: String,
    partition: u32,
    offset: u64,
}

impl From<v1::GroupSummary> for SummaryView {
    fn from(group: v1::GroupSummary) -> SummaryView {
        SummaryView {
            name: group.name,
            generation: group.generation,
            members: group.member_count,
            topics: group.topics,
        }
    }
}

impl From<v1::GetGroupResponse> for GroupView {
    fn from(group: v1::GetGroupResponse) -> GroupView {
        GroupView {
            name: group.name,
            generation: group.generation,
            lag: group.partitions.iter().map(|partition| partition.lag).sum(),
            members: group.members.into_iter().map(MemberView::from).collect(),
            partitions: group.partitions.into_iter().map(PartitionView::from).collect(),
        }
    }
}

impl From<v1::GroupMember> for MemberView {
    fn from(member: v1::GroupMember) -> MemberView {
        let owned = member.owned.into_iter().map(|place| PlaceView {
            topic: place.topic,
            partition: place.partition,
        });
        MemberView {
            member_id: member.member_id,
            client_id: member.client_id,
            topics: member.topics,
            generation: member.generation,
            session_timeout_ms: member.session_timeout_ms,
            session_left_ms: member.session_left_ms,
            owned: owned.collect(),
        }
    }
}

impl From<v1::GroupPartition> for PartitionView {
    fn from(partition: v1::GroupPartition) -> PartitionView {
        PartitionView {
            committed_at_ms: partition.committed_offset.map(|_| partition.committed_at_ms),
            topic: partition.topic,
            partition: partition.partition,
            member_id: partition.member_id,
            committed_offset: partition.committed_offset,
            metadata: partition.metadata,
            log_start_offset: partition.log_start_offset,
            high_watermark: partition.high_watermark,
            lag: partition.lag,
        }
    }
}

impl From<v1::CommittedOffset> for OffsetView {
    fn from(offset: v1::CommittedOffset) -> OffsetView {
        OffsetView {
            topic: offset.topic,
            partition: offset.partition,
            offset: offset.offset,
        }
    }
}

impl GroupView {
    /// A line about the group, a table of its members where it has any, and one of its partitions.
    pub(super) fn text(&self) -> String {
        let GroupView { name, generation, .. } = self;
        let mut parts = vec![format!(
            "group {name}, generation {generation}, {} members, {} records behind",
            self.members.len(),
            HumanCount(self.lag)
        )];
        if !self.members.is_empty() {
            parts.push(member_table(&self.members));
        }
        if !self.partitions.is_empty() {
            parts.push(partition_table(&self.partitions));
        }
        parts.join("\n")
    }
}

pub(super) fn summary_table(groups: &[SummaryView]) -> String {
    let columns = [
        Column::Left("group"),
        Column::Right("members"),
        Column::Right("generation"),
        Column::Text("topics"),
    ];
    let rows = groups.iter().map(|group| {
        vec![
            group.name.clone(),
            group.members.to_string(),
            group.generation.to_string(),
            group.topics.join(", "),
        ]
    });
    table(&columns, rows)
}

pub(super) fn offset_table(offsets: &[OffsetView]) -> String {
    let columns = [
        Column::Left("topic"),
        Column::Right("partition"),
        Column::Right("goes on at"),
    ];
    let rows = offsets.iter().map(|offset| {
        vec![
            offset.topic.clone(),
            offset.partition.to_string(),
            HumanCount(offset.offset).to_string(),
        ]
    });
    table(&columns, rows)
}

fn member_table(members: &[MemberView]) -> String {
    let columns = [
        Column::Left("member"),
        Column::Left("client"),
        Column::Right("generation"),
        Column::Right("session"),
        Column::Right("left"),
        Column::Text("reads"),
    ];
    let ms = |ms: u64| humantime::format_duration(Duration::from_millis(ms)).to_string();
    let rows = members.iter().map(|member| {
        vec![
            member.member_id.clone(),
            member.client_id.clone(),
            member.generation.to_string(),
            ms(member.session_timeout_ms.into()),
            ms(member.session_left_ms),
            reads(&member.owned),
        ]
    });
    table(&columns, rows)
}

/// The partitions by topic: `orders 0, 1, 4; payments 2`.
fn reads(owned: &[PlaceView]) -> String {
    let mut topics: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for place in owned {
        topics.entry(&place.topic).or_default().push(place.partition);
    }
    let topics = topics.into_iter().map(|(topic, mut partitions)| {
        partitions.sort_unstable();
        let partitions: Vec<String> = partitions.iter().map(u32::to_string).collect();
        format!("{topic} {}", partitions.join(", "))
    });
    topics.collect::<Vec<_>>().join("; ")
}

fn partition_table(partitions: &[PartitionView]) -> String {
    let columns = [
        Column::Left("topic"),
        Column::Right("partition"),
        Column::Right("committed"),
        Column::Right("from"),
        Column::Right("to"),
        Column::Right("behind"),
        Column::Left("read by"),
    ];
    let count = |count: u64| HumanCount(count).to_string();
    let rows = partitions.iter().map(|partition| {
        vec![
            partition.topic.clone(),
            partition.partition.to_string(),
            partition.committed_offset.map(count).unwrap_or_default(),
            count(partition.log_start_offset),
            count(partition.high_watermark),
            count(partition.lag),
            partition.member_id.clone().unwrap_or_default(),
        ]
    });
    table(&columns, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> GroupView {
        let place = |topic: &str, partition| v1::TopicPartition {
            topic: topic.to_owned(),
            partition,
        };
        GroupView::from(v1::GetGroupResponse {
            name: "g".to_owned(),
            generation: 3,
            members: vec![v1::GroupMember {
                member_id: "m".to_owned(),
                session_timeout_ms: 30_000,
                session_left_ms: 5,
                owned: vec![place("b", 2), place("b", 10), place("a", 0)],
                ..v1::GroupMember::default()
            }],
            partitions: vec![
                v1::GroupPartition {
                    topic: "a".to_owned(),
                    member_id: Some("m".to_owned()),
                    committed_offset: Some(0),
                    committed_at_ms: 9,
                    lag: 1_500,
                    ..v1::GroupPartition::default()
                },
                v1::GroupPartition {
                    topic: "b".to_owned(),
                    lag: 1,
                    ..v1::GroupPartition::default()
                },
            ],
        })
    }

    #[test]
    fn a_group_is_shown_with_its_members_and_how_far_it_is_behind() {
        let text = group().text();
        assert!(
            text.starts_with("group g, generation 3, 1 members, 1,501 records behind\n"),
            "{text}"
        );
        assert!(text.contains("a 0; b 2, 10"), "{text}");
        assert!(text.contains("30s") && text.contains("5ms"), "{text}");
    }

    #[test]
    fn what_was_never_committed_is_null_in_json() {
        let json = serde_json::to_value(group()).unwrap();
        assert_eq!(json["lag"], 1_501);
        assert_eq!(json["partitions"][0]["committed_offset"], 0);
        assert_eq!(json["partitions"][0]["committed_at_ms"], 9);
        for field in ["committed_offset", "committed_at_ms", "member_id"] {
            assert!(json["partitions"][1][field].is_null(), "{field}");
        }
    }
}
