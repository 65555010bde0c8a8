//! Stores, logs and bounds that cannot be used, and places in a partition that do not exist.

use millstream_tests::{Agent, Setup, record};
use tonic::Code;

use crate::{assert_refused, assert_says};

/// A port where nobody listens: it was free a moment ago, and below those that the system chooses.
const NOBODY: &str = "http://127.0.0.1:1";

#[test]
fn a_store_that_is_no_store_is_refused_with_what_is() {
    for (url, words) in [
        ("s3:/logs", &["store", "s3:/logs", "s3://BUCKET/PREFIX"][..]),
        ("s3://", &["store", "no bucket name"]),
        ("s3://Upper_case/x", &["store", "Upper_case", "no bucket name"]),
        ("s3://logs/../x", &["store", "prefix"]),
        ("gs://logs", &["store", "gs://logs", "file:PATH"]),
    ] {
        let ended = Setup::new().flag("--store").flag(url).try_start().expect_err(url);
        assert_says(ended.error(), words);
        let ran = Setup::new().doctor(["--store", url]);
        assert_eq!(ran.code, Some(1));
        assert_says(&ran.error(), words);
    }
}

#[test]
fn credentials_that_are_half_there_are_named() {
    let half = Setup::new()
        .env("MILLSTREAM_STORE", "s3://logs")
        .env("MILLSTREAM_S3_ACCESS_KEY_ID", "key");
    let ended = half.try_start().expect_err("there is no secret key");
    assert_says(ended.error(), &["s3_secret_access_key", "missing"]);

    let absent = Setup::new()
        .env("MILLSTREAM_STORE", "s3://logs")
        .env("MILLSTREAM_S3_CREDENTIALS_FILE", "/no/such/file");
    let ended = absent.try_start().expect_err("there is no such file");
    assert_says(ended.error(), &["s3_credentials_file", "/no/such/file"]);
}

#[test]
fn an_endpoint_that_is_no_url_is_refused() {
    for (endpoint, words) in [
        ("minio:9000", &["minio:9000", "http://"][..]),
        ("http://", &["http://"]),
        ("http://a b", &["names no host"]),
        ("http://1.2.3", &["names no host"]),
        ("http://minio:many", &["names no host"]),
        ("http://127.0.0.1:9000", &["127.0.0.1:9000", "s3_path_style = true"]),
        ("http://[::1]:9000", &["[::1]:9000", "s3_path_style = true"]),
    ] {
        let setup = Setup::new()
            .env("MILLSTREAM_STORE", "s3://logs")
            .env("MILLSTREAM_S3_ENDPOINT", endpoint);
        let ended = setup.try_start().expect_err(endpoint);
        assert_says(ended.error(), &["s3_endpoint"]);
        assert_says(ended.error(), words);
    }
}

#[test]
fn doctor_tells_of_an_endpoint_that_nobody_answers() {
    let setup = Setup::new()
        .env("MILLSTREAM_STORE", "s3://logs")
        .env("MILLSTREAM_S3_ENDPOINT", NOBODY)
        .env("MILLSTREAM_S3_PATH_STYLE", true)
        .env("MILLSTREAM_S3_ACCESS_KEY_ID", "key")
        .env("MILLSTREAM_S3_SECRET_ACCESS_KEY", "key");
    let ran = setup.doctor(["--output", "json"]);
    assert_eq!(ran.code, Some(1));
    assert_says(&ran.stderr, &["checks failed"]);
    let findings: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    let failed: Vec<_> = findings
        .as_array()
        .unwrap()
        .iter()
        .filter(|f| f["ok"] == false)
        .collect();
    assert!(failed.iter().all(|f| f["check"].as_str().unwrap().starts_with("store")));
    assert_says(
        failed[0]["seen"].as_str().unwrap(),
        &["s3://logs", "nobody answers", "s3_endpoint"],
    );
}

#[test]
fn a_log_in_a_store_that_nobody_answers_is_told_with_what_to_run() {
    let setup = Setup::new()
        .env("MILLSTREAM_STORE", "s3://logs")
        .env("MILLSTREAM_WAL", "object")
        .env("MILLSTREAM_S3_ENDPOINT", NOBODY)
        .env("MILLSTREAM_S3_PATH_STYLE", true)
        .env("MILLSTREAM_S3_ACCESS_KEY_ID", "key")
        .env("MILLSTREAM_S3_SECRET_ACCESS_KEY", "key");
    let ended = setup.try_start().expect_err("there is no store");
    assert_says(
        ended.error(),
        &["the store s3://logs does not answer", "millstream doctor"],
    );
}

#[test]
fn a_kind_of_log_that_does_not_exist_is_refused() {
    let ended = Setup::new()
        .env("MILLSTREAM_WAL", "tape")
        .try_start()
        .expect_err("no tape");
    assert_says(ended.error(), &["wal", "\"tape\"", "disk", "object"]);
}

