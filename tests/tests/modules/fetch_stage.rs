//! A stage that one reader asks for: behind the topic's own, for this reader alone.

use std::collections::HashMap;

use millstream_client::{Connection, Consumer, ConsumerSettings, Start};
use millstream_proto::v1::{self, OnError, PipelineSide::Fetch};
use millstream_tests::{Setup, modules, place, record, values, wat};
use tonic::{Code, Status};

use crate::{Mill, assert_refused, assert_says, stage};

const BATCHES: u64 = 30;
const PER_BATCH: u64 = 40;
const RECORDS: u64 = BATCHES * PER_BATCH;

/// An agent with numbered documents, two thirds of them in a segment, and modules to read them with.
async fn orders(setup: Setup) -> Mill {
    let mill = Mill::with(setup).await;
    mill.grpc.create_topic("orders", 1).await.unwrap();
    for batch in 0..BATCHES {
        let numbers = batch * PER_BATCH..(batch + 1) * PER_BATCH;
        let records = numbers
            .map(|n| record(format!(r#"{{"n":{n},"secret":"s{n}"}}"#)))
            .collect();
        mill.grpc.produce("orders", 0, records).await.unwrap();
        if batch == BATCHES * 2 / 3 {
            mill.grpc.partitions("orders", true).await.unwrap();
        }
    }
    for name in ["json-filter", "redact"] {
        mill.grpc.deploy(name, modules::component(name)).await.unwrap();
    }
    mill
}

fn filter(condition: &str) -> v1::Stage {
    v1::Stage {
        params: HashMap::from([("where".to_owned(), condition.to_owned())]),
        ..stage("json-filter", OnError::Unspecified)
    }
}

impl Mill {
    async fn fetch_through(&self, offset: u64, stage: v1::Stage) -> Result<v1::FetchedPartition, Status> {
        let request = v1::FetchRequest {
            partitions: vec![place("orders", 0, offset)],
            format: v1::FetchFormat::Records.into(),
            stage: Some(stage),
            ..v1::FetchRequest::default()
        };
        self.grpc.fetch_one(request).await
    }

    async fn consume(&self, from: u64, max_bytes: u32, stage: Option<v1::Stage>) -> Vec<u64> {
        let settings = ConsumerSettings {
            max_bytes,
            stage,
            ..ConsumerSettings::default()
        };
        let connection = Connection::open(&self.agent.url()).await.unwrap();
        let mut consumer = Consumer::open(&connection, "orders", 0, Start::Offset(from), settings)
            .await
            .unwrap();
        let mut offsets = Vec::new();
        let mut next = from;
        while next < RECORDS {
            let chunk = consumer.next_chunk().await.unwrap();
            offsets.extend(chunk.records.iter().map(|record| record.offset));
            assert!(chunk.next_offset > next, "stuck at {next}");
            next = chunk.next_offset;
        }
        offsets
    }
}

#[tokio::test]
async fn a_reader_sees_through_its_own_stage_and_the_others_do_not() {
    let mill = orders(Setup::new()).await;
    let expected: Vec<_> = (0..RECORDS).filter(|n| *n >= 100 && *n != 777).collect();
    let stage = || Some(filter("$.n >= 100 and $.n != 777"));
    // Twice: the second time blocks of the segment come from memory.
    for round in 0..2 {
        for max_bytes in [1, 3_000, 1 << 20] {
            assert_eq!(
                mill.consume(0, max_bytes, stage()).await,
                expected,
                "{max_bytes} {round}"
            );
        }
        for from in [1, 99, 100, 101, 776, 777, 778, 799, 800, RECORDS - 1] {
            let expected: Vec<_> = expected.iter().copied().filter(|n| *n >= from).collect();
            assert_eq!(mill.consume(from, 5_000, stage()).await, expected, "from {from}");
        }
    }
    assert_eq!(mill.consume(0, 1 << 20, None).await, (0..RECORDS).collect::<Vec<_>>());
    let pipeline = mill
        .agent
        .cli(["pipeline", "show", "orders", "--output", "json"])
        .text();
    assert!(!pipeline.contains("json-filter"), "{pipeline}");
}

#[tokio::test]
async fn the_topics_own_stages_come_first() {
    let mill = orders(Setup::new()).await;
    mill.grpc
        .add_stage("orders", Fetch, "redact", &[("fields", "$.secret")])
        .await
        .unwrap();
    let seen = mill.fetch_through(0, filter(r#"$.secret == "s7""#)).await.unwrap();
    assert_eq!((seen.records.len(), seen.next_offset), (0, RECORDS));
    let seen = mill
        .fetch_through(0, filter(r#"$.secret == "***" and $.n == 7"#))
        .await
        .unwrap();
    assert_eq!(values(&seen.records), [r#"{"n":7,"secret":"***"}"#]);
    // Another pipeline of the topic is another result.
    mill.grpc.remove_stage("orders", Fetch).await.unwrap();
    let seen = mill.fetch_through(0, filter(r#"$.secret == "s7""#)).await.unwrap();
    assert_eq!(values(&seen.records), [r#"{"n":7,"secret":"s7"}"#]);
}

#[tokio::test]
async fn a_stage_that_cannot_be_is_refused_with_the_reason() {
    let mut mill = orders(Setup::new()).await;
    let unknown = mill.fetch_through(0, stage("absent", OnError::Unspecified)).await;
    assert_refused(unknown, Code::NotFound, &["absent"]);
    let version = v1::Stage {
        version: 9,
        ..filter("$.n > 0")
    };
    assert_refused(mill.fetch_through(0, version).await, Code::NotFound, &["json-filter@9"]);
    let words = ["json-filter@1 is refused", "where"];
    assert_refused(
        mill.fetch_through(0, filter("$.n >")).await,
        Code::InvalidArgument,
        &words,
    );
    let nothing = stage("json-filter", OnError::Unspecified);
    assert_refused(mill.fetch_through(0, nothing).await, Code::InvalidArgument, &words);
    for on_error in [OnError::Reject, OnError::DeadLetter] {
        let other = v1::Stage {
            on_error: on_error.into(),
            ..filter("$.n > 0")
        };
        assert_refused(
            mill.fetch_through(0, other).await,
            Code::InvalidArgument,
            &["on fetch", "halt, skip or pass"],
        );
    }
    mill.grpc.deploy("doubles", wat::module(wat::DOUBLES)).await.unwrap();
    let doubled = mill.fetch_through(0, stage("doubles", OnError::Unspecified)).await;
    assert_refused(
        doubled,
        Code::Aborted,
        &["doubles@1 failed on fetch at offset 0", "on fetch"],
    );
    assert_eq!(mill.consume(0, 1 << 20, None).await.len() as u64, RECORDS);
    mill.assert_calm().await;
}

#[tokio::test]
async fn a_stage_of_one_version_stays_with_it_and_one_of_none_follows_the_module() {
    let mut mill = orders(Setup::new()).await;
    mill.grpc.deploy("moves", wat::module(wat::KEEPS)).await.unwrap();
    let latest = || mill.fetch_through(0, stage("moves", OnError::Unspecified));
    assert_eq!(latest().await.unwrap().records[1].offset, 1);
    mill.grpc.deploy("moves", wat::module(wat::KEEPS_NONE)).await.unwrap();
    // It is not asked for with every fetch, but soon.
    while !latest().await.unwrap().records.is_empty() {}
    let pinned = v1::Stage {
        version: 1,
        ..stage("moves", OnError::Unspecified)
    };
    assert_eq!(mill.fetch_through(0, pinned).await.unwrap().records[1].offset, 1);
    mill.assert_calm().await;
}

#[tokio::test]
async fn the_command_line_reads_through_a_module() {
    let mill = orders(Setup::new()).await;
    let read = [
        "consume",
        "orders",
        "--module",
        "json-filter@1",
        "--param",
        "where=$.n == 5 or $.n == 1150",
    ];
    let lines = mill.agent.cli(read).text();
    assert_eq!(
        lines,
        "{\"n\":5,\"secret\":\"s5\"}\n{\"n\":1150,\"secret\":\"s1150\"}\n"
    );

    mill.grpc
        .deploy("traps", wat::module(&wat::where_it_says("s600", "(unreachable)")))
        .await
        .unwrap();
    let consume = |on_error| {
        mill.agent
            .cli(["consume", "orders", "--module", "traps", "--on-error", on_error])
    };
    assert_eq!(consume("skip").text().lines().count() as u64, RECORDS - 1);
    assert_eq!(consume("pass").text().lines().count() as u64, RECORDS);
    let halted = consume("halt");
    assert_eq!(String::from_utf8_lossy(&halted.stdout).lines().count(), 600);
    assert_says(&halted.error(), &["traps@1 failed on fetch at offset 600", "trapped"]);
}
