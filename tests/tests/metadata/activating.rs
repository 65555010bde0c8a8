//! What one of two agents activates is in force on the other one when the answer says so.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use millstream_proto::v1::{self, PipelineSide::Produce};
use millstream_tests::{Agent, Grpc, Setup, record, values, wat};

use crate::several_agents::Shared;

/// Longer than any test: nothing is seen because a request looked, or because a lease ran out.
const LONG_MS: u64 = 600_000;
/// Longer than a hanging agent is waited for in these tests, and far below [`LONG_MS`].
const SOON: Duration = Duration::from_secs(30);

/// Long enough for a busy machine to renew it, short enough to be waited for.
const LEASE_MS: u64 = 6_000;

/// An agent that is told of others by its heartbeat within two seconds, and by its requests never.
fn agent(shared: &Shared, name: &str) -> Setup {
    shared
        .agent(name, "object")
        .env("MILLSTREAM_METADATA_CACHE_TTL_MS", LONG_MS)
        .env("MILLSTREAM_ACTIVATION_WAIT_MS", LONG_MS)
        .env("MILLSTREAM_LEASE_DURATION_MS", LEASE_MS)
}

/// The first one makes a topic whose partition the second one leads.
async fn topic_led_by(b: &Agent, a: &Agent) {
    a.grpc().await.create_topic("t", 1).await.unwrap();
    b.grpc().await.produce("t", 0, vec![record("#")]).await.unwrap();
}

async fn pause(grpc: &Grpc) -> v1::Pipeline {
    let request = v1::PausePipelineRequest {
        topic: "t".to_owned(),
        side: Produce.into(),
    };
    let answer = grpc.pipelines().pause_pipeline(request).await.unwrap();
    answer.into_inner().pipeline.unwrap()
}

fn assert_all_switched(pipeline: &v1::Pipeline) {
    assert_eq!((&pipeline.not_switched, pipeline.others_unknown), (&Vec::new(), false));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_deploy_answers_the_next_batch_of_another_agent_goes_through_the_new_version() {
    let shared = Shared::new();
    let (a, b) = (agent(&shared, "a").start(), agent(&shared, "b").start());
    let (of_a, of_b) = (a.grpc().await, b.grpc().await);
    topic_led_by(&b, &a).await;
    of_a.create_topic("load", 1).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let load = {
        let (grpc, done) = (b.grpc().await, done.clone());
        tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                grpc.produce("load", 0, vec![record("#")]).await.unwrap();
            }
        })
    };
    of_a.deploy("m", wat::stamps('a')).await.unwrap();
    let added = of_a.add_stage("t", Produce, "m", &[]).await.unwrap();
    assert_all_switched(&added);
    let mut expected = vec!["#".to_owned()];
    for stamp in 'b'..='f' {
        let request = v1::DeployModuleRequest {
            name: "m".to_owned(),
            component: wat::stamps(stamp),
            ..v1::DeployModuleRequest::default()
        };
        let deployed = of_a.modules().deploy_module(request).await.unwrap().into_inner();
        let [change] = &deployed.changes[..] else {
            panic!("{deployed:?}")
        };
        assert_eq!((&change.not_switched, change.others_unknown), (&Vec::new(), false));
        let receipt = of_b.produce("t", 0, vec![record("#")]).await.unwrap();
        assert_eq!(receipt.pipeline_version, change.pipeline_version);
        expected.push(stamp.to_string());
    }
    assert_eq!(values(&of_b.read("t", 0, 0).await.unwrap()), expected);
    done.store(true, Ordering::Relaxed);
    load.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_hangs_is_named_within_the_bound_and_asked_for_again() {
    let shared = Shared::new();
    let a = agent(&shared, "a").env("MILLSTREAM_ACTIVATION_WAIT_MS", 500).start();
    // It lives as long as it hangs.
    let b = agent(&shared, "b").env("MILLSTREAM_LEASE_DURATION_MS", LONG_MS).start();
    topic_led_by(&b, &a).await;
    let grpc = a.grpc().await;
    b.hang();
    let asked = Instant::now();
    let paused = pause(&grpc).await;
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    let named = v1::NotSwitched {
        agent: "b".to_owned(),
        address: b.grpc_address().to_owned(),
        lease_over: false,
    };
    assert_eq!(paused.not_switched, [named]);
    let text = a.cli(["pipeline", "pause", "t", "--on", "produce"]).text();
    let line = format!(
        "agent b ({}) has not switched yet: topic t; it follows with its next request or once it is reachable",
        b.grpc_address()
    );
    assert!(text.contains(&line), "{text}");
    b.go_on();
    // Each asks for it again.
    let until = Instant::now() + SOON;
    while !pause(&grpc).await.not_switched.is_empty() {
        assert!(Instant::now() < until, "it never switches: {}", b.log());
    }
    let refused = b.grpc().await.produce("t", 0, vec![record("#")]).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_waited_for_no_longer_than_its_lease_lasts() {
    let shared = Shared::new();
    let (a, b) = (agent(&shared, "a").start(), agent(&shared, "b").start());
    topic_led_by(&b, &a).await;
    let (grpc, address) = (a.grpc().await, b.grpc_address().to_owned());
    let setup = b.kill9();
    let paused = tokio::time::timeout(SOON, pause(&grpc)).await.unwrap();
    let named = v1::NotSwitched {
        agent: "b".to_owned(),
        address,
        lease_over: true,
    };
    assert_eq!(paused.not_switched, [named]);
    // It comes back to what is in force.
    let b = setup.start();
    let refused = b.grpc().await.produce("t", 0, vec![record("#")]).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
    assert_all_switched(&pause(&grpc).await);
}
