//! Consumer groups on a running agent: who reads what, what is remembered, and what is refused.

mod client;
mod commands;
mod commits;
mod history;
mod members;
mod reading;
mod streamed;
mod twenty;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use millstream_proto::v1;
use millstream_tests::{Grpc, record};
use tonic::Status;
use tonic_types::StatusExt as _;

/// How long a state may take to come on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two heartbeats of a test's member. What they wait for is often that another one is silent for its session: without a
/// pause they would ask thousands of times.
const BEAT: Duration = Duration::from_millis(50);
const GROUP: &str = "readers";
const TOPIC: &str = "orders";

/// A member, as a client of any language can be one.
struct Member {
    grpc: Grpc,
    session_ms: u32,
    id: String,
    generation: u64,
    owned: BTreeSet<u32>,
}

impl Member {
    /// Joins the group of the tests.
    async fn join(grpc: &Grpc, session_ms: u32) -> Member {
        let mut member = Member {
            grpc: grpc.clone(),
            session_ms,
            id: String::new(),
            generation: 0,
            owned: BTreeSet::new(),
        };
        member.beat().await.unwrap();
        member
    }

    /// Sends a heartbeat, and does at once what the answer asks for.
    async fn beat(&mut self) -> Result<(), Status> {
        let joins = self.id.is_empty();
        let request = v1::HeartbeatRequest {
            group: GROUP.to_owned(),
            member_id: self.id.clone(),
            generation: self.generation,
            client_id: "test".to_owned(),
            topics: if joins { vec![TOPIC.to_owned()] } else { Vec::new() },
            session_timeout_ms: self.session_ms,
            owned: self.owned.iter().map(|partition| place(*partition)).collect(),
        };
        let answer = self.grpc.groups().heartbeat(request).await?.into_inner();
        self.id = answer.member_id;
        self.generation = answer.generation;
        self.owned = answer.assigned.into_iter().map(|place| place.partition).collect();
        Ok(())
    }

    async fn commit(&self, offsets: &[(u32, u64)]) -> Result<Vec<v1::CommitFailure>, Status> {
        commit(&self.grpc, &self.id, self.generation, offsets).await
    }

    async fn leave(self) {
        let request = v1::LeaveGroupRequest {
            group: GROUP.to_owned(),
            member_id: self.id,
        };
        self.grpc.groups().leave_group(request).await.unwrap();
    }
}

/// Lets these members send heartbeats until the state has come.
async fn beat_until(members: &mut [&mut Member], holds: impl Fn(&[&mut Member]) -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds(members) {
        assert!(Instant::now() < until, "it never came");
        for member in members.iter_mut() {
            member.beat().await.unwrap();
        }
        tokio::time::sleep(BEAT).await;
    }
}

fn place(partition: u32) -> v1::TopicPartition {
    v1::TopicPartition {
        topic: TOPIC.to_owned(),
        partition,
    }
}

fn offset(partition: u32, offset: u64) -> v1::CommittedOffset {
    v1::CommittedOffset {
        topic: TOPIC.to_owned(),
        partition,
        offset,
        ..v1::CommittedOffset::default()
    }
}

async fn commit(
    grpc: &Grpc,
    member_id: &str,
    generation: u64,
    offsets: &[(u32, u64)],
) -> Result<Vec<v1::CommitFailure>, Status> {
    let request = v1::CommitOffsetsRequest {
        group: GROUP.to_owned(),
        member_id: member_id.to_owned(),
        generation,
        offsets: offsets.iter().map(|(partition, at)| offset(*partition, *at)).collect(),
    };
    Ok(grpc.groups().commit_offsets(request).await?.into_inner().failures)
}

/// What the group of the tests has committed.
async fn committed(grpc: &Grpc) -> Vec<(u32, u64)> {
    let request = v1::FetchOffsetsRequest {
        group: GROUP.to_owned(),
        partitions: Vec::new(),
    };
    let answer = grpc.groups().fetch_offsets(request).await.unwrap().into_inner();
    answer
        .offsets
        .iter()
        .map(|offset| (offset.partition, offset.offset))
        .collect()
}

/// The topic of the tests, with ten records in each partition.
async fn fill(grpc: &Grpc, partitions: u32) {
    grpc.create_topic(TOPIC, partitions).await.unwrap();
    for partition in 0..partitions {
        let records = (0..10).map(|n| v1::Record {
            timestamp_ms: Some(1_000 + n),
            ..record(n.to_string())
        });
        grpc.produce(TOPIC, partition, records.collect()).await.unwrap();
    }
}

/// The stable word of a refusal.
#[track_caller]
fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.unwrap_or_else(|| panic!("{status:?}")).reason
}
