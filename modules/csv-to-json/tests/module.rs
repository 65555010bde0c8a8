//! The module as a whole.

use csv_to_json::parse_lines;
use millstream_guest::prelude::Context;
use millstream_guest::testing::{Fate, Harness, Sample};

fn values(params: &[(&str, &str)], value: impl AsRef<[u8]>) -> Vec<String> {
    match Harness::<parse_lines>::new(params)
        .unwrap()
        .run_one(&Sample::value(value))
    {
        Fate::Became(samples) => samples.iter().map(Sample::text).collect(),
        Fate::Dropped => Vec::new(),
        other => vec![format!("{other:?}")],
    }
}

const AB: (&str, &str) = ("columns", "a,b");

#[test]
fn each_line_becomes_an_object_with_key_headers_and_time() {
    let sample = Sample::value("1,x\r\n2,\"y, \"\"z\"\"\"\n\n")
        .key("k")
        .header("h", "v")
        .at_ms(5);
    let fate = Harness::<parse_lines>::new(&[AB]).unwrap().run_one(&sample);
    let like = |value: &str| Sample {
        value: Some(value.into()),
        ..sample.clone()
    };
    assert_eq!(
        fate,
        Fate::Became(vec![like(r#"{"a":"1","b":"x"}"#), like(r#"{"a":"2","b":"y, \"z\""}"#)])
    );
}

#[test]
fn the_line_of_names_itself_is_left_out() {
    assert_eq!(values(&[AB], "a,b\n1,2"), [r#"{"a":"1","b":"2"}"#]);
    assert_eq!(values(&[AB], "a, b"), [] as [&str; 0]);
    assert_eq!(values(&[AB], ""), [] as [&str; 0]);
}

#[test]
fn types_are_inferred_on_demand() {
    let params = [("columns", "a,b,c,d,e,f"), ("types", "infer")];
    assert_eq!(
        values(&params, "1.50,-2e3,007,true,,1e999"),
        [r#"{"a":1.50,"b":-2e3,"c":"007","d":true,"e":null,"f":"1e999"}"#]
    );
    assert_eq!(values(&[AB], "1,"), [r#"{"a":"1","b":""}"#]);
}

#[test]
fn other_delimiters_and_quotes_are_taken() {
    assert_eq!(
        values(&[AB, ("delimiter", "tab")], "1\t2,3"),
        [r#"{"a":"1","b":"2,3"}"#]
    );
    assert_eq!(
        values(&[AB, ("delimiter", ";"), ("quote", "'")], "'1;2';3"),
        [r#"{"a":"1;2","b":"3"}"#]
    );
    assert_eq!(values(&[AB, ("quote", "none")], "\"1,2"), [r#"{"a":"\"1","b":"2"}"#]);
    assert_eq!(
        values(&[("columns", "\"a,\"\"b\""), ("delimiter", ";")], "1"),
        [r#"{"a,\"b":"1"}"#]
    );
}

#[test]
fn long_lines_many_fields_and_foreign_bytes_are_read() {
    let long = "x".repeat(5_000);
    assert_eq!(
        values(&[AB], format!("{long},1")),
        [format!("{{\"a\":\"{long}\",\"b\":\"1\"}}")]
    );
    let names: Vec<String> = (0..100).map(|n| format!("c{n}")).collect();
    let columns = names.join(",");
    assert!(values(&[("columns", &columns)], vec!["1"; 100].join(","))[0].ends_with(r#""c99":"1"}"#));
    assert_eq!(values(&[AB], b"\xff,\x01"), ["{\"a\":\"\u{fffd}\",\"b\":\"\\u0001\"}"]);
}

#[test]
fn a_value_that_does_not_fit_is_refused_goes_or_stays_whole() {
    let fate = |value: &str, invalid| {
        Harness::<parse_lines>::new(&[AB, ("invalid", invalid)])
            .unwrap()
            .run_one(&Sample::value(value))
    };
    let refused = |why: &str| Fate::Rejected(why.to_owned());
    assert_eq!(
        fate("1,2\n3", "reject"),
        refused("line 2 has 1 fields, and there are 2 columns")
    );
    assert_eq!(fate("1,\"2\n", "reject"), refused("line 1: a quote is not closed"));
    assert_eq!(fate("1,2\n3", "drop"), Fate::Dropped);
    assert_eq!(fate("1,2\n3", "keep"), Fate::Kept);
}

#[test]
fn wrong_parameters_and_the_wrong_side_are_refused() {
    let refused = |params: &[(&str, &str)]| Harness::<parse_lines>::new(params).map(drop).unwrap_err();
    assert_eq!(refused(&[]), "parameter \"columns\" is missing (string)");
    assert_eq!(
        refused(&[("columns", "a,,b")]),
        "parameter \"columns\": a name is empty"
    );
    assert_eq!(
        refused(&[("columns", "a,b,a")]),
        "parameter \"columns\": \"a\" stands there twice"
    );
    assert_eq!(refused(&[("columns", "")]), "parameter \"columns\": no names");
    assert_eq!(
        refused(&[AB, ("delimiter", "::")]),
        "parameter \"delimiter\": \"::\" is not one ASCII character"
    );
    assert!(refused(&[AB, ("delimiter", "\"")]).contains("same as"));
    let on_fetch = Context {
        on_fetch: true,
        ..Context::default()
    };
    assert!(
        Harness::<parse_lines>::with_context(on_fetch, &[AB])
            .map(drop)
            .unwrap_err()
            .contains("on produce")
    );
}
