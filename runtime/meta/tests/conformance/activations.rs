use std::num::NonZeroU32;

use millstream_meta::{AgentBehind, Lease, NewPipeline, PipelineChanges, Registered, WalKind};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::fixture::{Place, new_incarnation};
use crate::{Fixture, LEASE, NOW_MS, TASKS};

on_both! {
    all_pipelines_that_change_together_get_one_number,
    numbers_only_grow_whatever_is_deleted,
    racing_activations_get_numbers_of_their_own,
    what_was_activated_since_is_read_page_by_page_each_topic_once,
    a_start_has_reached_what_stood_when_it_registered,
    whoever_leads_and_has_not_come_as_far_is_behind,
    an_agent_is_behind_with_the_topics_that_it_names_and_no_others,
    an_agent_whose_lease_time_is_over_is_told_apart_and_one_that_left_is_not_behind,
    an_agent_hears_whether_others_live,
    an_activation_knows_whether_it_is_alone,
}

/// One activation for these topics, each based on this version; its number.
async fn activate(fixture: &Fixture, topics: &[Uuid], expected_version: u64) -> u64 {
    let changed = fixture
        .metadata
        .change_pipelines(&changes(topics, expected_version), NOW_MS)
        .await
        .unwrap();
    assert!(
        changed
            .rows
            .iter()
            .all(|row| row.activation == changed.rows[0].activation)
    );
    changed.rows[0].activation
}

fn changes(topics: &[Uuid], expected_version: u64) -> PipelineChanges {
    let pipelines = topics.iter().map(|topic_id| NewPipeline {
        topic_id: *topic_id,
        expected_version,
        stages_json: "[]".to_owned(),
    });
    PipelineChanges {
        pipelines: pipelines.collect(),
        reason: "a test".to_owned(),
        ..PipelineChanges::default()
    }
}

async fn since(fixture: &Fixture, activation: u64, topic_id: Uuid, limit: u32) -> Vec<(u64, Uuid, u64)> {
    let limit = NonZeroU32::new(limit).unwrap();
    let found = fixture.metadata.activated_since(activation, topic_id, limit).await;
    let found = found.unwrap().into_iter();
    found
        .map(|found| (found.row.activation, found.topic_id, found.row.version))
        .collect()
}

/// The agents that are behind, each with whether it lives.
async fn behind(fixture: &Fixture, activation: u64, topics: &[Uuid], but: Uuid) -> Vec<(String, bool, Uuid)> {
    let behind = fixture.metadata.behind(activation, topics, but).await.unwrap();
    let named = behind.into_iter().map(|agent| {
        let AgentBehind {
            name,
            address,
            live,
            topic_id,
        } = agent;
        assert_eq!(address, "host:7070");
        (name, live, topic_id)
    });
    named.collect()
}

async fn lead(fixture: &Fixture, topic_id: Uuid, partition: u32, incarnation: Uuid) -> Lease {
    let lease = fixture.metadata.acquire_lease(topic_id, partition, incarnation).await;
    lease.unwrap()
}

async fn all_pipelines_that_change_together_get_one_number(fixture: Fixture) {
    let (t, u) = (fixture.topic(1, "t", 1).await.id, fixture.topic(2, "u", 1).await.id);
    assert_eq!(activate(&fixture, &[t, u], 0).await, 1);
    assert_eq!(activate(&fixture, &[u], 1).await, 2);
    let stored = fixture.metadata.pipeline(t).await.unwrap().unwrap();
    assert_eq!((stored.version, stored.activation), (1, 1));
    // What is refused counts nothing.
    let refused = fixture.metadata.change_pipelines(&changes(&[t, u], 1), NOW_MS).await;
    refused.unwrap_err();
    assert_eq!(activate(&fixture, &[t], 1).await, 3);
}

async fn numbers_only_grow_whatever_is_deleted(fixture: Fixture) {
    let t = fixture.topic(1, "t", 1).await.id;
    assert_eq!(activate(&fixture, &[t], 0).await, 1);
    assert_eq!(activate(&fixture, &[t], 1).await, 2);
    fixture.metadata.delete_topic(t, NOW_MS).await.unwrap();
    let again = fixture.topic(2, "t", 1).await.id;
    assert_eq!(activate(&fixture, &[again], 0).await, 3);
    assert_eq!(since(&fixture, 0, Uuid::nil(), 10).await, [(3, again, 1)]);
}

