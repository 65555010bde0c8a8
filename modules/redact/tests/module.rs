//! The module as a whole: what is masked, and that nothing passes that should have been.

use millstream_guest::testing::{Fate, Harness, Sample};
use redact::mask;

fn harness(params: &[(&str, &str)]) -> Harness<mask> {
    Harness::new(params).unwrap()
}

fn masked(params: &[(&str, &str)], value: &str) -> String {
    harness(params).run_one(&Sample::value(value)).one().text()
}

#[test]
fn fields_are_masked_and_the_rest_stays_byte_for_byte() {
    let value = r#"{ "id": 1.50, "client":"1.2.3.4","card":{"number" : 4111111111111111, "name":"A\u0042"} }"#;
    assert_eq!(
        masked(&[("fields", "$.client,$.card.number")], value),
        r#"{ "id": 1.50, "client":"***","card":{"number" : "***", "name":"A\u0042"} }"#
    );
}

#[test]
fn a_field_is_masked_whatever_it_is_and_wherever_it_stands() {
    let cases = [
        (r#"{"a":null}"#, r#"{"a":"***"}"#),
        (r#"{"a":{"b":[1]}}"#, r#"{"a":"***"}"#),
        (r#"{"a":1,"a":2}"#, r#"{"a":"***","a":"***"}"#),
        (r#"{"\u0061":"x"}"#, r#"{"\u0061":"***"}"#),
    ];
    for (value, expected) in cases {
        assert_eq!(masked(&[("fields", "a")], value), expected);
    }
    assert_eq!(
        masked(
            &[("fields", "$.cards[*].number"), ("with", "\"gone\"")],
            r#"{"cards":[{"number":1},{"number":2}]}"#
        ),
        r#"{"cards":[{"number":"\"gone\""},{"number":"\"gone\""}]}"#
    );
}

#[test]
fn a_record_without_the_fields_is_left_alone() {
    let mut harness = harness(&[("fields", "$.client")]);
    for value in ["{}", "[1,2]", "\"client\"", r#"{"b":{"client":1}}"#, "12"] {
        assert_eq!(
            harness.run_one(&Sample::value(value).key("k").header("h", "v")),
            Fate::Kept,
            "{value}"
        );
    }
    assert_eq!(harness.run_one(&Sample::tombstone().key("k")), Fate::Kept);
}

#[test]
fn a_value_that_is_not_json_does_not_pass_unless_told_so() {
    let line = Sample::value("1.2.3.4 - - [cut");
    let fate = |invalid| harness(&[("fields", "client"), ("invalid", invalid)]).run_one(&line);
    assert_eq!(harness(&[("fields", "client")]).run_one(&line), fate("reject"));
    let Fate::Rejected(reason) = fate("reject") else {
        panic!("not rejected")
    };
    assert!(reason.starts_with("the value is not JSON: "), "{reason}");
    assert_eq!(fate("drop"), Fate::Dropped);
    assert_eq!(fate("mask"), Fate::Became(vec![Sample::value("***")]));
    assert_eq!(fate("keep"), Fate::Kept);
    let with_pattern = [
        ("fields", "client"),
        ("invalid", "keep"),
        ("pattern", r"\d+\.\d+\.\d+\.\d+"),
    ];
    assert_eq!(masked(&with_pattern, "1.2.3.4 - - [cut"), "*** - - [cut");
}

#[test]
fn half_a_document_or_two_of_them_are_not_json() {
    for value in [
        r#"{"client":"1.2.3.4""#,
        r#"{"client":"1.2.3.4"} {"client":"1.2.3.4"}"#,
        "\u{feff}{\"client\":1}",
    ] {
        let fate = harness(&[("fields", "client")]).run_one(&Sample::value(value));
        assert!(matches!(fate, Fate::Rejected(_)), "{value}: {fate:?}");
    }
}

#[test]
fn a_pattern_is_sought_in_strings_numbers_and_names_and_json_stays_json() {
    let params = [("pattern", r"\w+@\w+\.org|\d{16}")];
    let cases = [
        (r#"{"to":"mail bob@x.org now"}"#, r#"{"to":"mail *** now"}"#),
        (r#"{"to":"bob\u0040x.org\n"}"#, r#"{"to":"***\n"}"#),
        (r#"{"bob@x.org":[4111111111111111, 12]}"#, r#"{"***":["***", 12]}"#),
        (r#"["\ud800 bob\u0040x.org"]"#, r#"["***"]"#),
        ("bob@x.org said", "*** said"),
    ];
    for (value, expected) in cases {
        assert_eq!(masked(&params, value), expected);
    }
    assert_eq!(
        masked(&[("pattern", "secret"), ("with", "\"\\")], r#"{"a":"my secret"}"#),
        r#"{"a":"my \"\\"}"#
    );
    assert_eq!(
        harness(&params).run_one(&Sample::value(r#"{"a\\":"\"","b":[1,true,null]}"#)),
        Fate::Kept
    );
}

#[test]
fn case_is_ignored_on_demand() {
    assert_eq!(masked(&[("pattern", "(?i)bob")], "BoB"), "***");
}

#[test]
fn anchors_hold_for_each_string() {
    assert_eq!(
        masked(&[("pattern", "^abc$")], r#"["abc","xabc","abc\u0020"]"#),
        r#"["***","xabc","abc\u0020"]"#
    );
}

#[test]
fn a_pattern_reaches_keys_and_header_values() {
    let sample = Sample::value("v").key("k bob").header("from", "bob").header("n", "1");
    let record = harness(&[("pattern", "bob")]).run_one(&sample).one();
    assert_eq!(
        record,
        Sample::value("v").key("k ***").header("from", "***").header("n", "1")
    );
}

#[test]
fn the_key_is_masked_or_removed_on_demand() {
    let sample = Sample::value(r#"{"client":"1.2.3.4"}"#).key("1.2.3.4");
    let fate = |key| harness(&[("fields", "client"), ("key", key)]).run_one(&sample).one();
    assert_eq!(fate("keep").key.as_deref(), Some(&b"1.2.3.4"[..]));
    assert_eq!(fate("mask").key.as_deref(), Some(&b"***"[..]));
    assert_eq!(fate("remove").key, None);
}

#[test]
fn wrong_parameters_are_refused() {
    let refused = |params: &[(&str, &str)]| Harness::<mask>::new(params).map(drop).unwrap_err();
    assert_eq!(
        refused(&[]),
        "nothing to redact: set \"fields\", \"pattern\" or \"key\""
    );
    assert_eq!(
        refused(&[("fields", "$.")]),
        "parameter \"fields\": path \"$.\": expected a name at character 3"
    );
    assert!(refused(&[("pattern", "(")]).starts_with("parameter \"pattern\": regex parse error"));
    assert!(refused(&[("pattern", "a*")]).contains("matches the empty text"));
    assert!(
        refused(&[("pattern", r"(\w{100}){100}")]).contains("exceeds size limit"),
        "a bound on memory"
    );
}

const HASH: [(&str, &str); 2] = [("how", "hash"), ("salt", "pepper")];

#[test]
fn a_hash_is_that_of_salt_and_text_and_joins_fields_with_keys() {
    // printf pepperbob@x.org | sha256sum
    let bob = "72586fdc3d7859ab62037462df84d221d080f089777a960a7807d6d55398fa53";
    let params = [HASH[0], HASH[1], ("fields", "$.a,$.b,$.n"), ("key", "mask")];
    let sample = Sample::value(r#"{"a":"bob@x.org","b":"bob\u0040x.org","n":12}"#).key("bob@x.org");
    let record = harness(&params).run_one(&sample).one();
    // printf pepper12 | sha256sum
    let twelve = "77fca13426fc59771abcc39d30dfb8cc8df74d23f3b9612b5891b4b24a1b9ed2";
    assert_eq!(record.text(), format!(r#"{{"a":"{bob}","b":"{bob}","n":"{twelve}"}}"#));
    assert_eq!(record.key.as_deref(), Some(bob.as_bytes()));
    let pattern = [HASH[0], HASH[1], ("pattern", r"\w+@x\.org")];
    assert_eq!(masked(&pattern, "mail bob@x.org"), format!("mail {bob}"));
}

#[test]
fn dropped_fields_are_gone_name_and_all() {
    let drop = [("how", "drop"), ("fields", "$.a,$.cards[*].number")];
    assert_eq!(
        masked(
            &drop,
            r#"{"a":1,"cards":[{"number":1,"x":[1, 2]}], "b" : 2,"\u0061":3}"#
        ),
        r#"{"cards":[{"x":[1, 2]}],"b":2}"#
    );
    assert_eq!(harness(&drop).run_one(&Sample::value(r#"{ "b": 2 }"#)), Fate::Kept);
    assert!(matches!(harness(&drop).run_one(&Sample::value("{")), Fate::Rejected(_)));
    assert_eq!(
        masked(&[("how", "drop"), ("pattern", "[0-9]+")], r#"{"a":"x12y","b":12}"#),
        r#"{"a":"xy","b":""}"#
    );
    let key = [("how", "drop"), ("key", "mask")];
    assert_eq!(harness(&key).run_one(&Sample::value("v").key("k")).one().key, None);
    let whole = [("how", "drop"), ("fields", "a"), ("invalid", "mask")];
    assert_eq!(harness(&whole).run_one(&Sample::value("{")).one().value, None);
}

#[test]
fn a_hash_needs_salt_and_nothing_else_does() {
    let refused = |params: &[(&str, &str)]| Harness::<mask>::new(params).map(drop).unwrap_err();
    for params in [
        &[HASH[0], ("key", "mask")][..],
        &[HASH[0], ("salt", ""), ("key", "mask")],
    ] {
        assert_eq!(
            refused(params),
            "parameter \"salt\" is missing: without one a hash is found by trying texts"
        );
    }
    assert_eq!(
        refused(&[HASH[1], ("key", "mask")]),
        "parameter \"salt\" is for how=hash"
    );
}
