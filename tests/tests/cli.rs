//! The command line as a script sees it: exit codes, output for programs, pipes and signals.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::Stdio,
};

use millstream_tests::{Agent, Setup, modules, run};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// The code of a command that was used wrongly, and of one that Ctrl-C ended.
const USAGE: Option<i32> = Some(2);
const INTERRUPTED: Option<i32> = Some(130);

fn json_lines(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn exit_codes_tell_success_failure_and_wrong_use_apart() {
    let agent = Agent::start();
    assert_eq!(run(["--version"]).code, Some(0));
    assert_eq!(run(["--help"]).code, Some(0));
    assert_eq!(run(["topic"]).code, USAGE);
    assert_eq!(run(["topic", "crate", "t"]).code, USAGE);
    assert_eq!(agent.cli(["topic", "create", "t", "--partitions", "-1"]).code, USAGE);
    assert_eq!(agent.cli(["consume", "t", "--from", "yesterday"]).code, USAGE);
    assert_eq!(agent.cli(["topic", "show", "t"]).code, Some(1));
    assert_eq!(agent.cli(["topic", "create", "t"]).code, Some(0));
    assert_eq!(agent.cli(["topic", "show", "t"]).code, Some(0));
    assert_eq!(agent.cli(["produce", "t", "--file", "/no/such/file"]).code, Some(1));
}

#[test]
fn a_missing_agent_is_told_with_how_to_start_one() {
    let setup = Agent::start().kill9();
    drop(setup);
    let error = run(["topic", "list", "--server", "http://127.0.0.1:1"]).error();
    assert!(error.contains("no agent answers at http://127.0.0.1:1"), "{error}");
    assert!(error.contains("millstream serve"), "{error}");
}

#[test]
fn every_result_is_json_where_a_program_asks_for_it() {
    let agent = Agent::start();
    let json = |args: &[&str]| agent.cli(args.iter().chain(&["--output", "json"])).json();

    let created = json(&[
        "topic",
        "create",
        "t",
        "--partitions",
        "2",
        "--retention",
        "168h",
        "--compression",
        "zstd",
    ]);
    assert_eq!((&created["name"], &created["partitions"]), (&json!("t"), &json!(2)));
    assert_eq!(
        (&created["retention_ms"], &created["compression"]),
        (&json!(604_800_000), &json!("zstd"))
    );
    assert_eq!(json(&["topic", "list"]).as_array().unwrap().len(), 1);
    let file = modules::file("json-filter");
    let deployed = json(&["module", "deploy", file.to_str().unwrap()]);
    assert_eq!(
        (&deployed["name"], &deployed["version"]),
        (&json!("json-filter"), &json!(1))
    );
    assert_eq!(deployed["created"], json!(true));
    assert_eq!(
        json(&["module", "deploy", file.to_str().unwrap()])["created"],
        json!(false)
    );
    assert_eq!(json(&["module", "list"]).as_array().unwrap().len(), 1);
    let added = json(&[
        "pipeline",
        "add",
        "t",
        "json-filter@1",
        "--on",
        "produce",
        "--param",
        "where=$.a >= 1",
    ]);
    assert_eq!(added, json(&["pipeline", "show", "t"]));
    assert!(added.to_string().contains("$.a >= 1"), "{added}");
    json(&["pipeline", "remove", "t", "0", "--on", "produce"]);
    let shown = json(&["topic", "show", "t"]);
    assert_eq!(shown["status"].as_array().unwrap().len(), 2);
    assert_eq!(json(&["topic", "delete", "t"]), json!({"deleted": "t"}));
    assert_eq!(json(&["topic", "list"]), json!([]));
}

#[test]
fn tables_are_for_people() {
    let agent = Agent::start();
    agent.cli(["topic", "create", "orders", "--partitions", "3"]).ok();
    let table = agent.cli(["topic", "list"]).text();
    assert!(table.contains("│ orders"), "{table}");
}

#[test]
fn lines_of_standard_input_become_records_and_come_back() {
    let agent = Agent::start();
    agent.cli(["topic", "create", "t"]).ok();
    let lines = b"one\n\ntwo\r\n\xff\xfe\nlast";
    let summary = agent.cli_reading(["produce", "t", "--output", "json"], lines).json();
    assert_eq!((&summary["records"], &summary["stored"]), (&json!(5), &json!(5)));

    assert_eq!(agent.cli(["consume", "t"]).ok(), b"one\n\ntwo\n\xff\xfe\nlast\n");
    assert_eq!(agent.cli(["consume", "t", "--from", "2", "--max", "1"]).ok(), b"two\n");
    assert_eq!(agent.cli(["consume", "t", "--from", "latest"]).ok(), b"");
    assert_eq!(agent.cli(["consume", "t", "--max", "0"]).ok(), b"");

    let records = json_lines(&agent.cli(["consume", "t", "--format", "json"]).text());
    let keys: Vec<&String> = records[0].as_object().unwrap().keys().collect();
    let mut expected = ["topic", "partition", "offset", "timestamp", "key", "value", "headers"];
    expected.sort_unstable();
    assert_eq!(keys, expected);
    assert_eq!(
        (&records[0]["topic"], &records[0]["value"]),
        (&json!("t"), &json!("one"))
    );
    assert_eq!((&records[0]["key"], &records[0]["headers"]), (&Value::Null, &json!([])));
    assert_eq!(records[3]["value_base64"], "//4=");
    assert_eq!(records[3].get("value"), None);
    let offsets: Vec<u64> = records
        .iter()
        .map(|record| record["offset"].as_u64().unwrap())
        .collect();
    assert_eq!(offsets, [0, 1, 2, 3, 4]);
}

#[test]
fn keys_choose_the_partition() {
    let agent = Agent::start();
    agent.cli(["topic", "create", "t", "--partitions", "4"]).ok();
    let input: String = (0..200)
        .map(|n| format!("{{\"user\":\"u{}\",\"n\":{n}}}\n", n % 10))
        .collect();
    agent
        .cli_reading(["produce", "t", "--key-field", "user"], input.as_bytes())
        .ok();

    let records = json_lines(&agent.cli(["consume", "t", "--format", "json"]).text());
    assert_eq!(records.len(), 200);
    for user in 0..10 {
        let key = format!("u{user}");
        let own: Vec<_> = records.iter().filter(|record| record["key"] == key.as_str()).collect();
        assert_eq!(own.len(), 20);
        assert!(own.iter().all(|record| record["partition"] == own[0]["partition"]));
        let numbers: Vec<u64> = own
            .iter()
            .map(|record| {
                let value: Value = serde_json::from_str(record["value"].as_str().unwrap()).unwrap();
                value["n"].as_u64().unwrap()
            })
            .collect();
        assert!(numbers.is_sorted());
    }
    let error = agent
        .cli_reading(["produce", "t", "--key-field", "user"], b"{\"user\":1}\n{}\n")
        .error();
    assert!(error.contains("line 2: it has no field \"user\""), "{error}");
}

#[test]
fn a_reader_that_has_enough_ends_a_consumer_quietly() {
    let agent = Agent::start();
    agent.cli(["topic", "create", "t"]).ok();
    let input: Vec<u8> = (0..200_000).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    agent.cli_reading(["produce", "t"], &input).ok();

    for follow in [&[][..], &["--follow"]] {
        let mut command = agent.client([&["consume", "t"], follow].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut first)
            .unwrap();
        assert_eq!(first, "0\n");
        // The pipe is closed here, as `head -n 1` does.
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(0));
        assert_eq!(String::from_utf8(ended.stderr).unwrap(), "");
    }
}

