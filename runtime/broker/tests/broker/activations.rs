//! When the answer to an activation says so, it is in force on every other agent.

use std::{sync::Arc, time::Duration};

use millstream_broker::{
    Acks, Broker, BrokerError, Kind, NotSwitched, Others, Receipt, Settings, Side, TopicConfig, WalKind,
};
use millstream_meta::Metadata;
use tokio::time::timeout;
use uuid::Uuid;

use crate::support::{NOW_MS, World, another, batch, read_all, topic, until};

/// Nobody waits so long.
const LONG: Duration = Duration::from_secs(3_600);
/// Short enough for a heartbeat to be waited for.
const LEASE: Duration = Duration::from_millis(1_500);
const NO_STAGES: &str = r#"{"produce":[],"fetch":[]}"#;
const MISSING: &str = r#"{"produce":[{"module":"gone","version":1}],"fetch":[]}"#;

/// Requests see nothing of what others do.
fn world() -> World {
    World {
        wal: WalKind::Object,
        cache_ttl: LONG,
        ..World::new()
    }
}

fn patient(settings: &mut Settings) {
    settings.activation_wait = LONG;
}

async fn produce(broker: &Broker, topic: &str) -> Result<Receipt, BrokerError> {
    broker.produce(topic, 0, batch(0..1), Acks::Durable).await
}

/// An agent that lives, leads the topic's partition 0, and does nothing.
async fn idle_leader(world: &World, topic_id: Uuid) -> (Metadata, Uuid) {
    let metadata = world.metadata().await;
    let incarnation = another(&metadata).await;
    metadata.acquire_lease(topic_id, 0, incarnation).await.unwrap();
    (metadata, incarnation)
}

