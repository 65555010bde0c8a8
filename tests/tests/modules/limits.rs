//! Modules that take more than they may.

use std::time::Instant;

use millstream_proto::v1::{
    OnError,
    PipelineSide::{Fetch, Produce},
};
use millstream_tests::{record, wat, wat::Parts};
use tonic::Code;

use crate::{Mill, assert_refused, stage};

/// What a module logs in all.
const FLOOD_BYTES: u64 = 10_000_000_000;
/// Most that an agent may log of it in a second.
const LOG_BYTES_MAX: usize = 1 << 20;

fn greedy() -> [(&'static str, Parts<'static>, &'static [&'static str]); 5] {
    let parts = |process| Parts {
        process,
        ..Parts::default()
    };
    [
        ("loops", parts(wat::LOOPS), &["more than 100 ms of CPU in process"]),
        (
            "recurses",
            Parts {
                items: wat::RECURSION,
                ..parts(wat::RECURSES)
            },
            &["trapped in process", "stack"],
        ),
        (
            "allocates",
            parts(wat::ALLOCATES),
            &["bytes of memory in process", "67108864 allowed"],
        ),
        (
            "fills-tables",
            Parts {
                items: wat::TABLE,
                ..parts(wat::FILLS_TABLES)
            },
            &["tables of", "elements in process"],
        ),
        (
            "floods-the-log",
            Parts {
                imports: wat::LOG,
                ..parts(wat::FLOODS_THE_LOG)
            },
            &["more than 100 ms of CPU in process"],
        ),
    ]
}

#[tokio::test]
async fn a_module_that_takes_more_than_it_may_fails_its_request_and_nothing_else() {
    let mut mill = Mill::start().await;
    for (name, parts, words) in greedy() {
        mill.topic_through(name, parts.module(), Produce, OnError::Unspecified)
            .await;
        // A second request meets what the first one left.
        for _ in 0..2 {
            let produced = mill.grpc.produce(name, 0, vec![record("lost")]).await;
            let words = [&["nothing was stored"], words].concat();
            assert_refused(produced, Code::Aborted, &words);
            mill.assert_calm().await;
        }
        mill.grpc.remove_stage(name, Produce).await.unwrap();
        mill.grpc.produce(name, 0, vec![record("after")]).await.unwrap();
        assert_eq!(mill.values(name, 0).await, ["before", "after"]);
    }
}

#[tokio::test]
async fn a_module_that_takes_more_than_it_may_on_fetch_fails_the_reader_and_nothing_else() {
    let mut mill = Mill::start().await;
    for (name, parts, words) in greedy() {
        mill.topic_through(name, parts.module(), Fetch, OnError::Unspecified)
            .await;
        let words = [&["failed on fetch at offset 0"], words].concat();
        for _ in 0..2 {
            assert_refused(mill.grpc.fetch(name, 0, 0).await, Code::Aborted, &words);
        }
        mill.grpc.produce(name, 0, vec![record("after")]).await.unwrap();
        mill.grpc.remove_stage(name, Fetch).await.unwrap();
        assert_eq!(mill.values(name, 0).await, ["before", "after"]);
        mill.assert_calm().await;
    }
}

#[tokio::test]
async fn a_module_that_loops_before_its_first_record_is_refused_before_it_has_one() {
    let mut mill = Mill::start().await;
    mill.topic("t").await;
    let at_start = Parts {
        items: "(func $begin (loop $l (br $l))) (start $begin)",
        ..Parts::default()
    };
    let deployed = mill.grpc.deploy("at-start", at_start.module()).await;
    let words = ["module at-start is refused", "more than 100 ms of CPU in start"];
    assert_refused(deployed, Code::InvalidArgument, &words);

    let configured = Parts {
        configure: wat::LOOPS,
        ..Parts::default()
    };
    mill.grpc.deploy("configured", configured.module()).await.unwrap();
    let words = ["module configured@1 is refused", "more than 100 ms of CPU in configure"];
    for side in [Produce, Fetch] {
        let added = mill.add("t", side, stage("configured", OnError::Unspecified)).await;
        assert_refused(added, Code::InvalidArgument, &words);
    }
    let answer = mill.grpc.produce("t", 0, vec![record("after")]).await.unwrap();
    assert_eq!((answer.base_offset, answer.pipeline_version), (1, 0));
    mill.assert_calm().await;
}

#[tokio::test]
async fn of_ten_gigabytes_that_a_module_logs_the_agent_keeps_so_much_a_second() {
    let started = Instant::now();
    let mut mill = Mill::start().await;
    let parts = Parts {
        imports: wat::LOG,
        process: wat::LOGS_A_LOT,
        ..Parts::default()
    };
    mill.topic_through("talks", parts.module(), Produce, OnError::Unspecified)
        .await;
    for offset in 1..=FLOOD_BYTES / wat::LOGS_A_LOT_BYTES {
        let answer = mill.grpc.produce("talks", 0, vec![record("v")]).await.unwrap();
        assert_eq!(answer.base_offset, offset);
    }
    mill.assert_calm().await;
    let logged = mill.agent.log().len();
    let seconds = started.elapsed().as_secs() as usize + 1;
    assert!(logged < LOG_BYTES_MAX * seconds, "{logged} bytes in {seconds} s");
}
