//! What is known of stages at work.

use millstream_broker::{ChangeOptions, DeployOptions, OnError, Side, StageSpec, TopicConfig, TrialMode};

use crate::{
    modules::{HALVES, KEEPS, bind, bind_with, deploy, figures, logs_a_lot, module, produce, traps_on_x, values},
    support::{World, topic, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn more_log_lines_than_allowed_are_dropped_and_counted() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    deploy(&broker, "talks", logs_a_lot()).await;
    let ten = |stage: &mut StageSpec| stage.limits.log_lines_per_second = Some(10);
    bind_with(&broker, "t", Side::Produce, "talks", ten).await.unwrap();
    let mut followed = broker.module_logs("talks").await.unwrap().follow().1;
    produce(&broker, "t", &["a"]).await.unwrap();
    let kept = broker.module_logs("talks").await.unwrap().follow().0;
    assert!((1..30).contains(&kept.len()), "{} lines", kept.len());
    assert_eq!(followed.try_recv().unwrap().text, kept[0].text);
    assert_eq!(
        (kept[0].topic.as_str(), kept[0].partition, kept[0].version),
        ("t", Some(0), 1)
    );
    assert!(figures(&broker, "t").log_lines_dropped > 50);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_is_compared_and_changes_nothing() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    deploy(&broker, "m", module(KEEPS)).await;
    let follows = StageSpec::new("m", 0);
    let options = ChangeOptions {
        no_trial_call: true,
        ..ChangeOptions::default()
    };
    broker.add_stage("t", Side::Produce, follows, options).await.unwrap();
    let shadow = DeployOptions {
        trial: Some(TrialMode::Shadow),
        ..DeployOptions::default()
    };
    broker.deploy_module("m", module(HALVES), shadow).await.unwrap();
    let beside = || {
        let all = broker.stage_figures();
        all.into_iter().find(|figures| figures.version == 2)
    };
    until("the shadow has run", async || {
        produce(&broker, "t", &["a", "b", "c"]).await.unwrap();
        beside().is_some_and(|figures| figures.shadow_differences > 0)
    })
    .await;
    until("one of three differs each time", async || {
        let figures = beside().unwrap();
        figures.shadow_differences == figures.batches
    })
    .await;
    let stored = values(&broker, "t").await;
    assert_eq!(
        (stored.len() % 3, &stored[..3]),
        (0, &["a", "b", "c"].map(str::to_owned)[..])
    );
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_is_forgotten() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    deploy(&broker, "traps", traps_on_x()).await;
    bind(&broker, "t", Side::Produce, "traps", OnError::Halt).await.unwrap();
    produce(&broker, "t", &["X"]).await.unwrap_err();
    assert_eq!(figures(&broker, "t").failed, 1);
    broker.delete_topic("t").await.unwrap();
    assert!(broker.stage_figures().is_empty());
    topic(&broker, "t", TopicConfig::default()).await;
    produce(&broker, "t", &["X"]).await.unwrap();
    broker.stop().await;
}
