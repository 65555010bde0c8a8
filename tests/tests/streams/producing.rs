//! `ProduceStream`: order, refusals, and what comes behind them.

use millstream_proto::v1::{self, OnError, PipelineSide::Produce, produce_stream_response::Result as Answer};
use millstream_tests::{Agent, values, wat};
use tonic::Code;

use crate::{batch, produce_all, reason, request};

#[tokio::test]
async fn answers_come_in_the_order_of_the_requests_with_many_under_way() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 4).await.unwrap();
    let requests = (0..400).map(|n| request("t", n % 4, batch(&[&format!("{n:04}")])));

    let answers = produce_all(&grpc, requests.collect()).await.unwrap();

    assert_eq!(answers.len(), 400);
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer.request_index, n as u64);
        let Some(Answer::Produced(produced)) = &answer.result else {
            panic!("{answer:?}")
        };
        assert_eq!((produced.base_offset, produced.record_count), (n as u64 / 4, 1));
    }
    for partition in 0..4 {
        let read = values(&grpc.read("t", partition, 0).await.unwrap());
        let sent = (0..100).map(|n| format!("{:04}", n * 4 + partition));
        assert!(read.into_iter().eq(sent), "partition {partition}");
    }
}

#[tokio::test]
async fn a_batch_that_is_refused_for_good_keeps_no_other_from_being_stored() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 1).await.unwrap();
    let mut damaged = batch(&["x"]).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let empty = v1::ProduceStreamRequest { produce: None };
    let requests = vec![
        request("t", 0, batch(&["a"])),
        request("t", 0, damaged.into()),
        request("absent", 0, batch(&["x"])),
        request("t", 7, batch(&["x"])),
        empty,
        request("t", 0, batch(&["b"])),
    ];

    let answers = produce_all(&grpc, requests).await.unwrap();

    let reasons: Vec<_> = answers.iter().map(reason).collect();
    assert_eq!(
        reasons,
        [
            None,
            Some("BATCH_INVALID"),
            Some("TOPIC_UNKNOWN"),
            Some("PARTITION_UNKNOWN"),
            Some("FIELD_MISSING"),
            None
        ]
    );
    for answer in &answers {
        if let Some(Answer::Error(error)) = &answer.result {
            assert!(error.retry_after_ms.is_none() && !error.message.is_empty(), "{error:?}");
        }
    }
    assert_eq!(values(&grpc.read("t", 0, 0).await.unwrap()), ["a", "b"]);
}

/// The breaker of partition 0 opens with the second batch: from the third on it has to be tried again.
#[tokio::test]
async fn a_failure_that_may_be_tried_again_breaks_off_its_partition_alone() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 2).await.unwrap();
    grpc.deploy("traps", wat::module(&wat::where_it_says("TRAP", "(unreachable)")))
        .await
        .unwrap();
    let stage = v1::Stage {
        module: "traps".to_owned(),
        on_error: OnError::Reject.into(),
        breaker: Some(v1::Breaker {
            failures: 1,
            cooldown_ms: 600_000,
        }),
        ..v1::Stage::default()
    };
    let add = v1::AddStageRequest {
        topic: "t".to_owned(),
        side: Produce.into(),
        stage: Some(stage),
        ..v1::AddStageRequest::default()
    };
    grpc.pipelines().add_stage(add).await.unwrap();
    let requests = vec![
        request("t", 0, batch(&["a"])),
        request("t", 0, batch(&["TRAP"])),
        request("t", 0, batch(&["b"])),
        request("t", 1, batch(&["c"])),
        request("t", 0, batch(&["d"])),
        request("t", 1, batch(&["e"])),
    ];

    let answers = produce_all(&grpc, requests).await.unwrap();

    let reasons: Vec<_> = answers.iter().map(reason).collect();
    assert_eq!(
        reasons,
        [
            None,
            Some("RECORDS_REJECTED"),
            Some("BREAKER_OPEN"),
            None,
            Some("STREAM_BROKEN"),
            None
        ]
    );
    let Some(Answer::Error(broken)) = &answers[4].result else {
        panic!("{:?}", answers[4])
    };
    assert_eq!((broken.code, broken.retry_after_ms), (Code::Aborted.into(), Some(0)));
    assert_eq!(values(&grpc.read("t", 0, 0).await.unwrap()), ["a"]);
    assert_eq!(values(&grpc.read("t", 1, 0).await.unwrap()), ["c", "e"]);
}

#[tokio::test]
async fn records_that_a_module_rejects_are_named_in_the_answer() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 1).await.unwrap();
    grpc.deploy("traps", wat::module(&wat::where_it_says("TRAP", "(unreachable)")))
        .await
        .unwrap();
    grpc.add_stage_untried("t", Produce, "traps").await.unwrap();
    let answers = produce_all(&grpc, vec![request("t", 0, batch(&["a", "TRAP", "b"]))])
        .await
        .unwrap();
    let Some(Answer::Error(error)) = &answers[0].result else {
        panic!("{answers:?}")
    };
    let indexes: Vec<_> = error.rejected.iter().map(|rejected| rejected.index).collect();
    assert_eq!(indexes, [1]);
}

#[tokio::test]
async fn a_stop_ends_the_stream_behind_what_is_answered() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 1).await.unwrap();
    let first = futures::stream::iter([request("t", 0, batch(&["a"]))]);
    let requests = futures::StreamExt::chain(first, futures::stream::pending());
    let mut answers = grpc.producer().produce_stream(requests).await.unwrap().into_inner();
    assert_eq!(reason(&answers.message().await.unwrap().unwrap()), None);
    let ended = tokio::task::spawn_blocking(move || agent.terminate());
    let status = answers.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{}", status.message());
    ended.await.unwrap();
}