async fn racing_activations_get_numbers_of_their_own(fixture: Fixture) {
    let mut tasks = JoinSet::new();
    for n in 0..TASKS {
        let topic = fixture.topic(u128::from(n), &format!("t{n}"), 1).await;
        let metadata = fixture.client().await;
        tasks.spawn(async move { metadata.activate_pipeline(topic.id, 0, "[]", "a test", NOW_MS).await });
    }
    let mut numbers: Vec<_> = tasks
        .join_all()
        .await
        .into_iter()
        .map(|row| row.unwrap().activation)
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=TASKS).collect::<Vec<_>>());
}

async fn what_was_activated_since_is_read_page_by_page_each_topic_once(fixture: Fixture) {
    let mut topics = Vec::new();
    for n in 1..=5 {
        topics.push(fixture.topic(n, &format!("t{n}"), 1).await.id);
    }
    assert_eq!(since(&fixture, 0, Uuid::max(), 10).await, []);
    activate(&fixture, &topics, 0).await;
    activate(&fixture, &topics[1..2], 1).await;
    let expected = [
        (1, topics[0], 1),
        (1, topics[2], 1),
        (1, topics[3], 1),
        (1, topics[4], 1),
        (2, topics[1], 2),
    ];
    assert_eq!(since(&fixture, 0, Uuid::max(), 10).await, expected);
    // One activation may take several pages.
    assert_eq!(since(&fixture, 0, Uuid::max(), 2).await, expected[..2]);
    assert_eq!(since(&fixture, 1, topics[2], 2).await, expected[2..4]);
    assert_eq!(since(&fixture, 1, topics[4], 2).await, expected[4..]);
    assert_eq!(since(&fixture, 1, Uuid::max(), 10).await, expected[4..]);
    assert_eq!(since(&fixture, 2, Uuid::max(), 10).await, []);
}

async fn a_start_has_reached_what_stood_when_it_registered(fixture: Fixture) {
    let t = fixture.topic(1, "t", 1).await.id;
    let register = async |id| {
        let new = new_incarnation("a", id, WalKind::Object);
        fixture.metadata.register_incarnation(&new, NOW_MS).await.unwrap()
    };
    let alone = |activation| Registered {
        activation,
        others: false,
    };
    assert_eq!(register(100).await, alone(0));
    let first = activate(&fixture, &[t], 0).await;
    lead(&fixture, t, 0, Uuid::from_u128(100)).await;
    let other = fixture.incarnation_of("b", 200, WalKind::Object).await;
    assert_eq!(behind(&fixture, first, &[t], other).await, [("a".to_owned(), true, t)]);
    // The next start opens what it leads anew.
    let others = true;
    assert_eq!(register(101).await, Registered { others, ..alone(first) });
    lead(&fixture, t, 0, Uuid::from_u128(101)).await;
    assert_eq!(behind(&fixture, first, &[t], other).await, []);
    let second = activate(&fixture, &[t], 1).await;
    assert_eq!(behind(&fixture, second, &[t], other).await, [("a".to_owned(), true, t)]);
}

async fn whoever_leads_and_has_not_come_as_far_is_behind(fixture: Fixture) {
    let (t, u) = (fixture.topic(1, "t", 2).await.id, fixture.topic(2, "u", 2).await.id);
    let a = fixture.incarnation_of("a", 100, WalKind::Object).await;
    let b = fixture.incarnation_of("b", 200, WalKind::Object).await;
    let c = fixture.incarnation_of("c", 300, WalKind::Object).await;
    for (topic_id, partition, incarnation) in [(t, 0, b), (t, 1, b), (u, 0, a), (u, 1, c)] {
        lead(&fixture, topic_id, partition, incarnation).await;
    }
    let first = activate(&fixture, &[t, u], 0).await;
    let (b_of_t, c_of_u) = (("b".to_owned(), true, t), ("c".to_owned(), true, u));
    assert_eq!(behind(&fixture, first, &[t], a).await, std::slice::from_ref(&b_of_t));
    assert_eq!(
        behind(&fixture, first, &[u, t], a).await,
        [b_of_t.clone(), c_of_u.clone()]
    );
    fixture.metadata.reach_activation(b, first, &[]).await.unwrap();
    assert_eq!(behind(&fixture, first, &[t, u], a).await, [c_of_u]);
    // It never goes back.
    fixture.metadata.reach_activation(b, first - 1, &[t, u]).await.unwrap();
    assert_eq!(behind(&fixture, first, &[t], a).await, []);
    let second = activate(&fixture, &[t], 1).await;
    assert_eq!(behind(&fixture, second, &[t], a).await, [b_of_t]);
    // Whoever leads nothing of it is not asked for.
    assert_eq!(behind(&fixture, second, &[t], b).await, []);
    assert_eq!(behind(&fixture, second, &[], a).await, []);
    fixture.metadata.delete_topic(t, NOW_MS).await.unwrap();
    assert_eq!(behind(&fixture, second, &[t], a).await, []);
}

