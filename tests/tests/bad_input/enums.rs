//! Numbers that an enum has no name for: refused with those it has, and never taken for the default.

use futures::stream;
use millstream_proto::v1::{self, subscribe_request::Message as Asked};
use millstream_tests::{Agent, place, wat};
use tonic::Code;

use crate::assert_refused;

/// None of them is a value of any enum of the contract.
const UNKNOWN: [i32; 4] = [-1, 9, i32::MIN, i32::MAX];

#[tokio::test]
async fn a_shape_of_records_that_there_is_not_is_refused() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 1).await.unwrap();
    for format in UNKNOWN {
        let is = format!("format is {format}");
        let words = [is.as_str(), "1 (batches), 2 (records)"];
        let fetch = v1::FetchRequest {
            partitions: vec![place("t", 0, 0)],
            format,
            ..v1::FetchRequest::default()
        };
        assert_refused(grpc.consumer().fetch(fetch).await, Code::InvalidArgument, &words);
        let start = v1::SubscribeStart {
            format,
            ..v1::SubscribeStart::default()
        };
        let request = v1::SubscribeRequest {
            message: Some(Asked::Start(start)),
        };
        let refused = grpc.consumer().subscribe(stream::iter([request])).await;
        assert_refused(refused.map(drop), Code::InvalidArgument, &words);
    }
    grpc.assert_serves("u").await;
}

#[tokio::test]
async fn a_side_or_policy_that_there_is_not_changes_no_pipeline() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 1).await.unwrap();
    grpc.deploy("m", wat::module(wat::KEEPS)).await.unwrap();
    let before = grpc.add_stage("t", v1::PipelineSide::Produce, "m", &[]).await.unwrap();
    let (topic, produce) = ("t".to_owned(), v1::PipelineSide::Produce.into());
    for value in UNKNOWN {
        let (side_is, on_error_is) = (format!("side is {value}"), format!("on_error is {value}"));
        let side = [side_is.as_str(), "1 (produce), 2 (fetch)"];
        let on_error = [on_error_is.as_str(), "1 (reject), 2 (skip)", "5 (halt)"];
        let stage = |on_error| v1::Stage {
            module: "m".to_owned(),
            on_error,
            ..v1::Stage::default()
        };
        let add = |side, on_error| v1::AddStageRequest {
            topic: topic.clone(),
            side,
            stage: Some(stage(on_error)),
            ..v1::AddStageRequest::default()
        };
        let alter = |side, on_error| v1::AlterStageRequest {
            topic: topic.clone(),
            side,
            change: Some(v1::StageChange {
                on_error,
                ..v1::StageChange::default()
            }),
            ..v1::AlterStageRequest::default()
        };
        let mut pipelines = grpc.pipelines();
        let added = pipelines.add_stage(add(value, 0)).await;
        assert_refused(added, Code::InvalidArgument, &side);
        let added = pipelines.add_stage(add(produce, value)).await;
        assert_refused(added, Code::InvalidArgument, &on_error);
        let altered = pipelines.alter_stage(alter(value, 0)).await;
        assert_refused(altered, Code::InvalidArgument, &side);
        let altered = pipelines.alter_stage(alter(produce, value)).await;
        assert_refused(altered, Code::InvalidArgument, &on_error);
        let remove = v1::RemoveStageRequest {
            topic: topic.clone(),
            side: value,
            ..v1::RemoveStageRequest::default()
        };
        assert_refused(pipelines.remove_stage(remove).await, Code::InvalidArgument, &side);
        // Both sides are what is meant by none, not by one that there is not.
        let pause = v1::PausePipelineRequest {
            topic: topic.clone(),
            side: value,
        };
        assert_refused(pipelines.pause_pipeline(pause).await, Code::InvalidArgument, &side);
        let resume = v1::ResumePipelineRequest {
            topic: topic.clone(),
            side: value,
        };
        assert_refused(pipelines.resume_pipeline(resume).await, Code::InvalidArgument, &side);
        let fetch = v1::FetchRequest {
            partitions: vec![place("t", 0, 0)],
            stage: Some(stage(value)),
            ..v1::FetchRequest::default()
        };
        let fetched = grpc.consumer().fetch(fetch).await;
        assert_refused(fetched, Code::InvalidArgument, &on_error);
    }
    let request = v1::GetPipelineRequest { topic };
    let after = grpc.pipelines().get_pipeline(request).await.unwrap().into_inner();
    assert_eq!(after.pipeline, Some(before), "nothing of what was refused is left");
    grpc.assert_serves("u").await;
}
