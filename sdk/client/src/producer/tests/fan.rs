//! The producer of a topic whose odd partitions another agent leads.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{
    idempotent, numbers,
    script::{Script, Verdict, agent, elsewhere},
    small_batches,
};
use crate::{ClientError, Connection, NewRecord, ProduceError, Producer, ProducerSettings, Totals};

/// An agent that leads the even partitions, and the other one, which does with a batch what `decide` says.
async fn two_agents(
    decide: impl Fn(&[String]) -> Verdict + Send + Sync + 'static,
) -> (Arc<Script>, Arc<Script>, Connection) {
    let (other, connection) = agent(2, move |_, values| decide(values)).await;
    let leader = connection.url().trim_start_matches("http://").to_owned();
    let (own, connection) = agent(2, |_, _| Verdict::Store).await;
    own.log.lock().unwrap().leaders.insert(1, leader);
    (own, other, connection)
}

/// Sends numbers, each to both partitions.
async fn send_both(connection: &Connection, settings: ProducerSettings) -> Result<Totals, ProduceError> {
    let producer = Producer::open(connection, "t", settings).await.unwrap();
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
    producer.close().await
}

fn stored(script: &Script, partition: u32) -> Vec<String> {
    let log = script.log.lock().unwrap();
    log.stored.get(&partition).cloned().unwrap_or_default()
}

#[tokio::test]
async fn batches_go_to_the_agent_that_leads_their_partition_in_their_order() {
    for settings in [small_batches(), idempotent()] {
        let (own, other, connection) = two_agents(|_| Verdict::Store).await;

        let totals = send_both(&connection, settings).await.unwrap();

        assert_eq!(totals.acknowledged, 400);
        assert_eq!(stored(&own, 0), numbers(0..200));
        assert_eq!(stored(&other, 1), numbers(0..200));
        assert!(stored(&own, 1).is_empty() && stored(&other, 0).is_empty());
        let calls = |script: &Script| script.log.lock().unwrap().calls;
        assert_eq!((calls(&own), calls(&other)), (2, 1), "it learns once");
    }
}

/// Breaks the call behind the batch with this value, once.
fn breaks_at(value: &'static str) -> impl Fn(&[String]) -> Verdict {
    let broke = AtomicBool::new(false);
    move |values| match values.iter().any(|found| found == value) && !broke.swap(true, Ordering::Relaxed) {
        true => Verdict::StoreAndBreak,
        false => Verdict::Store,
    }
}

#[tokio::test]
async fn what_was_under_way_to_another_agent_is_stored_once_where_its_call_breaks() {
    let (own, other, connection) = two_agents(breaks_at("0100")).await;

    let totals = send_both(&connection, idempotent()).await.unwrap();

    assert_eq!(totals.acknowledged, 400);
    assert_eq!(stored(&own, 0), numbers(0..200));
    assert_eq!(stored(&other, 1), numbers(0..200));
}

#[tokio::test]
async fn a_call_to_another_agent_that_breaks_fails_nothing_of_the_rest() {
    let (own, _, connection) = two_agents(breaks_at("0100")).await;

    let failed = send_both(&connection, small_batches()).await.unwrap_err();

    assert!(matches!(*failed.cause, ClientError::ConnectionLost { .. }), "{failed}");
    assert_eq!(stored(&own, 0), numbers(0..200));
    // Every second record went there.
    assert!(
        failed
            .unacknowledged
            .iter()
            .all(|range| range.end - range.start == 1 && range.start % 2 == 1)
    );
}

/// Whatever the own agent says at the end of its call: it says nothing about what was sent to others, and of what it was sent
/// itself nobody knows whether it was stored.
#[tokio::test]
async fn the_end_of_the_own_call_stores_nothing_twice_and_fails_nothing_of_the_others() {
    let (other, connection) = agent(2, |_, _| Verdict::Store).await;
    let leader = connection.url().trim_start_matches("http://").to_owned();
    let ended = AtomicBool::new(false);
    let (own, connection) = agent(2, move |_, values| {
        match values.iter().any(|value| value == "0100") && !ended.swap(true, Ordering::Relaxed) {
            true => Verdict::StoreAndEnd(tonic::Status::resource_exhausted("there is no more room")),
            false => Verdict::Store,
        }
    })
    .await;
    own.log.lock().unwrap().leaders.insert(1, leader);

    let failed = send_both(&connection, small_batches()).await.unwrap_err();

    assert_eq!(failed.cause.code(), Some(crate::Code::ResourceExhausted), "{failed}");
    assert_eq!(stored(&other, 1), numbers(0..200));
    let kept = stored(&own, 0);
    assert!(
        kept.is_sorted_by(|one, next| one < next),
        "twice, or out of order: {kept:?}"
    );
    // Every second record went to the own agent.
    assert!(failed.unacknowledged.iter().all(|range| range.start % 2 == 0));
    let lost: u64 = failed.unacknowledged.iter().map(|range| range.end - range.start).sum();
    assert!(kept.len() as u64 + lost >= 200, "{kept:?}");
}

#[tokio::test]
async fn an_agent_that_is_away_is_forgotten_without_idempotence_too() {
    let (gone, names_it) = (away().await, AtomicBool::new(true));
    let (own, connection) = agent(2, move |partition, _| match partition {
        1 if names_it.swap(false, Ordering::Relaxed) => Verdict::Refuse(elsewhere(gone.clone())),
        _ => Verdict::Store,
    })
    .await;

    let failed = send_both(&connection, small_batches()).await.unwrap_err();

    assert_eq!(stored(&own, 0), numbers(0..200));
    let kept = stored(&own, 1);
    assert!(
        kept.len() > 100 && kept.last() == numbers(0..200).last(),
        "{failed}: {kept:?}"
    );
}

/// HOST:PORT where every connection is closed at once.
async fn away() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    address
}

#[tokio::test]
async fn an_agent_that_is_away_is_asked_again_once_the_own_one_names_it() {
    let (gone, names_it) = (away().await, AtomicBool::new(true));
    let (own, connection) = agent(2, move |partition, _| match partition {
        1 if names_it.swap(false, Ordering::Relaxed) => Verdict::Refuse(elsewhere(gone.clone())),
        _ => Verdict::Store,
    })
    .await;

    send_both(&connection, idempotent()).await.unwrap();

    assert_eq!((stored(&own, 0), stored(&own, 1)), (numbers(0..200), numbers(0..200)));
}
