//! Idempotent producers: what is new, what was sent before, and what is refused.

use bytes::Bytes;
use millstream_batch::{BatchBuilder, Compression};
use millstream_broker::{
    Acks, Broker, BrokerError, ChangeOptions, Fate, InitProducer, Kind, OnError, Receipt, Side, TopicConfig,
};

use crate::{
    modules::{HALVES, bind, deploy, drops_where_it_says, module, rejects_x, values},
    support::{World, topic},
};

const ID: i64 = 7;

/// A batch of these values, whose first one has this sequence.
fn numbered(epoch: i16, sequence: i32, values: &[impl AsRef<str>]) -> Bytes {
    let mut builder = BatchBuilder::new();
    for value in values {
        builder.push(0, None, Some(value.as_ref().as_bytes()), [].into_iter());
    }
    builder
        .build(Compression::None)
        .with_producer(ID, epoch, sequence)
        .to_bytes()
}

async fn send(broker: &Broker, epoch: i16, sequence: i32, values: &[impl AsRef<str>]) -> Result<Receipt, BrokerError> {
    broker
        .produce("t", 0, numbered(epoch, sequence, values), Acks::Durable)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_comes_again_is_answered_as_it_was_and_stored_once() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    let first = send(&broker, 0, 0, &["a", "b"]).await.unwrap();
    let second = send(&broker, 0, 2, &["c"]).await.unwrap();
    for (sequence, values, original) in [
        (0, &["a", "b"][..], &first),
        (2, &["c"], &second),
        (0, &["a", "b"], &first),
    ] {
        let again = send(&broker, 0, sequence, values).await.unwrap();
        assert!(again.duplicate && !original.duplicate);
        assert_eq!(
            (again.base_offset, again.record_count),
            (original.base_offset, original.record_count)
        );
    }
    assert_eq!(values(&broker, "t").await, ["a", "b", "c"]);
    let counted = |outcome| {
        let batches = &broker.measures().producer_batches;
        batches.get_or_create(&[("outcome", outcome)]).get()
    };
    assert_eq!((counted("new"), counted("duplicate"), counted("fenced")), (2, 3, 0));
    assert_eq!(broker.stats().producers, 1);
    // Other producers do not mind.
    let other = broker.init_producer(InitProducer::New).await.unwrap();
    assert!(other.id >= 0 && other.epoch == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_follow_is_refused_and_nothing_of_it_is_stored() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    let unknown = send(&broker, 0, 5, &["x"]).await.unwrap_err();
    assert_eq!(unknown.kind(), Kind::Precondition, "{unknown}");
    assert!(matches!(unknown, BrokerError::ProducerUnknown { .. }));
    send(&broker, 1, 0, &["a", "b"]).await.unwrap();

    let skipped = send(&broker, 1, 3, &["x"]).await.unwrap_err();
    assert_eq!(skipped.kind(), Kind::Conflict, "{skipped}");
    assert!(
        matches!(
            skipped,
            BrokerError::SequenceOutOfOrder {
                expected: 2,
                found: 3,
                ..
            }
        ),
        "{skipped}"
    );
    let other_cut = send(&broker, 1, 1, &["b"]).await.unwrap_err();
    assert!(
        matches!(other_cut, BrokerError::SequenceForgotten { .. }),
        "{other_cut}"
    );
    let older = send(&broker, 0, 2, &["x"]).await.unwrap_err();
    assert_eq!(older.kind(), Kind::Precondition, "{older}");
    assert!(
        matches!(
            older,
            BrokerError::ProducerFenced {
                epoch: 0,
                current: 1,
                ..
            }
        ),
        "{older}"
    );
    let newer = send(&broker, 2, 2, &["x"]).await.unwrap_err();
    assert!(
        matches!(newer, BrokerError::SequenceOutOfOrder { expected: 0, .. }),
        "{newer}"
    );
    assert_eq!(values(&broker, "t").await, ["a", "b"]);

    send(&broker, 2, 0, &["c"]).await.unwrap();
    assert!(send(&broker, 1, 2, &["x"]).await.is_err(), "it is fenced now");
    assert_eq!(values(&broker, "t").await, ["a", "b", "c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_batches_at_once_each_is_stored_once_and_in_order() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    let texts: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    // All of them twice, side by side: whatever overtakes is refused, and comes again.
    let mut missing: Vec<usize> = (0..50).flat_map(|n| [n, n]).collect();
    while !missing.is_empty() {
        let sends = missing
            .iter()
            .map(|n| send(&broker, 0, *n as i32, std::slice::from_ref(&texts[*n])));
        let sends = futures::future::join_all(sends.collect::<Vec<_>>()).await;
        let left = missing.iter().zip(sends).filter_map(|(n, sent)| match sent {
            Ok(receipt) => {
                assert_eq!(receipt.base_offset.0, *n as u64);
                None
            }
            Err(BrokerError::SequenceForgotten { .. }) => None,
            Err(error) => {
                assert!(matches!(error.kind(), Kind::Conflict | Kind::Precondition), "{error}");
                Some(*n)
            }
        });
        missing = left.collect();
    }
    assert_eq!(values(&broker, "t").await, texts);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_is_told_what_became_of_each_record_and_meets_no_module() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    deploy(&broker, "m", module(HALVES)).await;
    bind(&broker, "t", Side::Produce, "m", OnError::Reject).await.unwrap();
    let original = send(&broker, 0, 0, &["a", "b", "c"]).await.unwrap();
    let results = original.results.clone().unwrap();
    let expected = [(1, Fate::Pipeline), (0, Fate::Pipeline), (1, Fate::Pipeline)];
    assert_eq!(results.iter().collect::<Vec<_>>(), expected);

    // Another module would do something else now, and a paused pipeline would do nothing.
    broker
        .remove_stage("t", Side::Produce, 0, ChangeOptions::default())
        .await
        .unwrap();
    deploy(&broker, "r", rejects_x()).await;
    bind(&broker, "t", Side::Produce, "r", OnError::Reject).await.unwrap();
    let again = send(&broker, 0, 0, &["a", "b", "c"]).await.unwrap();
    assert_eq!(
        (again.record_count, again.dropped_count, again.results),
        (2, 1, Some(results))
    );
    // A batch that is refused uses up no sequence.
    let refused = send(&broker, 0, 3, &["X"]).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
    send(&broker, 0, 3, &["d"]).await.unwrap();
    assert_eq!(values(&broker, "t").await, ["a", "c", "d"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_of_a_producer_outlives_stops_crashes_and_segments() {
    let world = World::new();
    let mut sequence = 0;
    for (round, stops) in [true, false, true, true, false].into_iter().enumerate() {
        let broker = world.open(|_| {}).await;
        if round == 0 {
            topic(&broker, "t", TopicConfig::default()).await;
            deploy(&broker, "m", drops_where_it_says("drop")).await;
            bind(&broker, "t", Side::Produce, "m", OnError::Reject).await.unwrap();
        } else {
            for at in sequence - 3..sequence {
                let text = if at % 3 == 0 { "kept" } else { "drop" };
                assert!(
                    send(&broker, 0, at, &[text]).await.unwrap().duplicate,
                    "{at} in round {round}"
                );
            }
        }
        for _ in 0..3 {
            let text = if sequence % 3 == 0 { "kept" } else { "drop" };
            let receipt = send(&broker, 0, sequence, &[text]).await.unwrap();
            assert!(!receipt.duplicate);
            sequence += 1;
        }
        if round % 2 == 0 {
            broker.topic("t", true).await.unwrap();
        }
        if stops {
            broker.stop().await;
        }
    }
    let broker = world.open(|_| {}).await;
    assert_eq!(values(&broker, "t").await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_producer_finds_its_id_again_and_fences_its_former_start() {
    let world = World::new();
    let broker = world.open(|_| {}).await;
    topic(&broker, "t", TopicConfig::default()).await;
    let named = || broker.init_producer(InitProducer::Named("shop".to_owned()));
    let first = named().await.unwrap();
    let second = named().await.unwrap();
    assert_eq!((second.id, first.epoch, second.epoch), (first.id, 0, 1));
    let batch = |identity: millstream_broker::ProducerIdentity, sequence| {
        let mut builder = BatchBuilder::new();
        builder.push(0, None, Some(b"v"), [].into_iter());
        let batch = builder.build(Compression::None);
        batch.with_producer(identity.id, identity.epoch, sequence).to_bytes()
    };
    broker.produce("t", 0, batch(first, 0), Acks::Durable).await.unwrap();
    broker.produce("t", 0, batch(second, 0), Acks::Durable).await.unwrap();
    let fenced = broker
        .produce("t", 0, batch(first, 1), Acks::Durable)
        .await
        .unwrap_err();
    assert!(fenced.to_string().contains("fenced off"), "{fenced}");

    for (name, says) in [("", "empty"), ("a b", "contains"), (&"n".repeat(250), "250 characters")] {
        let error = broker
            .init_producer(InitProducer::Named(name.to_owned()))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains(says), "{error}");
    }
    let again = |id, epoch| broker.init_producer(InitProducer::Again { id, epoch });
    assert_eq!(again(5, 3).await.unwrap().epoch, 4);
    assert_ne!(again(5, 32_767).await.unwrap().id, 5, "its epochs are used up");
    for (id, epoch) in [(-1, 0), (5, -1), (5, 32_768)] {
        assert_eq!(again(id, epoch).await.unwrap_err().kind(), Kind::Invalid);
    }
}
