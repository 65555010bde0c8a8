//! Readers of stages that fail on much, ask for much or make much: they move on, and nothing grows without a bound.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use millstream_batch::{BatchBuilder, Compression, Offset};
use millstream_broker::{Broker, BrokerError, FetchQuery, Kind, OnError, Side, StageLimits, StageSpec, TopicConfig};

use crate::{
    modules::{KEEPS, answers, bind_with, deploy, fetch, loops_on_x, module, produce, traps_on_x},
    support::{World, topic},
};

/// Longer than any of these readers takes.
const LONG: Duration = Duration::from_secs(30);

const DEADLINE: Duration = Duration::from_millis(20);

/// A millisecond or so of CPU time for every record, all of which it leaves as they are.
const WORKS_FOR_EACH: &str = "(local $i i64)
    (loop $l (local.set $i (i64.add (local.get $i) (i64.const 1)))
      (br_if $l (i64.lt_u (local.get $i) (i64.mul (i64.extend_i32_u (local.get $count)) (i64.const 2000000)))))
    (i32.const 1024)";

/// A broker with topic "t".
async fn broker(world: &World) -> Arc<Broker> {
    let broker = world
        .open(|settings| settings.module_limits.cpu_deadline = DEADLINE)
        .await;
    topic(&broker, "t", TopicConfig::default()).await;
    broker
}

