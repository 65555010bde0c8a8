//! Real input through the ready-made modules, checked against what the file itself says, read here without them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use millstream_tests::{Agent, modules, shared_data, skip};
use serde_json::Value;

const UNPARSED_HEADER: &str = "millstream-unparsed";

/// What a log file holds.
#[derive(Debug, Default, PartialEq)]
struct Facts {
    per_status: BTreeMap<u64, usize>,
    clients: BTreeSet<String>,
    bytes: u64,
    /// Timestamps in order, in milliseconds.
    times: Vec<i64>,
    /// Position and text of lines that are cut off.
    cut_off: Vec<(usize, String)>,
}

impl Facts {
    /// Reads the file without any of the project's code: fields by the quotes around them.
    fn of_file(text: &str) -> Facts {
        let mut facts = Facts::default();
        for (position, line) in text.lines().enumerate() {
            let parts: Vec<&str> = line.split('"').collect();
            // front "request" status bytes "referrer" "agent" - and nothing of the file has a quote within quotes.
            if parts.len() < 7 {
                facts.cut_off.push((position, line.to_owned()));
                continue;
            }
            let mut figures = parts[2].split_whitespace();
            let status = figures.next().unwrap().parse().unwrap();
            *facts.per_status.entry(status).or_default() += 1;
            facts.bytes += figures.next().unwrap().parse::<u64>().unwrap_or(0);
            facts.clients.insert(parts[0].split(' ').next().unwrap().to_owned());
            let time = parts[0].split(['[', ']']).nth(1).unwrap();
            facts.times.push(time_ms(time));
        }
        facts
    }

    /// The same of records as `consume --format json` prints them.
    fn of_records(records: &[Value]) -> Facts {
        let mut facts = Facts::default();
        for (position, record) in records.iter().enumerate() {
            let text = record["value"].as_str().unwrap();
            if record["headers"][0]["key"] == UNPARSED_HEADER {
                facts.cut_off.push((position, text.to_owned()));
                continue;
            }
            let value: Value = serde_json::from_str(text).unwrap();
            *facts.per_status.entry(value["status"].as_u64().unwrap()).or_default() += 1;
            facts.bytes += value["bytes"].as_u64().unwrap();
            facts.clients.insert(value["client"].as_str().unwrap().to_owned());
            facts.times.push(record["timestamp"].as_i64().unwrap());
        }
        facts
    }
}

/// `17/May/2015:10:05:03 +0000` in milliseconds since the epoch; every line of the file is in UTC and of 2015.
fn time_ms(time: &str) -> i64 {
    const DAYS_TO_2015: i64 = 16_436;
    let (time, zone) = time.split_once(' ').unwrap();
    assert_eq!(zone, "+0000");
    let parts: Vec<&str> = time.split(['/', ':']).collect();
    let number = |part: usize| parts[part].parse::<i64>().unwrap();
    assert_eq!((parts[1], number(2)), ("May", 2015));
    let days = DAYS_TO_2015 + 31 + 28 + 31 + 30 + number(0) - 1;
    1000 * (((days * 24 + number(3)) * 60 + number(4)) * 60 + number(5))
}

fn access_log(test: &str) -> Option<PathBuf> {
    let path = shared_data("access.log");
    if path.is_none() {
        skip(test, "there is no ../shared/data/access.log");
    }
    path
}

/// An agent with a topic of one partition whose produce pipeline has these stages.
fn agent_with(stages: &[&[&str]]) -> Agent {
    let agent = Agent::start();
    agent.cli(["topic", "create", "access"]).ok();
    for stage in stages {
        let file = modules::file(stage[0]);
        agent.cli(["module".as_ref(), "deploy".as_ref(), file.as_os_str()]).ok();
        let args = ["pipeline", "add", "access", stage[0], "--on", "produce"];
        agent.cli(args.iter().chain(&stage[1..])).ok();
    }
    agent
}

fn produce(agent: &Agent, file: &Path) -> Value {
    let args = ["produce", "access", "--output", "json", "--file"];
    agent
        .cli(args.iter().map(AsRef::as_ref).chain([file.as_os_str()]))
        .json()
}

