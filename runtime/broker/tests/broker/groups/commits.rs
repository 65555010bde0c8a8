//! What is committed, shown, reset and forgotten.

use super::*;
use crate::support::segment;

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
async fn of_a_partition_that_another_agent_leads_only_what_is_in_segments_is_committed() {
    let world = World::new();
    let a = world.agent("a", |_| {}).await;
    topic(&a, "t", TopicConfig::default()).await;
    segment(&a, "t", 0, 0..10).await;
    a.produce("t", 0, batch(10..20), Acks::Durable).await.unwrap();
    let b = world.agent("b", |_| {}).await;
    for at in [0, 10] {
        let failures = b.group_commit(by_nobody(vec![offset(0, at)])).await.unwrap();
        assert!(failures.is_empty(), "{failures:?}");
    }
    for at in [11, 20, 21] {
        let failures = b.group_commit(by_nobody(vec![offset(0, at)])).await.unwrap();
        let (_, error) = only_failure(&failures);
        assert!(
            matches!(error, BrokerError::LedElsewhere { agent, .. } if agent == "a"),
            "{error}"
        );
    }
    assert_eq!(committed(&b).await, [(0, 10)]);
    // The leader knows.
    assert!(a.group_commit(by_nobody(vec![offset(0, 20)])).await.unwrap().is_empty());
    let failures = a.group_commit(by_nobody(vec![offset(0, 21)])).await.unwrap();
    assert_eq!(only_failure(&failures).1.kind(), Kind::OutOfRange);
    assert_eq!(committed(&b).await, [(0, 20)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_segments_that_another_agent_writes_is_remembered_and_asked_for_only_beyond_it() {
    let world = World::new();
    let a = world.agent("a", |_| {}).await;
    topic(&a, "t", TopicConfig::default()).await;
    segment(&a, "t", 0, 0..10).await;
    let b = world.agent("b", |_| {}).await;
    let commit = async |at| b.group_commit(by_nobody(vec![offset(0, at)])).await.unwrap();
    assert!(commit(4).await.is_empty());
    // What memory does not have yet is asked for.
    segment(&a, "t", 0, 10..20).await;
    assert!(commit(20).await.is_empty());
    // So it would be told that nothing is stored, if it asked.
    world.execute("UPDATE partitions SET committed_end = 0").await;
    assert!(commit(19).await.is_empty());
    assert!(matches!(
        only_failure(&commit(21).await).1,
        BrokerError::LedElsewhere { .. }
    ));
    assert_eq!(committed(&b).await, [(0, 19)]);
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
