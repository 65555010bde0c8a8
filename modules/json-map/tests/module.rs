//! The module as a whole.

use json_map::change;
use millstream_guest::testing::{Fate, Harness, Sample};

fn fate(params: &[(&str, &str)], sample: &Sample) -> Fate {
    Harness::<change>::new(params).unwrap().run_one(sample)
}

fn changed(params: &[(&str, &str)], value: &str) -> String {
    fate(params, &Sample::value(value)).one().text()
}

const ORDER: &str = r#"{"id": 7, "customer": {"mail": "bob@x.org", "age": 44}, "items": [{"sku":"a","cost":1.50}, {"sku":"b","cost":2}], "debug": null}"#;

#[test]
fn only_what_is_selected_stays_in_its_order() {
    let cases = [
        ("$.debug,$.id", r#"{"id":7,"debug":null}"#),
        ("$.customer", r#"{"customer":{"mail": "bob@x.org", "age": 44}}"#),
        ("$.customer.age", r#"{"customer":{"age":44}}"#),
        ("$.items[*].sku", r#"{"items":[{"sku":"a"},{"sku":"b"}]}"#),
        ("$.items[1].cost", r#"{"items":[{"cost":2}]}"#),
        ("$.id.x,$.nothing", "{}"),
    ];
    for (select, expected) in cases {
        assert_eq!(changed(&[("select", select)], ORDER), expected, "{select}");
    }
    assert_eq!(fate(&[("select", "$")], &Sample::value(ORDER)), Fate::Kept);
}

#[test]
fn fields_and_elements_are_removed_wherever_they_stand() {
    let cases = [
        (
            "debug,$.items",
            r#"{"id":7,"customer":{"mail": "bob@x.org", "age": 44}}"#,
        ),
        (
            "$.items[*].cost,$.customer.mail,debug",
            r#"{"id":7,"customer":{"age":44},"items":[{"sku":"a"},{"sku":"b"}]}"#,
        ),
        (
            "$.items[0],customer,debug",
            r#"{"id":7,"items":[{"sku":"b","cost":2}]}"#,
        ),
        ("$.items[*],customer,debug", r#"{"id":7,"items":[]}"#),
    ];
    for (remove, expected) in cases {
        assert_eq!(changed(&[("remove", remove)], ORDER), expected, "{remove}");
    }
    assert_eq!(changed(&[("remove", "a")], r#"{"a":1,"\u0061":2,"b":3}"#), r#"{"b":3}"#);
}

#[test]
fn a_renamed_field_keeps_its_place_and_its_value() {
    let params = [
        ("rename", "$.customer.mail=email, id='order id'"),
        ("remove", "$.items,debug"),
    ];
    assert_eq!(
        changed(&params, ORDER),
        r#"{"order id":7,"customer":{"email":"bob@x.org","age":44}}"#
    );
    let swapped = changed(&[("rename", "a=b,b=a")], r#"{"a":1,"b":2}"#);
    assert_eq!(swapped, r#"{"b":1,"a":2}"#);
}

#[test]
fn a_name_is_never_given_twice() {
    let value = Sample::value(r#"{"b":1,"a":2}"#);
    let why = "a field is renamed to \"b\", and there is one of that name already";
    assert_eq!(fate(&[("rename", "a=b")], &value), Fate::Rejected(why.to_owned()));
    assert_eq!(
        fate(&[("rename", "a=b")], &Sample::value(r#"{"a":2,"b":1}"#)),
        Fate::Rejected(why.to_owned())
    );
    assert_eq!(
        changed(&[("rename", "a=b"), ("remove", "b")], r#"{"b":1,"a":2}"#),
        r#"{"b":2}"#
    );
}

#[test]
fn fields_are_set_in_place_or_at_the_end() {
    let params = [("set", r#"$.b={"x":[1, 2]},$.env='prod',$.c.d.e="é",$.n=null"#)];
    assert_eq!(
        changed(&params, r#"{"a":0, "b":1}"#),
        r#"{"a":0,"b":{"x":[1, 2]},"env":"prod","c":{"d":{"e":"é"}},"n":null}"#
    );
    assert_eq!(
        changed(&params, "{}"),
        r#"{"b":{"x":[1, 2]},"env":"prod","c":{"d":{"e":"é"}},"n":null}"#
    );
    assert_eq!(
        changed(&[("set", "$[*].v=1")], r#"[{"a":0},{"v":0}]"#),
        r#"[{"a":0,"v":1},{"v":1}]"#
    );
}

#[test]
fn fields_are_set_to_what_the_record_is_and_has() {
    let sample = Sample::value(r#"{"a":{"b":[1, 2]}}"#)
        .key("k\"")
        .header("h", "v")
        .at_ms(1_234);
    let params = [(
        "set",
        "$.key=key,$.at=timestamp,$.topic=topic,$.p=partition,$.h=header('h'),$.none=header('x'),$.o=offset,$.b=$.a.b,$.c=$.x",
    )];
    assert_eq!(
        fate(&params, &sample).one().text(),
        r#"{"a":{"b":[1, 2]},"key":"k\"","at":1234,"topic":"test","p":0,"h":"v","b":[1, 2]}"#
    );
}

#[test]
fn a_field_moves_by_setting_another_and_removing_it() {
    let params = [
        ("set", "$.email=$.customer.mail"),
        ("remove", "$.customer"),
        ("select", "$.id"),
    ];
    assert_eq!(changed(&params, ORDER), r#"{"id":7,"email":"bob@x.org"}"#);
}

#[test]
fn a_record_that_nothing_changes_in_stays_byte_for_byte() {
    for params in [
        ("remove", "$.x,$.id.y"),
        ("rename", "x=y"),
        ("set", "$.id=7"),
        ("set", "$.z=$.x"),
    ] {
        assert_eq!(fate(&[params], &Sample::value(ORDER)), Fate::Kept, "{params:?}");
    }
    assert_eq!(fate(&[("set", "$.a=1")], &Sample::tombstone().key("k")), Fate::Kept);
}

#[test]
fn what_cannot_be_changed_is_refused_goes_or_stays() {
    let sample = Sample::value(r#"{"a":5}"#);
    let why = "\"a\" is no object, so no field of it can be set";
    assert_eq!(fate(&[("set", "$.a.b=1")], &sample), Fate::Rejected(why.to_owned()));
    assert_eq!(fate(&[("set", "$.a.b=1"), ("invalid", "drop")], &sample), Fate::Dropped);
    assert_eq!(fate(&[("set", "$.a.b=1"), ("invalid", "keep")], &sample), Fate::Kept);
    for value in [
        "",
        "{",
        "{\"a\":1,}",
        "{\"a\":1}x",
        "{\"a\":1 \"b\":2}",
        "[1,]",
        "{\"a\" 1}",
        "{,}",
    ] {
        let Fate::Rejected(why) = fate(&[("remove", "a,$[0]")], &Sample::value(value)) else {
            panic!("{value} passed");
        };
        assert!(why.starts_with("the value is not JSON: "), "{why}");
    }
}

#[test]
fn wrong_parameters_are_refused() {
    let refused = |params: &[(&str, &str)]| Harness::<change>::new(params).map(drop).unwrap_err();
    let cases: [(&[(&str, &str)], &str); 11] = [
        (
            &[],
            "nothing to change: set \"select\", \"remove\", \"rename\" or \"set\"",
        ),
        (
            &[("select", "$.")],
            "parameter \"select\": path \"$.\": expected a name at character 3",
        ),
        (
            &[("remove", "$")],
            "parameter \"remove\": the path of what is removed names no field of an object",
        ),
        (&[("rename", "$.a")], "parameter \"rename\": expected = at character 4"),
        (&[("rename", "$.a=")], "parameter \"rename\": expected a name behind ="),
        (
            &[("rename", "$.a[0]=b")],
            "parameter \"rename\": the path of what is renamed names no field of an object",
        ),
        (
            &[("set", "$.a='x' $.b=1")],
            "parameter \"set\": expected a comma or the end at character 9",
        ),
        (
            &[("set", "$.a=1,$.a=2")],
            "parameter \"set\": field \"a\" is changed in two ways that exclude each other",
        ),
        (
            &[("set", "a=1"), ("remove", "a")],
            "parameter \"set\": field \"a\" is changed in two ways that exclude each other",
        ),
        (
            &[("set", "b=1"), ("rename", "a=b")],
            "parameter \"set\": field \"b\" is changed in two ways that exclude each other",
        ),
        (
            &[("set", "$.a=header(x)")],
            "parameter \"set\": expected a name in quotes behind header(",
        ),
    ];
    for (params, message) in cases {
        assert_eq!(refused(params), message);
    }
    assert!(refused(&[("set", "$.a=prod")]).starts_with("parameter \"set\": expected JSON, a text in quotes"));
    assert!(refused(&[("remove", "$.a[*].b,$.a[0].c")]).contains("not both"));
}
