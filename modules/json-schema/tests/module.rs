//! The module as a whole: keywords, references, reasons.

use json_schema::validate;
use millstream_guest::testing::{Fate, Harness, Sample};

fn fate(schema: &str, value: &str) -> Fate {
    Harness::<validate>::new(&[("schema", schema)])
        .unwrap()
        .run_one(&Sample::value(value))
}

/// Values that fit a schema, and values that do not.
fn assert_fits(schema: &str, fitting: &[&str], others: &[&str]) {
    for value in fitting {
        assert_eq!(fate(schema, value), Fate::Kept, "{value} and {schema}");
    }
    for value in others {
        assert!(matches!(fate(schema, value), Fate::Rejected(_)), "{value} and {schema}");
    }
}

#[test]
fn types_values_and_numbers() {
    assert_fits(
        r#"{"type":"integer"}"#,
        &["1", "1.0", "-2e3"],
        &["1.5", "\"1\"", "null"],
    );
    assert_fits(r#"{"type":["string","null"]}"#, &["\"\"", "null"], &["1", "{}"]);
    assert_fits(
        r#"{"enum":[1,"a",{"x":[1]}]}"#,
        &["1.0", "\"a\"", "{\"x\":[1.0]}"],
        &["2", "null"],
    );
    assert_fits(r#"{"const":{"a":1,"b":2}}"#, &[r#"{"b":2,"a":1}"#], &["{}"]);
    assert_fits(
        r#"{"minimum":1,"exclusiveMaximum":3}"#,
        &["1", "2.9", "\"9\""],
        &["0.9", "3"],
    );
    assert_fits(r#"{"exclusiveMinimum":1,"maximum":3}"#, &["1.1", "3"], &["1", "4"]);
    assert_fits(
        r#"{"maximum":9007199254740992}"#,
        &["9007199254740992"],
        &["9007199254740993"],
    );
    assert_fits(r#"{"multipleOf":0.01}"#, &["19.99", "5", "0"], &["0.015"]);
    assert_fits(r#"{"multipleOf":3}"#, &["9", "-3"], &["10", "4.5"]);
    assert_fits("true", &["1"], &[]);
    assert_fits("false", &[], &["1"]);
}

#[test]
fn texts_and_arrays() {
    assert_fits(
        r#"{"minLength":2,"maxLength":3}"#,
        &["\"éé\"", "\"abc\"", "1"],
        &["\"é\"", "\"abcd\""],
    );
    assert_fits(r#"{"pattern":"^[A-Z]{2}\\d+$"}"#, &["\"DE12\""], &["\"de12\""]);
    assert_fits(
        r#"{"prefixItems":[{"type":"string"}],"items":{"type":"number"}}"#,
        &["[]", "[\"a\",1,2]", "{}"],
        &["[1]", "[\"a\",\"b\"]"],
    );
    assert_fits(r#"{"prefixItems":[{"type":"string"}]}"#, &["[\"a\",\"b\"]"], &["[1]"]);
    assert_fits(r#"{"contains":{"const":1}}"#, &["[0,1]"], &["[]", "[0]"]);
    assert_fits(
        r#"{"contains":{"const":1},"minContains":0,"maxContains":1}"#,
        &["[]", "[1]"],
        &["[1,1]"],
    );
    assert_fits(
        r#"{"minItems":1,"maxItems":2,"uniqueItems":true}"#,
        &["[1]", "[1,2]"],
        &["[]", "[1,2,3]", "[1,1.0]"],
    );
}

#[test]
fn objects() {
    assert_fits(
        r#"{"properties":{"a":{"type":"string"}},"patternProperties":{"^n_":{"type":"number"}},"additionalProperties":false}"#,
        &["{}", r#"{"a":"x","n_1":2}"#],
        &[r#"{"a":1}"#, r#"{"n_1":"x"}"#, r#"{"b":1}"#],
    );
    assert_fits(
        r#"{"additionalProperties":{"type":"number"}}"#,
        &[r#"{"a":1}"#],
        &[r#"{"a":""}"#],
    );
    assert_fits(
        r#"{"required":["a"],"maxProperties":2,"minProperties":1}"#,
        &[r#"{"a":1}"#],
        &["{}", r#"{"a":1,"b":2,"c":3}"#],
    );
    assert_fits(
        r#"{"propertyNames":{"maxLength":1}}"#,
        &[r#"{"a":1}"#],
        &[r#"{"ab":1}"#],
    );
    assert_fits(
        r#"{"dependentRequired":{"a":["b"]}}"#,
        &["{}", r#"{"a":1,"b":2}"#],
        &[r#"{"a":1}"#],
    );
    assert_fits(
        r#"{"dependentSchemas":{"a":{"required":["b"]}}}"#,
        &["{}", r#"{"a":1,"b":2}"#],
        &[r#"{"a":1}"#],
    );
}

#[test]
fn schemas_are_combined() {
    assert_fits(r#"{"allOf":[{"minimum":1},{"maximum":3}]}"#, &["2"], &["0", "4"]);
    assert_fits(r#"{"anyOf":[{"type":"string"},{"minimum":3}]}"#, &["\"\"", "3"], &["2"]);
    assert_fits(
        r#"{"oneOf":[{"multipleOf":2},{"multipleOf":3}]}"#,
        &["2", "3"],
        &["6", "1"],
    );
    assert_fits(r#"{"not":{"type":"null"}}"#, &["1"], &["null"]);
    assert_fits(
        r#"{"if":{"required":["a"]},"then":{"required":["b"]},"else":{"required":["c"]}}"#,
        &[r#"{"a":1,"b":1}"#, r#"{"c":1}"#],
        &[r#"{"a":1}"#, "{}"],
    );
}

#[test]
fn schemas_refer_to_each_other() {
    let tree = r##"{"type":"object","properties":{"children":{"items":{"$ref":"#"}}},"required":["name"]}"##;
    assert_fits(
        tree,
        &[r#"{"name":1,"children":[{"name":2}]}"#],
        &[r#"{"name":1,"children":[{}]}"#],
    );
    let defs = r##"{"$id":"http://x.org/s","$ref":"http://x.org/s#/$defs/a~1b","$defs":{"a/b":{"$ref":"#here"},"c":{"$anchor":"here","type":"null"}}}"##;
    assert_fits(defs, &["null"], &["1"]);
    let circle = r##"{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}"##;
    let Fate::Rejected(why) = fate(circle, "1") else {
        panic!("a circle fits nothing")
    };
    assert!(why.contains("without end"), "{why}");
}

#[test]
fn a_mismatch_names_the_place_and_the_keyword_and_keeps_the_value_to_itself() {
    let schema = r#"{"type":"object","required":["id"],"properties":{"items":{"items":{"properties":{"price/net":{"minimum":0}}}},"email":{"pattern":"@"}},"additionalProperties":{"type":"number"}}"#;
    let cases = [
        ("[]", "must be of type object (type)"),
        ("{}", "\"id\" is missing (required)"),
        (
            r#"{"id":1,"items":[{},{"price/net":-1}]}"#,
            "/items/1/price~1net: must be at least 0 (minimum)",
        ),
        (r#"{"id":1,"email":"secret"}"#, "/email: must match @ (pattern)"),
        (r#"{"id":1,"x":"secret"}"#, "/x: must be of type number (type)"),
    ];
    for (value, why) in cases {
        assert_eq!(fate(schema, value), Fate::Rejected(why.to_owned()));
    }
    let Fate::Rejected(why) = fate(schema, "{") else {
        panic!("no JSON fits nothing")
    };
    assert!(why.starts_with("the value is not JSON: "), "{why}");
    assert!(matches!(fate("true", &"[".repeat(100_000)), Fate::Rejected(_)));
}

#[test]
fn mismatches_are_dropped_on_demand_and_counted() {
    let params = [("schema", r#"{"type":"number"}"#), ("mismatch", "drop")];
    let mut harness = Harness::<validate>::new(&params).unwrap();
    assert_eq!(
        harness.run(&[Sample::value("1"), Sample::value("{}")]),
        [Fate::Kept, Fate::Dropped]
    );
    assert_eq!(harness.counter("mismatches"), 1);
}

#[test]
fn what_is_no_schema_or_not_known_is_refused() {
    let refused = |schema| Harness::<validate>::new(&[("schema", schema)]).map(drop).unwrap_err();
    let cases = [
        ("1", "#: a schema is an object, true or false"),
        (
            r#"{"properties":{"a":{"typ":"x"}}}"#,
            "#/properties/a/typ: this module does not know the keyword",
        ),
        (
            r#"{"unevaluatedProperties":false}"#,
            "#/unevaluatedProperties: this module does not know the keyword",
        ),
        (
            r#"{"$ref":"http://x.org/y"}"#,
            "#/$ref: \"http://x.org/y\" is outside of the schema, and a module cannot fetch it",
        ),
        (
            r##"{"$ref":"#/$defs/x"}"##,
            "#/$ref: \"#/$defs/x\" names nothing in the schema",
        ),
        (
            r#"{"type":"text"}"#,
            "#/type: expected one of null, boolean, object, array, number, integer, string, or an array of them",
        ),
        (
            r#"{"minLength":-1}"#,
            "#/minLength: expected a whole number of at least 0",
        ),
        (r#"{"anyOf":[]}"#, "#/anyOf: expected at least one schema"),
    ];
    for (schema, why) in cases {
        assert_eq!(refused(schema), format!("parameter \"schema\": {why}"));
    }
    assert!(refused("{").starts_with("parameter \"schema\": the schema is not JSON: "));
    assert!(refused(r#"{"pattern":"("}"#).contains("is no regular expression"));
    assert!(refused(r#"{"$schema":"http://json-schema.org/draft-07/schema#"}"#).contains("only draft"));
}
