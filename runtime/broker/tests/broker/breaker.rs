//! A stage that keeps failing is left alone, and tried again after a while.

use std::time::Duration;

use millstream_broker::{BreakerSpec, BrokerError, ChangeOptions, Kind, OnError, Side, TopicConfig};

use crate::{
    modules::{bind_with, deploy, fetch, figures, produce, traps_on_x, values},
    support::{World, topic, until},
};

const SOON: BreakerSpec = BreakerSpec {
    failures: 3,
    cooldown_ms: 20,
};
const NEVER: BreakerSpec = BreakerSpec {
    failures: 3,
    cooldown_ms: 60_000,
};

#[tokio::test(flavor = "multi_thread")]
async fn it_opens_after_failures_in_a_row_and_closes_by_trial() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    deploy(&broker, "traps", traps_on_x()).await;
    let with = |breaker: BreakerSpec| {
        move |stage: &mut millstream_broker::StageSpec| {
            stage.breaker = breaker;
            stage.on_error = Some(OnError::Reject);
        }
    };
    bind_with(&broker, "t", Side::Produce, "traps", with(SOON))
        .await
        .unwrap();
    for _ in 0..3 {
        let failed = produce(&broker, "t", &["X"]).await.unwrap_err();
        assert!(matches!(failed, BrokerError::Rejected { .. }), "{failed}");
    }
    assert_eq!(figures(&broker, "t").breakers.len(), 1);
    until("it is tried again, and closes", async || {
        match produce(&broker, "t", &["a"]).await {
            Ok(_) => true,
            Err(refused) => {
                assert!(matches!(refused, BrokerError::BreakerOpen { .. }), "{refused}");
                assert_eq!(refused.kind(), Kind::Unavailable);
                false
            }
        }
    })
    .await;
    assert!(figures(&broker, "t").breakers.is_empty());
    let lines = broker.module_logs("traps").await.unwrap().follow().0;
    let said: Vec<_> = lines.iter().map(|line| line.text.split(',').next().unwrap()).collect();
    assert_eq!(said, ["breaker open on partition 0", "breaker closed on partition 0"]);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_is_open_records_pass_only_where_the_stage_says_so() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    deploy(&broker, "traps", traps_on_x()).await;
    let pass = |stage: &mut millstream_broker::StageSpec| {
        stage.breaker = NEVER;
        stage.on_error = Some(OnError::Pass);
    };
    bind_with(&broker, "t", Side::Produce, "traps", pass).await.unwrap();
    for _ in 0..5 {
        produce(&broker, "t", &["X", "a", "X"]).await.unwrap();
    }
    assert_eq!(values(&broker, "t").await.len(), 15);
    let figures = figures(&broker, "t");
    assert_eq!((figures.batches, figures.failed_batches), (3, 3), "two went by");
    assert_eq!(figures.passed, 3 * 2 + 2 * 3);
    assert_eq!(figures.breakers[0].partition, 0);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_fetch_readers_are_told_and_a_batch_that_fails_in_part_opens_nothing() {
    let world = World::new();
    let broker = world.open(|settings| settings.fetch_cache_bytes = 0).await;
    topic(&broker, "t", TopicConfig::default()).await;
    deploy(&broker, "traps", traps_on_x()).await;
    produce(&broker, "t", &["a", "b", "X"]).await.unwrap();
    for _ in 3..6 {
        produce(&broker, "t", &["X"]).await.unwrap();
    }
    let halt = |stage: &mut millstream_broker::StageSpec| stage.breaker = NEVER;
    bind_with(&broker, "t", Side::Fetch, "traps", halt).await.unwrap();
    for _ in 0..5 {
        assert_eq!(
            fetch(&broker, "t", 0).await.unwrap().1,
            2,
            "less than half of it failed"
        );
    }
    // One reader that is stuck at its batch keeps nobody from theirs; three batches are another matter.
    for at in [3, 3, 3, 3, 3, 4, 5] {
        let failed = fetch(&broker, "t", at).await.unwrap_err();
        assert!(matches!(failed, BrokerError::ModuleOnFetch { .. }), "{failed}");
    }
    let refused = fetch(&broker, "t", 3).await.unwrap_err();
    assert!(matches!(refused, BrokerError::BreakerOpen { .. }), "{refused}");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_with_a_resume_and_with_the_stage() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    deploy(&broker, "traps", traps_on_x()).await;
    let never = |stage: &mut millstream_broker::StageSpec| stage.breaker = NEVER;
    bind_with(&broker, "t", Side::Produce, "traps", never).await.unwrap();
    let open = async || {
        for _ in 0..3 {
            produce(&broker, "t", &["X"]).await.unwrap_err();
        }
        assert_eq!(figures(&broker, "t").breakers.len(), 1);
        let refused = produce(&broker, "t", &["a"]).await.unwrap_err();
        assert!(matches!(refused, BrokerError::BreakerOpen { .. }), "{refused}");
    };
    open().await;
    broker.resume_pipeline("t", &[Side::Produce]).await.unwrap();
    produce(&broker, "t", &["a"]).await.unwrap();
    open().await;
    broker
        .remove_stage("t", Side::Produce, 0, ChangeOptions::default())
        .await
        .unwrap();
    assert!(figures(&broker, "t").breakers.is_empty());
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_off_never_opens() {
    let world = World::new();
    let broker = world
        .open(|settings| settings.module_limits.cpu_deadline = Duration::from_millis(20))
        .await;
    topic(&broker, "t", TopicConfig::default()).await;
    deploy(&broker, "traps", traps_on_x()).await;
    let off = |stage: &mut millstream_broker::StageSpec| stage.breaker.failures = 0;
    bind_with(&broker, "t", Side::Produce, "traps", off).await.unwrap();
    for _ in 0..20 {
        let failed = produce(&broker, "t", &["X"]).await.unwrap_err();
        assert!(matches!(failed, BrokerError::Rejected { .. }), "{failed}");
    }
    broker.stop().await;
}