async fn an_agent_is_behind_with_the_topics_that_it_names_and_no_others(fixture: Fixture) {
    let (t, u) = (fixture.topic(1, "t", 1).await.id, fixture.topic(2, "u", 1).await.id);
    let a = fixture.incarnation_of("a", 100, WalKind::Object).await;
    let b = fixture.incarnation_of("b", 200, WalKind::Object).await;
    for topic_id in [t, u] {
        lead(&fixture, topic_id, 0, b).await;
    }
    let activation = activate(&fixture, &[t, u], 0).await;
    fixture.metadata.reach_activation(b, activation, &[t]).await.unwrap();
    assert_eq!(
        behind(&fixture, activation, &[t, u], a).await,
        [("b".to_owned(), true, t)]
    );
    fixture.metadata.reach_activation(b, activation, &[]).await.unwrap();
    assert_eq!(behind(&fixture, activation, &[t, u], a).await, []);
    // The next start names none.
    fixture.metadata.reach_activation(b, activation, &[t]).await.unwrap();
    let b = fixture.incarnation_of("b", 201, WalKind::Object).await;
    lead(&fixture, t, 0, b).await;
    assert_eq!(behind(&fixture, activation, &[t, u], a).await, []);
}

async fn an_agent_whose_lease_time_is_over_is_told_apart_and_one_that_left_is_not_behind(fixture: Fixture) {
    let t = fixture.topic(1, "t", 1).await.id;
    let a = fixture.incarnation_of("a", 100, WalKind::Object).await;
    let b = fixture.incarnation_of("b", 200, WalKind::Object).await;
    lead(&fixture, t, 0, b).await;
    let activation = activate(&fixture, &[t], 0).await;
    fixture.expire("b").await;
    assert_eq!(
        behind(&fixture, activation, &[t], a).await,
        [("b".to_owned(), false, t)]
    );
    fixture.metadata.leave(b).await.unwrap();
    assert_eq!(behind(&fixture, activation, &[t], a).await, []);
}

async fn an_agent_hears_whether_others_live(fixture: Fixture) {
    let hears = async |incarnation, others| {
        let told = fixture.metadata.renew_leases(incarnation, LEASE).await.unwrap();
        assert!(told.is_none_or(|told| told == others), "{told:?}");
        assert_eq!(told.is_some(), matches!(fixture.place, Place::Sqlite(_)));
        assert_eq!(fixture.metadata.has_others(incarnation).await.unwrap(), others);
    };
    let a = fixture.incarnation_of("a", 100, WalKind::Object).await;
    // Another start of its own is no other agent.
    fixture.incarnation_of("b", 200, WalKind::Object).await;
    let b = fixture.incarnation_of("b", 201, WalKind::Object).await;
    hears(a, true).await;
    fixture.expire("b").await;
    hears(a, false).await;
    hears(b, true).await;
    fixture.metadata.leave(a).await.unwrap();
    hears(b, false).await;
}

async fn an_activation_knows_whether_it_is_alone(fixture: Fixture) {
    let t = fixture.topic(1, "t", 1).await.id;
    fixture.incarnation_of("a", 100, WalKind::Object).await;
    let is_alone = async |version| {
        let changed = fixture.metadata.change_pipelines(&changes(&[t], version), NOW_MS).await;
        changed.unwrap().is_alone
    };
    assert!(is_alone(0).await);
    let b = fixture.incarnation_of("b", 200, WalKind::Object).await;
    assert!(!is_alone(1).await);
    // Cut off it may still serve readers.
    fixture.expire("b").await;
    assert!(!is_alone(2).await);
    fixture.metadata.leave(b).await.unwrap();
    assert!(is_alone(3).await);
}
