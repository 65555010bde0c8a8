//! `#[filter_map]`: a record is replaced, or goes.

use millstream_guest::Context;
use millstream_guest::prelude::*;
use millstream_guest::testing::{Fate, Harness, Sample};

/// Takes what stands behind a number and makes the number the key.
#[filter_map]
fn numbered(record: &Record, out: &mut Output) -> Result<Option<()>, String> {
    if record.key().is_some() {
        return Err("a record with a key has a number already".to_owned());
    }
    Ok(number(record, out))
}

fn number(record: &Record, out: &mut Output) -> Option<()> {
    let text = std::str::from_utf8(record.value()?).ok()?;
    let (number, rest) = text.split_once(' ')?;
    number.parse::<u32>().ok()?;
    if let Some(offset) = record.offset() {
        out.add_header("offset", offset.to_string());
    }
    out.set_key(number);
    out.set_value(rest);
    Some(())
}

#[test]
fn some_replaces_none_drops_and_an_error_rejects() {
    let mut harness = Harness::<numbered>::new(&[]).unwrap();
    let reason = "a record with a key has a number already".to_owned();
    let samples = [
        Sample::value("7 seven"),
        Sample::value("seven"),
        Sample::tombstone(),
        Sample::value("8 eight").key("8"),
    ];
    assert_eq!(
        harness.run(&samples),
        [
            Fate::Became(vec![Sample::value("seven").key("7")]),
            Fate::Dropped,
            Fate::Dropped,
            Fate::Rejected(reason)
        ]
    );
}

#[test]
fn on_fetch_records_have_offsets() {
    let context = Context {
        topic: "t".to_owned(),
        on_fetch: true,
    };
    let mut harness = Harness::<numbered>::with_context(context, &[]).unwrap();
    let fates = harness.run(&[Sample::value("x"), Sample::value("7 seven")]);
    let seven = Sample::value("seven").key("7").header("offset", "1");
    assert_eq!(fates, [Fate::Dropped, Fate::Became(vec![seven])]);
}
