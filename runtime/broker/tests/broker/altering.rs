//! Stages that are altered, moved and inserted in a pipeline that is at work, and what is counted of each.

use std::sync::Arc;

use bytes::Bytes;
use millstream_broker::{
    BreakerSpec, Broker, BrokerError, ChangeOptions, Changed, DeployOptions, Kind, OnError, PipelineSpec, Side,
    StageChange, StageSpec, StageStatus, TopicConfig, TrialMode,
};

use crate::{
    modules::{KEEPS, TRAPS, becomes, bind_with, deploy, module, produce, rejects_x, stamps, traps_on_x, values},
    support::{World, topic},
};

const UNTRIED: ChangeOptions = ChangeOptions {
    no_trial_call: true,
    expected_version: None,
};

/// A broker with topic "t" and these modules, each in a stage on produce.
async fn broker(world: &World, modules: &[(&str, Bytes)]) -> Arc<Broker> {
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    for (name, component) in modules {
        deploy(&broker, name, component.clone()).await;
        bind_with(&broker, "t", Side::Produce, name, |_| ()).await.unwrap();
    }
    broker
}

/// Alters a stage of topic "t".
async fn alter(
    broker: &Arc<Broker>,
    position: u32,
    change: StageChange,
    options: ChangeOptions,
) -> Result<Changed, BrokerError> {
    broker.alter_stage("t", Side::Produce, position, change, options).await
}

fn move_to(to: u32) -> StageChange {
    StageChange {
        move_to: Some(to),
        ..StageChange::default()
    }
}

fn policy(on_error: OnError) -> StageChange {
    StageChange {
        on_error: Some(on_error),
        ..StageChange::default()
    }
}

fn param(value: &str) -> StageChange {
    StageChange {
        set_params: [("p".to_owned(), value.to_owned())].into(),
        ..StageChange::default()
    }
}

fn names(spec: &PipelineSpec) -> Vec<&str> {
    spec.produce.iter().map(|stage| stage.module.as_str()).collect()
}

