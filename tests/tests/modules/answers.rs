//! Modules whose answers are wrong, and answers that only look wrong.

use bytes::Bytes;
use millstream_proto::v1::{
    OnError,
    PipelineSide::{Fetch, Produce},
};
use millstream_tests::{record, wat, wat::Parts};
use tonic::Code;

use crate::{Mill, assert_refused};

/// Milliseconds from the Unix epoch back to the year 0.
const YEAR_0_MS: i64 = -62_167_219_200_000;

/// A million headers, of two bytes each.
const A_MILLION_HEADERS: &str = "(local $at i32) (local.set $at (i32.const 1048592))
    (loop $l (i64.store (local.get $at) (i64.const 0x0100010001000100))
      (local.set $at (i32.add (local.get $at) (i32.const 8))) (br_if $l (i32.lt_u (local.get $at) (i32.const 3048592))))
    (memory.copy (i32.const 1048580) (i32.const 5000) (i32.const 12)) (i32.store (i32.const 4096) (i32.const 1))
    (call $rewrite (i32.const 4096) (local.get $count) (i32.const 1048580) (i32.const 2000012))";

fn varint(n: i64) -> Vec<u8> {
    let mut left = ((n << 1) ^ (n >> 63)) as u64;
    let mut bytes = Vec::new();
    while left >= 0x80 {
        bytes.push(left as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
    bytes
}

/// Attributes, timestamp delta, offset delta, no key, a value that says it has `value_len` bytes, `headers` of them; behind
/// a length that says `len`, or is right.
fn encoded(timestamp: i64, offset: i64, value: &[u8], value_len: i64, headers: i64, len: Option<i64>) -> Vec<u8> {
    let parts = [
        &[0][..],
        &varint(timestamp),
        &varint(offset),
        &varint(-1),
        &varint(value_len),
        value,
        &varint(headers),
    ]
    .concat();
    [varint(len.unwrap_or(parts.len() as i64)), parts].concat()
}

fn plain(timestamp: i64, offset: i64) -> Vec<u8> {
    encoded(timestamp, offset, b"made", 4, 0, None)
}

fn wrong() -> Vec<(&'static str, Bytes, &'static str)> {
    let many = Parts {
        items: r#"(data (i32.const 5000) "\90\92\f4\01\00\00\00\01\01\80\89\7a")"#,
        process: A_MILLION_HEADERS,
        ..Parts::default()
    };
    let truncated = plain(0, 0);
    vec![
        ("bitmap", wat::module(wat::KEEPS_TOO_MANY), "a bitmap of"),
        // The value ends behind the record.
        (
            "overlapping",
            wat::answers(&encoded(0, 0, b"made", 400, 0, None)),
            "a record made of record 0",
        ),
        (
            "short",
            wat::answers(&encoded(0, 0, b"made", 4, 0, Some(3))),
            "a record made of record 0",
        ),
        (
            "truncated",
            wat::answers(&truncated[..truncated.len() - 2]),
            "a record made of record 0",
        ),
        (
            "huge",
            wat::answers(&encoded(0, 0, b"", 0, 0, Some(i64::MAX))),
            "a record made of record 0",
        ),
        (
            "negative",
            wat::answers(&encoded(0, 0, b"", 0, 0, Some(-5))),
            "a record made of record 0",
        ),
        (
            "huge-value",
            wat::answers(&encoded(0, 0, b"", i64::from(i32::MAX), 0, None)),
            "a record made of record 0",
        ),
        (
            "says-headers",
            wat::answers(&encoded(0, 0, b"", 0, 1_000_000, None)),
            "a record made of record 0",
        ),
        ("has-headers", many.module(), "the module returned"),
        (
            "behind",
            wat::answers(&[plain(0, 0), plain(0, 1)].concat()),
            "bytes after the last record",
        ),
        ("no-time", wat::answers(&plain(i64::MAX, 0)), "timestamp out of range"),
    ]
}

#[tokio::test]
async fn a_wrong_answer_fails_its_request_and_nothing_of_it_is_stored() {
    let mut mill = Mill::start().await;
    for (name, module, words) in wrong() {
        mill.topic_through(name, module, Produce, OnError::Unspecified).await;
        let records = (0..20).map(|n| record(format!("lost {n}"))).collect();
        let produced = mill.grpc.produce(name, 0, records).await;
        assert_refused(produced, Code::Aborted, &["nothing was stored", words]);
        mill.grpc.remove_stage(name, Produce).await.unwrap();
        mill.grpc.produce(name, 0, vec![record("after")]).await.unwrap();
        assert_eq!(mill.values(name, 0).await, ["before", "after"], "{name}");
        mill.assert_calm().await;
    }
}

#[tokio::test]
async fn a_wrong_answer_on_fetch_is_never_seen() {
    let mut mill = Mill::start().await;
    for (name, module, words) in wrong() {
        mill.grpc.create_topic(name, 1).await.unwrap();
        let records: Vec<_> = (0..20).map(|n| record(n.to_string())).collect();
        mill.grpc.produce(name, 0, records).await.unwrap();
        mill.grpc.deploy(name, module).await.unwrap();
        mill.add(name, Fetch, crate::stage(name, OnError::Halt)).await.unwrap();
        let fetched = mill.grpc.fetch(name, 0, 0).await;
        assert_refused(fetched, Code::Aborted, &["failed on fetch at offset 0", words]);
        mill.grpc.remove_stage(name, Fetch).await.unwrap();
        assert_eq!(mill.values(name, 0).await.len(), 20);
        mill.assert_calm().await;
    }
}

#[tokio::test]
async fn offsets_that_come_back_are_ignored_and_every_time_that_there_was_is_kept() {
    let mut mill = Mill::start().await;
    let base_ms = 1_700_000_000_000;
    for (name, timestamp, offset) in [
        ("backwards", 0, -7),
        ("far", 0, i64::from(i32::MAX)),
        ("year-0", YEAR_0_MS - base_ms, 0),
    ] {
        mill.topic_through(
            name,
            wat::answers(&plain(timestamp, offset)),
            Produce,
            OnError::Unspecified,
        )
        .await;
        for expected in 1..3 {
            let mut made = record("v");
            made.timestamp_ms = Some(base_ms);
            let answer = mill.grpc.produce(name, 0, vec![made]).await.unwrap();
            assert_eq!((answer.base_offset, answer.record_count), (expected, 1), "{name}");
        }
        let read = mill.grpc.read(name, 0, 1).await.unwrap();
        let found: Vec<_> = read.iter().map(|record| (record.offset, record.timestamp_ms)).collect();
        assert_eq!(
            found,
            [(1, Some(base_ms + timestamp)), (2, Some(base_ms + timestamp))],
            "{name}"
        );
        assert_eq!(mill.values(name, 0).await, ["before", "made", "made"]);
        // What is stored is found after it became a segment, too.
        mill.grpc.partitions(name, true).await.unwrap();
        assert_eq!(mill.values(name, 0).await, ["before", "made", "made"]);
    }
    mill.assert_calm().await;
}
