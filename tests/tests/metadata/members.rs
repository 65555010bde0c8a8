//! Members of a group whose partitions another agent leads.

use std::time::Duration;

use futures::stream;
use millstream_proto::v1::{self, start_position::Position, subscribe_request::Message};
use millstream_tests::{Agent, Grpc, record};
use tokio::{sync::mpsc, time::timeout};
use tonic::Streaming;

use crate::several_agents::Shared;

const PATIENCE: Duration = Duration::from_secs(60);
const GROUP: &str = "readers";

/// A call that is a member.
struct Call {
    answers: Streaming<v1::SubscribeResponse>,
    /// Dropped, it ends the call.
    _requests: mpsc::UnboundedSender<v1::SubscribeRequest>,
}

impl Call {
    async fn open(grpc: &Grpc, position: Position, tell_leaders: bool) -> Call {
        let start = v1::SubscribeStart {
            topics: vec!["t".to_owned()],
            start: Some(v1::StartPosition {
                position: Some(position),
            }),
            credit_bytes: 1 << 20,
            format: v1::FetchFormat::Records.into(),
            group: Some(v1::SubscribeGroup {
                name: GROUP.to_owned(),
                client_id: String::new(),
                session_timeout_ms: 60_000,
            }),
            tell_leaders,
            ..v1::SubscribeStart::default()
        };
        let (requests, queue) = mpsc::unbounded_channel();
        let message = Some(Message::Start(start));
        requests.send(v1::SubscribeRequest { message }).unwrap();
        let next = |mut queue: mpsc::UnboundedReceiver<_>| async move {
            let request = queue.recv().await?;
            Some((request, queue))
        };
        let answers = grpc.consumer().subscribe(stream::unfold(queue, next)).await.unwrap();
        Call {
            answers: answers.into_inner(),
            _requests: requests,
        }
    }

    async fn next(&mut self) -> v1::SubscribeResponse {
        let next = timeout(PATIENCE, self.answers.message()).await;
        next.expect("there is an answer").unwrap().expect("it goes on")
    }

    /// The member, and what it is given: all of it at once.
    async fn given(&mut self) -> (v1::SubscribeMembership, Vec<(u32, u64)>) {
        let membership = self.next().await.membership.expect("it comes first");
        let given = membership.given.iter().map(|given| (given.partition, given.offset));
        let given = given.collect();
        (membership, given)
    }

    /// The next thing that is read.
    async fn read(&mut self) -> v1::FetchedPartition {
        self.next().await.fetched.expect("nothing of the group has changed")
    }
}

/// Produces ten records to each partition.
async fn produce(agent: &Agent) {
    let grpc = agent.grpc().await;
    for partition in 0..2 {
        let records = (0..10).map(|number| record(number.to_string())).collect();
        grpc.produce("t", partition, records).await.unwrap();
    }
}

async fn members(grpc: &Grpc) -> Vec<v1::GroupMember> {
    let request = v1::GetGroupRequest { name: GROUP.to_owned() };
    let group = grpc.groups().get_group(request).await.unwrap().into_inner();
    group.members
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_given_what_another_agent_leads_and_is_told_who_or_reads_it_once_it_can() {
    let shared = Shared::new();
    let (a, b) = (shared.agent("a", "object").start(), shared.agent("b", "object").start());
    let (leader, grpc) = (a.grpc().await, b.grpc().await);
    leader.create_topic("t", 2).await.unwrap();
    produce(&a).await;
    leader.partitions("t", true).await.unwrap();
    produce(&a).await;

    let mut told = Call::open(&grpc, Position::Earliest(true), true).await;
    let (membership, given) = told.given().await;
    assert_eq!(given, [(0, 0), (1, 0)]);
    for _ in 0..2 {
        let error = told.read().await.error.expect("it is led elsewhere");
        assert_eq!(
            (error.reason.as_str(), error.leader.as_str()),
            ("LED_ELSEWHERE", a.grpc_address())
        );
    }
    // What the leader stores may lie beyond what the other one knows.
    let request = v1::CommitOffsetsRequest {
        group: GROUP.to_owned(),
        member_id: membership.member_id,
        generation: membership.generation,
        offsets: vec![v1::CommittedOffset {
            topic: "t".to_owned(),
            partition: 0,
            offset: 17,
            ..v1::CommittedOffset::default()
        }],
    };
    let failures = leader.groups().commit_offsets(request).await.unwrap().into_inner();
    assert_eq!(failures.failures, []);
    drop(told);
    while !members(&grpc).await.is_empty() {
        tokio::task::yield_now().await;
    }

    // The latest that is known there is the end of the segments.
    let mut waits = Call::open(&grpc, Position::Latest(true), false).await;
    let (_, given) = waits.given().await;
    assert_eq!(given, [(0, 17), (1, 10)]);
    let request = v1::FetchOffsetsRequest {
        group: GROUP.to_owned(),
        partitions: Vec::new(),
    };
    let committed = grpc.groups().fetch_offsets(request).await.unwrap().into_inner();
    assert_eq!(committed.offsets[1].offset, 10, "it goes on there whoever gets it");
    tokio::task::block_in_place(|| a.terminate());
    let mut read = [17, 10];
    while read != [20, 20] {
        let fetched = waits.read().await;
        assert_eq!(fetched.error, None);
        let next = &mut read[fetched.partition as usize];
        if let Some(first) = fetched.records.first() {
            assert_eq!(first.offset, *next);
        }
        *next = fetched.next_offset;
    }
}
