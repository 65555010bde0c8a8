//! One record in ten thousand that a module traps on, and all of them: what becomes of them is up to the stage.

use millstream_proto::v1::{
    self, OnError,
    PipelineSide::{self, Fetch, Produce},
};
use millstream_tests::{record, values, wat};
use tonic::Code;

use crate::{Mill, assert_refused, stage};

const RECORDS: usize = 10_000;
/// The one that the module traps on.
const BAD: usize = 6_789;

fn traps_on_one() -> String {
    wat::where_it_says("TRAP", "(unreachable)")
}

fn numbered() -> Vec<v1::Record> {
    let value = |n| match n {
        BAD => "TRAP".to_owned(),
        n => n.to_string(),
    };
    (0..RECORDS).map(|n| record(value(n))).collect()
}

fn numbers_but_the_bad_one() -> Vec<String> {
    (0..RECORDS).filter(|n| *n != BAD).map(|n| n.to_string()).collect()
}

async fn traps(mill: &Mill, name: &str, body: &str, side: PipelineSide, on_error: OnError) {
    mill.grpc.create_topic(name, 2).await.unwrap();
    mill.grpc.deploy(name, wat::module(body)).await.unwrap();
    mill.add(name, side, stage(name, on_error)).await.unwrap();
}

async fn status(mill: &Mill, topic: &str) -> v1::StageStatus {
    let request = v1::GetPipelineRequest {
        topic: topic.to_owned(),
    };
    let answer = mill.grpc.pipelines().get_pipeline(request).await.unwrap().into_inner();
    answer.stages.into_iter().next().expect("the stage has run")
}

#[tokio::test]
async fn one_bad_record_of_ten_thousand_refuses_the_request_by_name_where_the_stage_says_so() {
    let mut mill = Mill::start().await;
    for (name, on_error) in [("unsaid", OnError::Unspecified), ("reject", OnError::Reject)] {
        traps(&mill, name, &traps_on_one(), Produce, on_error).await;
        let produced = mill.grpc.produce(name, 0, numbered()).await;
        let words = [
            "failed on 1 of 10000 records",
            "nothing was stored",
            "record 6789: the module trapped in process",
        ];
        assert_refused(produced, Code::Aborted, &words);
        let innocent: Vec<_> = numbered().into_iter().take(BAD).collect();
        assert_eq!(mill.grpc.produce(name, 0, innocent).await.unwrap().base_offset, 0);
        mill.assert_calm().await;
    }
}

#[tokio::test]
async fn one_bad_record_of_ten_thousand_is_left_out_passed_or_kept_elsewhere_and_no_other_is() {
    let mut mill = Mill::start().await;
    traps(&mill, "skip", &traps_on_one(), Produce, OnError::Skip).await;
    let answer = mill.grpc.produce("skip", 0, numbered()).await.unwrap();
    assert_eq!((answer.record_count, answer.dropped_count), (RECORDS as u32 - 1, 1));
    assert_eq!(mill.values("skip", 0).await, numbers_but_the_bad_one());
    let skipped = status(&mill, "skip").await;
    assert_eq!((skipped.failed, skipped.skipped), (1, 1));

    traps(&mill, "pass", &traps_on_one(), Produce, OnError::Pass).await;
    mill.grpc.produce("pass", 0, numbered()).await.unwrap();
    assert_eq!(mill.values("pass", 0).await, values(&numbered()));

    traps(&mill, "dead", &traps_on_one(), Produce, OnError::DeadLetter).await;
    let mut produced = numbered();
    produced[BAD].key = Some("key".into());
    produced[BAD].headers = vec![v1::Header {
        key: "trace".to_owned(),
        value: Some("1".into()),
    }];
    mill.grpc.produce("dead", 1, produced).await.unwrap();
    assert_eq!(mill.values("dead", 1).await, numbers_but_the_bad_one());
    let letters = mill.grpc.read("dead.dead-letter", 1, 0).await.unwrap();
    assert_eq!(values(&letters), ["TRAP"]);
    assert_eq!(letters[0].key.as_deref(), Some(&b"key"[..]));
    let header = |name: &str| {
        let found = letters[0].headers.iter().find(|header| header.key == name);
        let value = found
            .and_then(|header| header.value.clone())
            .unwrap_or_else(|| panic!("no {name}"));
        String::from_utf8(value.to_vec()).unwrap()
    };
    for (name, value) in [
        ("trace", "1"),
        ("millstream-source-topic", "dead"),
        ("millstream-source-partition", "1"),
        ("millstream-source-position", "6789"),
        ("millstream-module", "dead"),
        ("millstream-module-version", "1"),
    ] {
        assert_eq!(header(name), value);
    }
    assert!(header("millstream-error").contains("trapped"));
    mill.assert_calm().await;
}

