//! `#[map]`: what may be changed in a record, and that nothing else changes.

use millstream_guest::prelude::*;
use millstream_guest::testing::{Fate, Harness, Sample, decode, encode};
use millstream_guest::{Batch, Instance, Verdict};

struct Change(String);

impl Prepare for Change {
    type Params = Params;

    fn prepare(params: Params, context: &Context) -> Result<Self, String> {
        if params.suffix.is_empty() {
            return Err(format!("parameter \"suffix\" is empty in {}", context.topic));
        }
        Ok(Change(params.suffix))
    }
}

#[derive(Params)]
struct Params {
    #[param(default = "!")]
    suffix: String,
}

/// Does what the value says.
#[map]
fn obey(record: &Record, out: &mut Output, change: &mut Change) -> Result<Decision, String> {
    let value = record.value().ok_or("no value")?;
    match value {
        b"keep" => {
            out.set_value("not this");
            return Ok(Decision::Keep);
        }
        b"nothing" => {}
        b"drop" => return Ok(Decision::Drop),
        b"time" => out.set_timestamp_ms(record.timestamp_ms() + 1),
        b"value" => out.value_mut().extend_from_slice(change.0.as_bytes()),
        b"key" => out.set_key(&change.0),
        b"longer key" => {
            let key = out.key_mut();
            key.extend_from_slice(record.key().unwrap_or(b"none"));
            key.extend_from_slice(change.0.as_bytes());
        }
        b"empty key" => {
            out.key_mut();
        }
        b"unkey" => out.remove_key(),
        b"unvalue" => out.remove_value(),
        b"header" => {
            out.add_header("new", "1");
            out.add_empty_header("flag");
            out.add_header("more", "22");
        }
        b"unheader" => {
            out.add_header("lost", "x");
            out.clear_headers();
            out.add_header("only", "");
        }
        _ => return Ok(Decision::reject("unknown order")),
    }
    Ok(Decision::Replace)
}

fn order(value: &str) -> Sample {
    Sample::value(value).key("k").header("old", "0").at_ms(1_000)
}

#[test]
fn each_part_changes_alone() {
    let mut harness = Harness::<obey>::new(&[]).unwrap();
    let mut changed = |order: &Sample| harness.run_one(order).one();
    assert_eq!(changed(&order("time")), order("time").at_ms(1_001));
    assert_eq!(
        changed(&order("value")),
        Sample {
            value: Some(b"!".to_vec()),
            ..order("")
        }
    );
    assert_eq!(changed(&order("key")), order("key").key("!"));
    // What is written to is empty at first, whatever was written for the record before.
    for _ in 0..2 {
        assert_eq!(changed(&order("longer key")), order("longer key").key("k!"));
    }
    assert_eq!(changed(&order("empty key")), order("empty key").key(""));
    assert_eq!(
        changed(&order("unkey")),
        Sample {
            key: None,
            ..order("unkey")
        }
    );
    assert_eq!(
        changed(&order("unvalue")),
        Sample {
            value: None,
            ..order("")
        }
    );
    let mut with_headers = order("header").header("new", "1");
    with_headers
        .headers
        .extend([("flag".to_owned(), None), ("more".to_owned(), Some(b"22".to_vec()))]);
    assert_eq!(changed(&order("header")), with_headers);
    assert_eq!(
        changed(&order("unheader")),
        Sample {
            headers: vec![],
            ..order("unheader")
        }
        .header("only", "")
    );
}

#[test]
fn decisions_mix_in_one_batch() {
    let mut harness = Harness::<obey>::new(&[]).unwrap();
    let samples = ["keep", "keep", "value", "drop", "nothing", "what", "time", "keep"].map(order);
    let fates = harness.run(&samples);
    assert_eq!(fates[0..2], [Fate::Kept, Fate::Kept]);
    assert_eq!(fates[2].clone().one().text(), "!");
    assert_eq!(
        fates[3..6],
        [Fate::Dropped, Fate::Kept, Fate::Rejected("unknown order".to_owned())]
    );
    assert_eq!(fates[6].clone().one().timestamp_ms, 1_001);
    assert_eq!(fates[7], Fate::Kept);
    assert_eq!(
        harness.run_one(&Sample::tombstone()),
        Fate::Rejected("no value".to_owned())
    );
}

fn verdict(orders: &[&str]) -> Verdict {
    let samples: Vec<Sample> = orders.iter().copied().map(order).collect();
    let records = encode(&samples, 900);
    let batch = Batch {
        partition: 1,
        first_offset: None,
        append_time_ms: 0,
        base_timestamp_ms: 900,
        count: samples.len() as u32,
        records: &records,
    };
    Instance::<obey>::configure(Context::default(), &[])
        .unwrap()
        .process(&batch)
        .unwrap()
        .verdict
}

#[test]
fn the_smallest_verdict_is_given() {
    assert_eq!(verdict(&["keep", "nothing"]), Verdict::Unchanged);
    assert_eq!(verdict(&["keep", "drop", "what", "keep"]), Verdict::Keep(vec![0b1001]));
    let Verdict::Rewrite(emitted) = verdict(&["keep", "drop", "value", "keep"]) else {
        panic!("not rewritten")
    };
    assert_eq!(emitted.counts, [1, 0, 1, 1]);
    let texts: Vec<String> = decode(&emitted.records, 900).iter().map(Sample::text).collect();
    assert_eq!(texts, ["keep", "!", "keep"]);
}

#[test]
fn a_batch_that_is_malformed_is_an_error() {
    let records = encode(&[order("keep"), order("keep")], 1_000);
    let mut instance = Instance::<obey>::configure(Context::default(), &[]).unwrap();
    let mut error = |count, records: &[u8]| {
        let batch = Batch {
            partition: 0,
            first_offset: None,
            append_time_ms: 0,
            base_timestamp_ms: 1_000,
            count,
            records,
        };
        instance.process(&batch).unwrap_err()
    };
    assert_eq!(error(3, &records), "the batch holds 2 records and says 3");
    assert_eq!(
        error(u32::MAX, &records),
        "the batch holds 2 records and says 4294967295"
    );
    assert_eq!(error(1, &records), "the batch holds more than the 1 records it says");
    assert!(error(2, &records[..records.len() - 1]).starts_with("record 1 of the batch: "));
}

#[test]
fn preparing_may_refuse() {
    let error = Harness::<obey>::new(&[("suffix", "")]).map(drop).unwrap_err();
    assert_eq!(error, "parameter \"suffix\" is empty in test");
}
