//! What becomes of a batch of which a module refuses a record, or fails on it.

use std::sync::Arc;

use millstream_broker::{Broker, BrokerError, ChangeOptions, Kind, OnError, Side, TopicConfig};

use crate::{
    modules::{
        TRAPS, becomes, bind, deploy, each_becomes, fetch, figures, loops_on_x, module, produce, rejects_x, traps_on_x,
        values,
    },
    support::{World, topic},
};

const GIVEN: &[&str] = &["a", "b", "X1", "c", "X2", "d"];

/// A broker with topic "t", which runs modules that trap on, loop on and refuse what holds an X.
async fn broker(world: &World) -> Arc<Broker> {
    let broker = world
        .open(|settings| settings.module_limits.cpu_deadline = std::time::Duration::from_millis(20))
        .await;
    topic(&broker, "t", TopicConfig::default()).await;
    deploy(&broker, "traps", traps_on_x()).await;
    deploy(&broker, "loops", loops_on_x()).await;
    deploy(&broker, "rejects", rejects_x()).await;
    broker
}

#[tokio::test(flavor = "multi_thread")]
async fn reject_names_every_record_at_fault_and_stores_nothing() {
    for (name, failed) in [("traps", true), ("rejects", false)] {
        let world = World::new();
        let broker = broker(&world).await;
        bind(&broker, "t", Side::Produce, name, OnError::Reject).await.unwrap();
        let refused = produce(&broker, "t", GIVEN).await.unwrap_err();
        let BrokerError::Rejected { count, rejects, .. } = &refused else {
            panic!("{refused}");
        };
        assert_eq!(*count, 6);
        let at: Vec<_> = rejects.iter().map(|reject| (reject.index, reject.failed)).collect();
        assert_eq!(at, [(2, failed), (4, failed)], "{name}");
        assert_eq!(refused.kind(), if failed { Kind::Module } else { Kind::Invalid });
        assert_eq!(produce(&broker, "t", &["a", "b"]).await.unwrap().base_offset.0, 0);
        assert_eq!(values(&broker, "t").await, ["a", "b"]);
        broker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn skip_drops_the_records_at_fault_and_no_other() {
    for name in ["traps", "rejects"] {
        let world = World::new();
        let broker = broker(&world).await;
        bind(&broker, "t", Side::Produce, name, OnError::Skip).await.unwrap();
        let receipt = produce(&broker, "t", GIVEN).await.unwrap();
        assert_eq!((receipt.record_count, receipt.dropped_count), (4, 2), "{name}");
        assert_eq!(values(&broker, "t").await, ["a", "b", "c", "d"]);
        assert_eq!(figures(&broker, "t").skipped, 2);
        let lines = broker.module_logs(name).await.unwrap().follow().0;
        let said: Vec<_> = lines
            .iter()
            .map(|line| (line.level, line.partition, &*line.text))
            .collect();
        let begin = "2 of 6 records skipped, the first one, record 2: ";
        let is_it = |text: &str| text.len() > begin.len() && text.starts_with(begin);
        assert!(matches!(said[..], [("warn", Some(0), text)] if is_it(text)), "{said:?}");
        broker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pass_lets_them_go_on_as_they_came() {
    for name in ["traps", "rejects", "loops"] {
        let world = World::new();
        let broker = broker(&world).await;
        bind(&broker, "t", Side::Produce, name, OnError::Pass).await.unwrap();
        produce(&broker, "t", GIVEN).await.unwrap();
        assert_eq!(values(&broker, "t").await, GIVEN, "{name}");
        broker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_made_larger_than_the_topic_takes_is_at_fault_and_no_other() {
    let world = World::new();
    let broker = world.open(|_| ()).await;
    let large = "L".repeat(1_000);
    // As it is encoded: the limit is on the record with its length, key and headers.
    let at_the_limit = "M".repeat(1_000 - 10);
    deploy(
        &broker,
        "inflates",
        each_becomes(&["A", "B", &large, "C", &large, &at_the_limit]),
    )
    .await;
    let wanted = [
        (OnError::Reject, None),
        (OnError::Skip, Some(vec!["A", "B", "C", &at_the_limit])),
        (OnError::DeadLetter, Some(vec!["A", "B", "C", &at_the_limit])),
        (OnError::Pass, Some(vec!["A", "B", "X1", "C", "X2", &at_the_limit])),
    ];
    for (on_error, kept) in wanted {
        let name = on_error.name();
        let small = TopicConfig {
            record_bytes_max: 1_000,
            ..TopicConfig::default()
        };
        topic(&broker, name, small).await;
        bind(&broker, name, Side::Produce, "inflates", on_error).await.unwrap();
        let produced = produce(&broker, name, GIVEN).await;
        assert_eq!(values(&broker, name).await, kept.clone().unwrap_or_default(), "{name}");
        match (produced, kept) {
            (Ok(_), Some(_)) => {}
            (Err(BrokerError::Rejected { rejects, .. }), None) => {
                let at: Vec<_> = rejects.iter().map(|reject| (reject.index, reject.failed)).collect();
                assert_eq!(at, [(2, true), (4, true)]);
                assert!(
                    rejects[0].reason.contains("the topic's limit is 1000"),
                    "{}",
                    rejects[0].reason
                );
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    let letters = values(&broker, "dead-letter.dead-letter").await;
    assert_eq!(letters, ["X1", "X2"], "as the producer sent them");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_search_leaves_undecided_is_never_dropped() {
    let world = World::new();
    let broker = broker(&world).await;
    deploy(&broker, "spins", module("(loop $l (br $l)) (unreachable)")).await;
    bind(&broker, "t", Side::Produce, "spins", OnError::Skip).await.unwrap();
    let many: Vec<_> = (0..1_000).map(|n| n.to_string()).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let refused = produce(&broker, "t", &many).await.unwrap_err();
    assert!(matches!(refused, BrokerError::SearchEnded { .. }), "{refused}");
    assert!(refused.to_string().contains("after 80 ms of CPU"), "{refused}");
    assert_eq!(values(&broker, "t").await, [""; 0]);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn halt_stands_still_until_it_is_resumed() {
    let world = World::new();
    let broker = broker(&world).await;
    bind(&broker, "t", Side::Produce, "traps", OnError::Halt).await.unwrap();
    produce(&broker, "t", &["a"]).await.unwrap();
    for given in [&["X"], &["b"]] {
        let refused = produce(&broker, "t", given).await.unwrap_err();
        assert!(matches!(refused, BrokerError::Halted { .. }), "{refused}");
        assert_eq!(refused.kind(), Kind::Precondition);
    }
    let status = broker.pipeline_status("t").await.unwrap();
    assert_eq!(status.stages[0].halts[0].partition, 0);
    assert!(
        status.stages[0].halts[0].cause.starts_with("record 0: "),
        "{:?}",
        status.stages[0].halts
    );
    broker.resume_pipeline("t", &[Side::Produce]).await.unwrap();
    produce(&broker, "t", &["b"]).await.unwrap();
    assert_eq!(values(&broker, "t").await, ["a", "b"]);
    assert!(broker.pipeline_status("t").await.unwrap().stages[0].halts.is_empty());
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn halt_refuses_the_request_that_holds_a_refused_record_and_goes_on() {
    let world = World::new();
    let broker = broker(&world).await;
    bind(&broker, "t", Side::Produce, "rejects", OnError::Halt)
        .await
        .unwrap();
    let refused = produce(&broker, "t", GIVEN).await.unwrap_err();
    assert!(matches!(refused, BrokerError::Rejected { .. }), "{refused}");
    produce(&broker, "t", &["a"]).await.unwrap();
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_a_later_stage_fails_on_is_not_seen_at_all() {
    let world = World::new();
    let broker = broker(&world).await;
    bind(&broker, "t", Side::Produce, "rejects", OnError::Pass)
        .await
        .unwrap();
    bind(&broker, "t", Side::Produce, "traps", OnError::Skip).await.unwrap();
    produce(&broker, "t", GIVEN).await.unwrap();
    assert_eq!(values(&broker, "t").await, ["a", "b", "c", "d"]);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_else_came_of_a_record_that_is_skipped_is_not_seen_either() {
    let world = World::new();
    let broker = broker(&world).await;
    deploy(&broker, "three", becomes(&["before", "X", "after"])).await;
    bind(&broker, "t", Side::Produce, "three", OnError::Reject)
        .await
        .unwrap();
    bind(&broker, "t", Side::Produce, "traps", OnError::Skip).await.unwrap();
    let receipt = produce(&broker, "t", &["a"]).await.unwrap();
    assert_eq!((receipt.record_count, receipt.dropped_count), (0, 1));
    assert!(values(&broker, "t").await.is_empty());
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_fetch_a_reader_gets_what_is_before_the_record_at_fault_then_the_error() {
    for name in ["traps", "rejects"] {
        let world = World::new();
        let broker = broker(&world).await;
        produce(&broker, "t", GIVEN).await.unwrap();
        bind(&broker, "t", Side::Fetch, name, OnError::Halt).await.unwrap();
        let (seen, next) = fetch(&broker, "t", 0).await.unwrap();
        assert_eq!((seen.len(), next), (2, 2), "{name}");
        for _ in 0..2 {
            match fetch(&broker, "t", 2).await.unwrap_err() {
                BrokerError::ModuleOnFetch { offset, .. } => assert_eq!(offset.0, 2),
                other => panic!("{other}"),
            }
        }
        assert_eq!(
            fetch(&broker, "t", 3).await.unwrap(),
            (vec![(3, "c".to_owned())], 4),
            "{name}"
        );
        broker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_fetch_skip_and_pass_go_on_at_the_offsets_of_the_log() {
    for name in ["traps", "rejects"] {
        let world = World::new();
        let broker = broker(&world).await;
        produce(&broker, "t", GIVEN).await.unwrap();
        bind(&broker, "t", Side::Fetch, name, OnError::Skip).await.unwrap();
        let (seen, next) = fetch(&broker, "t", 0).await.unwrap();
        let at: Vec<_> = seen.iter().map(|(offset, _)| *offset).collect();
        assert_eq!((at, next), (vec![0, 1, 3, 5], 6), "{name}");
        broker
            .remove_stage("t", Side::Fetch, 0, ChangeOptions::default())
            .await
            .unwrap();
        bind(&broker, "t", Side::Fetch, name, OnError::Pass).await.unwrap();
        assert_eq!(values(&broker, "t").await, GIVEN);
        broker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_fetch_reject_and_dead_letter_are_refused() {
    let world = World::new();
    let broker = broker(&world).await;
    for on_error in [OnError::Reject, OnError::DeadLetter] {
        let refused = bind(&broker, "t", Side::Fetch, "traps", on_error).await.unwrap_err();
        assert!(matches!(refused, BrokerError::OnErrorOnFetch { .. }), "{refused}");
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_side_takes_nothing_and_the_other_side_goes_on() {
    let world = World::new();
    let broker = broker(&world).await;
    produce(&broker, "t", &["a"]).await.unwrap();
    broker.pause_pipeline("t", &[Side::Produce]).await.unwrap();
    let refused = produce(&broker, "t", &["b"]).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Precondition, "{refused}");
    assert_eq!(values(&broker, "t").await, ["a"]);
    broker.pause_pipeline("t", &[Side::Fetch]).await.unwrap();
    assert_eq!(fetch(&broker, "t", 0).await.unwrap_err().kind(), Kind::Precondition);
    broker
        .resume_pipeline("t", &[Side::Produce, Side::Fetch])
        .await
        .unwrap();
    produce(&broker, "t", &["b"]).await.unwrap();
    assert_eq!(values(&broker, "t").await, ["a", "b"]);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn to_resume_what_does_not_stand_still_changes_nothing() {
    let world = World::new();
    let broker = broker(&world).await;
    bind(&broker, "t", Side::Produce, "traps", OnError::Halt).await.unwrap();
    let sides = [Side::Produce, Side::Fetch];
    assert_eq!(broker.resume_pipeline("t", &sides).await.unwrap().version, 1);
    produce(&broker, "t", &["X"]).await.unwrap_err();
    assert_eq!(broker.resume_pipeline("t", &[Side::Fetch]).await.unwrap().version, 1);
    assert_eq!(broker.resume_pipeline("t", &sides).await.unwrap().version, 2);
    produce(&broker, "t", &["a"]).await.unwrap();
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_on_every_record_under_pass_stores_all_of_them() {
    let world = World::new();
    let broker = broker(&world).await;
    deploy(&broker, "always", module(TRAPS)).await;
    bind(&broker, "t", Side::Produce, "always", OnError::Pass)
        .await
        .unwrap();
    let many: Vec<_> = (0..500).map(|n| n.to_string()).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    produce(&broker, "t", &many).await.unwrap();
    assert_eq!(values(&broker, "t").await, many);
    broker.stop().await;
}
