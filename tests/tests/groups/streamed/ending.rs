//! Streams that break, hang, keep what is not theirs any more, or lose their agent.

use std::time::{Duration, Instant};

use millstream_proto::v1::{self, subscribe_request::Message};
use millstream_tests::{Agent, Grpc, record};
use tokio::time::timeout;
use tonic::Code;

use super::super::{commit, committed, fill, reason};
use super::{BEAT, GROUP, PATIENCE, Reader, SESSION_MS, TOPIC, check_generations, members, offsets, read_by};

/// Short, and long enough for a busy machine.
const SHORT_MS: u32 = 3_000;
/// Well below the session of those who are replaced before it ends.
const SOON: Duration = Duration::from_secs(30);

/// Two that share four partitions, of which both have read everything and committed it.
async fn two(grpc: &Grpc, of_a: &Grpc, session_ms: u32) -> (Reader, Reader) {
    let mut a = Reader::join(of_a, session_ms).await;
    a.until(|a| a.read.len() == 40).await;
    a.commit(0..4).await.unwrap();
    let mut b = Reader::join(grpc, SESSION_MS).await;
    a.until(|a| a.asked_back.len() == 2).await;
    a.release().await.unwrap();
    b.until(|b| b.held.len() == 2).await;
    (a, b)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broken_stream_has_read_goes_on_at_once() {
    // The call alone, and the whole connection.
    for is_cut in [false, true] {
        let agent = Agent::start();
        let grpc = agent.grpc().await;
        fill(&grpc, 4).await;
        let own = match is_cut {
            true => Grpc::connect(&agent.url()).await,
            false => grpc.clone(),
        };
        let (a, mut b) = two(&grpc, &own, SESSION_MS).await;
        let (id, generation, broken) = (a.id.clone(), a.generation, Instant::now());
        let lost = *a.held.first_key_value().unwrap().0;
        drop((a, own));
        b.until(|b| b.held.len() == 4).await;
        assert!(broken.elapsed() < SOON, "{:?}", broken.elapsed());
        assert_eq!(b.held[&lost], 10);
        let late = commit(&grpc, &id, generation, &[(lost, 1)]).await.unwrap_err();
        assert_eq!(
            (late.code(), reason(&late)),
            (Code::Aborted, "MEMBER_UNKNOWN".to_owned())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_for_a_session_hangs_and_is_replaced() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    fill(&grpc, 4).await;
    let (mut a, mut b) = two(&grpc, &grpc, SHORT_MS).await;
    let (id, generation) = (a.id.clone(), a.generation);
    for at in 0..4 {
        grpc.produce(TOPIC, at, vec![record("more")]).await.unwrap();
    }
    // It is connected, and reads.
    let silent = async {
        loop {
            match a.answers.message().await {
                Ok(answer) => assert!(answer.is_some()),
                Err(status) => return status,
            }
        }
    };
    let hung = timeout(PATIENCE, silent).await.unwrap();
    assert_eq!((hung.code(), reason(&hung)), (Code::Aborted, "MEMBER_HUNG".to_owned()));
    b.until(|b| b.held.len() == 4 && b.read.len() == 4).await;
    assert_eq!(read_by([&b]), offsets(4, 10..11));
    let late = commit(&grpc, &id, generation, &[(0, 11)]).await.unwrap_err();
    assert_eq!(reason(&late), "MEMBER_UNKNOWN");
    b.commit(0..4).await.unwrap();
    assert_eq!(committed(&grpc).await, [(0, 11), (1, 11), (2, 11), (3, 11)]);
    check_generations([a.holdings(), b.holdings()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_its_answers_hangs_whatever_it_says() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic(TOPIC, 1).await.unwrap();
    for _ in 0..24 {
        grpc.produce(TOPIC, 0, vec![record(vec![b'x'; 512 << 10])])
            .await
            .unwrap();
    }
    let own = Grpc::connect(&agent.url()).await;
    let mut stuck = Reader::join(&own, SHORT_MS).await;
    stuck.until(|stuck| stuck.held.len() == 1).await;
    let mut other = Reader::join(&grpc, SESSION_MS).await;
    let replaced = async {
        loop {
            tokio::select! {
                next = other.next() => next.unwrap(),
                () = tokio::time::sleep(BEAT) => stuck.ask(Message::Alive(true)),
            }
            if other.read.len() == 24 {
                break;
            }
        }
    };
    timeout(PATIENCE, replaced).await.expect("it is replaced");
    let hung = stuck.end().await;
    assert_eq!(reason(&hung), "MEMBER_HUNG");
    assert_eq!(members(&grpc).await, [(other.id, 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_that_it_is_at_work_stays_without_reading_anything() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    fill(&grpc, 2).await;
    let mut reader = Reader::join(&grpc, SHORT_MS).await;
    reader.until(|reader| reader.read.len() == 20).await;
    let begun = Instant::now();
    while begun.elapsed() < 2 * Duration::from_millis(SHORT_MS.into()) {
        reader.ask(Message::Alive(true));
        tokio::time::sleep(BEAT).await;
    }
    reader.commit(0..2).await.unwrap();
    assert_eq!(members(&grpc).await, [(reader.id, 2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_keeps_what_was_asked_back_for_a_session_is_replaced() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    fill(&grpc, 2).await;
    let mut keeps = Reader::join(&grpc, SHORT_MS).await;
    keeps.until(|keeps| keeps.held.len() == 2).await;
    let mut other = Reader::join(&grpc, SESSION_MS).await;
    let overdue = keeps.end().await;
    assert_eq!(keeps.asked_back.len(), 1);
    assert_eq!(
        (overdue.code(), reason(&overdue)),
        (Code::Aborted, "RELEASE_OVERDUE".to_owned())
    );
    other.until(|other| other.held.len() == 2).await;
    check_generations([keeps.holdings(), other.holdings()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_somebody_removes_is_told_so() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    fill(&grpc, 2).await;
    let mut reader = Reader::join(&grpc, SESSION_MS).await;
    let request = v1::LeaveGroupRequest {
        group: GROUP.to_owned(),
        member_id: reader.id.clone(),
    };
    grpc.groups().leave_group(request).await.unwrap();
    let lost = reader.end().await;
    assert_eq!(
        (lost.code(), reason(&lost)),
        (Code::Aborted, "MEMBER_UNKNOWN".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_agent_read_for_a_stream_goes_on_once_the_session_is_over() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    fill(&grpc, 2).await;
    let mut a = Reader::join(&grpc, SHORT_MS).await;
    a.until(|a| a.read.len() == 20).await;
    a.commit(0..2).await.unwrap();
    let agent = agent.kill9().start();
    let grpc = agent.grpc().await;
    let mut b = Reader::join(&grpc, SESSION_MS).await;
    b.until(|b| b.held.len() == 2).await;
    assert_eq!(b.held.values().copied().collect::<Vec<_>>(), [10, 10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_stops_takes_its_streams_out_of_the_group() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    fill(&grpc, 2).await;
    let mut reader = Reader::join(&grpc, SESSION_MS).await;
    reader.until(|reader| reader.held.len() == 2).await;
    let stopped = tokio::task::spawn_blocking(move || agent.terminate());
    let status = reader.end().await;
    assert_eq!(
        (status.code(), reason(&status)),
        (Code::Unavailable, "AGENT_STOPPING".to_owned())
    );
    let agent = stopped.await.unwrap().start();
    assert!(members(&agent.grpc().await).await.is_empty());
}
