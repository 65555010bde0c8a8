//! What one fetch may cost, and what is kept so that the next one costs less.

use millstream_proto::v1::{self, OnError, PipelineSide::Fetch};
use millstream_tests::{Setup, record, values, wat};
use tonic::Code;

use crate::{Mill, assert_refused, stage};

const BATCHES: u64 = 20;

/// Uses the processor for some milliseconds, and leaves the records as they are.
const WORKS_HARD: &str = "(local $i i32)
    (loop $l (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $l (i32.lt_u (local.get $i) (i32.const 20000000))))
    (i32.const 1024)";

/// An agent with batches of one record in a segment, and a module on fetch.
async fn read_through(setup: Setup, body: &str) -> Mill {
    let mill = Mill::with(setup).await;
    mill.grpc.create_topic("t", 1).await.unwrap();
    for n in 0..BATCHES {
        mill.grpc.produce("t", 0, vec![record(n.to_string())]).await.unwrap();
    }
    mill.grpc.partitions("t", true).await.unwrap();
    mill.grpc.deploy("m", wat::module(body)).await.unwrap();
    mill.add("t", Fetch, stage("m", OnError::Unspecified)).await.unwrap();
    mill
}

fn all() -> Vec<String> {
    (0..BATCHES).map(|n| n.to_string()).collect()
}

#[tokio::test]
async fn a_fetch_that_used_up_its_time_answers_what_there_is_and_moves_on() {
    let setup = Setup::new()
        .env("MILLSTREAM_FETCH_CPU_MS", 1)
        .env("MILLSTREAM_MODULE_DEADLINE_MS", 5_000);
    let mut mill = read_through(setup, WORKS_HARD).await;
    let (mut next, mut fetches, mut read) = (0, 0, Vec::new());
    while next < BATCHES {
        let fetched = mill.grpc.fetch("t", 0, next).await.unwrap();
        assert!(fetched.next_offset > next, "stuck at {next}");
        read.extend(values(&fetched.records));
        next = fetched.next_offset;
        fetches += 1;
    }
    assert_eq!(read, all());
    assert!(fetches > BATCHES / 2, "{fetches} fetches for {BATCHES} batches");
    mill.assert_calm().await;
}

#[tokio::test]
async fn a_block_goes_through_the_same_stages_once() {
    let mill = read_through(Setup::new(), wat::KEEPS).await;
    assert_eq!(mill.values("t", 0).await, all());
    let misses = mill.agent.metric("millstream_fetch_cache_misses_total");
    let hits = mill.agent.metric("millstream_fetch_cache_hits_total");
    assert!(misses >= 1.0);
    for from in 0..BATCHES {
        let read = values(&mill.grpc.read("t", 0, from).await.unwrap());
        assert_eq!(read, all()[from as usize..]);
    }
    assert_eq!(mill.agent.metric("millstream_fetch_cache_misses_total"), misses);
    assert!(mill.agent.metric("millstream_fetch_cache_hits_total") >= hits + BATCHES as f64);
    let mut bytes = 0.0;
    while bytes == 0.0 {
        // It is counted a little later.
        bytes = mill.agent.metric("millstream_fetch_cache_bytes");
        mill.grpc.fetch("t", 0, 0).await.unwrap();
    }
    assert!(bytes < 64_000.0, "{bytes}");
}

#[tokio::test]
async fn without_memory_for_results_every_fetch_goes_through_the_stages() {
    let mill = read_through(Setup::new().env("MILLSTREAM_FETCH_CACHE_BYTES", 0), wat::KEEPS).await;
    for _ in 0..2 {
        assert_eq!(mill.values("t", 0).await, all());
    }
    for name in ["hits_total", "misses_total", "bytes"] {
        assert_eq!(
            mill.agent.metric(&format!("millstream_fetch_cache_{name}")),
            0.0,
            "{name}"
        );
    }
}

#[tokio::test]
async fn an_error_is_not_kept() {
    let mill = read_through(Setup::new(), &wat::where_it_says("\x0412\0", "(unreachable)")).await;
    let fetched = mill.grpc.fetch("t", 0, 0).await.unwrap();
    assert_eq!(fetched.next_offset, 12);
    for _ in 0..2 {
        assert_refused(
            mill.grpc.fetch("t", 0, 12).await,
            Code::Aborted,
            &["offset 12", "trapped"],
        );
    }
    mill.grpc.remove_stage("t", Fetch).await.unwrap();
    assert_eq!(mill.values("t", 0).await, all());
}

#[tokio::test]
async fn a_paused_side_gives_nothing_until_it_is_resumed() {
    let mill = read_through(Setup::new(), wat::KEEPS).await;
    let request = v1::PausePipelineRequest {
        topic: "t".to_owned(),
        side: Fetch.into(),
    };
    mill.grpc.pipelines().pause_pipeline(request).await.unwrap();
    let words = ["fetch side of \"t\" is paused", "millstream pipeline resume t"];
    assert_refused(mill.grpc.fetch("t", 0, 0).await, Code::FailedPrecondition, &words);
    assert_eq!(
        mill.grpc.produce("t", 0, vec![record("20")]).await.unwrap().base_offset,
        BATCHES
    );
    let request = v1::ResumePipelineRequest {
        topic: "t".to_owned(),
        ..Default::default()
    };
    mill.grpc.pipelines().resume_pipeline(request).await.unwrap();
    assert_eq!(mill.values("t", 0).await.len() as u64, BATCHES + 1);
}
