//! `#[batch]`: decisions on all records of a call at once.

use std::collections::HashMap;

use millstream_guest::prelude::*;
use millstream_guest::testing::{Fate, Harness, Sample};

/// What to do with the record before the last of its key.
#[derive(Choice, Clone, Copy)]
enum Earlier {
    Drop,
    Reject,
    Double,
}

#[derive(Params)]
struct Params {
    #[param(default = "drop")]
    earlier: Earlier,
}

/// Keeps the last record of each key, and marks it with how many there were.
#[batch]
fn last_of_each_key(records: &Records, out: &mut Decisions, params: &Params) -> Result<(), String> {
    let mut seen: HashMap<&[u8], (usize, u32)> = HashMap::new();
    for (index, record) in records.iter().enumerate() {
        let Some(key) = record.key() else { continue };
        if key == b"poison" {
            return Err("no batch may hold poison".to_owned());
        }
        let (last, count) = seen.get(key).copied().unwrap_or_default();
        if count > 0 {
            match params.earlier {
                Earlier::Drop => out.drop(last),
                Earlier::Reject => out.reject(last, format_args!("record {index} is newer")),
                Earlier::Double => {
                    out.replace(last).set_value("superseded");
                    out.push(last).set_value("superseded");
                    out.push(last).set_value("twice");
                    out.replace(last).set_value("first");
                    out.push(last).remove_value();
                }
            }
        }
        seen.insert(key, (index, count + 1));
    }
    for (last, count) in seen.into_values() {
        if count > 1 {
            out.replace(last).add_header("count", count.to_string());
            count_up(count);
        }
    }
    Ok(())
}

fn count_up(records: u32) {
    count("merged", u64::from(records - 1));
    log!(Level::Debug, "{} records became one", records);
}

fn samples() -> [Sample; 5] {
    ["a", "b", "", "a", "a"].map(|key| match key {
        "" => Sample::value("no key"),
        key => Sample::value("v").key(key),
    })
}

#[test]
fn records_are_decided_on_in_any_order() {
    let mut harness = Harness::<last_of_each_key>::new(&[]).unwrap();
    let last = Fate::Became(vec![Sample::value("v").key("a").header("count", "3")]);
    assert_eq!(
        harness.run(&samples()),
        [Fate::Dropped, Fate::Kept, Fate::Kept, Fate::Dropped, last]
    );
    assert_eq!(harness.counter("merged"), 2);
    assert_eq!(harness.take_logs(), [(Level::Debug, "3 records became one".to_owned())]);
}

#[test]
fn a_later_decision_takes_the_place_of_an_earlier_one() {
    let mut harness = Harness::<last_of_each_key>::new(&[("earlier", "double")]).unwrap();
    let fates = harness.run(&samples());
    let first = Sample::value("first").key("a");
    let second = Sample {
        value: None,
        ..first.clone()
    };
    assert_eq!(fates[0], Fate::Became(vec![first.clone(), second.clone()]));
    assert_eq!(fates[3], Fate::Became(vec![first, second]));
}

#[test]
fn a_rejected_record_has_its_reason() {
    let mut harness = Harness::<last_of_each_key>::new(&[("earlier", "reject")]).unwrap();
    let fates = harness.run(&samples());
    assert_eq!(fates[0], Fate::Rejected("record 3 is newer".to_owned()));
    assert_eq!(fates[3], Fate::Rejected("record 4 is newer".to_owned()));
    assert_eq!(fates[1], Fate::Kept);
}

#[test]
fn an_error_of_the_function_fails_the_batch() {
    let mut harness = Harness::<last_of_each_key>::new(&[]).unwrap();
    let error = harness.try_run(&[Sample::value("v").key("poison")]).unwrap_err();
    assert_eq!(error, "no batch may hold poison");
}

#[test]
fn a_batch_on_which_nothing_is_decided_stays_as_it_is() {
    let mut harness = Harness::<last_of_each_key>::new(&[]).unwrap();
    assert_eq!(harness.run(&[Sample::value("v")]), [Fate::Kept]);
    assert!(harness.run(&[]).is_empty());
}
