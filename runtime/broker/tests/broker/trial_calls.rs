//! Which versions are refused because of what they make of recent records.

use std::sync::Arc;

use bytes::Bytes;
use millstream_broker::{
    Broker, BrokerError, ChangeOptions, DeployOptions, Kind, OnError, Side, StageSpec, TopicChange, TopicConfig,
    TrialMode,
};

use crate::{
    modules::{KEEPS, TRAPS, deploy, each_becomes, module, produce, rejects_x, traps_on_x, traps_on_x_too},
    support::{World, topic},
};

/// A stage of the current version of "m", which is tried on what was produced.
async fn add(broker: &Arc<Broker>, topic: &str, on_error: OnError) -> Result<(), BrokerError> {
    let stage = StageSpec {
        on_error: Some(on_error),
        ..StageSpec::new("m", 0)
    };
    let options = ChangeOptions::default();
    broker.add_stage(topic, Side::Produce, stage, options).await.map(drop)
}

async fn next(broker: &Arc<Broker>, component: Bytes, trial: Option<TrialMode>) -> Result<(), BrokerError> {
    let options = DeployOptions {
        trial,
        ..DeployOptions::default()
    };
    broker.deploy_module("m", component, options).await.map(drop)
}

/// Topic "t", to which one batch was produced, through version 1 of "m".
async fn broker(world: &World, first: Bytes, on_error: OnError, given: &[&str]) -> Arc<Broker> {
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    deploy(&broker, "m", first).await;
    add(&broker, "t", on_error).await.unwrap();
    // Some policies refuse it.
    let _ = produce(&broker, "t", given).await;
    broker
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_the_version_before_fails_on_too_keeps_nobody_from_deploying() {
    for on_error in [OnError::Reject, OnError::Skip, OnError::Pass, OnError::Halt] {
        for given in [&["X"][..], &["a", "X", "b", "X"]] {
            let world = World::new();
            let broker = broker(&world, traps_on_x(), on_error, given).await;
            next(&broker, traps_on_x_too(), None).await.unwrap();
            next(&broker, module(KEEPS), None).await.unwrap();
            produce(&broker, "t", given).await.unwrap();
            broker.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_makes_a_record_larger_than_the_topic_takes_is_refused_as_one_that_fails() {
    let world = World::new();
    let broker = broker(&world, module(KEEPS), OnError::Skip, &["a", "b"]).await;
    let change = TopicChange {
        record_bytes_max: Some(1_000),
        ..TopicChange::default()
    };
    broker.alter_topic("t", change).await.unwrap();
    let large = "L".repeat(2_000);
    let refused = next(&broker, each_becomes(&["A", &large]), None).await.unwrap_err();
    assert!(refused.to_string().contains("the topic's limit is 1000"), "{refused}");
    next(&broker, each_becomes(&["A", "B"]), None).await.unwrap();
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_fails_where_the_version_before_does_not_is_refused_whatever_the_policy() {
    for on_error in [OnError::Reject, OnError::Skip] {
        let world = World::new();
        let broker = broker(&world, module(KEEPS), on_error, &["a", "X", "b", "X"]).await;
        let refused = next(&broker, traps_on_x(), None).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Invalid);
        let text = refused.to_string();
        for words in [
            "no topic has switched, because topic \"t\" cannot",
            "fails on 2 of 4 recent records of the topic that version 1 gets through: the module trapped",
            "m@2 is kept, not current",
        ] {
            assert!(text.contains(words), "{text}");
        }
        // What it refuses is its own affair.
        next(&broker, rejects_x(), None).await.unwrap();
        broker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_may_fail_and_a_canary_may_not() {
    let world = World::new();
    let broker = broker(&world, module(KEEPS), OnError::Skip, &["a", "b"]).await;
    next(&broker, module(TRAPS), Some(TrialMode::Shadow)).await.unwrap();
    let promoted = broker.promote_module("m").await.unwrap_err();
    assert!(promoted.to_string().contains("fails on 2 of 2"), "{promoted}");
    let canary = Some(TrialMode::Canary(vec![0]));
    let refused = next(&broker, traps_on_x(), canary.clone()).await;
    assert!(refused.is_ok(), "there is no X among them");
    let refused = next(&broker, module(TRAPS), canary).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_stage_may_fail_on_as_many_records_as_its_policy_bears() {
    for (on_error, given, is_added) in [
        (OnError::Reject, &["a", "X", "b"][..], false),
        (OnError::Halt, &["a", "X", "b"], false),
        (OnError::Skip, &["a", "X", "b"], true),
        (OnError::Pass, &["a", "X"], true),
        (OnError::DeadLetter, &["a", "X", "X"], false),
    ] {
        let world = World::new();
        let broker = world.open(|_| {}).await;
        topic(&broker, "t", TopicConfig::default()).await;
        deploy(&broker, "m", traps_on_x()).await;
        produce(&broker, "t", given).await.unwrap();
        let added = add(&broker, "t", on_error).await;
        assert_eq!(added.is_ok(), is_added, "{on_error:?} {given:?}: {added:?}");
        assert!(matches!(added, Ok(()) | Err(BrokerError::FailsOnRecent { .. })));
        broker.stop().await;
    }
}
