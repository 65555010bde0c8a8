//! Members that come and go, and what no member can say.

use super::*;

/// The same with all of its session left.
fn unspent(share: &GroupShare) -> GroupShare {
    GroupShare {
        session_left: share.session_timeout,
        ..share.clone()
    }
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
    assert_eq!(unspent(&again), unspent(&share));
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
    let beat = beat.expect("it waits for nobody who writes");
    assert_eq!(unspent(&beat), unspent(&share));
    lock.release().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_its_id_before_it_joins_can_leave_whatever_became_of_that() {
    let world = World::new();
    let broker = filled(&world).await;
    let id = broker.draw_member_id();
    let none = broker.leave_group("g", &id).await.unwrap_err();
    assert_eq!(reason(&none), "MEMBER_UNKNOWN");
    let share = broker.join_group(&id, joining("g")).await.unwrap();
    assert_eq!((&share.member_id, share.assigned.len()), (&id, 2));
    broker.leave_group("g", &id).await.unwrap();
    assert!(broker.group("g").await.unwrap().members.is_empty());
}
