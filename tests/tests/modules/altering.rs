//! Pipelines that are changed while records go through them, as one does it on the command line.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use millstream_proto::v1::{
    self, OnError,
    PipelineSide::{Fetch, Produce},
};
use millstream_tests::{Grpc, Ran, modules, record, values, wat};
use serde_json::{Value, json};
use tonic::Code;

use crate::{Mill, assert_refused, assert_says, stage};

const RECORDS: u64 = 40;

impl Mill {
    fn pipeline(&self, words: &str) -> Ran {
        self.agent.cli(["pipeline"].into_iter().chain(words.split_whitespace()))
    }

    fn shown(&self, topic: &str) -> Value {
        self.pipeline(&format!("show {topic} --output json")).json()
    }
}

/// Produces until it is told to stop, and says how many.
async fn produce(grpc: Grpc, partition: u32, done: Arc<AtomicBool>) -> u64 {
    let mut next = 0;
    while !done.load(Ordering::Relaxed) {
        let json = |n: u64| record(format!(r#"{{"card":"4111-{n}","n":{n}}}"#));
        let records = (next..next + RECORDS).map(json).collect();
        let answer = grpc.produce("t", partition, records).await.unwrap();
        assert_eq!(answer.base_offset, next);
        next += RECORDS;
    }
    next
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_every_record_carries_the_one_mask_or_the_other_and_none_is_bare() {
    const CHANGES: usize = 12;
    let mill = Mill::start().await;
    mill.grpc.create_topic("t", 2).await.unwrap();
    mill.grpc.deploy("redact", modules::component("redact")).await.unwrap();
    mill.grpc.deploy("keeps", wat::module(wat::KEEPS)).await.unwrap();
    let mask = |n: usize| format!("mask{n}");
    mill.pipeline("add t redact --on produce --param fields=$.card --param with=mask0")
        .ok();
    mill.pipeline("add t keeps --on produce").ok();
    let done = Arc::new(AtomicBool::new(false));
    let mut producers = Vec::new();
    for partition in 0..2 {
        producers.push(tokio::spawn(produce(mill.agent.grpc().await, partition, done.clone())));
    }
    for n in 1..=CHANGES {
        // The mask changes, the stage moves back and forth, and all of it at once.
        let (position, to) = ((n + 1) % 2, n % 2);
        let words = format!(
            "alter t --on produce --position {position} --param with={} --move-to {to}",
            mask(n)
        );
        let altered = tokio::task::block_in_place(|| mill.pipeline(&format!("{words} --output json")).json());
        assert_eq!(
            altered["produce"][to]["params"],
            json!({"fields": "$.card", "with": mask(n)})
        );
        // Producers go on through each of them.
        let version = altered["version"].as_u64().unwrap();
        for partition in 0..2 {
            let end = mill.grpc.offsets("t", partition).await.unwrap().1;
            while mill.grpc.offsets("t", partition).await.unwrap().1 <= end {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(version, 2 + n as u64);
    }
    done.store(true, Ordering::Relaxed);
    for (partition, producer) in (0..).zip(producers) {
        let count = producer.await.unwrap();
        let read = mill.values("t", partition).await;
        assert_eq!(read.len() as u64, count);
        let mut current = 0;
        for (n, text) in read.iter().enumerate() {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(value["n"], json!(n), "records are in order");
            while value["card"] != json!(mask(current)) {
                current += 1;
                assert!(current <= CHANGES, "at offset {n}: {text}");
                assert_eq!(n as u64 % RECORDS, 0, "a mask changes between two batches");
            }
        }
        assert_eq!(current, CHANGES, "partition {partition} has records of the last mask");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_alteration_reaches_no_partition_and_says_what_was_meant() {
    let mill = Mill::start().await;
    mill.topic("orders").await;
    mill.grpc.deploy("redact", modules::component("redact")).await.unwrap();
    mill.grpc
        .deploy("access-log", modules::component("access-log"))
        .await
        .unwrap();
    mill.pipeline("add orders redact --on fetch --param fields=$.card").ok();
    let before = mill.shown("orders");
    for (words, said) in [
        (
            "--param feilds=$.a",
            &["unknown parameter", "did you mean", "fields"][..],
        ),
        ("--param how=hsh", &["how", "none of mask, hash, drop"]),
        ("--unset-param fields", &["fields"]),
        (
            "--unset-param feilds",
            &["sets no parameter", "did you mean \"fields\""],
        ),
        ("--version 7", &["redact@7", "Did you mean redact@1?"]),
        ("--on-error reject", &["on fetch a stage cannot reject"]),
        ("--move-to 1", &["has 1 stages; there is none at position 1"]),
        ("--cpu-ms 0", &["cpu_ms 0 is refused"]),
        ("--param with=# --if-version 7", &["is at version 1, not 7"]),
        (
            "--on-error skip --dead-letter x",
            &["--dead-letter goes with --on-error dead-letter only"],
        ),
        ("", &["nothing to change is named"]),
    ] {
        let refused = mill
            .pipeline(&format!("alter orders --on fetch --position 0 {words}"))
            .error();
        assert_says(&refused, said);
    }
    assert_eq!(mill.shown("orders"), before);
    for (words, meant) in [
        ("pipeline show ordesr", "orders"),
        ("pipeline history order", "orders"),
        ("pipeline add orders redcat --on fetch", "redact"),
        ("module show redcat", "redact"),
        ("module show redact@4", "redact@1"),
        ("module logs redcat", "redact"),
        ("module rollback acess-log", "access-log"),
        ("module promote acess-log", "access-log"),
    ] {
        let unknown = mill.agent.cli(words.split_whitespace()).error();
        assert_says(&unknown, &["there is no", &format!("Did you mean {meant}?")]);
        assert_eq!(unknown.matches("there is no").count(), 1, "{unknown}");
    }
    let far = mill.pipeline("show something-else").error();
    assert!(!far.contains("Did you mean"), "{far}");
    mill.grpc.assert_serves("other").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_means_the_stage_that_was_seen() {
    let mill = Mill::start().await;
    mill.topic_through("t", wat::stamps('a'), Produce, OnError::Unspecified)
        .await;
    mill.grpc.deploy("u", wat::stamps('b')).await.unwrap();
    let seen = mill.shown("t")["version"].as_u64().unwrap();
    let added = mill.pipeline("add t u --on produce --position 0 --output json").json();
    assert_eq!(
        (&added["produce"][0]["module"], &added["produce"][0]["id"]),
        (&json!("u"), &json!(2))
    );
    // Somebody else put a stage before it: who goes by what was seen meets nobody else's.
    for words in [
        "alter t --on produce --position 0 --on-error skip",
        "remove t 0 --on produce",
        "add t u --on produce --position 1",
    ] {
        let refused = mill.pipeline(&format!("{words} --if-version {seen}")).error();
        assert_says(&refused, &["somebody has changed it", "millstream pipeline show t"]);
    }
    let request = v1::AlterStageRequest {
        topic: "t".to_owned(),
        side: Produce.into(),
        change: Some(v1::StageChange {
            move_to: Some(1),
            ..v1::StageChange::default()
        }),
        expected_version: Some(seen),
        ..v1::AlterStageRequest::default()
    };
    let altered = mill.grpc.pipelines().alter_stage(request.clone()).await;
    assert_refused(altered, Code::Aborted, &["is at version 2, not 1"]);
    let without_change = v1::AlterStageRequest {
        change: None,
        ..request
    };
    let altered = mill.grpc.pipelines().alter_stage(without_change).await;
    assert_refused(altered, Code::InvalidArgument, &["change"]);
    mill.pipeline("alter t --on produce --position 0 --move-to 1 --if-version 2")
        .ok();
    mill.grpc.produce("t", 0, vec![record("#")]).await.unwrap();
    assert_eq!(mill.values("t", 0).await, ["before", "a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stages_of_one_module_are_told_apart_wherever_they_are_shown() {
    let mill = Mill::start().await;
    mill.topic("t").await;
    mill.grpc
        .deploy("traps", wat::module(&wat::where_it_says("trap", "(unreachable)")))
        .await
        .unwrap();
    for on_error in [OnError::Pass, OnError::Halt] {
        mill.add("t", Produce, stage("traps", on_error)).await.unwrap();
    }
    let halted = mill.grpc.produce("t", 0, vec![record("a trap")]).await;
    assert_refused(halted, Code::FailedPrecondition, &["halted"]);
    mill.grpc.produce("t", 1, vec![record("fine")]).await.unwrap();
    let status = mill.shown("t")["status"].clone();
    let of = |position: usize, name: &str| status[position][name].clone();
    assert_eq!((of(0, "passed"), of(1, "passed")), (json!(1), json!(0)));
    assert_eq!((of(0, "records_out"), of(1, "records_out")), (json!(2), json!(1)));
    assert_eq!(of(0, "halts"), json!([]));
    assert_eq!(of(1, "halts")[0]["partition"], json!(0));
    let metric = |stage: u32| {
        let labels = format!(r#"{{topic="t",side="produce",module="traps",version="1",stage="{stage}"}}"#);
        mill.agent
            .metric(&format!("millstream_module_records_out_total{labels}"))
    };
    assert_eq!((metric(1), metric(2)), (2.0, 1.0));
    mill.pipeline("alter t --on produce --position 1 --move-to 0 --no-trial")
        .ok();
    let status = mill.shown("t")["status"].clone();
    assert_eq!(
        (&status[0]["records_out"], &status[1]["records_out"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(
        (metric(1), metric(2)),
        (2.0, 1.0),
        "a series goes on where its stage is moved"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_history_comes_in_pages() {
    let mill = Mill::start().await;
    mill.topic_through("t", wat::stamps('a'), Fetch, OnError::Unspecified)
        .await;
    for n in 2..=7 {
        mill.grpc.produce("t", 0, vec![record("x")]).await.unwrap();
        let words = format!("alter t --on fetch --position 0 --breaker-failures {}", n + 10);
        mill.pipeline(&words).ok();
    }
    let ask = async |request: v1::GetPipelineHistoryRequest| {
        let request = v1::GetPipelineHistoryRequest {
            topic: "t".to_owned(),
            limit: 3,
            ..request
        };
        let answer = mill.grpc.pipelines().get_pipeline_history(request).await;
        answer.map(tonic::Response::into_inner)
    };
    let versions = |page: &v1::GetPipelineHistoryResponse| -> Vec<u64> {
        let activations = page.activations.iter();
        activations
            .map(|activation| activation.pipeline.as_ref().unwrap().version)
            .collect()
    };
    let (mut before_version, mut seen) = (None, Vec::new());
    loop {
        let page = ask(v1::GetPipelineHistoryRequest {
            before_version,
            ..v1::GetPipelineHistoryRequest::default()
        });
        let page = page.await.unwrap();
        seen.push(versions(&page));
        before_version = page.next_before_version;
        if before_version.is_none() {
            break;
        }
    }
    assert_eq!(seen, [vec![7, 6, 5], vec![4, 3, 2], vec![1]]);
    let (mut from_offset, mut ranges) = (None, Vec::new());
    loop {
        let page = ask(v1::GetPipelineHistoryRequest {
            partition: Some(0),
            from_offset,
            ..v1::GetPipelineHistoryRequest::default()
        });
        let page = page.await.unwrap();
        assert!(page.ranges.len() <= 3);
        ranges.extend(
            page.ranges
                .iter()
                .map(|range| (range.base_offset, range.pipeline_version)),
        );
        from_offset = page.next_from_offset;
        if from_offset.is_none() {
            break;
        }
    }
    // Before there was a pipeline, then one record of each version but the last.
    let expected: Vec<_> = (0..7).map(|n| (n, n)).collect();
    assert_eq!(ranges, expected);
    let both = ask(v1::GetPipelineHistoryRequest {
        partition: Some(0),
        before_version: Some(3),
        ..v1::GetPipelineHistoryRequest::default()
    });
    assert_refused(
        both.await,
        Code::InvalidArgument,
        &["before_version goes without a partition"],
    );

    let counted = |words: &str| {
        let history = mill.pipeline(&format!("history t {words} --output json")).json();
        let count = |name: &str| history[name].as_array().map_or(0, Vec::len);
        (count("activations"), count("ranges"), history["more"] == json!(true))
    };
    assert_eq!(counted(""), (7, 0, false));
    assert_eq!(counted("--max 2"), (2, 0, true));
    assert_eq!(counted("--partition 0"), (6, 7, false));
    assert_eq!(counted("--partition 0 --max 3"), (2, 3, true));
    assert_eq!(counted("--partition 0 --offset 4"), (1, 1, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_line_is_told_once_and_by_its_number() {
    let mill = Mill::start().await;
    mill.grpc.create_topic("t", 1).await.unwrap();
    mill.grpc
        .deploy("json-schema", modules::component("json-schema"))
        .await
        .unwrap();
    mill.pipeline(r#"add t json-schema --on produce --param schema={"type":"object"}"#)
        .ok();
    let lines = b"{}\n[]\n{}\n7\n";
    let refused = mill.agent.cli_reading(["produce", "t"], lines).error();
    assert_says(
        &refused,
        &[
            "module json-schema@1 rejected 2 of 4 records, nothing was stored; line 2: ",
            "; line 4: ",
            "; 0 of the 4 records sent were acknowledged",
        ],
    );
    assert!(!refused.contains("record 1"), "it is told twice: {refused}");
    let reason = refused.split("line 2: ").nth(1).unwrap().split(';').next().unwrap();
    assert_eq!(
        refused.matches(reason).count(),
        2,
        "once for each of the two lines: {refused}"
    );
    // Whoever speaks gRPC without the details has it in the message.
    let refused = mill.grpc.produce("t", 0, vec![record("{}"), record("[]")]).await;
    assert_refused(
        refused,
        Code::InvalidArgument,
        &["rejected 1 of 2 records", "record 1: ", reason],
    );
    assert_eq!(values(&mill.grpc.read("t", 0, 0).await.unwrap()), [""; 0]);
}
