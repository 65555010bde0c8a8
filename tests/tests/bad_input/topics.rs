//! Topics and partitions that do not exist, exist already or may not exist.

use millstream_proto::v1;
use millstream_tests::{Agent, record};
use tonic::Code;

use crate::{assert_refused, assert_says};

#[tokio::test]
async fn an_unknown_topic_is_named() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    let unknown = ["no topic \"absent\"", "topic list"];

    assert_refused(
        grpc.produce("absent", 0, vec![record("v")]).await,
        Code::NotFound,
        &unknown,
    );
    assert_refused(grpc.fetch("absent", 0, 0).await, Code::NotFound, &unknown);
    assert_refused(grpc.offsets("absent", 0).await, Code::NotFound, &unknown);
    assert_refused(grpc.partitions("absent", false).await, Code::NotFound, &unknown);
    assert_refused(grpc.partitions("absent", true).await, Code::NotFound, &unknown);
    let name = "absent".to_owned();
    let deleted = grpc.topics().delete_topic(v1::DeleteTopicRequest { name }).await;
    assert_refused(deleted, Code::NotFound, &unknown);
    let side = v1::PipelineSide::Produce;
    assert_refused(grpc.add_stage("absent", side, "m", &[]).await, Code::NotFound, &unknown);
    assert_refused(grpc.remove_stage("absent", side).await, Code::NotFound, &unknown);
    for command in [
        &["produce", "absent"][..],
        &["consume", "absent"],
        &["topic", "show", "absent"],
        &["topic", "delete", "absent"],
        &["pipeline", "show", "absent"],
    ] {
        assert_says(&agent.cli(command).error(), &unknown);
    }
    grpc.assert_serves("t").await;
}

#[tokio::test]
async fn an_unknown_partition_is_named_with_those_there_are() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 3).await.unwrap();
    let unknown = ["\"t\"", "0 to 2", "not 3"];

    assert_refused(grpc.produce("t", 3, vec![record("v")]).await, Code::NotFound, &unknown);
    assert_refused(grpc.fetch("t", 3, 0).await, Code::NotFound, &unknown);
    assert_refused(grpc.offsets("t", 3).await, Code::NotFound, &unknown);
    assert_refused(grpc.offsets("t", u32::MAX).await, Code::NotFound, &["0 to 2"]);
    assert_says(&agent.cli(["consume", "t", "--partition", "3"]).error(), &unknown);
    assert_says(
        &agent.cli(["produce", "t", "--partition", "3"]).error(),
        &["\"t\"", "no partition 3", "it has 3"],
    );
    grpc.assert_serves("other").await;
}

#[tokio::test]
async fn a_topic_that_exists_stays_as_it_is() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.assert_serves("t").await;

    assert_refused(
        grpc.create_topic("t", 5).await,
        Code::AlreadyExists,
        &["topic \"t\" exists already"],
    );
    assert_says(
        &agent.cli(["topic", "create", "t"]).error(),
        &["topic \"t\" exists already"],
    );

    assert_eq!(grpc.partitions("t", false).await.unwrap().len(), 1);
    assert_eq!(grpc.read("t", 0, 0).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_topic_has_one_to_a_hundred_thousand_partitions() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    for partitions in [0, 100_001, u32::MAX] {
        let count = partitions.to_string();
        let created = grpc.create_topic("t", partitions).await;
        assert_refused(created, Code::InvalidArgument, &["1 to 100,000 partitions", &count]);
        let error = agent.cli(["topic", "create", "t", "--partitions", &count]).error();
        assert_says(&error, &["1 to 100,000 partitions", &count]);
    }
    assert_eq!(
        agent.cli(["topic", "list", "--output", "json"]).json(),
        serde_json::json!([])
    );

    grpc.create_topic("wide", 100_000).await.unwrap();
    let answer = grpc.produce("wide", 99_999, vec![record("v")]).await.unwrap();
    assert_eq!(answer.base_offset, 0);
    grpc.assert_serves("t").await;
}

