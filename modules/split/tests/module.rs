//! The module as a whole.

use millstream_guest::prelude::Context;
use millstream_guest::testing::{Fate, Harness, Sample};
use split::elements;

fn fate(params: &[(&str, &str)], value: &str) -> Fate {
    Harness::<elements>::new(params).unwrap().run_one(&Sample::value(value))
}

fn became(values: &[&str]) -> Fate {
    Fate::Became(values.iter().map(Sample::value).collect())
}

#[test]
fn each_element_becomes_a_record_with_key_headers_and_time() {
    let sample = Sample::value(r#"[{"a":1}, "two" ,3.50,[4]]"#)
        .key("k")
        .header("h", "v")
        .at_ms(7);
    let fate = Harness::<elements>::new(&[]).unwrap().run_one(&sample);
    let like = |value: &str| Sample {
        value: Some(value.into()),
        ..sample.clone()
    };
    assert_eq!(
        fate,
        Fate::Became(vec![like(r#"{"a":1}"#), like(r#""two""#), like("3.50"), like("[4]")])
    );
}

#[test]
fn the_array_may_stand_at_a_path_or_at_several() {
    assert_eq!(
        fate(&[("path", "$.items")], r#"{"id":1,"items":[1,2]}"#),
        became(&["1", "2"])
    );
    assert_eq!(
        fate(
            &[("path", "$.orders[*].items")],
            r#"{"orders":[{"items":[1]},{"items":[2,3]}]}"#
        ),
        became(&["1", "2", "3"])
    );
}

#[test]
fn of_an_empty_array_nothing_is_left() {
    assert_eq!(fate(&[], "[]"), Fate::Dropped);
}

#[test]
fn what_has_no_array_is_refused_goes_or_stays() {
    let reason = |params: &[(&str, &str)], value| match fate(params, value) {
        Fate::Rejected(reason) => reason,
        other => panic!("{other:?}"),
    };
    assert!(reason(&[], "[1,").starts_with("the value is not JSON: "));
    assert_eq!(reason(&[], "{}"), "what is at the path is no array");
    assert_eq!(reason(&[("path", "a")], "{}"), "the value has nothing at the path");
    assert_eq!(fate(&[("invalid", "drop")], "{}"), Fate::Dropped);
    assert_eq!(fate(&[("invalid", "keep")], "{}"), Fate::Kept);
}

#[test]
fn wrong_parameters_and_the_wrong_side_are_refused() {
    let refused = |context, params: &[(&str, &str)]| {
        Harness::<elements>::with_context(context, params)
            .map(drop)
            .unwrap_err()
    };
    assert_eq!(
        refused(Context::default(), &[("path", "$.")]),
        "parameter \"path\": path \"$.\": expected a name at character 3"
    );
    let on_fetch = Context {
        on_fetch: true,
        ..Context::default()
    };
    assert!(refused(on_fetch, &[]).contains("only a stage on produce"));
}
