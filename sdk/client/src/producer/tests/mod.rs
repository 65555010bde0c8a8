//! The producer against an agent that follows a script.

mod fan;
mod script;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use millstream_batch::{BatchBuilder, Compression};
use millstream_proto::v1;

use super::*;
use crate::Code;
use script::{Verdict, agent, error, gated_agent};

async fn send(producer: &Producer, key: Option<&str>, value: &str) -> Result<Delivery, ClientError> {
    let record = NewRecord {
        key: key.map(str::as_bytes),
        value: Some(value.as_bytes()),
        ..NewRecord::default()
    };
    producer.send(record).await
}

fn small_batches() -> ProducerSettings {
    ProducerSettings {
        batch_bytes: 300,
        buffer_bytes_max: 2_000,
        idempotent: false,
        ..ProducerSettings::default()
    }
}

fn idempotent() -> ProducerSettings {
    ProducerSettings {
        idempotent: true,
        ..small_batches()
    }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|i| format!("{i:04}")).collect()
}

#[tokio::test]
async fn every_record_arrives_in_order_within_its_partition() {
    let (script, connection) = agent(3, |_, _| Verdict::Store).await;
    let producer = Producer::open(&connection, "t", small_batches()).await.unwrap();
    for i in 0..500 {
        let key = format!("k{}", i % 7);
        send(&producer, Some(&key), &format!("{i:04}")).await.unwrap();
    }

    let totals = producer.close().await.unwrap();

    assert_eq!((totals.acknowledged, totals.stored), (500, 500));
    assert!(totals.batches > 20, "{totals:?}");
    let log = script.log.lock().unwrap();
    assert_eq!(log.calls, 1);
    for (partition, values) in &log.stored {
        assert!(values.is_sorted(), "partition {partition}");
        let by_key = |value: &String| {
            let key = format!("k{}", value.parse::<u32>().unwrap() % 7);
            crate::partition_for_key(key.as_bytes(), 3) == *partition
        };
        assert!(values.iter().all(by_key), "partition {partition}");
    }
    assert_eq!(log.stored.values().map(Vec::len).sum::<usize>(), 500);
}

#[tokio::test]
async fn a_delivery_tells_partition_and_offset() {
    let (_script, connection) = agent(3, |_, _| Verdict::Store).await;
    let producer = Producer::open(&connection, "t", small_batches()).await.unwrap();
    let mut deliveries = Vec::new();
    for i in 0..100 {
        let record = NewRecord {
            partition: Some(2),
            value: Some(b"x"),
            ..NewRecord::default()
        };
        deliveries.push((i, producer.send(record).await.unwrap()));
    }
    for (i, delivery) in deliveries {
        let delivered = delivery.await.unwrap();
        assert_eq!((delivered.partition, delivered.offset), (2, Some(i)));
    }
    let beyond = NewRecord {
        partition: Some(3),
        ..NewRecord::default()
    };
    let error = producer.send(beyond).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "topic \"t\" has no partition 3: it has 3, counted from 0"
    );
}

#[tokio::test]
async fn records_without_a_key_go_round_all_partitions() {
    let (script, connection) = agent(4, |_, _| Verdict::Store).await;
    let producer = Producer::open(&connection, "t", small_batches()).await.unwrap();
    for i in 0..400 {
        send(&producer, None, &format!("{i:04}")).await.unwrap();
    }
    producer.close().await.unwrap();

    let log = script.log.lock().unwrap();
    assert_eq!(log.stored.len(), 4);
    assert!(
        log.stored
            .values()
            .all(|values| values.len() > 30 && values.is_sorted())
    );
}

/// Refuses the batch with this value, for good.
fn refuses(refused: &'static str) -> impl Fn(u32, &[String]) -> Verdict {
    move |_, values| match values.iter().position(|value| value == refused) {
        None => Verdict::Store,
        Some(at) => Verdict::Refuse(v1::Error {
            rejected: vec![v1::RejectedRecord {
                index: at as u32,
                reason: "no good".to_owned(),
            }],
            ..error(Code::InvalidArgument, "RECORDS_REJECTED", None)
        }),
    }
}

#[tokio::test]
async fn where_it_stops_at_a_failure_nothing_follows_a_refused_batch() {
    let (script, connection) = agent(1, refuses("0100")).await;
    let settings = ProducerSettings {
        stop_at_failure: true,
        ..small_batches()
    };
    let producer = Producer::open(&connection, "t", settings).await.unwrap();
    for i in 0..300 {
        if send(&producer, None, &format!("{i:04}")).await.is_err() {
            break;
        }
    }

    let error = producer.flush().await.unwrap_err();

    assert_eq!(error.to_string(), "RECORDS_REJECTED in the script");
    assert_eq!(
        error.rejects,
        [Reject {
            index: 100,
            reason: "no good".to_owned()
        }]
    );
    let stored = script.log.lock().unwrap().stored[&0].len() as u64;
    assert!(stored <= 100);
    assert_eq!(error.totals.acknowledged, stored);
    assert_eq!(error.unacknowledged.len(), 1);
    assert_eq!(
        error.unacknowledged[0].start, stored,
        "what is not acknowledged begins where the stored end"
    );
    assert!(error.unacknowledged[0].end > 100);
    assert!(send(&producer, None, "more").await.is_err());
}

