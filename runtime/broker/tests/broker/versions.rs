//! Versions of modules: deployed under load, tried, promoted, taken back, and what is left of them in the history.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use millstream_batch::{BatchBuilder, Compression, Offset, RecordIter};
use millstream_broker::{
    Acks, Broker, BrokerError, ChangeOptions, DeployOptions, Deployed, FetchQuery, HISTORY_MAX, Kind, OnError,
    RANGES_MAX, Side, StageSpec, TopicConfig, TrialMode, Written,
};

use crate::{
    modules::{TRAPS, module, stamps},
    support::{NOW_MS, World, topic, until},
};

/// Values `#0`, `#1`...
fn numbers(range: std::ops::Range<u64>) -> Bytes {
    let mut builder = BatchBuilder::new();
    for n in range {
        builder.push(0, None, Some(format!("#{n}").as_bytes()), [].into_iter());
    }
    builder.build(Compression::None).to_bytes()
}

/// Stored batches of a partition: the offset, and the values.
async fn batches(broker: &Broker, topic: &str, partition: u32) -> Vec<(u64, Vec<String>)> {
    let (mut offset, mut found) = (Offset(0), Vec::new());
    loop {
        let query = FetchQuery {
            topic: topic.to_owned(),
            partition,
            offset,
            bytes_max: 1 << 20,
            bytes_min: 0,
            wait: Duration::ZERO,
            stage: None,
        };
        let fetched = broker.fetch(query).await.unwrap();
        for batch in &fetched.batches {
            let records = batch.decompressed(1 << 20).unwrap();
            let values = RecordIter::new(&records).map(|record| {
                let value = record.unwrap().value.unwrap().to_vec();
                String::from_utf8(value).unwrap()
            });
            found.push((batch.base_offset().0, values.collect()));
        }
        offset = fetched.next_offset;
        if offset == fetched.high_watermark {
            return found;
        }
    }
}

/// The stamp of what is produced to a partition now.
async fn stamp(broker: &Broker, topic: &str, partition: u32) -> char {
    let receipt = broker.produce(topic, partition, numbers(0..1), Acks::Durable).await;
    let at = receipt.unwrap().base_offset.0;
    let all = batches(broker, topic, partition).await;
    let (_, values) = all.iter().find(|(base, _)| *base == at).unwrap();
    values[0].chars().next().unwrap()
}

async fn deploy(broker: &Arc<Broker>, component: Bytes, trial: Option<TrialMode>) -> Result<Deployed, BrokerError> {
    let no_trial_call = false;
    let options = DeployOptions {
        trial,
        no_trial_call,
        ..DeployOptions::default()
    };
    broker.deploy_module("m", component, options).await
}

/// A stage of the module's current version, which follows it.
async fn follow(broker: &Arc<Broker>, topic: &str, on_error: Option<OnError>) {
    let mut stage = StageSpec {
        on_error,
        ..StageSpec::new("m", 0)
    };
    stage.breaker.failures = 0;
    let options = ChangeOptions::default();
    broker.add_stage(topic, Side::Produce, stage, options).await.unwrap();
}

/// Topic "t", whose records get an `a` of version 1.
async fn stamped(world: &World) -> Arc<Broker> {
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    deploy(&broker, stamps('a'), None).await.unwrap();
    follow(&broker, "t", None).await;
    broker
}

