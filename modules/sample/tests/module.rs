//! The module as a whole.

use millstream_guest::testing::{Fate, Harness, Sample};
use sample::keep;

fn kept(params: &[(&str, &str)], samples: &[Sample]) -> Vec<bool> {
    let fates = Harness::<keep>::new(params).unwrap().run(samples);
    fates.into_iter().map(|fate| fate == Fate::Kept).collect()
}

fn keys(count: u32) -> Vec<Sample> {
    (0..count)
        .map(|n| Sample::value("v").key(format!("user-{n}")))
        .collect()
}

fn count(kept: &[bool]) -> usize {
    kept.iter().filter(|&&kept| kept).count()
}

#[test]
fn the_share_is_kept_and_a_smaller_one_is_part_of_a_greater() {
    let samples = keys(20_000);
    let tenth = kept(&[("percent", "10")], &samples);
    assert!((1_900..2_100).contains(&count(&tenth)), "{}", count(&tenth));
    assert_eq!(kept(&[("one_in", "10")], &samples), tenth);
    let half = kept(&[("percent", "50")], &samples);
    assert!(tenth.iter().zip(&half).all(|(tenth, half)| !tenth || *half));
    assert_eq!(count(&kept(&[("percent", "100")], &samples)), samples.len());
    assert_eq!(count(&kept(&[("one_in", "1")], &samples)), samples.len());
    assert_eq!(count(&kept(&[("percent", "0")], &samples)), 0);
}

#[test]
fn all_records_of_a_key_share_its_fate() {
    let params = [("percent", "50")];
    let other_values: Vec<Sample> = (0..1_000)
        .map(|n| Sample::value(n.to_string()).key(format!("user-{n}")))
        .collect();
    assert_eq!(kept(&params, &keys(1_000)), kept(&params, &other_values));
}

/// The hash is part of what the module promises: these stay what they are in every version.
#[test]
fn the_chosen_ones_never_change() {
    let chosen = |params: &[(&str, &str)]| -> Vec<usize> {
        let kept = kept(params, &keys(40));
        (0..40).filter(|&n| kept[n]).collect()
    };
    assert_eq!(chosen(&[("percent", "10")]), [9, 20, 25]);
    assert_eq!(chosen(&[("percent", "10"), ("seed", "1")]), [22, 28, 33]);
}

#[test]
fn a_record_without_a_key_goes_by_its_value() {
    let values: Vec<Sample> = (0..100).map(|n| Sample::value(format!("user-{n}"))).collect();
    assert_eq!(
        kept(&[("percent", "30")], &values),
        kept(&[("percent", "30")], &keys(100))
    );
    assert_eq!(kept(&[("percent", "100")], &[Sample::tombstone()]), [true]);
}

#[test]
fn wrong_parameters_are_refused() {
    let refused = |params: &[(&str, &str)]| Harness::<keep>::new(params).map(drop).unwrap_err();
    assert_eq!(refused(&[]), "set either \"percent\" or \"one_in\"");
    assert_eq!(
        refused(&[("percent", "1"), ("one_in", "2")]),
        "set either \"percent\" or \"one_in\""
    );
    assert_eq!(
        refused(&[("percent", "101")]),
        "parameter \"percent\": 101 is not from 0 to 100"
    );
    assert_eq!(refused(&[("one_in", "0")]), "parameter \"one_in\" is at least 1");
}
