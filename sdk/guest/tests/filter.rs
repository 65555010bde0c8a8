//! `#[filter]`: what the attribute makes of a function, and of its parameters.

use millstream_guest::prelude::*;
use millstream_guest::testing::{Fate, Harness, Sample};
use millstream_guest::{Level, Module, Param};

#[derive(Choice, Debug, PartialEq)]
enum Unit {
    Bytes,
    KiloBytes,
}

#[derive(Debug, Params)]
struct Params {
    /// Smallest length of a value,
    /// in `unit`s.
    ///
    /// Only the first paragraph is shown.
    min: u64,
    #[param(default = "bytes")]
    unit: Unit,
    #[param(default = true, name = "keep-empty")]
    keep_empty: bool,
    /// Refused when it is the value.
    r#where: Option<String>,
    #[param(default = -0.5)]
    ratio: f64,
}

/// Keeps records
/// that are long enough.
///
/// More about it.
#[filter]
fn long_enough(record: &Record, params: &Params) -> Result<bool, String> {
    let Some(value) = record.value() else {
        warn!("record at {} has no value", record.timestamp_ms());
        return Ok(params.keep_empty);
    };
    if params.r#where.as_deref().map(str::as_bytes) == Some(value) {
        return Err(format!(
            "{} is refused in {}",
            String::from_utf8_lossy(value),
            record.context().topic
        ));
    }
    count("seen", 1);
    let bytes = params.min * if params.unit == Unit::KiloBytes { 1000 } else { 1 };
    Ok(value.len() as u64 >= bytes && value.len() as f64 > params.ratio)
}

#[test]
fn the_function_itself_can_be_called_and_the_module_describes_itself() {
    let info = long_enough::info();
    assert_eq!(
        (info.name.as_str(), info.summary.as_str()),
        ("millstream-guest", "Keeps records that are long enough.")
    );
    let param = |name: &str, kind: &str, default: Option<&str>, required, doc: &str| Param {
        name: name.to_owned(),
        kind: kind.to_owned(),
        default: default.map(str::to_owned),
        required,
        doc: doc.to_owned(),
    };
    assert_eq!(
        info.params,
        [
            param("min", "int", None, true, "Smallest length of a value, in `unit`s."),
            param("unit", "bytes|kilo-bytes", Some("bytes"), false, ""),
            param("keep-empty", "bool", Some("true"), false, ""),
            param("where", "string", None, false, "Refused when it is the value."),
            param("ratio", "float", Some("-0.5"), false, ""),
        ]
    );
}

#[test]
fn records_are_kept_dropped_and_rejected() {
    let mut harness = Harness::<long_enough>::new(&[("min", "3"), ("where", "bad")]).unwrap();
    let samples = [
        Sample::value("abc"),
        Sample::value("ab"),
        Sample::value("bad"),
        Sample::tombstone().at_ms(7),
    ];
    assert_eq!(
        harness.run(&samples),
        [
            Fate::Kept,
            Fate::Dropped,
            Fate::Rejected("bad is refused in test".to_owned()),
            Fate::Kept
        ]
    );
    assert_eq!(
        harness.take_logs(),
        [(Level::Warn, "record at 7 has no value".to_owned())]
    );
    assert_eq!(harness.counter("seen"), 2);
}

#[test]
fn more_records_than_a_byte_has_bits_get_a_bit_each() {
    let mut harness = Harness::<long_enough>::new(&[("min", "3")]).unwrap();
    let samples: Vec<Sample> = (0..21).map(|n| Sample::value("x".repeat(n % 5))).collect();
    let expected: Vec<Fate> = (0..21)
        .map(|n| if n % 5 >= 3 { Fate::Kept } else { Fate::Dropped })
        .collect();
    assert_eq!(harness.run(&samples), expected);
    assert_eq!(harness.run(&[]), []);
}

#[test]
fn wrong_parameters_are_refused_and_named() {
    let refused = |params: &[(&str, &str)]| Harness::<long_enough>::new(params).map(drop).unwrap_err();
    let known = "(this module takes min, unit, keep-empty, where, ratio)";
    assert_eq!(refused(&[]), "parameter \"min\" is missing (int)");
    assert_eq!(
        refused(&[("minn", "1")]),
        format!("unknown parameter \"minn\", did you mean \"min\"? {known}")
    );
    assert_eq!(refused(&[("zzz", "1")]), format!("unknown parameter \"zzz\" {known}"));
    assert_eq!(refused(&[("min", "1"), ("min", "2")]), "parameter \"min\" is set twice");
    assert_eq!(
        refused(&[("min", "-1")]),
        "parameter \"min\": \"-1\" is not a whole number from 0 to 18446744073709551615"
    );
    assert_eq!(
        refused(&[("min", "1"), ("unit", "kb")]),
        "parameter \"unit\": \"kb\" is none of bytes, kilo-bytes"
    );
    assert_eq!(
        refused(&[("min", "1"), ("keep-empty", "yes")]),
        "parameter \"keep-empty\": \"yes\" is neither true nor false"
    );
    assert_eq!(
        refused(&[("min", "1"), ("ratio", "NaN")]),
        "parameter \"ratio\": \"NaN\" is not a number"
    );
}