async fn reasons(broker: &Broker, topic: &str) -> Vec<String> {
    let history = broker.pipeline_history(topic, u64::MAX, HISTORY_MAX).await.unwrap();
    history.into_iter().map(|(row, _)| row.reason).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_swapped_under_load_loses_doubles_reorders_and_mixes_nothing() {
    const SWAPS: usize = 60;
    const RECORDS: u64 = 20;
    let world = World::new();
    let broker = stamped(&world).await;
    let done = Arc::new(AtomicBool::new(false));
    let producers = [0, 1].map(|partition| {
        let (broker, done) = (broker.clone(), done.clone());
        tokio::spawn(async move {
            let mut next = 0;
            while !done.load(Ordering::Relaxed) {
                let batch = numbers(next..next + RECORDS);
                let receipt = broker.produce("t", partition, batch, Acks::Durable).await.unwrap();
                assert_eq!((receipt.base_offset.0, receipt.record_count), (next, RECORDS as u32));
                next += RECORDS;
            }
            next
        })
    });
    let mut switches = 0;
    for swap in 0..SWAPS {
        let stamp = char::from(b'a' + (swap % 7) as u8);
        let deployed = deploy(&broker, stamps(stamp), None).await.unwrap();
        switches += deployed.switches.len();
    }
    assert!(switches >= SWAPS - 1, "the first one was current already");
    done.store(true, Ordering::Relaxed);
    for (partition, producer) in producers.into_iter().enumerate() {
        let end = producer.await.unwrap();
        let mut next = 0;
        for (base, values) in batches(&broker, "t", partition as u32).await {
            assert_eq!(base, next);
            let stamps: BTreeSet<char> = values.iter().map(|value| value.chars().next().unwrap()).collect();
            assert_eq!(stamps.len(), 1, "a batch of two versions: {values:?}");
            for value in values {
                assert_eq!(value[1..], next.to_string());
                next += 1;
            }
        }
        assert_eq!(next, end);
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_leads_back_step_by_step_and_to_a_version() {
    let world = World::new();
    let broker = stamped(&world).await;
    for version in ['b', 'c'] {
        let deployed = deploy(&broker, stamps(version), None).await.unwrap();
        assert_eq!(deployed.switches.len(), 1);
        assert_eq!(stamp(&broker, "t", 0).await, version);
    }
    for version in [2, 1] {
        let back = broker.rollback_module("m", None).await.unwrap();
        assert_eq!((back.module.version, back.module.current), (version, true));
        assert_eq!(stamp(&broker, "t", 1).await, if version == 2 { 'b' } else { 'a' });
    }
    let error = broker.rollback_module("m", None).await.unwrap_err();
    assert!(matches!(error, BrokerError::NothingReplaced { .. }), "{error}");
    broker.rollback_module("m", Some(3)).await.unwrap();
    assert_eq!(stamp(&broker, "t", 0).await, 'c');
    let error = broker.rollback_module("m", Some(3)).await.unwrap_err();
    assert!(matches!(error, BrokerError::AlreadyCurrent { .. }), "{error}");
    assert_eq!(
        broker.rollback_module("m", Some(9)).await.unwrap_err().kind(),
        Kind::NotFound
    );
    assert_eq!(
        reasons(&broker, "t").await,
        [
            "m 1 -> 3: rolled back",
            "m 2 -> 1: rolled back",
            "m 3 -> 2: rolled back",
            "m 2 -> 3: deployed",
            "m 1 -> 2: deployed",
            "produce stage m added",
        ]
    );
    // What was deployed before has its version still, and becomes current.
    let again = deploy(&broker, stamps('a'), None).await.unwrap();
    assert_eq!(
        (again.module.version, again.created, again.switches.len()),
        (1, false, 1)
    );
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_runs_on_its_partitions_only_until_it_is_promoted() {
    let world = World::new();
    let broker = stamped(&world).await;
    let canary = || Some(TrialMode::Canary(vec![1]));
    deploy(&broker, stamps('b'), canary()).await.unwrap();
    let both = async || (stamp(&broker, "t", 0).await, stamp(&broker, "t", 1).await);
    assert_eq!(both().await, ('a', 'b'));
    assert!(!broker.modules().await.unwrap()[1].current);
    let promoted = broker.promote_module("m").await.unwrap();
    assert_eq!((promoted.module.version, promoted.module.current), (2, true));
    assert_eq!(both().await, ('b', 'b'));
    let error = broker.promote_module("m").await.unwrap_err();
    assert!(matches!(error, BrokerError::NoTrial { .. }), "{error}");
    // A rollback ends a trial first, and leaves the current version.
    deploy(&broker, stamps('c'), canary()).await.unwrap();
    assert_eq!(both().await, ('b', 'c'));
    assert_eq!(broker.rollback_module("m", None).await.unwrap().module.version, 2);
    assert_eq!(both().await, ('b', 'b'));
    for nowhere in [vec![], vec![7]] {
        let refused = deploy(&broker, stamps('d'), Some(TrialMode::Canary(nowhere))).await;
        assert_eq!(refused.unwrap_err().kind(), Kind::Invalid);
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_writes_nothing_and_its_differences_are_counted() {
    let world = World::new();
    let broker = stamped(&world).await;
    deploy(&broker, stamps('b'), Some(TrialMode::Shadow)).await.unwrap();
    // A batch that comes while another is compared is left out.
    until("five differences are counted", async || {
        assert_eq!(stamp(&broker, "t", 0).await, 'a');
        let figures = broker.stage_figures();
        let shadow = figures.iter().find(|stage| stage.version == 2);
        shadow.is_some_and(|shadow| shadow.shadow_differences >= 5)
    })
    .await;
    broker.promote_module("m").await.unwrap();
    assert_eq!(stamp(&broker, "t", 0).await, 'b');
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_one_topic_refuses_no_topic_switches() {
    let world = World::new();
    let broker = stamped(&world).await;
    topic(&broker, "u", TopicConfig::default()).await;
    follow(&broker, "u", None).await;
    // Only of this one there are records to try it on.
    stamp(&broker, "u", 0).await;
    let error = deploy(&broker, module(TRAPS), None).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("topic \"u\"") && text.contains("m@2"), "{text}");
    assert_eq!(error.kind(), Kind::Invalid);
    assert_eq!((stamp(&broker, "t", 0).await, stamp(&broker, "u", 0).await), ('a', 'a'));
    assert_eq!(reasons(&broker, "t").await, ["produce stage m added"]);
    let modules = broker.modules().await.unwrap();
    assert_eq!(
        modules.iter().map(|module| module.current).collect::<Vec<_>>(),
        [true, false]
    );
    // Who wants it all the same gets it.
    let options = DeployOptions {
        no_trial_call: true,
        ..DeployOptions::default()
    };
    let deployed = broker.deploy_module("m", module(TRAPS), options).await.unwrap();
    assert_eq!(deployed.switches.len(), 2);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_fails_too_often_is_taken_back() {
    let world = World::new();
    let broker = world.open(|settings| settings.module_rollback_batches_min = 5).await;
    topic(&broker, "t", TopicConfig::default()).await;
    deploy(&broker, stamps('a'), None).await.unwrap();
    follow(&broker, "t", Some(OnError::Skip)).await;
    for (trial, ends) in [
        (None, "m 2 -> 1: rolled back, 100% of "),
        (
            Some(TrialMode::Canary(vec![0])),
            "m 1: trial ended, rolled back, 100% of ",
        ),
    ] {
        let options = DeployOptions {
            trial,
            no_trial_call: true,
            ..DeployOptions::default()
        };
        broker.deploy_module("m", module(TRAPS), options).await.unwrap();
        until("it is taken back", async || {
            let receipt = broker.produce("t", 0, numbers(0..1), Acks::Durable).await.unwrap();
            receipt.record_count == 1
        })
        .await;
        let reason = reasons(&broker, "t").await.remove(0);
        assert!(reason.starts_with(ends), "{reason}");
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_leaves_is_all_of_a_deployment_or_nothing() {
    let world = World::new();
    let broker = stamped(&world).await;
    // The database goes away in the midst of the transaction: after the version moved, before the pipelines did.
    world
        .execute(
            "CREATE TRIGGER refusal BEFORE INSERT ON pipeline_activations \
             BEGIN SELECT RAISE(ROLLBACK, 'the database refuses'); END",
        )
        .await;
    deploy(&broker, stamps('b'), None).await.unwrap_err();
    world.relent().await;
    drop(broker);
    let broker = world.open(|_| {}).await;
    assert_eq!(stamp(&broker, "t", 0).await, 'a');
    assert_eq!(broker.modules().await.unwrap()[0].version, 1);
    assert!(broker.modules().await.unwrap()[0].current);
    deploy(&broker, stamps('b'), None).await.unwrap();
    // Nobody told the partitions: the next start finds version and pipeline.
    drop(broker);
    let broker = world.open(|_| {}).await;
    assert_eq!(stamp(&broker, "t", 0).await, 'b');
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_begins_to_follow_during_deployments_is_never_left_behind() {
    let world = World::new();
    let broker = stamped(&world).await;
    for round in 0..10 {
        let name = format!("t{round}");
        topic(&broker, &name, TopicConfig::default()).await;
        let version = char::from(b'b' + round);
        let (deployed, ()) = tokio::join!(deploy(&broker, stamps(version), None), follow(&broker, &name, None));
        deployed.unwrap();
        assert_eq!(stamp(&broker, &name, 0).await, version, "of {name}");
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_tells_which_version_wrote_an_offset() {
    let world = World::new();
    let broker = stamped(&world).await;
    let write = async |partition, count| {
        for _ in 0..count {
            stamp(&broker, "t", partition).await;
        }
    };
    write(0, 3).await;
    broker.topic("t", true).await.unwrap();
    write(0, 2).await;
    deploy(&broker, stamps('b'), None).await.unwrap();
    write(0, 4).await;
    broker.topic("t", true).await.unwrap();
    deploy(&broker, stamps('c'), Some(TrialMode::Canary(vec![1])))
        .await
        .unwrap();
    write(0, 1).await;
    write(1, 1).await;
    let range = |range: &Written| (range.base_offset.0, range.end_offset.0, range.pipeline_version);
    let ranges = async |partition, from, limit| {
        let page = broker.written("t", partition, Offset(from), limit).await.unwrap();
        let next = page.next.map(|next| next.0);
        (page.ranges.iter().map(range).collect::<Vec<_>>(), next)
    };
    let all = vec![(0, 5, 1), (5, 9, 2), (9, 10, 3)];
    assert_eq!(ranges(0, 0, RANGES_MAX).await, (all.clone(), None));
    assert_eq!(ranges(1, 0, RANGES_MAX).await, (vec![(0, 1, 3)], None));
    for limit in 1..=3 {
        let (mut from, mut found) = (Some(0), Vec::new());
        while let Some(start) = from {
            let (page, next) = ranges(0, start, limit).await;
            assert!(page.len() <= limit);
            (from, _) = (next, found.extend(page));
        }
        assert_eq!(found, all, "in pages of {limit}");
    }
    assert_eq!(ranges(0, 4, 2).await, (vec![(4, 5, 1), (5, 9, 2)], Some(9)));
    assert_eq!(ranges(0, u64::MAX, 1).await, (vec![], None));
    for (offset, expected) in [(0, (0, 3, 1)), (4, (3, 5, 1)), (5, (5, 9, 2)), (9, (9, 10, 3))] {
        let written = broker.written_at("t", 0, Offset(offset)).await.unwrap();
        assert_eq!(range(&written), expected);
    }
    let beyond = broker.written_at("t", 0, Offset(10)).await.unwrap_err();
    assert_eq!(beyond.kind(), Kind::OutOfRange);
    let (row, spec) = broker.pipeline_version("t", 3).await.unwrap().unwrap();
    assert_eq!(
        (row.reason.as_str(), row.activated_at_ms),
        ("m 3: deployed as canary on partitions 1", NOW_MS)
    );
    assert_eq!(spec.produce[0].version_on(1), 3);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_of_other_agents_follow() {
    let mut world = World::new();
    world.wal = millstream_broker::WalKind::Object;
    let (a, b) = (world.agent("a", |_| {}).await, world.agent("b", |_| {}).await);
    topic(&a, "t", TopicConfig::default()).await;
    deploy(&a, stamps('a'), None).await.unwrap();
    follow(&a, "t", None).await;
    assert_eq!(stamp(&b, "t", 1).await, 'a');
    assert_eq!(stamp(&a, "t", 0).await, 'a');
    deploy(&a, stamps('b'), None).await.unwrap();
    assert_eq!(stamp(&a, "t", 0).await, 'b');
    until("it has followed", async || stamp(&b, "t", 1).await == 'b').await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn modules_that_nothing_follows_are_deployed_and_rolled_back_too() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    let count = AtomicU64::new(0);
    for stamp in ['a', 'b', 'b'] {
        let deployed = deploy(&broker, stamps(stamp), None).await.unwrap();
        assert!(deployed.module.current && deployed.switches.is_empty());
        count.fetch_add(u64::from(deployed.created), Ordering::Relaxed);
    }
    assert_eq!(count.into_inner(), 2);
    assert_eq!(broker.rollback_module("m", None).await.unwrap().module.version, 1);
    let refused = deploy(&broker, stamps('c'), Some(TrialMode::Shadow)).await;
    assert_eq!(refused.unwrap_err().kind(), Kind::Invalid);
    let (version, component) = broker.module_component("m", None).await.unwrap();
    assert_eq!((version.version, component), (1, stamps('a')));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_force_is_known_and_what_is_older_and_what_was_only_tried_is_not() {
    let world = World::new();
    let broker = stamped(&world).await;
    let known = async |letter| {
        let sha256 = millstream_wasm::Module::sha256_of(&stamps(letter));
        broker.knows_module("m", &sha256).await.unwrap()
    };
    deploy(&broker, stamps('b'), Some(TrialMode::Shadow)).await.unwrap();
    assert_eq!(
        [known('a').await, known('b').await, known('c').await],
        [true, false, false]
    );
    deploy(&broker, stamps('c'), None).await.unwrap();
    broker.rollback_module("m", None).await.unwrap();
    assert_eq!(
        [known('a').await, known('b').await, known('c').await],
        [true, true, true]
    );
    broker.stop().await;
}