#[tokio::test]
async fn elsewhere_a_refused_batch_fails_alone() {
    for settings in [small_batches(), idempotent()] {
        let (script, connection) = agent(1, refuses("0100")).await;
        let producer = Producer::open(&connection, "t", settings).await.unwrap();
        let mut deliveries = Vec::new();
        for value in numbers(0..300) {
            deliveries.push((value.clone(), send(&producer, None, &value).await.unwrap()));
        }
        let failure = producer.flush().await.unwrap_err();
        let mut failed = Vec::new();
        for (value, delivery) in deliveries {
            if delivery.await.is_err() {
                failed.push(value);
            }
        }
        assert!(failed.contains(&"0100".to_owned()) && failed.len() < 30, "{failed:?}");
        assert_eq!(failure.totals.acknowledged, 300 - failed.len() as u64);
        let expected: Vec<_> = numbers(0..300)
            .into_iter()
            .filter(|value| !failed.contains(value))
            .collect();
        assert_eq!(script.log.lock().unwrap().stored[&0], expected);
        assert_eq!(producer.flush().await.unwrap().acknowledged, expected.len() as u64);
    }
}

#[tokio::test]
async fn an_agent_that_is_full_is_asked_again_and_the_order_stays() {
    let requests = AtomicU32::new(0);
    let (script, connection) = agent(2, move |partition, _| {
        let refused = partition == 1 && [3, 4, 9].contains(&requests.fetch_add(1, Ordering::Relaxed));
        match refused {
            true => Verdict::Refuse(error(Code::ResourceExhausted, "TAIL_FULL", Some(1))),
            false => Verdict::Store,
        }
    })
    .await;
    let producer = Producer::open(&connection, "t", small_batches()).await.unwrap();
    for value in numbers(0..200) {
        for partition in 0..2 {
            let record = NewRecord {
                partition: Some(partition),
                value: Some(value.as_bytes()),
                ..NewRecord::default()
            };
            producer.send(record).await.unwrap();
        }
    }
    assert_eq!(producer.close().await.unwrap().acknowledged, 400);
    let log = script.log.lock().unwrap();
    for partition in 0..2 {
        assert_eq!(log.stored[&partition], numbers(0..200), "partition {partition}");
    }
}

#[tokio::test]
async fn what_may_have_been_stored_is_not_sent_again_without_idempotence() {
    let (script, connection) = agent(1, |_, _| {
        Verdict::Refuse(error(Code::Unavailable, "APPEND_FAILED", Some(1)))
    })
    .await;
    let producer = Producer::open(&connection, "t", small_batches()).await.unwrap();
    let delivery = send(&producer, None, "a").await.unwrap();

    let error = producer.flush().await.unwrap_err();

    assert_eq!(error.cause.code(), Some(Code::Unavailable));
    assert_eq!(error.unacknowledged.first(), Some(&(0..1)));
    assert_eq!(delivery.await.unwrap_err().reason(), Some("APPEND_FAILED"));
    assert_eq!(script.log.lock().unwrap().requests, 1);
}

#[tokio::test]
async fn an_idempotent_producer_sends_again_what_got_no_answer_and_nothing_is_stored_twice() {
    let requests = AtomicU32::new(0);
    let (script, connection) = agent(2, move |_, _| match requests.fetch_add(1, Ordering::Relaxed) % 7 {
        3 => Verdict::StoreAndBreak,
        5 => Verdict::Refuse(error(Code::Unavailable, "PARTITION_CLOSED", Some(1))),
        _ => Verdict::Store,
    })
    .await;
    let producer = Producer::open(&connection, "t", idempotent()).await.unwrap();
    for i in 0..200 {
        send(&producer, Some(&format!("{}", i % 5)), &format!("{i:04}"))
            .await
            .unwrap();
    }
    assert_eq!(producer.close().await.unwrap().acknowledged, 200);
    let log = script.log.lock().unwrap();
    assert!(log.calls > 2);
    let mut all: Vec<_> = log.stored.values().flatten().cloned().collect();
    assert!(log.stored.values().all(|values| values.is_sorted()));
    all.sort();
    assert_eq!(all, numbers(0..200));
}

#[tokio::test]
async fn a_batch_that_is_never_taken_fails_once_its_time_is_over() {
    let (_script, connection) = agent(1, |_, _| {
        Verdict::Refuse(error(Code::ResourceExhausted, "TAIL_FULL", Some(1)))
    })
    .await;
    let settings = ProducerSettings {
        retry_for: Duration::from_millis(60),
        ..ProducerSettings::default()
    };
    let producer = Producer::open(&connection, "t", settings).await.unwrap();
    let delivery = send(&producer, None, "a").await.unwrap();
    assert_eq!(delivery.await.unwrap_err().reason(), Some("TAIL_FULL"));
}