/// Reads up to `end`. Where a breaker is open the reader comes again; every other error fails the test.
async fn read(broker: &Broker, end: u64) -> Vec<(u64, String)> {
    let (mut next, mut found, begun) = (0, Vec::new(), Instant::now());
    while next < end {
        assert!(begun.elapsed() < LONG, "stuck at {next}");
        match fetch(broker, "t", next).await {
            Ok((records, to)) => {
                assert!(to > next, "a fetch at {next} does not move on");
                found.extend(records);
                next = to;
            }
            Err(BrokerError::BreakerOpen { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("at {next}: {error}"),
        }
    }
    found
}

fn reads_through(spec: StageSpec) -> FetchQuery {
    FetchQuery {
        topic: "t".to_owned(),
        partition: 0,
        offset: Offset(0),
        bytes_max: 1 << 20,
        bytes_min: 0,
        wait: Duration::ZERO,
        stage: Some(spec),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_passes_a_batch_with_more_bad_records_than_one_search_finds() {
    let world = World::new();
    let broker = broker(&world).await;
    deploy(&broker, "traps", traps_on_x()).await;
    // Of 225 records 150 are bad.
    let given: Vec<_> = (0..225)
        .map(|n| if n % 3 == 0 { n.to_string() } else { format!("X{n}") })
        .collect();
    let given: Vec<_> = given.iter().map(String::as_str).collect();
    produce(&broker, "t", &given).await.unwrap();
    bind_with(&broker, "t", Side::Fetch, "traps", |stage| {
        stage.on_error = Some(OnError::Skip);
        stage.breaker.failures = 0;
    })
    .await
    .unwrap();
    let innocent: Vec<_> = (0..225).step_by(3).map(|n: u64| (n, n.to_string())).collect();
    assert_eq!(read(&broker, 225).await, innocent);
    broker.topic("t", true).await.unwrap();
    assert_eq!(read(&broker, 225).await, innocent);
    // Nobody was there before, and this one comes from elsewhere.
    for from in [1, 99, 150, 151, 224] {
        let (found, next) = fetch(&broker, "t", from).await.unwrap();
        assert!(
            next > from && found.iter().all(|record| innocent.contains(record)),
            "from {from}"
        );
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_that_lets_one_batch_through_lets_the_reader_move_on() {
    let world = World::new();
    let broker = broker(&world).await;
    deploy(&broker, "traps", traps_on_x()).await;
    produce(&broker, "t", &["X"; 350]).await.unwrap();
    bind_with(&broker, "t", Side::Fetch, "traps", |stage| {
        stage.on_error = Some(OnError::Skip);
        stage.breaker.failures = 1;
        stage.breaker.cooldown_ms = 1;
    })
    .await
    .unwrap();
    assert_eq!(read(&broker, 350).await, []);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_moves_on_where_only_the_time_for_the_search_was_used_up() {
    let world = World::new();
    let broker = broker(&world).await;
    deploy(&broker, "works", module(WORKS_FOR_EACH)).await;
    produce(&broker, "t", &["a"; 300]).await.unwrap();
    bind_with(&broker, "t", Side::Fetch, "works", |stage| {
        stage.on_error = Some(OnError::Halt);
        stage.breaker.failures = 0;
    })
    .await
    .unwrap();
    let offsets: Vec<_> = read(&broker, 300).await.into_iter().map(|(offset, _)| offset).collect();
    assert_eq!(offsets, (0..300).collect::<Vec<_>>());
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_becomes_too_much_goes_through_in_parts_and_is_not_kept() {
    const BATCHES: u64 = 300;
    let world = World::new();
    let broker = broker(&world).await;
    let mut large = BatchBuilder::new();
    large.push(0, None, Some(&[b'a'; 59_000]), [].into_iter());
    deploy(&broker, "grows", answers(large.build(Compression::None).records())).await;
    for _ in 0..BATCHES {
        produce(&broker, "t", &["a"]).await.unwrap();
    }
    broker.topic("t", true).await.unwrap();
    bind_with(&broker, "t", Side::Fetch, "grows", |_| {}).await.unwrap();
    for _ in 0..2 {
        assert_eq!(read(&broker, BATCHES).await.len() as u64, BATCHES);
    }
    // As a whole it has more than 16 MiB until few batches of it are left.
    let results = broker.read_stats().results;
    assert_eq!(results.hits, 0, "{results:?}");
    assert!(results.misses >= 2, "{results:?}");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_readers_own_stage_gets_no_more_than_the_agent_gives() {
    let world = World::new();
    let broker = broker(&world).await;
    deploy(&broker, "loops", loops_on_x()).await;
    produce(&broker, "t", &["X"]).await.unwrap();
    let mut stage = StageSpec::new("loops", 1);
    stage.limits = StageLimits {
        cpu_ms: Some(5_000),
        memory_bytes: Some(u64::MAX),
        output_growth: Some(u64::MAX),
        log_lines_per_second: Some(u32::MAX),
        ..StageLimits::default()
    };
    let stopped = broker.fetch(reads_through(stage.clone())).await.unwrap_err();
    assert!(stopped.to_string().contains("more than 20 ms of CPU"), "{stopped}");
    stage.limits.cpu_ms = Some(0);
    let refused = broker.fetch(reads_through(stage)).await.unwrap_err();
    assert!(
        matches!(refused, BrokerError::StageLimit { name: "cpu_ms", .. }),
        "{refused}"
    );
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_asks_for_too_much_is_refused_before_anything_of_it_is_stored() {
    let world = World::new();
    let broker = broker(&world).await;
    deploy(&broker, "keeps", module(KEEPS)).await;
    produce(&broker, "t", &["a"]).await.unwrap();
    for (name, limits) in [
        (
            "cpu_ms",
            StageLimits {
                cpu_ms: Some(u64::MAX),
                ..StageLimits::default()
            },
        ),
        (
            "memory_bytes",
            StageLimits {
                memory_bytes: Some((1 << 30) + 1),
                ..StageLimits::default()
            },
        ),
        (
            "output_bytes",
            StageLimits {
                output_bytes: Some(0),
                ..StageLimits::default()
            },
        ),
    ] {
        let added = bind_with(&broker, "t", Side::Produce, "keeps", |stage| stage.limits = limits).await;
        let refused = added.unwrap_err();
        assert_eq!(refused.kind(), Kind::Invalid);
        assert!(
            matches!(&refused, BrokerError::StageLimit { name: of, .. } if *of == name),
            "{refused}"
        );
    }
    let large = || ("p".to_owned(), "v".repeat(64 << 10));
    let added = bind_with(&broker, "t", Side::Fetch, "keeps", |stage| {
        stage.params.extend([large()])
    })
    .await;
    let mut asked = StageSpec::new("keeps", 1);
    asked.params.extend([large()]);
    let fetched = broker.fetch(reads_through(asked)).await.map(drop);
    for refused in [added.unwrap_err(), fetched.unwrap_err()] {
        assert_eq!(refused.kind(), Kind::Invalid);
        assert!(
            matches!(refused, BrokerError::ParamsTooLarge { bytes: 65_537, .. }),
            "{refused}"
        );
    }
    let (version, spec) = broker.pipeline("t").await.unwrap();
    assert!(version == 0 && spec.produce.is_empty() && spec.fetch.is_empty());
    broker.stop().await;
}
