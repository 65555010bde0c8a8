//! Consumer groups over real metadata. What their members are given is tested beside the code that decides it.

mod commits;
mod members;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use millstream_batch::Offset;
use millstream_broker::{
    Acks, Broker, BrokerError, CommitFailure, GroupCommit, GroupError, GroupHeartbeat, GroupOffset, GroupReset,
    GroupShare, Kind, ResetTo, TopicConfig, TopicPartition,
};

use crate::support::{World, batch, topic, until};

/// The shortest session that there is.
const SESSION_MS: u32 = 1_000;

fn joining(group: &str) -> GroupHeartbeat {
    GroupHeartbeat {
        group: group.to_owned(),
        client_id: "test".to_owned(),
        topics: vec!["t".to_owned()],
        ..GroupHeartbeat::default()
    }
}

/// What a member sends that owns all that it was told.
fn staying(group: &str, share: &GroupShare) -> GroupHeartbeat {
    GroupHeartbeat {
        group: group.to_owned(),
        member_id: share.member_id.clone(),
        generation: share.generation,
        owned: share.assigned.clone(),
        ..GroupHeartbeat::default()
    }
}

async fn join(broker: &Broker, group: &str) -> GroupShare {
    broker.group_heartbeat(joining(group)).await.unwrap()
}

async fn stay(broker: &Broker, group: &str, share: &GroupShare) -> GroupShare {
    broker.group_heartbeat(staying(group, share)).await.unwrap()
}

fn offset(partition: u32, offset: u64) -> GroupOffset {
    GroupOffset {
        topic: "t".to_owned(),
        partition,
        offset: Offset(offset),
        metadata: format!("at {offset}"),
        committed_at_ms: 0,
    }
}

fn by(share: &GroupShare, offsets: Vec<GroupOffset>) -> GroupCommit {
    GroupCommit {
        group: "g".to_owned(),
        member_id: share.member_id.clone(),
        generation: share.generation,
        offsets,
    }
}

fn by_nobody(offsets: Vec<GroupOffset>) -> GroupCommit {
    GroupCommit {
        group: "g".to_owned(),
        offsets,
        ..GroupCommit::default()
    }
}

async fn committed(broker: &Broker) -> Vec<(u32, u64)> {
    let offsets = broker.group_offsets("g", &[]).await.unwrap().into_iter();
    offsets.map(|offset| (offset.partition, offset.offset.0)).collect()
}

#[track_caller]
fn reason(error: &BrokerError) -> &'static str {
    match error {
        BrokerError::Group(error) => error.reason(),
        error => panic!("{error}"),
    }
}

#[track_caller]
fn only_failure(failures: &[CommitFailure]) -> (u32, &BrokerError) {
    assert_eq!(failures.len(), 1, "{failures:?}");
    (failures[0].partition, &failures[0].error)
}

/// A broker with ten records in each of two partitions.
async fn filled(world: &World) -> Arc<Broker> {
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    for partition in 0..2 {
        broker
            .produce("t", partition, batch(0..10), Acks::Durable)
            .await
            .unwrap();
    }
    broker
}