#[tokio::test]
async fn a_batch_lingers_until_it_is_full_flushed_or_its_time_is_over() {
    let (script, connection) = agent(1, |_, _| Verdict::Store).await;
    let settings = |linger| ProducerSettings {
        linger,
        ..small_batches()
    };
    let producer = Producer::open(&connection, "t", settings(Duration::from_secs(3_600)))
        .await
        .unwrap();
    let mut deliveries = Vec::new();
    // Some more than fit one batch.
    for value in numbers(0..20) {
        deliveries.push(send(&producer, None, &value).await.unwrap());
    }
    deliveries.remove(0).await.unwrap();
    let stored = script.log.lock().unwrap().stored[&0].len();
    assert!((5..20).contains(&stored), "{stored}: what is not full lingers");
    producer.flush().await.unwrap();
    assert_eq!(script.log.lock().unwrap().stored[&0].len(), 20);

    let producer = Producer::open(&connection, "t", settings(Duration::from_millis(5)))
        .await
        .unwrap();
    send(&producer, None, "a").await.unwrap().await.unwrap();
}

#[tokio::test]
async fn a_full_buffer_holds_back_the_sender_until_something_is_answered() {
    let (script, connection) = gated_agent(1, |_, _| Verdict::Store).await;
    let settings = ProducerSettings {
        linger: Duration::from_secs(3_600),
        ..small_batches()
    };
    let producer = Producer::open(&connection, "t", settings).await.unwrap();
    let mut sent = 0;
    loop {
        let mut next = Box::pin(send(&producer, None, "x"));
        match futures::poll!(&mut next) {
            std::task::Poll::Ready(delivery) => drop(delivery.unwrap()),
            std::task::Poll::Pending => {
                script.gate.add_permits(1_000);
                // What lingers goes out too: there is no other way to make room.
                next.await.unwrap();
                break;
            }
        }
        sent += 1;
    }
    let at_most = 2_000 / (RECORD_OVERHEAD_BYTES + 1);
    assert_eq!(sent, at_most);
    assert_eq!(producer.close().await.unwrap().acknowledged, sent as u64 + 1);
}

#[tokio::test]
async fn a_record_that_fits_no_batch_is_refused_alone() {
    let (_script, connection) = agent(2, |_, _| Verdict::Store).await;
    let producer = Producer::open(&connection, "t", ProducerSettings::default())
        .await
        .unwrap();
    send(&producer, None, "a").await.unwrap();
    let error = send(&producer, None, &"x".repeat(16 << 20)).await.unwrap_err();
    assert!(matches!(error, ClientError::RecordTooLarge { .. }), "{error:?}");
    send(&producer, None, "b").await.unwrap();
    let failure = producer.flush().await.unwrap_err();
    assert_eq!(failure.totals.acknowledged, 2);
    assert_eq!(failure.unacknowledged.first(), Some(&(1..2)));
}

#[tokio::test]
async fn a_record_larger_than_a_batch_travels_alone() {
    let (script, connection) = agent(1, |_, _| Verdict::Store).await;
    let producer = Producer::open(&connection, "t", small_batches()).await.unwrap();
    let large = "x".repeat(5_000);
    for value in ["a", &large, "b"] {
        send(&producer, None, value).await.unwrap();
    }
    producer.close().await.unwrap();

    let log = script.log.lock().unwrap();
    assert_eq!(log.requests, 3);
    assert_eq!(log.stored[&0], ["a", &large, "b"]);
}

#[tokio::test]
async fn batches_travel_compressed_as_wanted_and_ready_made_ones_as_they_are() {
    let (script, connection) = agent(1, |_, _| Verdict::Store).await;
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let settings = ProducerSettings {
            compression,
            ..ProducerSettings::default()
        };
        let producer = Producer::open(&connection, "t", settings).await.unwrap();
        send(&producer, None, "a").await.unwrap().await.unwrap();
        let mut made = BatchBuilder::new();
        made.push(0, None, Some(b"b"), std::iter::empty());
        made.push(0, None, Some(b"c"), std::iter::empty());
        let made = producer.send_batch(0, made.build(Compression::Lz4)).await.unwrap();
        assert_eq!(made.await.unwrap().record_count, 2);
        assert_eq!(producer.close().await.unwrap().acknowledged, 3);
        let seen = std::mem::take(&mut script.log.lock().unwrap().compression);
        assert_eq!(seen, [compression, Compression::Lz4]);
    }
}

#[tokio::test]
async fn a_partition_that_is_not_there_is_refused_at_once() {
    let (_script, connection) = agent(2, |_, _| Verdict::Store).await;
    let settings = ProducerSettings {
        partition: Some(2),
        ..ProducerSettings::default()
    };
    let error = Producer::open(&connection, "t", settings).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "topic \"t\" has no partition 2: it has 2, counted from 0"
    );
}

#[tokio::test]
async fn what_is_dropped_unsent_is_told() {
    let (_script, connection) = gated_agent(1, |_, _| Verdict::Store).await;
    let producer = Producer::open(&connection, "t", small_batches()).await.unwrap();
    let delivery = send(&producer, None, "a").await.unwrap();
    drop(producer);
    assert!(matches!(delivery.await, Err(ClientError::Abandoned)));
}