fn named(lease_over: bool) -> Others {
    Others {
        not_switched: vec![NotSwitched {
            agent: "other".to_owned(),
            address: "other.example:7070".to_owned(),
            lease_over,
        }],
        unknown: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_is_in_force_on_every_agent_when_it_answers() {
    let world = world();
    let a = world.agent("a", patient).await;
    let b = world.agent("b", patient).await;
    topic(&a, "t", TopicConfig::default()).await;
    produce(&b, "t").await.unwrap();
    for round in 1..4 {
        let paused = a.pause_pipeline("t", &[Side::Produce]).await.unwrap();
        assert_eq!((paused.version, paused.others), (2 * round - 1, Others::default()));
        let refused = produce(&b, "t").await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Precondition, "{refused}");
        let resumed = a.resume_pipeline("t", &[Side::Produce]).await.unwrap();
        assert_eq!((resumed.version, resumed.others), (2 * round, Others::default()));
        assert_eq!(produce(&b, "t").await.unwrap().pipeline_version, 2 * round);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_hears_with_its_heartbeat_that_another_one_is_there() {
    let world = world();
    let a = world.agent("a", |settings| settings.lease_duration = LEASE).await;
    topic(&a, "t", TopicConfig::default()).await;
    produce(&a, "t").await.unwrap();
    // It registered when there was no other.
    let b = world.agent("b", patient).await;
    let paused = b.pause_pipeline("t", &[Side::Produce]).await.unwrap();
    assert_eq!(paused.others, Others::default());
    assert_eq!(produce(&a, "t").await.unwrap_err().kind(), Kind::Precondition);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_not_switched_is_named_and_asked_for_again_by_a_second_pause() {
    let world = world();
    let a = world
        .agent("a", |settings| settings.activation_wait = Duration::ZERO)
        .await;
    let t = topic(&a, "t", TopicConfig::default()).await;
    let (metadata, other) = idle_leader(&world, t.id).await;
    for _ in 0..2 {
        let paused = a.pause_pipeline("t", &[Side::Produce]).await.unwrap();
        assert_eq!((paused.version, paused.others), (1, named(false)));
    }
    let reached = metadata.pipeline(t.id).await.unwrap().unwrap().activation;
    metadata.reach_activation(other, reached, &[]).await.unwrap();
    let paused = a.pause_pipeline("t", &[Side::Produce]).await.unwrap();
    assert_eq!(paused.others, Others::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_waits_until_the_last_one_has_switched() {
    let world = world();
    let a = world.agent("a", patient).await;
    let t = topic(&a, "t", TopicConfig::default()).await;
    let (metadata, other) = idle_leader(&world, t.id).await;
    let pausing = {
        let a = a.clone();
        tokio::spawn(async move { a.pause_pipeline("t", &[Side::Produce]).await })
    };
    until("it is in force here", async || produce_refused(&a, 1).await).await;
    assert!(!pausing.is_finished());
    metadata.reach_activation(other, 1, &[]).await.unwrap();
    let paused = timeout(Duration::from_secs(30), pausing).await.unwrap().unwrap();
    assert_eq!(paused.unwrap().others, Others::default());
}

/// Whether another partition of the topic, which this agent leads, is paused.
async fn produce_refused(broker: &Broker, partition: u32) -> bool {
    let answer = broker.produce("t", partition, batch(0..1), Acks::Durable).await;
    answer.is_err_and(|error| error.kind() == Kind::Precondition)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_lease_time_is_over_is_named_and_not_waited_for() {
    let world = world();
    let a = world.agent("a", patient).await;
    let t = topic(&a, "t", TopicConfig::default()).await;
    idle_leader(&world, t.id).await;
    world.expire("other").await;
    let paused = timeout(
        Duration::from_secs(30),
        a.pause_pipeline("t", &[Side::Produce, Side::Fetch]),
    );
    assert_eq!(paused.await.unwrap().unwrap().others, named(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_say_it_leaves_open_who_has_switched() {
    let world = world();
    let a = world
        .agent("a", |settings| settings.activation_wait = Duration::ZERO)
        .await;
    let t = topic(&a, "t", TopicConfig::default()).await;
    idle_leader(&world, t.id).await;
    world
        .execute(
            "CREATE TRIGGER away AFTER INSERT ON pipeline_activations \
             BEGIN UPDATE agents SET address = zeroblob(3); END",
        )
        .await;
    let paused = a.pause_pipeline("t", &[Side::Produce]).await.unwrap();
    let unknown = Others {
        not_switched: Vec::new(),
        unknown: true,
    };
    assert_eq!((paused.version, paused.others), (1, unknown));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_behind_with_a_topic_that_cannot_switch_and_with_no_other() {
    let world = world();
    let metadata = world.metadata().await;
    let watcher = another(&metadata).await;
    let b = world.agent("b", |_| {}).await;
    let (t, u) = (
        topic(&b, "t", TopicConfig::default()).await,
        topic(&b, "u", TopicConfig::default()).await,
    );
    for name in ["t", "u"] {
        produce(&b, name).await.unwrap();
    }
    let activate = async |topic_id, expected, stages| {
        let row = metadata
            .activate_pipeline(topic_id, expected, stages, "a test", NOW_MS)
            .await;
        row.unwrap().activation
    };
    let behind = async |activation, topic_id| {
        let behind = metadata.behind(activation, &[topic_id], watcher).await.unwrap();
        behind.into_iter().map(|agent| agent.name).collect::<Vec<_>>()
    };
    let first = activate(t.id, 0, MISSING).await;
    for version in 1..4 {
        let activation = activate(u.id, version - 1, NO_STAGES).await;
        until("the other topic has come as far", async || {
            behind(activation, u.id).await.is_empty()
        })
        .await;
        assert_eq!(produce(&b, "u").await.unwrap().pipeline_version, version);
        assert_eq!(behind(first, t.id).await, ["b"]);
        assert_eq!(produce(&b, "t").await.unwrap().pipeline_version, 0);
    }
    // A later one of the same topic, which cannot be loaded either, does not make the one before reached.
    let second = activate(t.id, 1, MISSING).await;
    let beside = activate(u.id, 3, NO_STAGES).await;
    until("the other topic has come as far", async || {
        behind(beside, u.id).await.is_empty()
    })
    .await;
    assert_eq!(
        (behind(first, t.id).await, behind(second, t.id).await),
        (vec!["b".to_owned()], vec!["b".to_owned()])
    );
    let last = activate(t.id, 2, NO_STAGES).await;
    until("it is tried again", async || behind(last, t.id).await.is_empty()).await;
    assert_eq!(produce(&b, "t").await.unwrap().pipeline_version, 3);
}

/// Its lease time passes while it knows of no other agent, and nobody waits for it; the topic `t` has another pipeline then.
async fn lapsed(world: &World, stages: &str) -> Arc<Broker> {
    let b = world.agent("b", |settings| settings.lease_duration = 2 * LEASE).await;
    let t = topic(&b, "t", TopicConfig::default()).await;
    produce(&b, "t").await.unwrap();
    world.refuse_renewals("b").await;
    until("the deadline passes", async || b.stats().lease_left.is_zero()).await;
    let metadata = world.metadata().await;
    metadata
        .activate_pipeline(t.id, 0, stages, "a test", NOW_MS)
        .await
        .unwrap();
    world.relent().await;
    b
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_comes_back_appends_nothing_by_the_pipeline_before() {
    let world = world();
    let b = lapsed(&world, NO_STAGES).await;
    until("it goes on", async || match produce(&b, "t").await {
        Ok(receipt) => {
            assert_eq!(receipt.pipeline_version, 1);
            true
        }
        Err(_) => false,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_comes_back_and_cannot_load_a_pipeline_appends_nothing_to_that_topic() {
    let world = world();
    let b = lapsed(&world, MISSING).await;
    until("the others go on", async || b.stats().lease_left > Duration::ZERO).await;
    topic(&b, "u", TopicConfig::default()).await;
    until("another topic is written", async || produce(&b, "u").await.is_ok()).await;
    let refused = produce(&b, "t").await.unwrap_err();
    assert!(refused.to_string().contains("gone"), "{refused}");
    let metadata = world.metadata().await;
    let t = metadata.topic("t").await.unwrap().unwrap();
    metadata
        .activate_pipeline(t.id, 1, NO_STAGES, "a test", NOW_MS)
        .await
        .unwrap();
    until("it opens again", async || {
        produce(&b, "t")
            .await
            .is_ok_and(|receipt| receipt.pipeline_version == 2)
    })
    .await;
    assert_eq!(read_all(&b, "t", 0).await.len(), 2);
}
