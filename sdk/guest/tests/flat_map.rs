//! `#[flat_map]`: none, one or several records for one.

use millstream_guest::prelude::*;
use millstream_guest::testing::{Fate, Harness, Sample, encode};
use millstream_guest::{Batch, Instance, Verdict};

/// One record a word.
#[flat_map]
fn words(record: &Record, out: &mut Outputs) -> Result<(), std::str::Utf8Error> {
    let text = record.value().unwrap_or_default();
    if !text.contains(&b' ') && !text.is_empty() {
        out.keep();
        return Ok(());
    }
    for (n, word) in text
        .split(|&byte| byte == b' ')
        .filter(|word| !word.is_empty())
        .enumerate()
    {
        let record = out.push();
        record.set_value(std::str::from_utf8(word)?);
        record.add_header("n", n.to_string());
    }
    Ok(())
}

#[test]
fn a_record_becomes_as_many_as_it_has_words() {
    let mut harness = Harness::<words>::new(&[]).unwrap();
    let bad = Sample {
        value: Some(b"ok \xff".to_vec()),
        ..Sample::default()
    };
    let fates = harness.run(&[
        Sample::value("a b").key("k").at_ms(5),
        Sample::value("c"),
        Sample::value(""),
        bad,
    ]);
    let word = |word: &str, n| Sample::value(word).key("k").at_ms(5).header("n", n);
    assert_eq!(fates[0], Fate::Became(vec![word("a", "0"), word("b", "1")]));
    assert_eq!(fates[1..3], [Fate::Kept, Fate::Dropped]);
    assert_eq!(
        fates[3],
        Fate::Rejected("invalid utf-8 sequence of 1 bytes from index 0".to_owned())
    );
    assert_eq!(
        harness.run_one(&Sample::value("x y")).clone(),
        Fate::Became(vec![
            Sample::value("x").header("n", "0"),
            Sample::value("y").header("n", "1")
        ])
    );
}

#[test]
fn a_batch_that_is_kept_as_it_is_is_unchanged() {
    let records = encode(&[Sample::value("a"), Sample::value("b")], 0);
    let batch = Batch {
        partition: 0,
        first_offset: Some(40),
        append_time_ms: 0,
        base_timestamp_ms: 0,
        count: 2,
        records: &records,
    };
    let mut instance = Instance::<words>::configure(Context::default(), &[]).unwrap();
    assert_eq!(instance.process(&batch).unwrap().verdict, Verdict::Unchanged);
}

#[test]
fn parameters_are_refused_where_there_are_none() {
    let error = Harness::<words>::new(&[("a", "1")]).map(drop).unwrap_err();
    assert_eq!(error, "unknown parameter \"a\": this module takes none");
}
