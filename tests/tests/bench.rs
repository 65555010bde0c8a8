//! `millstream bench` against a real agent: it counts what it sends, checks what it reads, and leaves nothing behind.

use millstream_tests::{Agent, modules};
use serde_json::{Value, json};

fn bench(agent: &Agent, args: &[&str]) -> Value {
    let metrics = agent.http_address();
    let more = ["--metrics", metrics, "--output", "json"];
    agent.cli(["bench"].iter().chain(args).chain(&more)).json()
}

/// No topic of a run is left.
fn check_clean(agent: &Agent) {
    assert_eq!(agent.cli(["topic", "list", "--output", "json"]).json(), json!([]));
}

#[test]
fn what_is_sent_is_counted_checked_and_deleted() {
    let agent = Agent::start();
    let args = ["produce", "--records", "20001", "--partitions", "3", "--producers", "2"];
    let report = bench(
        &agent,
        &[&args[..], &["--batch-bytes", "10000", "--compression", "lz4"]].concat(),
    );
    let [produced, checked] = report["figures"].as_array().unwrap().as_slice() else {
        panic!("{report}")
    };
    for (figures, what) in [(produced, "produced"), (checked, "checked")] {
        assert_eq!((&figures["what"], &figures["records"]), (&json!(what), &json!(20_001)));
        assert_eq!(figures["bytes"], 2_000_100);
        for positive in [
            "records_per_second",
            "server_cpu_seconds_per_million",
            "server_resident_bytes",
        ] {
            assert!(figures[positive].as_f64().unwrap() > 0.0, "{positive}: {figures}");
        }
    }
    assert!(produced["latencies"][0]["p99_ms"].as_f64() >= produced["latencies"][0]["p50_ms"].as_f64());
    let settings = &report["settings"];
    assert_eq!(
        (&settings["acks"], &settings["compression"]),
        (&json!("durable"), &json!("lz4"))
    );
    assert!(report["machine"]["sync"]["p50_ms"].as_f64().unwrap() > 0.0);
    check_clean(&agent);
}

#[test]
fn what_was_sent_is_read_twice_also_from_lines_of_a_file() {
    let agent = Agent::start();
    let file = agent.setup().folder().join("values");
    std::fs::write(&file, "one\n\nthree and more\n").unwrap();
    let file = file.to_str().unwrap();
    let report = bench(
        &agent,
        &[
            "consume",
            "--records",
            "5000",
            "--values-from",
            file,
            "--batch-bytes",
            "900",
        ],
    );
    let read: Vec<_> = report["figures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|figures| &figures["what"])
        .collect();
    assert_eq!(read, ["consumed", "consumed again"]);
    assert_eq!(report["figures"][1]["records"], 5_000);
    check_clean(&agent);
}

#[test]
fn single_records_are_timed_to_their_acknowledgement_and_to_their_reader() {
    let agent = Agent::start();
    let report = bench(
        &agent,
        &["e2e", "--records", "300", "--rate", "1000", "--partitions", "2"],
    );
    let figures = &report["figures"][0];
    let timed: Vec<_> = figures["latencies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|timed| &timed["what"])
        .collect();
    assert_eq!(timed, ["to the acknowledgement", "to the reader"]);
    // 300 at 1,000 a second take a third of a second.
    assert!(figures["seconds"].as_f64().unwrap() > 0.25, "{figures}");
    check_clean(&agent);
}

#[test]
fn a_module_is_measured_beside_its_absence() {
    let agent = Agent::start();
    let module = modules::file("sample");
    assert_eq!(
        agent
            .cli(["module", "deploy", module.to_str().unwrap(), "--name", "m"])
            .code,
        Some(0)
    );
    let args = [
        "pipeline",
        "--records",
        "2000",
        "--module",
        "m@1",
        "--param",
        "one_in=2",
    ];
    let report = bench(&agent, &args);
    assert_eq!(report["figures"].as_array().unwrap().len(), 4, "{report}");
    check_clean(&agent);
    let error = agent
        .cli(["bench", "pipeline", "--module", "nobody", "--records", "1"])
        .error();
    assert!(error.contains("nobody"), "{error}");
    check_clean(&agent);
}

#[test]
fn a_wrong_setting_is_refused_with_those_that_are_allowed() {
    let agent = Agent::start();
    for (args, says) in [
        (
            &["produce", "--value-bytes", "7"][..],
            "--value-bytes is 7; allowed are 8 to 1048576",
        ),
        (&["produce", "--records", "0"], "--records is 0; allowed are 1 to"),
        (&["consume", "--producers", "2"], "--producers is 2; allowed are 1 to 1"),
        (&["consume", "--in-flight", "6"], "allowed are 1 to 5"),
        (&["e2e", "--rate", "0"], "--rate is 0; allowed are 1 to"),
        (&["consume", "--values-from", "/no/such/file"], "/no/such/file"),
    ] {
        let error = agent.cli(["bench"].iter().chain(args)).error();
        assert!(error.contains(says), "{error}");
    }
    check_clean(&agent);
    // Without the agent's metrics the rest is measured all the same.
    let args = [
        "bench",
        "produce",
        "--records",
        "100",
        "--metrics",
        "127.0.0.1:1",
        "--output",
        "json",
    ];
    assert_eq!(
        agent.cli(args).json()["figures"][0]["server_resident_bytes"],
        Value::Null
    );
}