#[tokio::test]
async fn a_bad_topic_name_is_refused_with_what_is_allowed() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    let long = "x".repeat(300);
    let cases = [
        ("../x", "contains '/'"),
        ("", "empty"),
        (&long, "300 characters"),
        (".", "a path"),
        ("..", "a path"),
        ("a b", "contains ' '"),
        ("a\0b", "contains '\\0'"),
        ("schlüssel", "contains 'ü'"),
    ];
    for (name, reason) in cases {
        let created = grpc.create_topic(name, 1).await;
        assert_refused(
            created,
            Code::InvalidArgument,
            &[reason, "allowed are 1 to 249 characters"],
        );
        if !name.contains('\0') {
            let error = agent.cli(["topic", "create", name]).error();
            assert_says(&error, &[reason, "allowed are"]);
        }
        // Nor does a name that cannot exist lead anywhere else.
        assert_refused(grpc.fetch(name, 0, 0).await, Code::NotFound, &["no topic"]);
    }
    assert!(!agent.setup().folder().join("x").exists());
    grpc.assert_serves(&"x".repeat(249)).await;
}

#[tokio::test]
async fn a_setting_out_of_bounds_is_refused() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    for record_bytes_max in [0, (16 << 20) + 1] {
        let request = v1::CreateTopicRequest {
            name: "t".to_owned(),
            partitions: 1,
            config: Some(v1::TopicConfig {
                record_bytes_max: Some(record_bytes_max),
                ..v1::TopicConfig::default()
            }),
        };
        assert_refused(
            grpc.topics().create_topic(request).await,
            Code::InvalidArgument,
            &["record_bytes_max", &record_bytes_max.to_string(), "1 to 16,777,216"],
        );
    }
    grpc.assert_serves("t").await;
}

#[tokio::test]
async fn a_setting_that_has_no_such_value_is_refused_with_those_that_it_has() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    let before = grpc.create_topic("t", 3).await.unwrap();
    let plain = v1::TopicConfig::default;
    let settings = [
        (
            v1::TopicConfig {
                compression: 9,
                ..plain()
            },
            ["compression is 9", "2 (lz4)"],
        ),
        (
            v1::TopicConfig {
                timestamp_type: -1,
                ..plain()
            },
            ["timestamp_type is -1", "2 (append)"],
        ),
        (
            v1::TopicConfig {
                default_acks: 7,
                ..plain()
            },
            ["default_acks is 7", "1 (durable)"],
        ),
        (
            v1::TopicConfig {
                segment_bytes: Some(1),
                ..plain()
            },
            ["segment_bytes is 1", "1,024 to"],
        ),
        (
            v1::TopicConfig {
                segment_age_ms: Some(0),
                ..plain()
            },
            ["segment_age_ms is 0", "1 or more"],
        ),
        (
            v1::TopicConfig {
                record_bytes_max: Some(0),
                ..plain()
            },
            ["record_bytes_max is 0", "1 to 16,777,216"],
        ),
    ];
    for (config, words) in settings {
        let request = v1::AlterTopicRequest {
            name: "t".to_owned(),
            config: Some(config),
            partitions: None,
        };
        assert_refused(grpc.topics().alter_topic(request).await, Code::InvalidArgument, &words);
    }
    for (partitions, words) in [
        (2, "3 partitions, not 2"),
        (0, "1 to 100,000"),
        (100_001, "1 to 100,000"),
    ] {
        let request = v1::AlterTopicRequest {
            name: "t".to_owned(),
            config: None,
            partitions: Some(partitions),
        };
        assert_refused(
            grpc.topics().alter_topic(request).await,
            Code::InvalidArgument,
            &[words],
        );
    }
    let produce = v1::ProduceRequest {
        topic: "t".to_owned(),
        acks: 3,
        ..v1::ProduceRequest::default()
    };
    let refused = grpc.producer().produce(produce).await;
    assert_refused(
        refused,
        Code::InvalidArgument,
        &["acks is 3", "1 (durable), 2 (memory)"],
    );
    for flag in ["--compression", "--timestamps", "--acks"] {
        let ran = agent.cli(["topic", "alter", "t", flag, "gzip"]);
        assert_eq!(ran.code, Some(2), "{flag}: {}", ran.stderr);
        assert!(ran.stderr.contains("possible values"), "{flag}: {}", ran.stderr);
    }
    let request = v1::GetTopicRequest {
        name: "t".to_owned(),
        without_partitions: true,
        ..v1::GetTopicRequest::default()
    };
    let after = grpc.topics().get_topic(request).await.unwrap().into_inner().topic;
    assert_eq!(after, Some(before), "nothing of what was refused is left");
}
