//! The module as a whole.

use json_filter::keep;
use millstream_guest::testing::{Fate, Harness, Sample};

fn fates(params: &[(&str, &str)], values: &[&str]) -> Vec<Fate> {
    let samples: Vec<Sample> = values.iter().map(Sample::value).collect();
    Harness::<keep>::new(params).unwrap().run(&samples)
}

#[test]
fn records_for_which_the_comparison_holds_stay() {
    let values = [
        r#"{"status":500}"#,
        r#"{"status":200}"#,
        r#"{"status":"500"}"#,
        r#"{"a":[],"status":503.5}"#,
    ];
    assert_eq!(
        fates(&[("where", "$.status >= 500")], &values),
        [Fate::Kept, Fate::Dropped, Fate::Dropped, Fate::Kept]
    );
}

#[test]
fn of_several_values_one_is_enough() {
    let values = [r#"{"items":[{"price":1},{"price":20}]}"#, r#"{"items":[{"price":1}]}"#];
    assert_eq!(
        fates(&[("where", "$.items[*].price > 10")], &values),
        [Fate::Kept, Fate::Dropped]
    );
}

#[test]
fn what_is_missing_goes_stays_or_is_refused() {
    let values = ["{}", "no JSON", r#"{"a":1} x"#];
    let of = |missing| fates(&[("where", "$.a == 1"), ("missing", missing)], &values);
    assert_eq!(fates(&[("where", "$.a == 1")], &values), of("drop"));
    assert_eq!(of("drop"), vec![Fate::Dropped; 3]);
    assert_eq!(of("keep"), vec![Fate::Kept; 3]);
    let reasons = of("reject");
    assert_eq!(
        reasons[0],
        Fate::Rejected("the value has nothing at a path on which the condition hangs".to_owned())
    );
    assert!(matches!(&reasons[1], Fate::Rejected(reason) if reason.starts_with("the value is not JSON: ")));
    assert!(matches!(&reasons[2], Fate::Rejected(reason) if reason.contains("trailing characters")));
}

#[test]
fn wrong_parameters_are_refused() {
    let refused = |params: &[(&str, &str)]| Harness::<keep>::new(params).map(drop).unwrap_err();
    assert_eq!(refused(&[]), "parameter \"where\" is missing (string)");
    assert_eq!(
        refused(&[("where", "$.a == 1 and $.b ? 2")]),
        "parameter \"where\": expected one of = != < <= > >= ~ !~ contains at character 18 of \"$.a == 1 and $.b ? 2\""
    );
}

#[test]
fn conditions_are_joined_and_a_record_that_lacks_what_decides_is_missing() {
    let values = [
        r#"{"level":"error","service":"api"}"#,
        r#"{"level":"error","service":"worker-7"}"#,
        r#"{"level":"info","service":"api","trace":"x"}"#,
        r#"{"service":"api"}"#,
    ];
    let params = [
        (
            "where",
            "$.level = 'error' and $.service !~ '^worker-[0-9]+$' or exists $.trace",
        ),
        ("missing", "keep"),
    ];
    assert_eq!(
        fates(&params, &values),
        [Fate::Kept, Fate::Dropped, Fate::Kept, Fate::Kept]
    );
}
