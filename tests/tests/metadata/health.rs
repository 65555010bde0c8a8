//! What an agent says of itself when its database is away, and while it stops.

use millstream_tests::{Agent, record};

use crate::{Behind, on};

/// Short, so that it is over soon.
const LEASE_MS: u64 = 2_000;

/// The line of a check in the answer of an agent that is not ready.
fn check<'a>(answer: &'a str, name: &str) -> &'a str {
    let line = answer
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("no {name} in {answer:?}"))
}

/// What `/readyz` answers once it fulfils the condition.
fn ready_when(agent: &Agent, holds: impl Fn(u16, &str) -> bool) -> String {
    loop {
        let (status, answer) = agent.get("/readyz");
        if holds(status, &answer) {
            return answer;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_database_is_away_is_not_ready_and_says_why_until_it_is_back() {
    let behind = Behind::a_gate().await;
    let agent = on(&behind.url()).env("MILLSTREAM_LEASE_DURATION_MS", LEASE_MS).start();
    assert_eq!(agent.get("/readyz"), (200, "ready\n".to_owned()));
    behind.gate.close();
    let answer = ready_when(&agent, |status, _| status == 503);
    assert_ne!(check(&answer, "metadata"), "ok", "{answer}");
    assert_eq!(
        (check(&answer, "agent"), check(&answer, "wal")),
        ("ok", "ok"),
        "{answer}"
    );
    let answer = ready_when(&agent, |_, answer| check(answer, "leases") != "ok");
    assert!(check(&answer, "leases").contains("lease"), "{answer}");
    assert_eq!(agent.get("/healthz").0, 200, "it lives, and readers are served");
    behind.gate.open();
    ready_when(&agent, |status, _| status == 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_stops_is_not_ready_and_says_so_as_long_as_it_takes() {
    let behind = Behind::a_gate().await;
    let agent = on(&behind.url()).start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 1).await.unwrap();
    grpc.produce("t", 0, vec![record("a")]).await.unwrap();
    // Without the database the tail becomes no segment, and the stop goes on trying.
    behind.gate.close();
    agent.begin_to_stop();
    let answer = ready_when(&agent, |_, answer| {
        answer.starts_with("not ready\nagent: the agent is stopping\n")
    });
    assert_eq!(check(&answer, "wal"), "ok", "{answer}");
    assert_eq!(agent.get("/healthz"), (200, "alive\n".to_owned()));
    agent.kill9();
}