fn consume(agent: &Agent) -> Vec<Value> {
    let out = agent.cli(["consume", "access", "--format", "json"]).text();
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_real_log_becomes_records_that_say_what_the_file_says() {
    let Some(file) = access_log("a real log") else { return };
    let text = fs::read_to_string(&file).unwrap();
    let expected = Facts::of_file(&text);
    assert_eq!((text.lines().count(), expected.cut_off.len()), (10_000, 1));
    let agent = agent_with(&[&["access-log"]]);

    let summary = produce(&agent, &file);
    assert_eq!(summary["acknowledged"], 10_000);
    assert_eq!((&summary["stored"], &summary["dropped"]), (&10_000.into(), &0.into()));

    let records = consume(&agent);
    assert_eq!(Facts::of_records(&records), expected);
    for (offset, record) in (0..).zip(&records) {
        assert_eq!(record["offset"], offset);
        if record["headers"].as_array().unwrap().is_empty() {
            let value: Value = serde_json::from_str(record["value"].as_str().unwrap()).unwrap();
            assert_eq!(record["key"], value["client"]);
        }
    }
    // The same from segments, after a restart.
    let agent = agent.restart();
    assert!(consume(&agent) == records, "a restart changes what is read");
}

#[test]
fn the_client_of_a_real_log_is_masked_in_value_and_key() {
    let Some(file) = access_log("a masked log") else { return };
    let text = fs::read_to_string(&file).unwrap();
    let expected = Facts::of_file(&text);
    let redact: &[&str] = &[
        "redact",
        "--param",
        "fields=$.client",
        "--param",
        "key=mask",
        "--param",
        "invalid=keep",
    ];
    let agent = agent_with(&[&["access-log"], redact]);
    produce(&agent, &file);

    let records = consume(&agent);
    let facts = Facts::of_records(&records);
    assert_eq!(facts.clients, BTreeSet::from(["***".to_owned()]));
    assert_eq!(facts.per_status, expected.per_status);
    assert_eq!((facts.bytes, facts.times), (expected.bytes, expected.times));
    let whole = records
        .iter()
        .filter(|record| record["headers"].as_array().unwrap().is_empty());
    assert!(whole.clone().all(|record| record["key"] == "***"));
    assert_eq!(whole.count(), 9_999);
}

#[test]
fn a_cut_off_line_can_be_dropped() {
    let Some(file) = access_log("a dropped line") else {
        return;
    };
    let expected = Facts::of_file(&fs::read_to_string(&file).unwrap());
    let agent = agent_with(&[&["access-log", "--param", "unparsed=drop"]]);

    let summary = produce(&agent, &file);
    assert_eq!(
        (&summary["acknowledged"], &summary["dropped"]),
        (&10_000.into(), &1.into())
    );

    let records = consume(&agent);
    let offsets: Vec<_> = records
        .iter()
        .map(|record| record["offset"].as_u64().unwrap())
        .collect();
    assert_eq!(offsets, (0..9_999).collect::<Vec<_>>());
    let facts = Facts::of_records(&records);
    assert_eq!((facts.per_status, facts.cut_off), (expected.per_status, Vec::new()));
}

#[test]
fn a_cut_off_line_can_be_refused_by_its_number() {
    let Some(file) = access_log("a refused line") else {
        return;
    };
    let expected = Facts::of_file(&fs::read_to_string(&file).unwrap());
    let agent = agent_with(&[&["access-log", "--param", "unparsed=reject"]]);

    let args = ["produce", "access", "--file"];
    let error = agent
        .cli(args.iter().map(AsRef::as_ref).chain([file.as_os_str()]))
        .error();
    let line = format!("line {}: ", expected.cut_off[0].0 + 1);
    for words in [
        "module access-log@1 rejected 1 of",
        "the line ends in or before the agent",
        &line,
    ] {
        assert!(error.contains(words), "no {words:?} in: {error}");
    }
    // Whole batches before it are stored, nothing of its own and nothing behind it.
    let facts = Facts::of_records(&consume(&agent));
    assert!(facts.cut_off.is_empty());
    assert_eq!(facts.times, expected.times[..facts.times.len()]);
    assert!(facts.times.len() <= expected.cut_off[0].0);
}

#[test]
fn real_documents_come_back_byte_for_byte() {
    let Some(file) = shared_data("nginxplus.ndjson") else {
        return skip("real documents", "there is no ../shared/data/nginxplus.ndjson");
    };
    let agent = agent_with(&[]);
    let summary = produce(&agent, &file);
    assert_eq!(summary["stored"], 500);
    let read = agent.cli(["consume", "access"]).ok();
    assert!(read == fs::read(&file).unwrap(), "what is read differs from the file");
}