async fn newest_reason(broker: &Broker) -> String {
    let history = broker.pipeline_history("t", u64::MAX, 1).await.unwrap();
    history[0].0.reason.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_stage_is_one_new_version_and_one_that_is_so_already_is_none() {
    let world = World::new();
    let broker = broker(&world, &[("a", stamps('a')), ("b", stamps('b'))]).await;
    let (before, _) = broker.pipeline("t").await.unwrap();
    let change = StageChange {
        breaker_failures: Some(9),
        ..policy(OnError::Skip)
    };
    let Changed { version, spec, .. } = alter(&broker, 1, change.clone(), ChangeOptions::default())
        .await
        .unwrap();
    assert_eq!(version, before + 1);
    assert_eq!(
        (spec.produce[1].on_error, spec.produce[1].breaker.failures),
        (Some(OnError::Skip), 9)
    );
    assert_eq!(spec.produce[0].on_error, None);
    assert_eq!(
        newest_reason(&broker).await,
        "produce stage b at 1 altered: on error skip, breaker"
    );
    let again = alter(&broker, 1, change, ChangeOptions::default()).await.unwrap();
    assert_eq!((again.version, again.spec), (version, spec));
    for (position, change) in [(0, StageChange::default()), (2, policy(OnError::Skip)), (0, move_to(2))] {
        let refused = alter(&broker, position, change, ChangeOptions::default())
            .await
            .unwrap_err();
        assert!(matches!(refused.kind(), Kind::Invalid | Kind::NotFound), "{refused}");
    }
    assert_eq!(broker.pipeline("t").await.unwrap().0, version);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_is_inserted_and_moved_to_where_it_is_wanted() {
    let world = World::new();
    let broker = broker(&world, &[("a", stamps('a')), ("b", stamps('b'))]).await;
    deploy(&broker, "c", stamps('c')).await;
    let insert = |position| {
        let stage = StageSpec::new("c", 1);
        broker.insert_stage("t", Side::Produce, Some(position), stage, ChangeOptions::default())
    };
    let beyond = insert(3).await.unwrap_err();
    assert!(matches!(beyond, BrokerError::UnknownStage { .. }), "{beyond}");
    produce(&broker, "t", &["#"]).await.unwrap();
    let inserted = insert(0).await.unwrap().spec;
    assert_eq!(names(&inserted), ["c", "a", "b"]);
    assert_eq!(newest_reason(&broker).await, "produce stage c@1 added at 0");
    produce(&broker, "t", &["#"]).await.unwrap();
    let to_the_end = alter(&broker, 0, move_to(2), ChangeOptions::default()).await;
    let moved = to_the_end.unwrap().spec;
    assert_eq!(names(&moved), ["a", "b", "c"]);
    produce(&broker, "t", &["#"]).await.unwrap();
    let to_the_front = alter(&broker, 1, move_to(0), ChangeOptions::default()).await;
    let moved = to_the_front.unwrap().spec;
    assert_eq!(names(&moved), ["b", "a", "c"]);
    produce(&broker, "t", &["#"]).await.unwrap();
    // The first stage leaves nothing for the others to stamp.
    assert_eq!(values(&broker, "t").await, ["a", "c", "a", "b"]);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_another_version_than_the_expected_one_is_a_conflict() {
    let world = World::new();
    let broker = broker(&world, &[("a", stamps('a')), ("b", stamps('b'))]).await;
    let (version, _) = broker.pipeline("t").await.unwrap();
    let seen = ChangeOptions {
        expected_version: Some(version),
        ..ChangeOptions::default()
    };
    alter(&broker, 0, move_to(1), seen).await.unwrap();
    let stage = StageSpec::new("a", 1);
    let refused = [
        alter(&broker, 0, move_to(1), seen).await,
        broker.remove_stage("t", Side::Produce, 0, seen).await,
        broker.insert_stage("t", Side::Produce, Some(0), stage, seen).await,
    ];
    for refused in refused {
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind(), Kind::Conflict, "{refused}");
        assert!(refused.to_string().contains("is at version 3, not 2"), "{refused}");
    }
    assert_eq!(names(&broker.pipeline("t").await.unwrap().1), ["b", "a"]);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_at_once_all_come_and_each_to_its_own_stage() {
    let world = World::new();
    let broker = broker(&world, &[("a", stamps('a')), ("b", stamps('b'))]).await;
    let failures = |failures| StageChange {
        breaker_failures: Some(failures),
        ..StageChange::default()
    };
    for round in 0..10 {
        let stage = StageSpec::new("b", 1);
        let (first, second, added) = tokio::join!(
            alter(&broker, 0, failures(100 + round), UNTRIED),
            alter(&broker, 1, failures(200 + round), UNTRIED),
            broker.add_stage("t", Side::Produce, stage, UNTRIED),
        );
        for done in [first, second, added] {
            done.unwrap();
        }
        let (version, spec) = broker.pipeline("t").await.unwrap();
        assert_eq!(version, 2 + 3 * u64::from(round + 1));
        let found: Vec<_> = spec.produce.iter().map(|stage| stage.breaker.failures).collect();
        assert_eq!(
            (found.len(), found[0], found[1]),
            (3 + round as usize, 100 + round, 200 + round)
        );
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_on_trial_takes_parameters_for_both_and_keeps_its_version() {
    let world = World::new();
    let broker = broker(&world, &[]).await;
    deploy(&broker, "m", stamps('a')).await;
    bind_with(&broker, "t", Side::Produce, "m", |stage| stage.version = 0)
        .await
        .unwrap();
    let shadow = DeployOptions {
        trial: Some(TrialMode::Shadow),
        no_trial_call: true,
        ..DeployOptions::default()
    };
    broker.deploy_module("m", stamps('b'), shadow).await.unwrap();
    let to = |version| StageChange {
        version: Some(version),
        ..StageChange::default()
    };
    for version in [0, 1, 2] {
        let refused = alter(&broker, 0, to(version), UNTRIED).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Precondition, "{refused}");
        assert!(refused.to_string().contains("m@2 is tried beside m@1"), "{refused}");
    }
    let altered = alter(&broker, 0, param("x"), ChangeOptions::default())
        .await
        .unwrap()
        .spec;
    let stage = &altered.produce[0];
    assert_eq!((stage.params["p"].as_str(), stage.shadow()), ("x", Some(2)));
    broker.promote_module("m").await.unwrap();
    let pinned = alter(&broker, 0, to(1), UNTRIED).await.unwrap().spec;
    produce(&broker, "t", &["#"]).await.unwrap();
    deploy(&broker, "m", stamps('c')).await;
    produce(&broker, "t", &["#"]).await.unwrap();
    let follows = alter(&broker, 0, to(0), UNTRIED).await.unwrap().spec;
    produce(&broker, "t", &["#"]).await.unwrap();
    deploy(&broker, "m", stamps('d')).await;
    produce(&broker, "t", &["#"]).await.unwrap();
    assert_eq!((pinned.produce[0].version, follows.produce[0].version), (1, 3));
    assert_eq!(values(&broker, "t").await, ["a", "a", "c", "d"]);
    let unknown = alter(&broker, 0, to(9), UNTRIED).await.unwrap_err();
    assert_eq!(unknown.kind(), Kind::NotFound, "{unknown}");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_that_an_altered_stage_sends_have_their_topic_and_go_in_no_circle() {
    let world = World::new();
    let broker = broker(&world, &[("rejects", rejects_x())]).await;
    let letters = |topic: &str| StageChange {
        dead_letter: Some(topic.to_owned()),
        ..policy(OnError::DeadLetter)
    };
    let circle = alter(&broker, 0, letters("t"), UNTRIED).await.unwrap_err();
    assert!(matches!(circle, BrokerError::DeadLetterCircle { .. }), "{circle}");
    alter(&broker, 0, letters("lost"), UNTRIED).await.unwrap();
    produce(&broker, "t", &["a", "X", "b"]).await.unwrap();
    assert_eq!(values(&broker, "t").await, ["a", "b"]);
    assert_eq!(values(&broker, "lost").await, ["X"]);
    // Back to the topic's own, which is made.
    alter(&broker, 0, letters(""), UNTRIED).await.unwrap();
    produce(&broker, "t", &["X"]).await.unwrap();
    assert_eq!(values(&broker, "t.dead-letter").await, ["X"]);
    bind_with(&broker, "t", Side::Fetch, "rejects", |_| ()).await.unwrap();
    let on_fetch = broker
        .alter_stage("t", Side::Fetch, 0, policy(OnError::Reject), UNTRIED)
        .await;
    assert!(
        matches!(on_fetch, Err(BrokerError::OnErrorOnFetch { .. })),
        "{on_fetch:?}"
    );
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_alteration_would_spoil_is_refused_before_anything_changes() {
    let world = World::new();
    let broker = broker(&world, &[("m", module(KEEPS))]).await;
    produce(&broker, "t", &["a", "X"]).await.unwrap();
    deploy(&broker, "m", module(TRAPS)).await;
    let to_2 = StageChange {
        version: Some(2),
        ..StageChange::default()
    };
    let (version, _) = broker.pipeline("t").await.unwrap();
    let refused = alter(&broker, 0, to_2.clone(), ChangeOptions::default())
        .await
        .unwrap_err();
    let words = "fails on 2 of 2 recent records of the topic that version 1 gets through";
    assert!(refused.to_string().contains(words), "{refused}");
    assert_eq!(broker.pipeline("t").await.unwrap().0, version);
    alter(&broker, 0, to_2, UNTRIED).await.unwrap();
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_is_tried_in_the_place_that_it_would_have() {
    let world = World::new();
    let harmless = broker(&world, &[("cleans", becomes(&["a"])), ("traps", traps_on_x())]).await;
    produce(&harmless, "t", &["X"]).await.unwrap();
    for (position, to) in [(1, 0), (0, 1)] {
        let refused = alter(&harmless, position, move_to(to), ChangeOptions::default())
            .await
            .unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("traps@1 fails on 1 of 1 recent records"), "{text}");
        assert!(text.contains("in the order that the stages would have"), "{text}");
    }
    let stage = StageSpec::new("spoils", 1);
    deploy(&harmless, "spoils", becomes(&["X"])).await;
    let insert = |position| {
        harmless.insert_stage(
            "t",
            Side::Produce,
            Some(position),
            stage.clone(),
            ChangeOptions::default(),
        )
    };
    assert!(insert(1).await.is_err());
    insert(2).await.unwrap();
    // What a removal leaves is not held to it: whoever removes a stage cannot wait for the others.
    let options = ChangeOptions::default();
    harmless.remove_stage("t", Side::Produce, 0, options).await.unwrap();
    harmless.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_failed_in_the_order_before_keeps_nobody_from_another_one() {
    let world = World::new();
    let broker = broker(&world, &[("keeps", module(KEEPS)), ("traps", traps_on_x())]).await;
    produce(&broker, "t", &["a", "X"]).await.unwrap_err();
    let to_the_front = alter(&broker, 1, move_to(0), ChangeOptions::default()).await;
    let moved = to_the_front.unwrap().spec;
    assert_eq!(names(&moved), ["traps", "keeps"]);
    broker.stop().await;
}

/// How the stages on produce fare, by position.
async fn fares(broker: &Broker) -> Vec<StageStatus> {
    broker.pipeline_status("t").await.unwrap().stages
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stages_of_one_module_have_figures_of_their_own_which_go_with_them() {
    let world = World::new();
    let broker = broker(&world, &[]).await;
    deploy(&broker, "rejects", rejects_x()).await;
    for on_error in [OnError::Pass, OnError::Skip] {
        let with = |stage: &mut StageSpec| stage.on_error = Some(on_error);
        bind_with(&broker, "t", Side::Produce, "rejects", with).await.unwrap();
    }
    produce(&broker, "t", &["a", "X", "b"]).await.unwrap();
    let counted = |fares: &[StageStatus]| -> Vec<(u32, u64, u64, u64)> {
        let row = |stage: &StageStatus| {
            let figures = &stage.figures;
            (stage.position, figures.records_out, figures.passed, figures.skipped)
        };
        fares.iter().map(row).collect()
    };
    assert_eq!(counted(&fares(&broker).await), [(0, 3, 1, 0), (1, 2, 0, 1)]);
    alter(&broker, 1, move_to(0), UNTRIED).await.unwrap();
    assert_eq!(counted(&fares(&broker).await), [(0, 2, 0, 1), (1, 3, 1, 0)]);
    let stage = StageSpec::new("rejects", 1);
    let inserted = broker.insert_stage("t", Side::Produce, Some(0), stage, UNTRIED).await;
    let ids: Vec<u32> = inserted.unwrap().spec.produce.iter().map(|stage| stage.id).collect();
    assert_eq!(ids, [3, 2, 1]);
    assert_eq!(
        counted(&fares(&broker).await),
        [(1, 2, 0, 1), (2, 3, 1, 0)],
        "the new one did not run yet"
    );
    produce(&broker, "t", &["c"]).await.unwrap();
    assert_eq!(
        counted(&fares(&broker).await),
        [(0, 1, 0, 0), (1, 3, 0, 1), (2, 4, 1, 0)]
    );
    // A stage that comes in the place of another one begins at nothing.
    broker.remove_stage("t", Side::Produce, 0, UNTRIED).await.unwrap();
    let stage = StageSpec::new("rejects", 1);
    let inserted = broker.insert_stage("t", Side::Produce, Some(0), stage, UNTRIED).await;
    let spec = inserted.unwrap().spec;
    assert_eq!(spec.produce[0].id, 4);
    assert_eq!(counted(&fares(&broker).await), [(1, 3, 0, 1), (2, 4, 1, 0)]);
    let by_stage: Vec<_> = broker.stage_figures().iter().map(|figures| figures.stage).collect();
    assert_eq!(
        by_stage,
        [1, 2, 3],
        "what was counted of one that is gone is still told"
    );
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stages_of_one_module_have_breakers_and_halts_of_their_own() {
    let world = World::new();
    let broker = broker(&world, &[]).await;
    deploy(&broker, "traps", traps_on_x()).await;
    let stage = |on_error, failures| {
        move |stage: &mut StageSpec| {
            stage.on_error = Some(on_error);
            stage.breaker = BreakerSpec {
                failures,
                cooldown_ms: 60_000,
            };
        }
    };
    for (on_error, failures) in [(OnError::Pass, 2), (OnError::Halt, 0)] {
        let with = stage(on_error, failures);
        bind_with(&broker, "t", Side::Produce, "traps", with).await.unwrap();
    }
    let refused = produce(&broker, "t", &["X"]).await.unwrap_err();
    assert!(matches!(refused, BrokerError::Halted { .. }), "{refused}");
    let seen = fares(&broker).await;
    let halts: Vec<_> = seen.iter().map(|stage| stage.halts.len()).collect();
    assert_eq!(halts, [0, 1], "the second one halted");
    // The first one fails too, and goes on to the second; that may not halt any more.
    alter(&broker, 1, policy(OnError::Pass), UNTRIED).await.unwrap();
    for _ in 0..3 {
        produce(&broker, "t", &["X"]).await.unwrap();
    }
    let seen = fares(&broker).await;
    let breakers: Vec<_> = seen.iter().map(|stage| stage.figures.breakers.len()).collect();
    assert_eq!(breakers, [1, 0]);
    let batches: Vec<_> = seen.iter().map(|stage| stage.figures.batches).collect();
    assert_eq!(batches, [3, 4], "one went by the first stage, whose breaker was open");
    // Any change closes breakers and ends halts, as every new version does.
    alter(&broker, 0, move_to(1), UNTRIED).await.unwrap();
    let seen = fares(&broker).await;
    assert!(
        seen.iter()
            .all(|stage| stage.figures.breakers.is_empty() && stage.halts.is_empty())
    );
    broker.stop().await;
}
