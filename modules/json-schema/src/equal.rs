//! When two values, and two numbers, are the same to JSON Schema: `1` is `1.0`, and the order of members does not matter.

use std::cmp::Ordering;

use serde_json::{Number, Value};

pub fn equal(one: &Value, two: &Value) -> bool {
    match (one, two) {
        (Value::Number(one), Value::Number(two)) => compare(one, two) == Some(Ordering::Equal),
        (Value::Array(one), Value::Array(two)) => {
            one.len() == two.len() && one.iter().zip(two).all(|(one, two)| equal(one, two))
        }
        (Value::Object(one), Value::Object(two)) => {
            let same = |(name, value): (&String, &Value)| two.get(name).is_some_and(|other| equal(value, other));
            one.len() == two.len() && one.iter().all(same)
        }
        _ => one == two,
    }
}

/// Exact where both are whole.
pub fn compare(one: &Number, two: &Number) -> Option<Ordering> {
    match (one.as_i128(), two.as_i128()) {
        (Some(one), Some(two)) => Some(one.cmp(&two)),
        _ => one.as_f64()?.partial_cmp(&two.as_f64()?),
    }
}

/// Whether a number is whole, however it is written.
pub fn is_whole(number: &Number) -> bool {
    number.as_i128().is_some() || number.as_f64().is_some_and(|number| number.fract() == 0.0)
}

/// How far from a whole number a quotient of two decimal fractions may be, as a share of it, for what is lost in binary.
const INEXACTNESS: f64 = 1e-12;

pub fn is_multiple(number: &Number, of: f64) -> bool {
    if let Some(whole) = number.as_i128()
        && of.fract() == 0.0
        && of < i64::MAX as f64
    {
        return whole % of as i128 == 0;
    }
    let quotient = number.as_f64().unwrap_or(f64::NAN) / of;
    (quotient - quotient.round()).abs() <= quotient.abs() * INEXACTNESS
}
