//! What a record shows of itself.

use millstream_guest::prelude::*;
use millstream_guest::testing::{Sample, encode};
use millstream_guest::{Batch, Instance};

/// Says in its reason what it sees.
#[filter]
fn look(record: &Record) -> Result<bool, String> {
    let text =
        |bytes: Option<&[u8]>| bytes.map_or("none".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned());
    let headers: Vec<String> = record
        .headers()
        .map(|(name, value)| format!("{name}={}", text(value)))
        .collect();
    Err(format!(
        "{} {} {headers:?} {:?} at {} {:?} of {}/{} (fetch {}, appended {})",
        text(record.key()),
        text(record.value()),
        record.header("b"),
        record.timestamp_ms(),
        record.offset(),
        record.context().topic,
        record.partition(),
        record.context().on_fetch,
        record.append_time_ms(),
    ))
}

#[test]
fn a_record_shows_its_parts_and_where_it_stands() {
    let second = Sample {
        headers: vec![("b".to_owned(), None)],
        ..Sample::value("v").key("").at_ms(-5)
    };
    let records = encode(&[Sample::tombstone().header("a", "1").at_ms(12), second], 10);
    let batch = Batch {
        partition: 3,
        first_offset: Some(100),
        append_time_ms: 99,
        base_timestamp_ms: 10,
        count: 2,
        records: &records,
    };
    let context = Context {
        topic: "t".to_owned(),
        on_fetch: true,
    };
    let outcome = Instance::<look>::configure(context, &[])
        .unwrap()
        .process(&batch)
        .unwrap();
    let reasons: Vec<&str> = outcome.rejects.iter().map(|reject| reject.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "none none [\"a=1\"] None at 12 Some(100) of t/3 (fetch true, appended 99)",
            " v [\"b=none\"] Some(None) at -5 Some(101) of t/3 (fetch true, appended 99)",
        ]
    );
}
