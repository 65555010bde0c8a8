//! What a member commits where its agents misbehave.

use std::time::Duration;

use millstream_proto::v1;

use super::{GroupConsumer, GroupConsumerSettings, GroupMember, GroupSettings};
use crate::{
    ClientError, Code, Connection,
    fake::{Fake, member, refusal},
};

async fn join(connection: &Connection) -> GroupMember {
    let joining = GroupMember::join(connection, "g", vec!["t".to_owned()], GroupSettings::default());
    joining.await.unwrap()
}

fn offsets(partitions: &[u32]) -> Vec<v1::CommittedOffset> {
    let offset = |partition: &u32| v1::CommittedOffset {
        topic: "t".to_owned(),
        partition: *partition,
        offset: 7,
        ..v1::CommittedOffset::default()
    };
    partitions.iter().map(offset).collect()
}

/// Refuses whatever is of partition 0, and says that another agent leads all the rest.
fn leads_one(other: String) -> Fake {
    let commit = move |request: &v1::CommitOffsetsRequest| {
        if request.offsets.iter().any(|offset| offset.partition == 0) {
            return Some(Err(refusal(Code::Internal, "BROKEN")));
        }
        let failures = request.offsets.iter().map(|offset| v1::CommitFailure {
            topic: offset.topic.clone(),
            partition: offset.partition,
            error: Some(v1::Error {
                code: Code::Unavailable.into(),
                reason: "LED_ELSEWHERE".to_owned(),
                leader: other.clone(),
                ..v1::Error::default()
            }),
        });
        let failures = failures.collect();
        Some(Ok(v1::CommitOffsetsResponse { failures }))
    };
    Fake {
        commit: Box::new(commit),
        ..Fake::default()
    }
}

#[tokio::test]
async fn an_agent_that_stores_nothing_fails_its_own_share_alone() {
    let (other, at_other) = Fake::default().serve().await;
    let address = at_other.url().trim_start_matches("http://").to_owned();
    let (_, connection) = leads_one(address).serve().await;
    let member = join(&connection).await;
    assert_eq!(member.commit(offsets(&[1])).await.unwrap(), []);
    // The member's own agent is asked first.
    let failures = member.commit(offsets(&[0, 1])).await.unwrap().into_iter();
    let failures: Vec<_> = failures
        .map(|failure| (failure.partition, failure.error.unwrap().reason))
        .collect();
    assert_eq!(failures, [(0, "BROKEN".to_owned())]);
    assert_eq!(other.commits(), [[(1, 7)], [(1, 7)]]);
    let refused = member.commit(offsets(&[0])).await.unwrap_err();
    assert_eq!(refused.reason(), Some("BROKEN"), "nobody said anything else");
}

#[tokio::test]
async fn a_member_whose_session_is_over_commits_nothing() {
    let (agent, connection) = Fake::default().serve().await;
    let member = join(&connection).await;
    member.commit(offsets(&[0])).await.unwrap();
    member.common().state().share.lose();
    let refused = member.commit(offsets(&[1])).await.unwrap_err();
    assert_eq!(refused.reason(), Some("MEMBER_UNKNOWN"));
    assert_eq!(agent.commits(), [[(0, 7)]]);
}

#[tokio::test]
async fn what_was_read_under_one_id_is_not_committed_under_the_next() {
    let beat = |request: &v1::HeartbeatRequest| {
        Some(match request.member_id.as_str() {
            "" => Ok(member("m", 1)),
            _ => Err(refusal(Code::Aborted, "MEMBER_UNKNOWN")),
        })
    };
    let agent = Fake {
        beat: Box::new(beat),
        commit: Box::new(|_| Some(Err(refusal(Code::Aborted, "GENERATION_STALE")))),
        ..Fake::default()
    };
    let (agent, connection) = agent.serve().await;
    let refused = join(&connection).await.commit(offsets(&[0])).await.unwrap_err();
    assert_eq!(refused.reason(), Some("MEMBER_UNKNOWN"));
    assert_eq!(agent.commits().len(), 1, "it was stale, and has no second try");
}

#[tokio::test]
async fn an_agent_that_hangs_is_one_that_is_lost() {
    let agent = Fake {
        commit: Box::new(|_| None),
        ..Fake::default()
    };
    let (_, connection) = agent.serve().await;
    let settings = GroupConsumerSettings {
        group: GroupSettings {
            session_timeout: Duration::from_secs(1),
            ..GroupSettings::default()
        },
        ..GroupConsumerSettings::default()
    };
    let mut consumer = GroupConsumer::join(&connection, "g", &["t"], settings).await.unwrap();
    let lost = consumer
        .commit_offsets(vec![(("t".to_owned(), 0), 7)])
        .await
        .unwrap_err();
    assert!(matches!(lost, ClientError::ConnectionLost { .. }), "{lost}");
}
