//! The module as a whole: parameters, the record it makes, and a real log.

use std::collections::BTreeMap;
use std::path::Path;

use access_log::{UNPARSED_HEADER, parse_line};
use millstream_guest::testing::{Fate, Harness, Sample};

const LINE: &str = r#"1.2.3.4 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 12 "-" "curl/7""#;

#[test]
fn a_line_becomes_json_with_key_and_time() {
    let mut harness = Harness::<parse_line>::new(&[]).unwrap();
    let record = harness.run_one(&Sample::value(LINE).at_ms(5).header("h", "1")).one();
    assert_eq!(record.key.as_deref(), Some(&b"1.2.3.4"[..]));
    assert_eq!(record.timestamp_ms, 1_431_857_103_000);
    assert_eq!(record.headers, Sample::default().header("h", "1").headers);
    assert!(record.text().starts_with(r#"{"client":"1.2.3.4","#));
}

#[test]
fn what_is_no_line_stays_goes_or_is_refused() {
    let cut = Sample::value(&LINE[..60]).key("k").at_ms(7);
    let why = "the line ends in or before the status";
    let mut keep = Harness::<parse_line>::new(&[]).unwrap();
    assert_eq!(
        keep.run_one(&cut),
        Fate::Became(vec![cut.clone().header(UNPARSED_HEADER, why)])
    );
    assert_eq!(keep.counter("unparsed"), 1);
    let mut drop = Harness::<parse_line>::new(&[("unparsed", "drop")]).unwrap();
    assert_eq!(drop.run_one(&cut), Fate::Dropped);
    let mut reject = Harness::<parse_line>::new(&[("unparsed", "reject")]).unwrap();
    assert_eq!(reject.run_one(&cut), Fate::Rejected(why.to_owned()));
    assert_eq!(
        reject.run_one(&Sample::tombstone()),
        Fate::Rejected("the line ends in or before the client".to_owned())
    );
}

#[test]
fn wrong_parameters_are_refused() {
    let refused = |params| Harness::<parse_line>::new(params).map(drop).unwrap_err();
    assert_eq!(
        refused(&[("unparsed", "kep")]),
        "parameter \"unparsed\": \"kep\" is none of keep, drop, reject"
    );
    assert_eq!(
        refused(&[("unparsd", "keep")]),
        "unknown parameter \"unparsd\", did you mean \"unparsed\"? (this module takes unparsed)"
    );
}

/// The real log beside the checkout: 10,000 lines, of which one is cut off.
const REAL_LOG: &str = "../../../shared/data/access.log";

#[test]
fn every_whole_line_of_a_real_log_is_parsed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(REAL_LOG);
    let Ok(log) = std::fs::read(&path) else {
        eprintln!("skipped: {} is not there", path.display());
        return;
    };
    let lines: Vec<&[u8]> = log
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .collect();
    let samples: Vec<Sample> = lines.iter().map(Sample::value).collect();
    let fates = Harness::<parse_line>::new(&[]).unwrap().run(&samples);

    let (mut statuses, mut unparsed, mut bytes) = (BTreeMap::new(), Vec::new(), 0);
    for (fate, line) in fates.into_iter().zip(&lines) {
        let record = fate.one();
        if record.headers.is_empty() {
            let json: serde_json::Value = serde_json::from_str(&record.text()).unwrap();
            assert_eq!(record.key.as_deref(), json["client"].as_str().map(str::as_bytes));
            *statuses.entry(json["status"].as_u64().unwrap()).or_insert(0) += 1;
            bytes += json["bytes"].as_u64().unwrap();
        } else {
            unparsed.push(*line);
        }
    }
    let (expected_statuses, expected_bytes) = counted_from_text(&lines);
    assert_eq!(statuses, expected_statuses);
    assert_eq!(bytes, expected_bytes);
    assert_eq!(unparsed.len(), 1);
    assert_eq!(
        unparsed[0].iter().filter(|&&byte| byte == b'"').count(),
        5,
        "the agent's closing quote is missing"
    );
}

/// Statuses and bytes of the lines that have all six quotes, by splitting at quotes alone: none of them is escaped here.
fn counted_from_text(lines: &[&[u8]]) -> (BTreeMap<u64, u64>, u64) {
    let (mut statuses, mut bytes) = (BTreeMap::new(), 0);
    for line in lines {
        let parts: Vec<_> = std::str::from_utf8(line).unwrap().split('"').collect();
        if parts.len() == 7 {
            let (status, sent) = parts[2].trim().split_once(' ').unwrap();
            *statuses.entry(status.parse().unwrap()).or_insert(0) += 1;
            bytes += sent.parse().unwrap_or(0);
        }
    }
    (statuses, bytes)
}