#[tokio::test]
async fn one_bad_record_of_ten_thousand_halts_its_partition_alone_until_it_is_resumed() {
    let mut mill = Mill::start().await;
    traps(&mill, "halt", &traps_on_one(), Produce, OnError::Halt).await;
    let words = [
        "partition 0",
        "record 6789",
        "trapped",
        "millstream pipeline resume halt",
    ];
    assert_refused(
        mill.grpc.produce("halt", 0, numbered()).await,
        Code::FailedPrecondition,
        &words,
    );
    let innocent = || mill.grpc.produce("halt", 0, vec![record("0")]);
    assert_refused(innocent().await, Code::FailedPrecondition, &words);
    assert_eq!(
        mill.grpc
            .produce("halt", 1, vec![record("0")])
            .await
            .unwrap()
            .base_offset,
        0
    );

    let request = v1::ResumePipelineRequest {
        topic: "halt".to_owned(),
        ..Default::default()
    };
    mill.grpc.pipelines().resume_pipeline(request).await.unwrap();
    assert_eq!(innocent().await.unwrap().base_offset, 0);
    mill.assert_calm().await;
}

#[tokio::test]
async fn a_module_that_traps_on_every_record_drops_no_innocent() {
    let mut mill = Mill::start().await;
    for (name, on_error, code, words) in [
        ("reject", OnError::Reject, Code::Aborted, "nothing was stored"),
        ("skip", OnError::Skip, Code::Aborted, "nothing was stored"),
        ("halt", OnError::Halt, Code::FailedPrecondition, "halted"),
    ] {
        traps(&mill, name, wat::TRAPS, Produce, on_error).await;
        let produced = mill.grpc.produce(name, 0, numbered()).await;
        assert_refused(produced, code, &[words, "trapped in process"]);
        assert_eq!(mill.grpc.offsets(name, 0).await.unwrap(), (0, 0));
        mill.assert_calm().await;
    }
    traps(&mill, "pass", wat::TRAPS, Produce, OnError::Pass).await;
    mill.grpc.produce("pass", 0, numbered()).await.unwrap();
    assert_eq!(mill.values("pass", 0).await, values(&numbered()));

    traps(&mill, "dead", wat::TRAPS, Produce, OnError::DeadLetter).await;
    mill.grpc.produce("dead", 0, numbered()).await.unwrap();
    assert_eq!(mill.grpc.offsets("dead", 0).await.unwrap(), (0, 0));
    assert_eq!(mill.values("dead.dead-letter", 0).await, values(&numbered()));
    mill.assert_calm().await;
}

#[tokio::test]
async fn a_stage_that_keeps_trapping_is_left_alone_and_says_so() {
    let mut mill = Mill::start().await;
    traps(&mill, "t", wat::TRAPS, Produce, OnError::Reject).await;
    for _ in 0..5 {
        assert_refused(
            mill.grpc.produce("t", 0, vec![record("v")]).await,
            Code::Aborted,
            &["trapped"],
        );
    }
    let words = [
        "failed too often",
        "partition 0",
        "it is tried again in",
        "trapped in process",
    ];
    assert_refused(
        mill.grpc.produce("t", 0, vec![record("v")]).await,
        Code::Unavailable,
        &words,
    );
    let status = status(&mill, "t").await;
    let open: Vec<_> = status.breakers.iter().map(|breaker| breaker.partition).collect();
    assert_eq!(open, [0]);
    // The other partition has a breaker of its own.
    assert_refused(
        mill.grpc.produce("t", 1, vec![record("v")]).await,
        Code::Aborted,
        &["trapped"],
    );
    mill.assert_calm().await;
}

#[tokio::test]
async fn on_fetch_one_bad_record_is_left_out_passed_or_stops_the_reader_right_before_it() {
    let mut mill = Mill::start().await;
    for (name, on_error) in [
        ("halt", OnError::Unspecified),
        ("skip", OnError::Skip),
        ("pass", OnError::Pass),
    ] {
        mill.grpc.create_topic(name, 2).await.unwrap();
        mill.grpc.produce(name, 0, numbered()).await.unwrap();
        mill.grpc.produce(name, 0, numbered()).await.unwrap();
        mill.grpc.deploy(name, wat::module(&traps_on_one())).await.unwrap();
        mill.add(name, Fetch, stage(name, on_error)).await.unwrap();
    }
    let without: Vec<_> = [numbers_but_the_bad_one(), numbers_but_the_bad_one()].concat();
    // From the tail, and from a segment.
    for flush in [false, true] {
        for name in ["halt", "skip", "pass"] {
            mill.grpc.partitions(name, flush).await.unwrap();
        }
        assert_eq!(mill.values("skip", 0).await, without);
        assert_eq!(
            mill.values("pass", 0).await,
            [values(&numbered()), values(&numbered())].concat()
        );

        let before = mill.grpc.fetch("halt", 0, 0).await.unwrap();
        assert_eq!(before.next_offset, BAD as u64);
        assert_eq!(values(&before.records), numbers_but_the_bad_one()[..BAD]);
        let words = ["halt@1 failed on fetch at offset 6789", "trapped in process"];
        assert_refused(mill.grpc.fetch("halt", 0, BAD as u64).await, Code::Aborted, &words);
        // Who goes on behind it is not kept from that.
        let behind = mill.grpc.fetch("halt", 0, BAD as u64 + 1).await.unwrap();
        assert_eq!(behind.records.len(), RECORDS - 1);
        assert_eq!(behind.next_offset, (RECORDS + BAD) as u64);
        assert_eq!(behind.records[0].offset, BAD as u64 + 1);
    }
    mill.assert_calm().await;
}
