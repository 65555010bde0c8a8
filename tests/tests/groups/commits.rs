//! What may be committed, by whom, and what may not.

use millstream_proto::v1;
use millstream_tests::Agent;
use tonic::Code;

use super::{GROUP, Member, TOPIC, beat_until, commit, committed, fill, offset, reason};

const SESSION_MS: u32 = 60_000;

#[tokio::test(flavor = "multi_thread")]
async fn commits_of_a_former_generation_or_of_what_is_not_owned_change_nothing() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    fill(&grpc, 2).await;
    let mut a = Member::join(&grpc, SESSION_MS).await;
    let former = a.generation;
    let mut b = Member::join(&grpc, SESSION_MS).await;
    beat_until(&mut [&mut a, &mut b], |members| {
        members.iter().all(|member| member.owned.len() == 1)
    })
    .await;
    let (mine, others) = (*a.owned.first().unwrap(), *b.owned.first().unwrap());
    for generation in [0, former, a.generation + 1] {
        let stale = commit(&grpc, &a.id, generation, &[(mine, 1)]).await.unwrap_err();
        assert_eq!(
            (stale.code(), reason(&stale)),
            (Code::Aborted, "GENERATION_STALE".to_owned())
        );
    }
    let unknown = commit(&grpc, "never", a.generation, &[(mine, 1)]).await.unwrap_err();
    assert_eq!(
        (unknown.code(), reason(&unknown)),
        (Code::Aborted, "MEMBER_UNKNOWN".to_owned())
    );
    let outside = commit(&grpc, "", 0, &[(mine, 1)]).await.unwrap_err();
    assert_eq!(
        (outside.code(), reason(&outside)),
        (Code::FailedPrecondition, "GROUP_HAS_MEMBERS".to_owned())
    );
    assert!(committed(&grpc).await.is_empty());

    let failures = a.commit(&[(mine, 5), (others, 5)]).await.unwrap();
    let [failure] = failures.as_slice() else {
        panic!("{failures:?}")
    };
    let error = failure.error.as_ref().unwrap();
    assert_eq!(
        (failure.partition, error.reason.as_str()),
        (others, "PARTITION_NOT_OWNED")
    );
    assert_eq!(error.code, i32::from(Code::Aborted));
    assert_eq!(committed(&grpc).await, [(mine, 5)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_committed_beyond_the_end_or_where_there_is_nothing() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    fill(&grpc, 2).await;
    let absent = v1::CommittedOffset {
        topic: "absent".to_owned(),
        ..offset(0, 0)
    };
    let long = v1::CommittedOffset {
        metadata: "x".repeat(4_097),
        ..offset(0, 1)
    };
    let remembered = v1::CommittedOffset {
        metadata: "ü".repeat(2_048),
        ..offset(1, 10)
    };
    let request = |offsets: Vec<v1::CommittedOffset>| v1::CommitOffsetsRequest {
        group: GROUP.to_owned(),
        offsets,
        ..v1::CommitOffsetsRequest::default()
    };
    let all = request(vec![offset(0, 11), offset(2, 0), absent, long, remembered.clone()]);
    let answer = grpc.groups().commit_offsets(all).await.unwrap().into_inner();
    let codes: Vec<i32> = answer
        .failures
        .iter()
        .map(|failure| failure.error.as_ref().unwrap().code)
        .collect();
    let expected = [Code::OutOfRange, Code::NotFound, Code::NotFound, Code::InvalidArgument].map(i32::from);
    assert_eq!(codes, expected);
    let words = &answer.failures[0].error.as_ref().unwrap().message;
    assert!(words.contains("offset 11") && words.contains("10"), "{words}");
    let all = v1::FetchOffsetsRequest {
        group: GROUP.to_owned(),
        partitions: Vec::new(),
    };
    let stored = grpc.groups().fetch_offsets(all).await.unwrap().into_inner().offsets;
    assert_eq!(stored.len(), 1);
    assert_eq!((stored[0].offset, &stored[0].metadata), (10, &remembered.metadata));
    assert!(stored[0].committed_at_ms > 1_700_000_000_000);
    for bad in [request(Vec::new()), request(vec![offset(0, 0); 10_001])] {
        let status = grpc.groups().commit_offsets(bad).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_members_that_cannot_be_are_refused() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    let long = "x".repeat(250);
    for name in ["", "..", "a b", "a/b", "nul\0", "ü", long.as_str()] {
        let joining = v1::HeartbeatRequest {
            group: name.to_owned(),
            topics: vec![TOPIC.to_owned()],
            ..v1::HeartbeatRequest::default()
        };
        let group = || name.to_owned();
        let mut groups = grpc.groups();
        let statuses = [
            groups.heartbeat(joining).await.map(drop),
            groups.get_group(v1::GetGroupRequest { name: group() }).await.map(drop),
            groups
                .delete_group(v1::DeleteGroupRequest { name: group() })
                .await
                .map(drop),
            groups
                .leave_group(v1::LeaveGroupRequest {
                    group: group(),
                    ..Default::default()
                })
                .await
                .map(drop),
            groups
                .fetch_offsets(v1::FetchOffsetsRequest {
                    group: group(),
                    ..Default::default()
                })
                .await
                .map(drop),
            groups
                .commit_offsets(v1::CommitOffsetsRequest {
                    group: group(),
                    offsets: vec![offset(0, 0)],
                    ..Default::default()
                })
                .await
                .map(drop),
        ];
        for status in statuses {
            assert_eq!(status.unwrap_err().code(), Code::InvalidArgument, "{name:?}");
        }
    }
    let joining = v1::HeartbeatRequest {
        group: "x".repeat(249),
        topics: vec!["not-there-yet".to_owned()],
        ..v1::HeartbeatRequest::default()
    };
    let answer = grpc.groups().heartbeat(joining.clone()).await.unwrap().into_inner();
    assert!(
        answer.assigned.is_empty() && answer.heartbeat_interval_ms == 3_000,
        "{answer:?}"
    );
    for bad in [
        v1::HeartbeatRequest {
            topics: Vec::new(),
            ..joining.clone()
        },
        v1::HeartbeatRequest {
            topics: vec![String::new()],
            ..joining.clone()
        },
        v1::HeartbeatRequest {
            session_timeout_ms: 1,
            ..joining.clone()
        },
        v1::HeartbeatRequest {
            session_timeout_ms: u32::MAX,
            ..joining.clone()
        },
        v1::HeartbeatRequest {
            client_id: long.clone(),
            ..joining.clone()
        },
        v1::HeartbeatRequest {
            member_id: long.clone(),
            ..joining
        },
    ] {
        let status = grpc.groups().heartbeat(bad).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
}
