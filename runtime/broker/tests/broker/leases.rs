//! Lease time: what an agent does while the database does not answer, and afterwards.

use std::{sync::Arc, time::Duration};

use millstream_broker::{Acks, Broker, BrokerError, Kind, TopicConfig, WalKind};

use crate::support::{World, batch, numbered, read_all, segment, topic, until};

/// Short enough to be waited for, long enough for a slow machine to renew it.
const LEASE: Duration = Duration::from_millis(1_500);

async fn produce(broker: &Broker, values: std::ops::Range<u64>) -> Result<(), BrokerError> {
    broker.produce("t", 0, batch(values), Acks::Durable).await.map(drop)
}

async fn is_lapsed(broker: &Broker) -> bool {
    // Nothing of it is stored, so it may be asked as often as it takes.
    matches!(
        broker.produce("t", 0, batch(0..1), Acks::Durable).await,
        Err(BrokerError::LeaseLapsed { .. })
    )
}

/// Waits until the deadline has passed.
async fn lapse(broker: &Arc<Broker>) {
    until("the deadline passes", async || broker.stats().lease_left.is_zero()).await;
    assert!(is_lapsed(broker).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_holds_up_nobody_before_the_deadline_and_nothing_is_lost_beyond_it() {
    let world = World::new();
    let broker = world.agent("a", |settings| settings.lease_duration = LEASE).await;
    let t = topic(&broker, "t", TopicConfig::default()).await;
    produce(&broker, 0..10).await.unwrap();
    let metadata = world.metadata().await;
    let epoch = metadata.partition(t.id, 0).await.unwrap().unwrap().epoch;

    let locked = world.lock().await;
    produce(&broker, 10..20).await.unwrap();
    lapse(&broker).await;
    let refused = produce(&broker, 20..30).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Unavailable);
    assert!(
        refused.to_string().contains("nothing acknowledged is lost"),
        "{refused}"
    );
    assert_eq!(read_all(&broker, "t", 0).await, numbered(0..20));

    locked.release().await;
    until("it goes on by itself", async || produce(&broker, 20..30).await.is_ok()).await;
    assert_eq!(broker.stats().lease_lapses, 1);
    assert_eq!(metadata.partition(t.id, 0).await.unwrap().unwrap().epoch, epoch);
    segment(&broker, "t", 0, 30..40).await;
    assert_eq!(read_all(&broker, "t", 0).await, numbered(0..40));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_over_meanwhile_steps_down_before_anything_is_appended_again() {
    let mut world = World::new();
    world.wal = WalKind::Object;
    let a = world.agent("a", |settings| settings.lease_duration = LEASE).await;
    let b = world.agent("b", |_| {}).await;
    topic(&a, "t", TopicConfig::default()).await;
    produce(&a, 0..10).await.unwrap();
    world.refuse_renewals("a").await;
    lapse(&a).await;
    until("the lease time is over", async || produce(&b, 10..20).await.is_ok()).await;
    world.relent().await;
    until(
        "the other is named",
        async || matches!(produce(&a, 20..30).await, Err(BrokerError::LedElsewhere { agent, .. }) if agent == "b"),
    )
    .await;
    assert!(a.fetch(query()).await.is_err());
    produce(&b, 20..30).await.unwrap();
    assert_eq!(read_all(&b, "t", 0).await, numbered(0..30));
}

fn query() -> millstream_broker::FetchQuery {
    millstream_broker::FetchQuery {
        topic: "t".to_owned(),
        partition: 0,
        offset: millstream_batch::Offset(0),
        bytes_max: 1_000,
        bytes_min: 0,
        wait: Duration::ZERO,
        stage: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_that_waits_for_the_database_holds_up_neither_producers_nor_readers() {
    let world = World::new();
    let broker = world.agent("a", |_| {}).await;
    let config = TopicConfig {
        retention_bytes: Some(1),
        ..TopicConfig::default()
    };
    topic(&broker, "t", config).await;
    segment(&broker, "t", 0, 0..10).await;
    segment(&broker, "t", 0, 10..20).await;
    let locked = world.lock().await;
    let sweeping = {
        let broker = broker.clone();
        tokio::spawn(async move { broker.sweep().await })
    };
    let truncating = {
        let broker = broker.clone();
        tokio::spawn(async move { broker.truncate("t", 0, millstream_batch::Offset(15)).await })
    };
    for n in 2..30 {
        produce(&broker, n * 10..n * 10 + 10).await.unwrap();
    }
    assert_eq!(read_all(&broker, "t", 0).await, numbered(0..300));
    assert!(!sweeping.is_finished() && !truncating.is_finished());
    locked.release().await;
    sweeping.await.unwrap().unwrap();
    assert_eq!(truncating.await.unwrap().unwrap().0, 15);
    assert_eq!(broker.offsets("t", 0).await.unwrap().0.0, 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_first_takes_nothing_from_those_who_are_on_their_way() {
    let mut world = World::new();
    world.wal = WalKind::Object;
    let a = world.agent("a", |settings| settings.lease_duration = 4 * LEASE).await;
    let b = world.agent("b", |settings| settings.lease_duration = 4 * LEASE).await;
    let t = topic(&b, "t", TopicConfig::default()).await;
    produce(&b, 0..10).await.unwrap();
    world.refuse_renewals("b").await;
    let locked = world.lock().await;
    for agent in [&a, &b] {
        lapse(agent).await;
    }
    locked.release().await;
    // Whatever is asked of the one that is back.
    while a.stats().lease_left.is_zero() {
        let refused = a.offsets("t", 0).await.unwrap_err();
        assert!(matches!(refused, BrokerError::LedElsewhere { .. }), "{refused}");
    }
    a.sweep().await.unwrap();
    let refused = produce(&a, 10..20).await.unwrap_err();
    assert!(matches!(refused, BrokerError::LedElsewhere { .. }), "{refused}");
    world.relent().await;
    until("the other is back", async || produce(&b, 10..20).await.is_ok()).await;
    assert_eq!(b.failure().borrow().clone(), None);
    assert_eq!(
        world
            .metadata()
            .await
            .partition(t.id, 0)
            .await
            .unwrap()
            .unwrap()
            .epoch
            .0,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_learns_that_another_start_took_its_place() {
    let world = World::new();
    let first = world.open(|settings| settings.lease_duration = LEASE).await;
    let _second = world.open(|_| {}).await;
    until("it fails", async || first.failure().borrow().is_some()).await;
    let reason = first.failure().borrow().clone().unwrap();
    assert!(reason.contains("no two agents may have one name"), "{reason}");
    assert!(first.ready().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_log_was_given_up_by_others_fails_with_the_reason() {
    let mut world = World::new();
    world.wal = WalKind::Object;
    let a = world.agent("a", |_| {}).await;
    let b = world.agent("b", |_| {}).await;
    topic(&b, "t", TopicConfig::default()).await;
    world.expire("a").await;
    b.sweep().await.unwrap();
    let refused = produce(&a, 0..10).await.unwrap_err();
    assert!(matches!(refused, BrokerError::AgentFailed { .. }), "{refused}");
    assert!(a.failure().borrow().is_some());
    world.expire("a").await;
    produce(&b, 0..10).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_gives_many_partitions_back_and_lets_others_in_at_once() {
    let mut world = World::new();
    world.wal = WalKind::Object;
    let a = world.agent("a", |_| {}).await;
    let new = millstream_broker::NewTopic {
        name: "t".to_owned(),
        partitions: 200,
        config: TopicConfig::default(),
    };
    a.create_topic(new).await.unwrap();
    for partition in 0..200 {
        a.produce("t", partition, batch(0..5), Acks::Durable).await.unwrap();
    }
    let b = world.agent("b", |_| {}).await;
    let refused = b.produce("t", 7, batch(5..10), Acks::Durable).await.unwrap_err();
    assert!(
        refused.to_string().contains("led by agent \"a\" at a.example:7070"),
        "{refused}"
    );
    a.stop().await;
    let metadata = world.metadata().await;
    assert_eq!(metadata.pointed_partitions().await.unwrap(), []);
    assert!(!metadata.agents().await.unwrap()[0].live);
    until("what was found is forgotten", async || {
        b.produce("t", 7, batch(5..10), Acks::Durable).await.is_ok()
    })
    .await;
    assert_eq!(read_all(&b, "t", 7).await, numbered(0..10));
    assert_eq!(read_all(&b, "t", 8).await, numbered(0..5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_takes_many_partitions_over_with_few_statements() {
    let mut world = World::new();
    world.wal = WalKind::Object;
    let first = world.open(|_| {}).await;
    let new = millstream_broker::NewTopic {
        name: "t".to_owned(),
        partitions: 200,
        config: TopicConfig::default(),
    };
    first.create_topic(new).await.unwrap();
    for partition in 0..200 {
        first.produce("t", partition, batch(0..5), Acks::Durable).await.unwrap();
    }
    let counted = world.metadata().await;
    let before = counted.stats().queries;
    let again = world.open_over(counted.clone(), "test", "wal", |_| {}).await.unwrap();
    let queries = counted.stats().queries - before;
    assert!(queries < 60, "{queries}");
    assert_eq!(again.stats().open_partitions, 200);
    assert_eq!(read_all(&again, "t", 123).await, numbered(0..5));
}
