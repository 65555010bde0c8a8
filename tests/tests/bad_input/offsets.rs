//! Offsets out of range, on either side.

use millstream_proto::v1;
use millstream_tests::{Agent, record, values};
use tonic::Code;

use crate::{assert_refused, assert_says};

#[tokio::test]
async fn an_offset_beyond_the_end_is_refused_with_the_range() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 1).await.unwrap();
    grpc.produce("t", 0, vec![record("a"), record("b")]).await.unwrap();

    let range = ["out of range", "0 up to 2", "\"t\""];
    for offset in [3, u64::from(u32::MAX), i64::MAX as u64, u64::MAX] {
        assert_refused(grpc.fetch("t", 0, offset).await, Code::OutOfRange, &range);
    }
    let error = agent.cli(["consume", "t", "--partition", "0", "--from", "3"]).error();
    assert_says(&error, &["offset 3 is out of range", "0 to 2"]);

    let at_the_end = grpc.fetch("t", 0, 2).await.unwrap();
    assert_eq!((at_the_end.records.len(), at_the_end.next_offset), (0, 2));
    assert_eq!(values(&grpc.read("t", 0, 0).await.unwrap()), ["a", "b"]);
}

#[tokio::test]
async fn an_offset_below_the_log_start_is_refused_with_the_range() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    let request = v1::CreateTopicRequest {
        name: "short".to_owned(),
        partitions: 1,
        config: Some(v1::TopicConfig {
            retention_ms: Some(1),
            ..v1::TopicConfig::default()
        }),
    };
    grpc.topics().create_topic(request).await.unwrap();
    let old = vec![record("old"), record("old")];
    grpc.produce("short", 0, old).await.unwrap();
    grpc.partitions("short", true).await.unwrap();

    // The sweep that begins with a start takes segments that are older than a millisecond.
    let mut agent = agent.kill9().start();
    agent.wait_for_log("retention took segments");
    let grpc = agent.grpc().await;

    assert_eq!(grpc.offsets("short", 0).await.unwrap(), (2, 2));
    for offset in [0, 1] {
        let range = ["out of range", "2 up to 2", "\"short\""];
        assert_refused(grpc.fetch("short", 0, offset).await, Code::OutOfRange, &range);
    }
    assert!(agent.cli(["consume", "short", "--from", "earliest"]).ok().is_empty());
    let error = agent.cli(["consume", "short", "--from", "1"]).error();
    assert_says(&error, &["offset 1 is out of range", "2 to 2"]);
    let answer = grpc.produce("short", 0, vec![record("new")]).await.unwrap();
    assert_eq!(answer.base_offset, 2);
}
