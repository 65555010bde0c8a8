//! Reading as a member: with the client, and with `millstream consume --group`.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt as _;
use millstream_client::{ClientError, Connection, GroupConsumer, GroupConsumerSettings, GroupSettings, Start};
use millstream_proto::v1;
use millstream_tests::{Agent, record, wat};
use tokio::time::timeout;

use super::{GROUP, PATIENCE, TOPIC, committed, fill};

async fn join(connection: &Connection, auto_commit: Option<Duration>) -> GroupConsumer {
    let settings = GroupConsumerSettings {
        group: GroupSettings {
            session_timeout: Duration::from_secs(2),
            ..GroupSettings::default()
        },
        auto_commit,
        ..GroupConsumerSettings::default()
    };
    GroupConsumer::join(connection, GROUP, &[TOPIC], settings)
        .await
        .unwrap()
}

/// Reads so many records, which are different ones.
async fn read(consumer: &mut GroupConsumer, count: usize) -> BTreeSet<(u32, u64)> {
    let mut read = BTreeSet::new();
    let mut records = consumer.by_ref().take(count);
    while let Some(consumed) = timeout(PATIENCE, records.next()).await.expect("there are more") {
        let consumed = consumed.unwrap();
        assert!(
            read.insert((consumed.partition, consumed.record.offset)),
            "{consumed:?} came twice"
        );
    }
    read
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_is_committed_at_the_end_and_the_next_one_goes_on_there() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    fill(&grpc, 2).await;
    let connection = Connection::open(&agent.url()).await.unwrap();
    let mut first = join(&connection, Some(Duration::from_secs(60))).await;
    let mut all = read(&mut first, 15).await;
    first.close().await.unwrap();
    assert_eq!(committed(&grpc).await.iter().map(|(_, offset)| offset).sum::<u64>(), 15);
    let mut second = join(&connection, None).await;
    let rest = read(&mut second, 5).await;
    assert!(all.is_disjoint(&rest));
    all.extend(rest);
    assert_eq!(all.len(), 20);
    // Nobody commits for it.
    assert_eq!(committed(&grpc).await.iter().map(|(_, offset)| offset).sum::<u64>(), 15);
    second.commit().await.unwrap();
    assert_eq!(committed(&grpc).await, [(0, 10), (1, 10)]);
    second.seek(TOPIC, 0, Start::Offset(7)).await.unwrap();
    assert_eq!(read(&mut second, 3).await, BTreeSet::from([(0, 7), (0, 8), (0, 9)]));
    second.leave().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_read_every_record_once_where_neither_fails() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    fill(&grpc, 4).await;
    let connection = Connection::open(&agent.url()).await.unwrap();
    let mut first = join(&connection, Some(Duration::from_millis(100))).await;
    let mut all = read(&mut first, 40).await;
    let mut second = join(&connection, Some(Duration::from_millis(100))).await;
    let share = async {
        // Both ask on and on, so that the partitions move.
        while first.consumer().assigned().len() != 2 || second.consumer().assigned().len() != 2 {
            let wait = Duration::from_millis(50);
            let (a, b) = tokio::join!(timeout(wait, first.next()), timeout(wait, second.next()));
            assert!(a.is_err() && b.is_err(), "there is nothing new: {a:?} {b:?}");
        }
    };
    timeout(PATIENCE, share).await.expect("they share");
    for partition in 0..4 {
        grpc.produce(TOPIC, partition, vec![record("more")]).await.unwrap();
    }
    let (a, b) = tokio::join!(read(&mut first, 2), read(&mut second, 2));
    all.extend(a.into_iter().chain(b));
    assert_eq!(all.len(), 44);
    first.close().await.unwrap();
    second.close().await.unwrap();
    assert_eq!(committed(&grpc).await, [(0, 11), (1, 11), (2, 11), (3, 11)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_pauses_and_commits_what_it_says() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    fill(&grpc, 2).await;
    let connection = Connection::open(&agent.url()).await.unwrap();
    let mut member = join(&connection, None).await;
    let first = timeout(PATIENCE, member.next()).await.unwrap().unwrap().unwrap();
    member.pause(TOPIC, first.partition);
    let other = 1 - first.partition;
    let all_others: BTreeSet<_> = (0..10).map(|offset| (other, offset)).collect();
    assert_eq!(read(&mut member, 10).await, all_others);
    // It goes on where the stream was, not where the last answer ended.
    member.resume(TOPIC, first.partition);
    let rest: BTreeSet<_> = (1..10).map(|offset| (first.partition, offset)).collect();
    assert_eq!(read(&mut member, 9).await, rest);
    member.commit_offsets(vec![((TOPIC.to_owned(), 0), 3)]).await.unwrap();
    assert_eq!(committed(&grpc).await, [(0, 3)]);
    let unknown = member.seek(TOPIC, 2, Start::Earliest).await.unwrap_err();
    assert!(matches!(unknown, ClientError::NotAssigned { .. }), "{unknown}");
    let beyond = member
        .commit_offsets(vec![((TOPIC.to_owned(), 0), 11)])
        .await
        .unwrap_err();
    assert_eq!(beyond.reason(), Some("OFFSET_OUT_OF_RANGE"));
    member.leave().await.unwrap();
    assert_eq!(committed(&grpc).await, [(0, 3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_goes_on_behind_a_record_that_it_cannot_read() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic(TOPIC, 1).await.unwrap();
    for value in ["before", "TRAP", "behind"] {
        grpc.produce(TOPIC, 0, vec![record(value)]).await.unwrap();
    }
    grpc.deploy("traps", wat::module(&wat::where_it_says("TRAP", "(unreachable)")))
        .await
        .unwrap();
    grpc.add_stage_untried(TOPIC, v1::PipelineSide::Fetch, "traps")
        .await
        .unwrap();
    let connection = Connection::open(&agent.url()).await.unwrap();
    let mut member = join(&connection, None).await;
    assert_eq!(read(&mut member, 1).await, BTreeSet::from([(0, 0)]));
    let error = timeout(PATIENCE, member.next()).await.unwrap().unwrap().unwrap_err();
    assert!(error.to_string().contains("at offset 1"), "{error}");
    assert_eq!(member.consumer().assigned(), []);
    member.seek(TOPIC, 0, Start::Offset(2)).await.unwrap();
    assert_eq!(read(&mut member, 1).await, BTreeSet::from([(0, 2)]));
    member.commit().await.unwrap();
    assert_eq!(committed(&grpc).await, [(0, 3)]);
    member.leave().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_rides_over_an_agent_that_starts_again() {
    let agent = Agent::start();
    fill(&agent.grpc().await, 2).await;
    let setup = agent.setup().clone().env("MILLSTREAM_LISTEN", agent.grpc_address());
    let connection = Connection::open(&agent.url()).await.unwrap();
    let settings = GroupConsumerSettings {
        auto_commit: Some(Duration::from_millis(50)),
        ..GroupConsumerSettings::default()
    };
    let joined = GroupConsumer::join(&connection, GROUP, &[TOPIC], settings).await;
    let mut member = joined.unwrap();
    assert_eq!(read(&mut member, 20).await.len(), 20);
    drop(agent.kill9());
    // It waits for records all the while.
    let (agent, ()) = tokio::join!(
        async {
            let agent = tokio::task::spawn_blocking(move || setup.start()).await.unwrap();
            agent
                .grpc()
                .await
                .produce(TOPIC, 1, vec![record("more")])
                .await
                .unwrap();
            agent
        },
        async { assert_eq!(read(&mut member, 1).await, BTreeSet::from([(1, 10)])) }
    );
    member.close().await.unwrap();
    assert_eq!(committed(&agent.grpc().await).await, [(0, 10), (1, 11)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn consume_as_a_group_goes_on_where_it_ended() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    fill(&grpc, 2).await;
    let consume = |more: &[&str]| {
        let line = ["consume", TOPIC, "--group", GROUP];
        agent.cli(line.iter().chain(more)).text().lines().count()
    };
    assert_eq!(consume(&["--max", "3"]), 3);
    assert_eq!(committed(&grpc).await.iter().map(|(_, offset)| offset).sum::<u64>(), 3);
    assert_eq!(consume(&["--format", "json"]), 17);
    assert_eq!(committed(&grpc).await, [(0, 10), (1, 10)]);
    assert_eq!(consume(&[]), 0);
    grpc.produce(TOPIC, 1, vec![record("more")]).await.unwrap();
    assert_eq!(consume(&[]), 1);
    let group = agent.cli(["group", "list", "--output", "json"]).json();
    assert_eq!(group[0]["members"], 0, "it has left");
    let error = agent.cli(["consume", TOPIC, "--group", GROUP, "--from", "3"]).error();
    assert!(error.contains("group reset"), "{error}");
}
