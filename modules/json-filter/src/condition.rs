//! A condition: comparisons, joined by `and`, `or` and `not`.
//!
//! A comparison with a value that is not there neither holds nor fails: it is open, and so is what hangs on it alone.
//! `exists` is never open.

use json_path::{Paths, find_nested};

use crate::comparison::Comparison;
use crate::parse::{self, ConditionError};

/// A part of a condition. Comparisons are numbered.
#[derive(Debug)]
pub enum Term {
    /// One of them holds.
    Any(Vec<Term>),
    /// All of them hold.
    All(Vec<Term>),
    /// It fails.
    Not(Box<Term>),
    /// Something is at the path of this comparison.
    Exists(usize),
    /// The comparison holds of one of the values at its path.
    Holds(usize),
}

/// A condition, ready to be decided.
#[derive(Debug)]
pub struct Condition {
    paths: Paths,
    comparisons: Vec<Comparison>,
    term: Term,
}

/// What is known of the comparisons for one document: a bit each.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    found: u64,
    holds: u64,
}

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// Says what was expected, and where; or that it is too long.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parsed = parse::parse(text).map_err(|error: ConditionError| error.to_string())?;
        Ok(Self {
            paths: Paths::new(&parsed.paths)?,
            comparisons: parsed.comparisons,
            term: parsed.term,
        })
    }

    /// Whether it holds of a document; `None` where that hangs on a value that is not there.
    ///
    /// # Errors
    /// It is not JSON.
    pub fn holds(&self, document: &[u8]) -> Result<Option<bool>, json_path::Error> {
        let mut known = Known::default();
        find_nested(document, &self.paths, |found| {
            known.found |= found.paths;
            for number in found.path_numbers() {
                let holds = known.holds & 1 << number != 0 || self.comparisons[number].holds(found.json);
                known.holds |= u64::from(holds) << number;
            }
        })?;
        Ok(self.term.decide(known))
    }
}

impl Term {
    fn decide(&self, known: Known) -> Option<bool> {
        match self {
            Term::Any(terms) => decide_any(terms.iter().map(|term| term.decide(known))),
            Term::All(terms) => {
                decide_any(terms.iter().map(|term| term.decide(known).map(|holds| !holds))).map(|one| !one)
            }
            Term::Not(term) => term.decide(known).map(|holds| !holds),
            Term::Exists(number) => Some(known.found & 1 << number != 0),
            Term::Holds(number) => (known.found & 1 << number != 0).then_some(known.holds & 1 << number != 0),
        }
    }
}

/// True where one is; else open where one is.
fn decide_any(terms: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut all = Some(false);
    for term in terms {
        match term {
            Some(true) => return Some(true),
            None => all = None,
            Some(false) => {}
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decides(condition: &str, document: &str) -> Option<bool> {
        Condition::parse(condition).unwrap().holds(document.as_bytes()).unwrap()
    }

    fn holds(comparison: &str, json: &str) -> bool {
        let document = format!("{{\"x\":{json}}}");
        decides(&format!("$.x {comparison}"), &document).unwrap()
    }

    #[test]
    fn comparisons_hold_and_fail() {
        let cases = [
            (">= 500", "500", true),
            (">= 500", "499.9", false),
            ("<500", "-1", true),
            ("< 500", "5e2", false),
            ("> 9007199254740992", "9007199254740993", true),
            ("= 1", "1.0", true),
            ("== 1", "\"1\"", false),
            ("!= 1", "\"1\"", true),
            (
                "== 340282366920938463463374607431768211456",
                "340282366920938463463374607431768211456",
                true,
            ),
            ("= \"DE\"", "\"DE\"", true),
            ("== 'DE'", "\"\\u0044E\"", true),
            ("< \"b\"", "\"a\"", true),
            ("< \"b\"", "1", false),
            ("== true", "true", true),
            ("!= null", "0", true),
            ("== null", "null", true),
            ("contains \"time\"", "\"a timeout\"", true),
            ("contains \"é\"", "\"caf\\u00e9\"", true),
            ("contains \"1\"", "1", false),
            ("~ '^time ?out$'", "\"time out\"", true),
            ("~ 'é'", "\"caf\\u00e9\"", true),
            ("~ 'x'", "\"y\"", false),
            ("!~ 'x'", "\"y\"", true),
            ("!~ 'x'", "1", true),
        ];
        for (comparison, json, expected) in cases {
            assert_eq!(holds(comparison, json), expected, "{json} {comparison}");
        }
    }

    #[test]
    fn what_hangs_on_a_missing_value_is_open() {
        let cases = [
            ("a = 1 and b = 2", Some(true)),
            ("a = 1 and c = 2", None),
            ("a = 2 and c = 2", Some(false)),
            ("a = 1 or c = 2", Some(true)),
            ("a = 2 or c = 2", None),
            ("not c = 2", None),
            ("not (a = 2 or b = 1)", Some(true)),
            ("exists a and not exists c", Some(true)),
            ("exists c or b > 1", Some(true)),
            ("exists b.c and b = 2", Some(false)),
        ];
        for (condition, expected) in cases {
            assert_eq!(decides(condition, r#"{"a":1,"b":2}"#), expected, "{condition}");
        }
    }

    #[test]
    fn a_value_and_what_is_within_it_are_both_looked_at() {
        assert_eq!(decides("exists $.a and $.a.b = 1", r#"{"a":{"b":1}}"#), Some(true));
        assert_eq!(decides("$.a > 1 and $.a < 5", r#"{"a":3}"#), Some(true));
    }

    #[test]
    fn a_condition_has_a_bound() {
        let long = vec!["a.b = 1"; 33].join(" and ");
        assert!(Condition::parse(&long).unwrap_err().contains("more than 64"));
    }
}