#[test]
fn following_goes_on_with_new_records_until_ctrl_c() {
    let agent = Agent::start();
    agent.cli(["topic", "create", "t"]).ok();
    agent.cli_reading(["produce", "t"], b"before\n").ok();
    let mut child = agent
        .client(["consume", "t", "--follow"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut next = || {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        line
    };
    assert_eq!(next(), "before\n");
    for n in 0..3 {
        agent
            .cli_reading(["produce", "t"], format!("after {n}\n").as_bytes())
            .ok();
        assert_eq!(next(), format!("after {n}\n"));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn ctrl_c_ends_a_producer_after_what_it_read_has_gone_out() {
    let agent = Agent::start();
    agent.cli(["topic", "create", "t"]).ok();
    let mut follower = agent
        .client(["consume", "t", "--follow"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut producer = agent
        .client(["produce", "t"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = producer.stdin.take().unwrap();
    input.write_all(b"one\ntwo\n").unwrap();
    // Both have gone out, though the input is still open.
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "one");
    assert_eq!(lines.next().unwrap().unwrap(), "two");
    kill_process(Pid::from_child(&producer), Signal::INT).unwrap();
    let ended = producer.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), INTERRUPTED);
    let out = String::from_utf8(ended.stdout).unwrap();
    assert!(out.contains("2 records acknowledged"), "{out}");
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn a_producer_whose_agent_is_gone_gives_up_soon_and_tells_what_was_acknowledged() {
    let agent = Agent::start();
    agent.cli(["topic", "create", "t"]).ok();
    let follow = |args: &[&str]| {
        let mut command = agent.client(args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let mut follower = follow(&["consume", "t", "--follow"]);
    let mut producer = follow(&["produce", "t", "--retry-for", "300ms"]);
    let mut input = producer.stdin.take().unwrap();
    input.write_all(b"one\ntwo\n").unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "one");
    assert_eq!(lines.next().unwrap().unwrap(), "two");
    agent.kill9();
    input.write_all(b"three\n").unwrap();
    drop(input);
    let ended = producer.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let error = String::from_utf8(ended.stderr).unwrap();
    assert!(error.contains("2 of the 3 records sent were acknowledged"), "{error}");
    assert!(error.contains("the first that was not is line 3"), "{error}");
    follower.kill().unwrap();
    follower.wait().unwrap();
}

/// The segment files of a data folder.
fn segments(setup: &Setup, topic: &str) -> Vec<PathBuf> {
    let folder = setup.data_dir().join("objects").join(topic).join("0");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

#[test]
fn a_segment_dump_shows_what_was_produced() {
    let agent = Agent::start();
    agent.cli(["topic", "create", "t", "--compression", "lz4"]).ok();
    let input: Vec<u8> = (0..5_000).flat_map(|n| format!("record {n}\n").into_bytes()).collect();
    agent.cli_reading(["produce", "t"], &input).ok();
    let setup = agent.terminate();

    let files = segments(&setup, "t");
    assert_eq!(files.len(), 1);
    let file = files[0].to_str().unwrap();
    let dump = run(["segment", "dump", file, "--output", "json"]).json();
    assert_eq!((&dump["base_offset"], &dump["end_offset"]), (&json!(0), &json!(5_000)));
    assert_eq!((&dump["record_count"], &dump["partition"]), (&json!(5_000), &json!(0)));
    assert!(dump["stored_bytes"].as_u64() < dump["raw_bytes"].as_u64());
    assert_eq!(dump["blocks"][0]["codec"], "lz4");
    let text = run(["segment", "dump", file]).text();
    assert!(text.contains("0 to 5000") && text.contains("5,000"), "{text}");

    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = setup.folder().join("damaged.bin");
    fs::write(&damaged, bytes).unwrap();
    let error = run(["segment", "dump", damaged.to_str().unwrap()]).error();
    assert!(error.contains("damaged.bin") && error.contains("crc"), "{error}");
}

#[test]
fn settings_of_a_topic_change_and_the_rest_stays() {
    let agent = Agent::start();
    let json = |args: &[&str]| agent.cli(args.iter().chain(&["--output", "json"])).json();
    let created = json(&[
        "topic",
        "create",
        "t",
        "--retention-bytes",
        "5000",
        "--segment-age",
        "1m",
    ]);
    assert_eq!(
        (&created["retention_bytes"], &created["segment_age_ms"]),
        (&json!(5_000), &json!(60_000))
    );
    let altered = json(&["topic", "alter", "t", "--retention", "1h", "--compression", "zstd"]);
    let mut expected = created;
    expected["retention"] = json!("1h");
    expected["retention_ms"] = json!(3_600_000);
    expected["compression"] = json!("zstd");
    assert_eq!(altered, expected);
    let altered = json(&[
        "topic",
        "alter",
        "t",
        "--retention-bytes",
        "forever",
        "--segment-bytes",
        "1000000",
    ]);
    expected["retention_bytes"] = Value::Null;
    expected["segment_bytes"] = json!(1_000_000);
    assert_eq!(altered, expected);
    let altered = json(&[
        "topic",
        "alter",
        "t",
        "--partitions",
        "3",
        "--timestamps",
        "append",
        "--acks",
        "memory",
        "--record-bytes-max",
        "1000",
    ]);
    expected["partitions"] = json!(3);
    expected["timestamps"] = json!("append");
    expected["acks"] = json!("memory");
    expected["record_bytes_max"] = json!(1_000);
    assert_eq!(altered, expected);
    agent.cli_reading(["produce", "t", "--partition", "2"], b"a\n").ok();
    agent.cli_reading(["produce", "t", "--acks", "durable"], b"b\n").ok();
    let too_large = agent.cli_reading(["produce", "t"], &[b'x'; 1_001]);
    let error = too_large.error();
    assert!(error.contains("1000"), "{error}");
    let agent = agent.restart();
    let list = agent.cli(["topic", "list", "--output", "json"]).json();
    assert_eq!(list, json!([expected]));
}

#[test]
fn old_records_are_let_go_of_by_offset_and_by_time() {
    let agent = Agent::start();
    agent.cli(["topic", "create", "t"]).ok();
    let consume = |from: &str| agent.cli(["consume", "t", "--from", from]).text();
    let truncate = |before: &str| {
        let ran = agent.cli(["topic", "truncate", "t", "--before", before, "--output", "json"]);
        ran.json()[0]["log_start_offset"].clone()
    };
    agent.cli_reading(["produce", "t"], b"a\nb\nc\n").ok();
    assert_eq!(truncate("1"), json!(1));
    assert_eq!(consume("earliest"), "b\nc\n");
    // What is gone already is no error.
    assert_eq!(truncate("0"), json!(1));

    // Nothing is younger than the year 3000, and everything is than 1970.
    assert_eq!(consume("@3000-01-01"), "");
    assert_eq!(consume("@1970-01-01T00:00:00Z"), "b\nc\n");
    assert_eq!(consume("@0"), "b\nc\n");
    assert_eq!(truncate("@1970-01-01"), json!(1));
    assert_eq!(truncate("@3000-01-01"), json!(3));
    assert_eq!(consume("earliest"), "");
    let table = agent.cli(["topic", "truncate", "t", "--before", "3"]).text();
    assert!(table.contains("from"), "{table}");

    agent.cli_reading(["produce", "t"], b"d\n").ok();
    let agent = agent.restart();
    assert_eq!(agent.cli(["consume", "t"]).text(), "d\n");
}

#[test]
fn doctor_looks_at_everything_an_agent_relies_on() {
    let setup = Setup::new();
    let findings = setup.doctor(["--output", "json"]).json();
    let findings = findings.as_array().unwrap();
    assert!(findings.iter().all(|finding| finding["ok"] == true), "{findings:?}");
    for check in [
        "gRPC address",
        "data folder",
        "free space",
        "write-ahead log",
        "database",
        "store: delete",
    ] {
        assert!(
            findings.iter().any(|finding| finding["check"] == check),
            "{check}: {findings:?}"
        );
    }
    // It leaves nothing in the way of an agent, and does not mind one that runs.
    let agent = setup.start();
    let table = setup.doctor::<&str>([]).text();
    assert!(
        table.contains("an agent is running in it") && !table.contains("FAILED"),
        "{table}"
    );
    agent.terminate();

    let ran = setup.flag("--http").flag("256.0.0.1:1").doctor(["--output", "json"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("1 of"), "{}", ran.stderr);
}

#[test]
fn an_agent_shows_its_figures() {
    let agent = Agent::start();
    agent.cli(["topic", "create", "t"]).ok();
    assert_eq!(agent.metric("millstream_acknowledged_not_stored_bytes"), 0.0);
    agent.cli_reading(["produce", "t"], b"a\nb\n").ok();
    assert!(agent.metric("millstream_acknowledged_not_stored_bytes") > 0.0);
    assert!(agent.metric("millstream_wal_groups_total") >= 1.0);
    assert!(agent.metric("millstream_resident_bytes") > 1e6);
    assert_eq!(agent.metric("millstream_open_partitions"), 1.0);
    assert!(agent.metric("millstream_connections") <= 1.0);
    assert_eq!(agent.metric("millstream_request_bytes"), 0.0);
    assert_eq!(agent.metric("millstream_fetch_bytes"), 0.0);
    assert_eq!(agent.metric("millstream_requests_refused_total"), 0.0);
}

#[test]
fn an_agent_says_over_http_that_it_lives_and_takes_requests() {
    let agent = Agent::start();
    assert_eq!(agent.get("/healthz"), (200, "alive\n".to_owned()));
    assert_eq!(agent.get("/readyz"), (200, "ready\n".to_owned()));
}

#[test]
fn the_log_is_lines_of_json_where_a_program_reads_it() {
    let log = Setup::new().flag("--log-format").flag("json").log_until("\"serving\"");
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        for field in ["timestamp", "level", "target", "message"] {
            assert!(line[field].is_string(), "{field}: {line}");
        }
        assert!(line["target"].as_str().unwrap().starts_with("millstream"), "{line}");
    }
    let refused = Setup::new().flag("--log-format").flag("xml").try_start().unwrap_err();
    assert!(refused.error().contains("neither text nor json"), "{}", refused.error());
}
