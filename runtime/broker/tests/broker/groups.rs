//! Consumer groups over real metadata. What their members are given is tested beside the code that decides it.

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

#[tokio::test(flavor = "multi_thread")]
async fn agents_answer_for_one_group_by_turns() {
    let world = World::new();
    let (a, b) = (world.agent("a", |_| {}).await, world.agent("b", |_| {}).await);
    topic(&a, "t", TopicConfig::default()).await;
    let agents = [&a, &b];
    let mut shares = [join(&a, "g").await, join(&b, "g").await];
    assert_eq!((shares[0].assigned.len(), shares[1].assigned.len()), (2, 0));
    for turn in 0..6 {
        for (member, share) in shares.iter_mut().enumerate() {
            *share = stay(agents[(turn + member) % 2], "g", share).await;
        }
        let both: BTreeSet<&TopicPartition> = shares.iter().flat_map(|share| &share.assigned).collect();
        assert_eq!(both.len(), shares[0].assigned.len() + shares[1].assigned.len());
    }
    assert!(shares.iter().all(|share| share.assigned.len() == 1), "{shares:?}");
    let seen: Vec<_> = agents.iter().map(|agent| agent.stats().groups).collect();
    assert!(
        seen.iter().all(|seen| (seen.groups, seen.members) == (1, 2)),
        "{seen:?}"
    );
    assert_eq!(seen.iter().map(|seen| seen.rebalances).sum::<u64>(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_join_at_once_share_everything() {
    let world = World::new();
    let (a, b) = (world.agent("a", |_| {}).await, world.agent("b", |_| {}).await);
    topic(&a, "t", TopicConfig::default()).await;
    let joins = (0..10).map(|n| {
        let broker = if n % 2 == 0 { a.clone() } else { b.clone() };
        tokio::spawn(async move { join(&broker, "g").await })
    });
    for joined in joins.collect::<Vec<_>>() {
        joined.await.unwrap();
    }
    let view = a.group("g").await.unwrap();
    assert_eq!(view.members.len(), 10);
    assert_eq!(
        view.partitions
            .iter()
            .filter(|partition| partition.member_id.is_some())
            .count(),
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn members_and_what_they_committed_outlive_the_agent() {
    let world = World::new();
    let broker = filled(&world).await;
    let share = join(&broker, "g").await;
    assert!(
        broker
            .group_commit(by(&share, vec![offset(0, 4)]))
            .await
            .unwrap()
            .is_empty()
    );
    drop(broker);
    let broker = world.open(|_| {}).await;
    let again = stay(&broker, "g", &share).await;
    assert_eq!(again, share);
    let offsets = broker
        .group_offsets("g", &[("t".to_owned(), 0), ("t".to_owned(), 1)])
        .await
        .unwrap();
    assert_eq!(
        (offsets.len(), offsets[0].offset, offsets[0].metadata.as_str()),
        (1, Offset(4), "at 4")
    );
    assert!(
        broker
            .group_offsets("g", &[("t".to_owned(), 1)])
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_dies_is_replaced_once_its_session_is_over() {
    let world = World::new();
    let broker = filled(&world).await;
    let dies = GroupHeartbeat {
        session_timeout_ms: SESSION_MS,
        ..joining("g")
    };
    let dies = broker.group_heartbeat(dies).await.unwrap();
    let mut lives = join(&broker, "g").await;
    assert!(lives.assigned.is_empty());
    until("the other one has everything", async || {
        // It is asked as nobody changes anything.
        let view = broker.group("g").await.unwrap();
        view.members.len() == 1
    })
    .await;
    lives = stay(&broker, "g", &lives).await;
    assert_eq!(lives.assigned.len(), 2);
    let late = broker.group_heartbeat(staying("g", &dies)).await.unwrap_err();
    assert_eq!((reason(&late), late.kind()), ("MEMBER_UNKNOWN", Kind::Conflict));
    let late = broker.group_commit(by(&dies, vec![offset(0, 4)])).await.unwrap_err();
    assert_eq!(reason(&late), "MEMBER_UNKNOWN");
    assert!(committed(&broker).await.is_empty());
    broker.leave_group("g", &lives.member_id).await.unwrap();
    let left = broker.leave_group("g", &lives.member_id).await.unwrap_err();
    assert_eq!(reason(&left), "MEMBER_UNKNOWN");
    assert_eq!(broker.stats().groups.groups, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_needs_the_generation_and_the_partition() {
    let world = World::new();
    let broker = filled(&world).await;
    let first = join(&broker, "g").await;
    let other = join(&broker, "g").await;
    // Still its present one, whatever the group's is by now.
    assert!(
        broker
            .group_commit(by(&first, vec![offset(0, 1), offset(1, 1)]))
            .await
            .unwrap()
            .is_empty()
    );
    let mut told = stay(&broker, "g", &first).await;
    let stale = broker.group_commit(by(&first, vec![offset(0, 2)])).await.unwrap_err();
    assert_eq!((reason(&stale), stale.kind()), ("GENERATION_STALE", Kind::Conflict));
    // It owns what it is told to give up until it has.
    assert!(
        broker
            .group_commit(by(&told, vec![offset(0, 3), offset(1, 3)]))
            .await
            .unwrap()
            .is_empty()
    );
    told = stay(&broker, "g", &told).await;
    let gone = 1 - told.assigned[0].1;
    let failures = broker
        .group_commit(by(&told, vec![offset(0, 5), offset(1, 5)]))
        .await
        .unwrap();
    let (partition, error) = only_failure(&failures);
    assert_eq!((partition, reason(error)), (gone, "PARTITION_NOT_OWNED"));
    let mut expected = [(0, 5), (1, 5)];
    expected[gone as usize].1 = 3;
    assert_eq!(committed(&broker).await, expected);
    let nobody = broker.group_commit(by_nobody(vec![offset(0, 9)])).await.unwrap_err();
    assert_eq!(
        (reason(&nobody), nobody.kind()),
        ("GROUP_HAS_MEMBERS", Kind::Precondition)
    );
    for share in [&told, &other] {
        broker.leave_group("g", &share.member_id).await.unwrap();
    }
    assert!(
        broker
            .group_commit(by_nobody(vec![offset(0, 9)]))
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(committed(&broker).await[0], (0, 9));
    assert_eq!(broker.stats().groups.commits, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_committed_is_named_and_the_rest_is_stored() {
    let world = World::new();
    let broker = filled(&world).await;
    let elsewhere = GroupOffset {
        topic: "absent".to_owned(),
        ..offset(0, 0)
    };
    let long = GroupOffset {
        metadata: "x".repeat(4_097),
        ..offset(1, 1)
    };
    let offsets = vec![
        offset(0, 10),
        offset(1, 11),
        offset(2, 0),
        elsewhere,
        long,
        offset(0, 2),
    ];
    let failures = broker.group_commit(by_nobody(offsets)).await.unwrap();
    let kinds: Vec<Kind> = failures.iter().map(|failure| failure.error.kind()).collect();
    let expected = [
        Kind::OutOfRange,
        Kind::NotFound,
        Kind::NotFound,
        Kind::Invalid,
        Kind::Invalid,
    ];
    assert_eq!(kinds, expected, "{failures:?}");
    assert_eq!(committed(&broker).await, [(0, 10)]);
    let none = broker.group_commit(by_nobody(Vec::new())).await.unwrap_err();
    assert_eq!(none.kind(), Kind::Invalid);
    let many = broker
        .group_commit(by_nobody(vec![offset(0, 0); 10_001]))
        .await
        .unwrap_err();
    assert_eq!(many.kind(), Kind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_goes_on_where_it_is_reset_to() {
    let world = World::new();
    let broker = filled(&world).await;
    let reset = |to, topics: &[&str], partitions: &[u32], dry_run| GroupReset {
        group: "g".to_owned(),
        partitions: partitions
            .iter()
            .map(|partition| ("t".to_owned(), *partition))
            .collect(),
        topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        to,
        dry_run,
    };
    let unknown = broker
        .reset_group(reset(ResetTo::Earliest, &[], &[], false))
        .await
        .unwrap_err();
    assert_eq!((reason(&unknown), unknown.kind()), ("GROUP_UNKNOWN", Kind::NotFound));
    let told = broker
        .reset_group(reset(ResetTo::Latest, &["t"], &[], true))
        .await
        .unwrap();
    assert_eq!(told.iter().map(|told| told.offset.0).collect::<Vec<_>>(), [10, 10]);
    assert!(committed(&broker).await.is_empty());
    for (to, topics, partitions, expected) in [
        (ResetTo::Latest, &["t"][..], &[][..], vec![(0, 10), (1, 10)]),
        (ResetTo::Earliest, &[], &[1], vec![(0, 10), (1, 0)]),
        (ResetTo::Offset(Offset(3)), &[], &[], vec![(0, 3), (1, 3)]),
        // Their timestamps are their values.
        (ResetTo::Time(7), &[], &[0], vec![(0, 7), (1, 3)]),
        (ResetTo::Time(70), &[], &[], vec![(0, 10), (1, 10)]),
    ] {
        broker.reset_group(reset(to, topics, partitions, false)).await.unwrap();
        assert_eq!(committed(&broker).await, expected, "{to:?}");
    }
    let beyond = broker
        .reset_group(reset(ResetTo::Offset(Offset(11)), &[], &[], false))
        .await
        .unwrap_err();
    assert_eq!(beyond.kind(), Kind::OutOfRange);
    let share = join(&broker, "g").await;
    for error in [
        broker
            .reset_group(reset(ResetTo::Earliest, &[], &[], false))
            .await
            .unwrap_err(),
        broker.delete_group("g").await.unwrap_err(),
    ] {
        assert_eq!(reason(&error), "GROUP_HAS_MEMBERS");
    }
    broker.leave_group("g", &share.member_id).await.unwrap();
    broker.delete_group("g").await.unwrap();
    assert!(committed(&broker).await.is_empty());
    assert_eq!(reason(&broker.delete_group("g").await.unwrap_err()), "GROUP_UNKNOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_shows_who_reads_what_and_how_far_it_is_behind() {
    let world = World::new();
    let broker = filled(&world).await;
    let share = join(&broker, "g").await;
    broker.group_commit(by(&share, vec![offset(1, 4)])).await.unwrap();
    broker.truncate("t", 0, Offset(3)).await.unwrap();
    let view = broker.group("g").await.unwrap();
    assert_eq!(view.members[0].client_id, "test");
    assert_eq!(view.members[0].owned.len(), 2);
    assert!((29_000..=30_000).contains(&view.members[0].session_left_ms));
    let lags: Vec<(u32, Option<u64>, u64)> = view
        .partitions
        .iter()
        .map(|partition| {
            assert_eq!(partition.member_id.as_ref(), Some(&share.member_id));
            assert_eq!(partition.high_watermark, Offset(10));
            (
                partition.partition,
                partition.committed.as_ref().map(|at| at.offset.0),
                partition.lag(),
            )
        })
        .collect();
    assert_eq!(lags, [(0, None, 7), (1, Some(4), 6)]);
    join(&broker, "B").await;
    let groups = broker.groups_list().await.unwrap();
    let groups: Vec<_> = groups
        .iter()
        .map(|group| (group.name.as_str(), group.members, group.topics.len()))
        .collect();
    assert_eq!(groups, [("B", 1, 1), ("g", 1, 1)]);
    assert_eq!(reason(&broker.group("absent").await.unwrap_err()), "GROUP_UNKNOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_comes_grows_and_goes_is_followed() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    let mut share = join(&broker, "g").await;
    assert!(share.assigned.is_empty());
    topic(&broker, "t", TopicConfig::default()).await;
    broker.produce("t", 0, batch(0..10), Acks::Durable).await.unwrap();
    share = stay(&broker, "g", &share).await;
    assert_eq!(share.assigned.len(), 2);
    broker.group_commit(by(&share, vec![offset(0, 4)])).await.unwrap();
    broker.delete_topic("t").await.unwrap();
    topic(&broker, "t", TopicConfig::default()).await;
    assert!(committed(&broker).await.is_empty());
    let failures = broker.group_commit(by(&share, vec![offset(0, 0)])).await.unwrap();
    assert_eq!(reason(only_failure(&failures).1), "PARTITION_NOT_OWNED");
    share = stay(&broker, "g", &share).await;
    assert!(share.assigned.is_empty(), "it is another topic: {share:?}");
    share = stay(&broker, "g", &share).await;
    assert_eq!(share.assigned.len(), 2);
    assert!(
        broker
            .group_commit(by(&share, vec![offset(0, 0)]))
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_member_can_say_is_refused() {
    let world = World::new();
    let broker = filled(&world).await;
    let long = "x".repeat(250);
    for group in ["", ".", "a/b", "ü", long.as_str()] {
        let error = broker.group_heartbeat(joining(group)).await.unwrap_err();
        assert!(
            matches!(error, BrokerError::InvalidName { what: "group", .. }),
            "{group:?}: {error}"
        );
        assert_eq!(
            broker.group_offsets(group, &[]).await.unwrap_err().kind(),
            Kind::Invalid
        );
    }
    let good = joining("g");
    for bad in [
        GroupHeartbeat {
            topics: Vec::new(),
            ..good.clone()
        },
        GroupHeartbeat {
            topics: vec!["a b".to_owned()],
            ..good.clone()
        },
        GroupHeartbeat {
            topics: vec!["t".to_owned(); 1_001],
            ..good.clone()
        },
        GroupHeartbeat {
            client_id: long.clone(),
            ..good.clone()
        },
        GroupHeartbeat {
            client_id: "\0".to_owned(),
            ..good.clone()
        },
        GroupHeartbeat {
            session_timeout_ms: 999,
            ..good.clone()
        },
        GroupHeartbeat {
            session_timeout_ms: 600_001,
            ..good.clone()
        },
        GroupHeartbeat {
            member_id: long.clone(),
            ..good.clone()
        },
        GroupHeartbeat {
            owned: vec![("t".to_owned(), 0); 10_001],
            ..good.clone()
        },
    ] {
        let error = broker.group_heartbeat(bad).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
    }
    let never = GroupHeartbeat {
        member_id: "never".to_owned(),
        ..good
    };
    assert_eq!(
        reason(&broker.group_heartbeat(never).await.unwrap_err()),
        "MEMBER_UNKNOWN"
    );
    assert!(broker.groups_list().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_has_bounds() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    let large = millstream_broker::NewTopic {
        name: "t".to_owned(),
        partitions: 10_001,
        config: TopicConfig::default(),
    };
    broker.create_topic(large).await.unwrap();
    let error = broker.group_heartbeat(joining("g")).await.unwrap_err();
    assert!(
        matches!(
            error,
            BrokerError::Group(GroupError::TooManyPartitions { partitions: 10_001, .. })
        ),
        "{error}"
    );
    let wordy = |n: usize| GroupHeartbeat {
        topics: (0..1_000)
            .map(|topic| format!("{topic}-{n}-{}", "x".repeat(200)))
            .collect(),
        ..joining("wordy")
    };
    let mut refused = None;
    for n in 0..10 {
        if let Err(error) = broker.group_heartbeat(wordy(n)).await {
            refused = Some(error);
            break;
        }
    }
    let refused = refused.expect("ten times 200 KB are too many");
    assert_eq!(
        (reason(&refused), refused.kind()),
        ("GROUP_TOO_LARGE", Kind::Precondition)
    );
    assert!(broker.group("wordy").await.unwrap().members.len() >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_that_changes_nothing_writes_nothing() {
    let world = World::new();
    let broker = filled(&world).await;
    let share = join(&broker, "g").await;
    let lock = world.lock().await;
    let beat = tokio::time::timeout(Duration::from_secs(10), stay(&broker, "g", &share)).await;
    assert_eq!(beat.expect("it waits for nobody who writes"), share);
    lock.release().await;
}
