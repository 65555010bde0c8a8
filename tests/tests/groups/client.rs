//! The client as a member.

use std::time::Duration;

use millstream_client::{Change, Code, Connection, GroupMember, GroupSettings, TopicPartition};
use millstream_tests::Agent;
use tokio::time::timeout;

use super::{GROUP, PATIENCE, TOPIC, committed, fill, offset};

fn settings(client_id: &str, session: Duration) -> GroupSettings {
    GroupSettings {
        client_id: client_id.to_owned(),
        session_timeout: session,
        ..GroupSettings::default()
    }
}

async fn join(connection: &Connection, settings: GroupSettings) -> GroupMember {
    let topics = vec![TOPIC.to_owned()];
    GroupMember::join(connection, GROUP, topics, settings).await.unwrap()
}

/// The next thing that a member has to do.
async fn next(member: &GroupMember) -> Change {
    let next = async {
        loop {
            if let Some(change) = member.take_change().unwrap() {
                return change;
            }
            member.changed().await;
        }
    };
    timeout(PATIENCE, next).await.expect("something is to be done")
}

/// Says for ever that a member is at work, as often as one that is says it: no wait for a state.
async fn work(member: &GroupMember) {
    loop {
        member.poll();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn partitions(change: Change) -> Vec<TopicPartition> {
    match change {
        Change::Assigned(partitions) | Change::Revoked(partitions) => partitions,
        Change::Lost => panic!("its session lasts"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_gives_up_what_is_revoked_after_it_has_committed() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    fill(&grpc, 2).await;
    let connection = Connection::open(&agent.url()).await.unwrap();
    let session = Duration::from_secs(60);
    let a = join(&connection, settings("a", session)).await;
    assert_eq!(partitions(next(&a).await).len(), 2);
    let b = join(&connection, settings("b", session)).await;
    assert!(b.take_change().unwrap().is_none());

    let revoked = next(&a).await;
    assert!(matches!(revoked, Change::Revoked(_)), "{revoked:?}");
    let revoked = partitions(revoked);
    assert!(b.take_change().unwrap().is_none(), "it is still read");
    let number = revoked[0].1;
    assert!(a.commit(vec![offset(number, 6)]).await.unwrap().is_empty());
    a.give_up(&revoked);
    assert_eq!(next(&b).await, Change::Assigned(revoked.clone()));
    let found = b.committed(&revoked).await.unwrap();
    assert_eq!((found[0].partition, found[0].offset), (number, 6));
    let failures = a.commit(vec![offset(number, 7)]).await.unwrap();
    assert_eq!(failures[0].error.as_ref().unwrap().reason, "PARTITION_NOT_OWNED");

    b.leave().await.unwrap();
    assert_eq!(next(&a).await, Change::Assigned(revoked));
    a.leave().await.unwrap();
    assert_eq!(committed(&grpc).await, [(number, 6)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_hangs_is_replaced_and_joins_anew() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    fill(&grpc, 2).await;
    let connection = Connection::open(&agent.url()).await.unwrap();
    let hasty = GroupSettings {
        max_poll_interval: Duration::from_millis(300),
        ..settings("hangs", Duration::from_secs(1))
    };
    let hangs = join(&connection, hasty).await;
    assert_eq!(partitions(next(&hangs).await).len(), 2);
    let former = hangs.id();
    let other = join(&connection, settings("other", Duration::from_secs(60))).await;
    // It asks for nothing meanwhile.
    assert_eq!(partitions(next(&other).await).len(), 2);
    let late = hangs.commit(vec![offset(0, 1)]).await.unwrap_err();
    assert_eq!(
        (late.code(), late.reason()),
        (Some(Code::Aborted), Some("MEMBER_UNKNOWN"))
    );
    assert_eq!(next(&hangs).await, Change::Lost);
    let back = async {
        let revoked = partitions(next(&other).await);
        other.give_up(&revoked);
        assert_eq!(next(&hangs).await, Change::Assigned(revoked));
    };
    tokio::select! {
        () = back => {}
        () = work(&hangs) => {}
    }
    assert_ne!(hangs.id(), former);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_goes_on_where_its_agent_was_away_for_less_than_a_session() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    fill(&grpc, 2).await;
    let setup = agent.setup().clone().env("MILLSTREAM_LISTEN", agent.grpc_address());
    let connection = Connection::open(&agent.url()).await.unwrap();
    let member = join(&connection, settings("a", Duration::from_secs(60))).await;
    assert_eq!(partitions(next(&member).await).len(), 2);
    let id = member.id();
    drop(agent.kill9());
    let agent = setup.start();
    let stored = async {
        while member.commit(vec![offset(0, 5)]).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, stored).await.expect("it finds the agent again");
    assert_eq!((member.id(), member.take_change().unwrap()), (id, None));
    assert_eq!(committed(&agent.grpc().await).await, [(0, 5)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_group_cannot_be_called_is_told_at_once() {
    let agent = Agent::start();
    let connection = Connection::open(&agent.url()).await.unwrap();
    let topics = vec![TOPIC.to_owned()];
    let refused = GroupMember::join(&connection, "a b", topics, GroupSettings::default()).await;
    let error = refused.unwrap_err();
    assert_eq!(error.reason(), Some("NAME_INVALID"), "{error}");
}
