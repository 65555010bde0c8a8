//! What takes a version back, and what does not.

use std::time::Duration;

use millstream_batch::Offset;
use millstream_broker::{ChangeOptions, DeployOptions, FetchQuery, OnError, Side, StageSpec, TopicConfig};

use crate::{
    modules::{KEEPS, TRAPS, module, produce},
    support::{World, topic, until},
};

const UNTRIED: DeployOptions = DeployOptions {
    trial: None,
    no_trial_call: true,
    no_wait: false,
};

/// A stage that drops what the module fails on, and is never left alone; version 0 is the current one.
fn stage(module: &str, version: u32) -> StageSpec {
    let mut stage = StageSpec::new(module, version);
    stage.on_error = Some(OnError::Skip);
    stage.breaker.failures = 0;
    stage
}

fn of_a_reader(stage: StageSpec) -> FetchQuery {
    FetchQuery {
        topic: "v".to_owned(),
        partition: 0,
        offset: Offset(0),
        bytes_max: 1 << 20,
        bytes_min: 0,
        wait: Duration::ZERO,
        stage: Some(stage),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_reader_nor_a_stage_that_names_its_version_takes_a_version_back() {
    let world = World::new();
    let broker = world.open(|settings| settings.module_rollback_batches_min = 5).await;
    let bindings = [("t", stage("m", 0)), ("u", stage("m", 2)), ("v", stage("other", 0))];
    for name in ["m", "other"] {
        broker.deploy_module(name, module(KEEPS), UNTRIED).await.unwrap();
        broker.deploy_module(name, module(TRAPS), UNTRIED).await.unwrap();
        broker.rollback_module(name, None).await.unwrap();
    }
    for (name, stage) in bindings {
        topic(&broker, name, TopicConfig::default()).await;
        let options = ChangeOptions {
            no_trial_call: true,
            ..ChangeOptions::default()
        };
        broker.add_stage(name, Side::Produce, stage, options).await.unwrap();
    }
    produce(&broker, "v", &["a"]).await.unwrap();
    broker.deploy_module("m", module(TRAPS), UNTRIED).await.unwrap();
    // One that follows counts, and it is too little; all others would be enough.
    assert_eq!(produce(&broker, "t", &["a"]).await.unwrap().record_count, 0);
    for _ in 0..10 {
        assert_eq!(produce(&broker, "u", &["a"]).await.unwrap().record_count, 0);
        let fetched = broker.fetch(of_a_reader(stage("m", 2))).await.unwrap();
        assert!(fetched.batches.is_empty());
    }
    let shown = broker.stage_figures();
    let of_reader = shown.iter().find(|shown| shown.topic == "v" && shown.module == "m");
    assert!(of_reader.is_none(), "{of_reader:?}");
    // The guard looks at both with each look, and at the older one first.
    broker.deploy_module("other", module(TRAPS), UNTRIED).await.unwrap();
    until("the other module is taken back", async || {
        produce(&broker, "v", &["a"]).await.unwrap().record_count == 1
    })
    .await;
    let modules = broker.modules().await.unwrap();
    let current = modules.iter().find(|module| module.name == "m" && module.current);
    assert_eq!(current.unwrap().version, 2);
    broker.stop().await;
}