#[test]
fn bounds_that_are_too_small_are_refused_with_the_least() {
    for (name, key, least) in [
        ("MILLSTREAM_CONNECTION_BYTES_MAX", "connection_bytes_max", "20971520"),
        ("MILLSTREAM_IN_FLIGHT_BYTES_MAX", "in_flight_bytes_max", "20971520"),
        ("MILLSTREAM_FETCH_BYTES_MAX", "fetch_bytes_max", "33554432"),
        ("MILLSTREAM_CONNECTIONS_MAX", "connections_max", "1"),
        ("MILLSTREAM_UPLOADS_MAX", "uploads_max", "1"),
        ("MILLSTREAM_WAL_BYTES_MAX", "wal_bytes_max", "2097152"),
        ("MILLSTREAM_WAL_FLUSH_BYTES", "wal_flush_bytes", "65536"),
        ("MILLSTREAM_WAL_FLUSH_INTERVAL_MS", "wal_flush_interval_ms", "1"),
        ("MILLSTREAM_SEGMENT_ENTRIES_MAX", "segment_entries_max", "1"),
        ("MILLSTREAM_TAIL_BYTES_MAX", "tail_bytes_max", "20971520"),
    ] {
        let ended = Setup::new().env(name, 0).try_start().expect_err(name);
        assert_says(
            ended.error(),
            &[key, "0 is too small", &format!("the least is {least}")],
        );
    }
}

#[test]
fn bounds_that_are_too_large_are_refused_with_the_most() {
    for (name, key) in [
        ("MILLSTREAM_UPLOADS_MAX", "uploads_max"),
        ("MILLSTREAM_CONNECTIONS_MAX", "connections_max"),
        ("MILLSTREAM_SEGMENT_BYTES", "segment_bytes"),
        ("MILLSTREAM_WAL_FILE_BYTES", "wal_file_bytes"),
        ("MILLSTREAM_WAL_FLUSH_BYTES", "wal_flush_bytes"),
        ("MILLSTREAM_WAL_PUTS_MAX", "wal_puts_max"),
        ("MILLSTREAM_FETCH_BYTES_MAX", "fetch_bytes_max"),
        ("MILLSTREAM_TAIL_BYTES_MAX", "tail_bytes_max"),
        ("MILLSTREAM_INDEX_CACHE_BYTES", "index_cache_bytes"),
        ("MILLSTREAM_ORPHAN_GRACE_MS", "orphan_grace_ms"),
        ("MILLSTREAM_MODULE_DEADLINE_MS", "module_deadline_ms"),
        ("MILLSTREAM_MODULE_THREADS", "module_threads"),
    ] {
        let ended = Setup::new().env(name, i64::MAX).try_start().expect_err(name);
        assert_says(ended.error(), &[key, "is too large, the most is"]);
    }
}

#[test]
fn grpc_and_http_on_one_address_are_refused() {
    let one = "127.0.0.1:7070";
    let setup = Setup::new().env("MILLSTREAM_LISTEN", one).env("MILLSTREAM_HTTP", one);
    assert_says(setup.try_start().expect_err(one).error(), &["http", one, "gRPC"]);
}

#[tokio::test]
async fn places_in_a_partition_that_do_not_exist_are_refused() {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 2).await.unwrap();
    grpc.produce("t", 0, vec![record("a"), record("b")]).await.unwrap();

    let error = agent
        .cli(["topic", "truncate", "t", "--partition", "0", "--before", "3"])
        .error();
    assert_says(&error, &["offset 3 is out of range", "\"t\"", "2"]);
    let error = agent.cli(["topic", "truncate", "t", "--before", "1"]).error();
    assert_says(&error, &["--partition", "0 to 1"]);
    let error = agent
        .cli(["topic", "truncate", "t", "--partition", "7", "--before", "0"])
        .error();
    assert_says(&error, &["not 7"]);
    for command in [
        &["topic", "truncate", "t", "--before", "@nonsense"][..],
        &["consume", "t", "--from", "@nonsense"],
    ] {
        let ran = agent.cli(command);
        assert_eq!(ran.code, Some(2));
        assert_says(&ran.stderr, &["\"nonsense\" is no time", "@2026-01-23T15:00:00Z"]);
    }
    for command in [
        &["topic", "create", "x", "--retention-bytes", "0"][..],
        &["topic", "create", "x", "--retention-bytes", "much"],
        &["topic", "alter", "t", "--segment-bytes", "-1"],
        &["topic", "alter", "t", "--segment-age", "soon"],
        &["topic", "alter", "t", "--compression", "gzip"],
    ] {
        assert_eq!(agent.cli(command).code, Some(2), "{command:?}");
    }
    let error = agent.cli(["topic", "alter", "t"]).error();
    assert_says(&error, &["nothing to change", "--retention"]);
    let error = agent.cli(["topic", "alter", "absent", "--retention", "1h"]).error();
    assert_says(&error, &["no topic \"absent\""]);
    for setting in ["--segment-bytes", "--segment-age"] {
        let value = if setting == "--segment-age" { "0s" } else { "0" };
        let error = agent.cli(["topic", "alter", "t", setting, value]).error();
        assert_says(&error, &["segment_", "is 0", "allowed are"]);
    }
    let request = millstream_proto::v1::TruncateTopicRequest {
        name: "t".to_owned(),
        partition: 0,
        before_offset: u64::MAX,
    };
    assert_refused(
        grpc.topics().truncate_topic(request).await,
        Code::OutOfRange,
        &["out of range"],
    );
    grpc.assert_serves("u").await;
}
