//! What must hold of one value, as it stands in the document.
//!
//! Numbers compare with numbers, exactly where both are whole, and texts with texts, by their characters' codes. Values
//! of two kinds are unequal, and neither is the greater. `contains` and `~` look into texts only.

use std::borrow::Cow;
use std::cmp::Ordering;

use memchr::memmem;
use regex_lite::Regex;

/// What must hold of a value.
#[derive(Clone, Debug)]
pub enum Comparison {
    /// It is there.
    Exists,
    /// It is equal, or with `negated` it is not.
    Equals {
        /// What to.
        literal: Literal,
        /// Unequal is wanted.
        negated: bool,
    },
    /// It is on the right side of a bound.
    Ordered {
        /// The bound.
        literal: Literal,
        /// The side.
        wanted: Ordering,
        /// The bound itself will do.
        or_equal: bool,
    },
    /// It is a text that has this one in it.
    Contains(Box<memmem::Finder<'static>>),
    /// It is a text in which the expression matches, or with `negated` anything else.
    Matches {
        /// The expression.
        regex: Regex,
        /// No match is wanted.
        negated: bool,
    },
}

/// A value to compare with.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// A number.
    Number(Number),
    /// A text.
    Text(String),
    /// `true`, `false` or `null`.
    Word(&'static str),
}

/// A number; whole ones compare exactly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A whole number.
    Whole(i128),
    /// Any other.
    Float(f64),
}

const WORDS: [&str; 3] = ["true", "false", "null"];

impl Comparison {
    /// Whether it holds of a value, given as it stands in the document.
    pub fn holds(&self, json: &str) -> bool {
        match self {
            Comparison::Exists => true,
            Comparison::Equals { literal, negated } => (literal.compare(json) == Some(Ordering::Equal)) != *negated,
            Comparison::Ordered {
                literal,
                wanted,
                or_equal,
            } => literal
                .compare(json)
                .is_some_and(|found| found == *wanted || (*or_equal && found == Ordering::Equal)),
            Comparison::Matches { regex, negated } => text(json).is_some_and(|text| regex.is_match(&text)) != *negated,
            Comparison::Contains(finder) => text(json).is_some_and(|text| finder.find(text.as_bytes()).is_some()),
        }
    }
}

impl Literal {
    /// Reads a value as it is written in a condition.
    pub fn parse(source: &str) -> Option<Self> {
        if let Some(word) = WORDS.into_iter().find(|word| *word == source) {
            return Some(Literal::Word(word));
        }
        let single_quoted = source.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
        if let Some(inside) = single_quoted.filter(|inside| !inside.contains('\'')) {
            return Some(Literal::Text(inside.to_owned()));
        }
        match serde_json::from_str(source).ok()? {
            serde_json::Value::String(text) => Some(Literal::Text(text)),
            serde_json::Value::Number(_) => Number::parse(source).map(Literal::Number),
            _ => None,
        }
    }

    /// How the value in the document compares to this one; `None` where they are of two kinds.
    fn compare(&self, json: &str) -> Option<Ordering> {
        match self {
            Literal::Number(number) => Number::parse(json)?.compare(*number),
            Literal::Text(wanted) => Some(text(json)?.as_bytes().cmp(wanted.as_bytes())),
            Literal::Word(word) => (json == *word).then_some(Ordering::Equal),
        }
    }
}

impl Number {
    fn parse(json: &str) -> Option<Self> {
        if !json.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
            return None;
        }
        if let Ok(whole) = json.parse::<i64>() {
            return Some(Number::Whole(whole.into()));
        }
        json.parse()
            .map(Number::Whole)
            .or_else(|_| json.parse().map(Number::Float))
            .ok()
    }

    fn compare(self, other: Self) -> Option<Ordering> {
        let float = |number| match number {
            Number::Whole(whole) => whole as f64,
            Number::Float(float) => float,
        };
        match (self, other) {
            (Number::Whole(one), Number::Whole(two)) => Some(one.cmp(&two)),
            (one, two) => float(one).partial_cmp(&float(two)),
        }
    }
}

/// The text that a JSON string stands for.
fn text(json: &str) -> Option<Cow<'_, str>> {
    let inside = json.strip_prefix('"')?.strip_suffix('"')?;
    if inside.contains('\\') {
        serde_json::from_str(json).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inside))
    }
}
