//! Streams that share partitions among each other, and with members of the other kind.

use std::collections::BTreeMap;

use millstream_proto::v1::{self, start_position::Position, subscribe_request::Message};
use millstream_tests::{Agent, Grpc, record};
use tonic::Code;

use super::super::{Member, beat_until, commit, committed, fill, reason};
use super::{Reader, SESSION_MS, TOPIC, check_generations, members, offsets, read_by, start};

#[tokio::test(flavor = "multi_thread")]
async fn one_reads_all_and_gives_half_to_another_that_goes_on_where_it_has_committed() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    fill(&grpc, 4).await;
    let mut a = Reader::join(&grpc, SESSION_MS).await;
    a.until(|a| a.held.len() == 4 && a.read.len() == 40).await;
    a.commit(0..4).await.unwrap();

    let mut b = Reader::join(&grpc, SESSION_MS).await;
    a.until(|a| a.asked_back.len() == 2).await;
    // It is told no more of them, and nobody else gets them.
    for at in 0..4 {
        grpc.produce(TOPIC, at, vec![record("more")]).await.unwrap();
    }
    a.until(|a| a.read.len() == 42).await;
    let owned: BTreeMap<String, usize> = members(&grpc).await.into_iter().collect();
    assert_eq!((owned[&a.id], owned[&b.id]), (4, 0));
    a.release().await.unwrap();
    b.until(|b| b.held.len() == 2 && b.read.len() == 2).await;
    assert_eq!(read_by([&a, &b]), offsets(4, 0..11));
    let (of_a, of_b): (Vec<u32>, Vec<u32>) = (a.held.keys().copied().collect(), b.held.keys().copied().collect());
    a.commit(of_a).await.unwrap();
    b.commit(of_b).await.unwrap();
    assert_eq!(committed(&grpc).await, [(0, 11), (1, 11), (2, 11), (3, 11)]);
    check_generations([a.holdings(), b.holdings()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_are_fenced_by_the_member_and_generation_that_the_stream_tells() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    fill(&grpc, 2).await;
    let mut a = Reader::join(&grpc, SESSION_MS).await;
    a.until(|a| a.held.len() == 2 && a.read.len() == 20).await;
    let former = a.generation;
    let mut b = Reader::join(&grpc, SESSION_MS).await;
    a.until(|a| a.asked_back.len() == 1).await;
    assert!(a.generation > former);
    let goes = *a.asked_back.first().unwrap();
    let stale = commit(&grpc, &a.id, former, &[(goes, 3)]).await.unwrap_err();
    assert_eq!(
        (stale.code(), reason(&stale)),
        (Code::Aborted, "GENERATION_STALE".to_owned())
    );
    a.release().await.unwrap();
    b.until(|b| b.held.contains_key(&goes)).await;
    assert_eq!(b.held[&goes], 10);
    // What is let go of is not committed by who had it.
    let late = loop {
        match commit(&grpc, &a.id, a.generation, &[(goes, 4)]).await {
            Ok(failures) => break failures,
            Err(status) => assert_eq!(reason(&status), "GENERATION_STALE"),
        }
        a.next().await.unwrap();
    };
    assert_eq!(late[0].error.as_ref().unwrap().reason, "PARTITION_NOT_OWNED");
    assert_eq!(committed(&grpc).await, [(goes, 10)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_shares_with_a_member_that_sends_its_own_heartbeats() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    fill(&grpc, 6).await;
    let mut streams = Reader::join(&grpc, SESSION_MS).await;
    streams
        .until(|streams| streams.held.len() == 6 && streams.read.len() == 60)
        .await;
    let mut beats = Member::join(&grpc, SESSION_MS).await;
    streams.until(|streams| streams.asked_back.len() == 3).await;
    beats.beat().await.unwrap();
    assert!(beats.owned.is_empty(), "they are still held");
    streams.release().await.unwrap();
    beat_until(&mut [&mut beats], |members| members[0].owned.len() == 3).await;
    assert!(beats.owned.iter().all(|at| !streams.held.contains_key(at)));

    // The other way round: it takes what the other one lets go of.
    let mut third = Reader::join(&grpc, SESSION_MS).await;
    beat_until(&mut [&mut beats], |members| members[0].owned.len() == 2).await;
    beats.beat().await.unwrap();
    streams.until(|streams| streams.asked_back.len() == 1).await;
    streams.release().await.unwrap();
    third.until(|third| third.held.len() == 2).await;
    beats.leave().await;
    third.until(|third| third.held.len() == 3).await;
    streams.until(|streams| streams.held.len() == 3).await;
    check_generations([streams.holdings(), third.holdings()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_begins_where_the_group_has_committed_or_as_it_says() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    fill(&grpc, 3).await;
    assert!(commit(&grpc, "", 0, &[(0, 3), (1, 2)]).await.unwrap().is_empty());
    truncate(&grpc, 1, 5).await;
    for (position, begins) in [
        (Position::Earliest(true), [3, 5, 0]),
        (Position::Latest(true), [3, 10, 10]),
    ] {
        let asked = v1::SubscribeStart {
            start: Some(v1::StartPosition {
                position: Some(position),
            }),
            credit_bytes: 0,
            ..start(SESSION_MS)
        };
        let mut reader = Reader::open(&grpc, asked).await.unwrap();
        reader.until(|reader| reader.held.len() == 3).await;
        assert_eq!(reader.held.values().copied().collect::<Vec<_>>(), begins);
        drop(reader.requests);
        assert!(reader.answers.message().await.unwrap().is_none());
        assert!(members(&grpc).await.is_empty(), "it has left before the call ended");
    }
    // Where it began with the latest is remembered, for whoever goes on before anything is committed.
    assert_eq!(committed(&grpc).await, [(0, 3), (1, 10), (2, 10)]);
}

/// Lets go of the records below an offset.
async fn truncate(grpc: &Grpc, partition: u32, before_offset: u64) {
    let request = v1::TruncateTopicRequest {
        name: TOPIC.to_owned(),
        partition,
        before_offset,
    };
    grpc.topics().truncate_topic(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_while_it_reads_is_told_and_reading_goes_on() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    fill(&grpc, 1).await;
    let without_credits = v1::SubscribeStart {
        credit_bytes: 0,
        ..start(SESSION_MS)
    };
    let mut reader = Reader::open(&grpc, without_credits).await.unwrap();
    reader.until(|reader| reader.held.len() == 1).await;
    truncate(&grpc, 0, 5).await;
    reader.ask(Message::CreditBytes(1 << 20));
    reader.until(|reader| !reader.read.is_empty()).await;
    assert_eq!(reader.errors, ["OFFSET_OUT_OF_RANGE"]);
    assert_eq!(reader.read.first(), Some(&(0, 5)));
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_added_are_given_and_those_of_a_deleted_topic_asked_back() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    fill(&grpc, 1).await;
    let mut reader = Reader::join(&grpc, SESSION_MS).await;
    reader.until(|reader| reader.read.len() == 10).await;
    let more = v1::AlterTopicRequest {
        name: TOPIC.to_owned(),
        partitions: Some(3),
        ..v1::AlterTopicRequest::default()
    };
    grpc.topics().alter_topic(more).await.unwrap();
    grpc.produce(TOPIC, 2, vec![record("new")]).await.unwrap();
    reader
        .until(|reader| reader.held.len() == 3 && reader.read.len() == 11)
        .await;
    assert_eq!(reader.read.last(), Some(&(2, 0)));
    let name = TOPIC.to_owned();
    grpc.topics()
        .delete_topic(v1::DeleteTopicRequest { name })
        .await
        .unwrap();
    reader.until(|reader| reader.asked_back.len() == 3).await;
}
