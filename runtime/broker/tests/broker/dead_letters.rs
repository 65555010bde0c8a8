//! Records at fault go to a topic of their own, whole, before anything else of their batch is stored.

use std::{collections::BTreeMap, sync::Arc};

use millstream_batch::{Offset, RecordIter};
use millstream_broker::{Broker, BrokerError, FetchQuery, Kind, OnError, Side, TopicConfig};

use crate::{
    modules::{
        HALVES, batch_of, bind, bind_with, deploy, figures, loops_on_x, module, produce, rejects_x, traps_on_x, values,
    },
    support::{World, topic},
};

async fn broker(world: &World) -> Arc<Broker> {
    let broker = world
        .open(|settings| settings.module_limits.cpu_deadline = std::time::Duration::from_millis(20))
        .await;
    topic(&broker, "t", TopicConfig::default()).await;
    deploy(&broker, "traps", traps_on_x()).await;
    broker
}

type Headers = BTreeMap<String, String>;

/// Value, timestamp and headers of every record of a partition.
async fn letters(broker: &Broker, topic: &str, partition: u32) -> Vec<(String, i64, Headers)> {
    let query = FetchQuery {
        topic: topic.to_owned(),
        partition,
        offset: Offset(0),
        bytes_max: 1 << 20,
        bytes_min: 0,
        wait: std::time::Duration::ZERO,
        stage: None,
    };
    let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
    let mut found = Vec::new();
    for batch in &broker.fetch(query).await.unwrap().batches {
        for record in RecordIter::new(batch.records()) {
            let record = record.unwrap();
            assert_eq!(record.key, Some(&b"k"[..]));
            let headers = record.headers().map(|(name, value)| (name.to_owned(), text(value)));
            let timestamp_ms = batch.header().base_timestamp_ms + record.timestamp_delta;
            found.push((text(record.value), timestamp_ms, headers.collect()));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn they_keep_everything_and_say_where_they_come_from() {
    for (name, component) in [("traps", traps_on_x()), ("rejects", rejects_x())] {
        let world = World::new();
        let broker = broker(&world).await;
        deploy(&broker, name, component).await;
        bind(&broker, "t", Side::Produce, name, OnError::DeadLetter)
            .await
            .unwrap();
        let batch = batch_of(&["a", "X", "b"]);
        broker
            .produce("t", 1, batch, millstream_broker::Acks::Durable)
            .await
            .unwrap();
        let found = letters(&broker, "t.dead-letter", 1).await;
        assert_eq!(found.len(), 1);
        let (value, timestamp_ms, headers) = &found[0];
        assert_eq!((value.as_str(), *timestamp_ms), ("X", 1_001));
        let header = |name: &str| headers[name].as_str();
        assert_eq!(header("h"), "1");
        assert_eq!(header("millstream-source-topic"), "t");
        assert_eq!(header("millstream-source-partition"), "1");
        assert_eq!(header("millstream-source-position"), "1");
        assert_eq!(header("millstream-module"), name);
        assert_eq!(header("millstream-module-version"), "1");
        assert!(!header("millstream-error").is_empty());
        assert_eq!(figures(&broker, "t").dead_lettered, 1);
        broker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_stage_sends_the_record_as_the_producer_sent_it() {
    let world = World::new();
    let broker = broker(&world).await;
    deploy(&broker, "halves", module(HALVES)).await;
    bind(&broker, "t", Side::Produce, "halves", OnError::Reject)
        .await
        .unwrap();
    let other = |stage: &mut millstream_broker::StageSpec| {
        stage.on_error = Some(OnError::DeadLetter);
        stage.dead_letter = Some("graveyard".to_owned());
    };
    bind_with(&broker, "t", Side::Produce, "traps", other).await.unwrap();
    produce(&broker, "t", &["a", "b", "X", "d", "e"]).await.unwrap();
    assert_eq!(values(&broker, "t").await, ["a", "e"]);
    let found = letters(&broker, "graveyard", 0).await;
    assert_eq!(found[0].0, "X");
    assert_eq!(found[0].2["millstream-source-position"], "2");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_search_leaves_undecided_goes_there_too_and_nothing_is_lost() {
    let world = World::new();
    let broker = broker(&world).await;
    deploy(&broker, "loops", loops_on_x()).await;
    bind(&broker, "t", Side::Produce, "loops", OnError::DeadLetter)
        .await
        .unwrap();
    let given: Vec<_> = (0..40)
        .map(|n| if n % 2 == 0 { format!("X{n}") } else { n.to_string() })
        .collect();
    let given: Vec<_> = given.iter().map(String::as_str).collect();
    produce(&broker, "t", &given).await.unwrap();
    let mut all = values(&broker, "t").await;
    assert!(all.iter().all(|value| !value.starts_with('X')));
    for (value, _, headers) in letters(&broker, "t.dead-letter", 0).await {
        let is_decided = !headers["millstream-error"].starts_with("not decided: ");
        assert!(!is_decided || value.starts_with('X'), "{value}: {headers:?}");
    }
    all.extend(
        letters(&broker, "t.dead-letter", 0)
            .await
            .into_iter()
            .map(|(value, ..)| value),
    );
    all.sort();
    let mut expected = given.clone();
    expected.sort();
    assert_eq!(all, expected);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_their_topic_the_request_is_refused_and_nothing_is_stored() {
    let world = World::new();
    let broker = broker(&world).await;
    bind(&broker, "t", Side::Produce, "traps", OnError::DeadLetter)
        .await
        .unwrap();
    broker.delete_topic("t.dead-letter").await.unwrap();
    let refused = produce(&broker, "t", &["a", "X"]).await.unwrap_err();
    assert!(matches!(refused, BrokerError::DeadLetters { .. }), "{refused}");
    assert_eq!(refused.kind(), Kind::Precondition);
    assert!(refused.to_string().contains("t.dead-letter"), "{refused}");
    assert_eq!(values(&broker, "t").await, [""; 0]);
    produce(&broker, "t", &["a"]).await.unwrap();
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_takes_no_such_records_refuses_the_request() {
    let world = World::new();
    let broker = broker(&world).await;
    let small = TopicConfig {
        record_bytes_max: 100,
        ..TopicConfig::default()
    };
    topic(&broker, "small", small).await;
    let there = |stage: &mut millstream_broker::StageSpec| {
        stage.on_error = Some(OnError::DeadLetter);
        stage.dead_letter = Some("small".to_owned());
    };
    bind_with(&broker, "t", Side::Produce, "traps", there).await.unwrap();
    let refused = produce(&broker, "t", &["X"]).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Precondition, "{refused}");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn they_do_not_go_round_in_circles() {
    let world = World::new();
    let broker = broker(&world).await;
    for name in ["u", "v"] {
        topic(&broker, name, TopicConfig::default()).await;
    }
    let to = |other: &'static str| {
        move |stage: &mut millstream_broker::StageSpec| {
            stage.on_error = Some(OnError::DeadLetter);
            stage.dead_letter = Some(other.to_owned());
        }
    };
    let circle = |result: Result<(), BrokerError>| match result {
        Err(BrokerError::DeadLetterCircle { topics }) => topics.join(" "),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        circle(bind_with(&broker, "t", Side::Produce, "traps", to("t")).await),
        "t t"
    );
    bind_with(&broker, "t", Side::Produce, "traps", to("u")).await.unwrap();
    bind_with(&broker, "u", Side::Produce, "traps", to("v")).await.unwrap();
    assert_eq!(
        circle(bind_with(&broker, "v", Side::Produce, "traps", to("t")).await),
        "v t u v"
    );
    broker.stop().await;
}
