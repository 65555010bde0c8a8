//! A comparison: `$.status >= 500`, `$.user.country == "DE"`, `$.message contains "timeout"`, `$.error exists`.
//!
//! Numbers compare with numbers, exactly where both are whole, and texts with texts, by their characters' codes. Values
//! of two kinds are unequal, and neither is the greater. `contains` looks for a text within a text.

use std::borrow::Cow;
use std::cmp::Ordering;

use json_path::{Path, PathError};
use memchr::memmem;

/// What is wrong with a comparison.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// It does not begin with a path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// There is no operator behind the path.
    #[error("expected one of == != < <= > >= contains exists, found {0:?}")]
    Operator(String),
    /// The value is none.
    #[error("{0:?} is no value to compare with: a number, true, false, null, or a text in quotes like \"DE\"")]
    Value(String),
    /// The operator cannot take the value.
    #[error("{operator} takes {wanted}, not {value}")]
    Kind {
        /// The operator as written.
        operator: &'static str,
        /// What it takes.
        wanted: &'static str,
        /// What it got.
        value: String,
    },
    /// There is more behind the end.
    #[error("expected the end after exists, found {0:?}")]
    Trailing(String),
}

/// What must hold of a value.
#[derive(Clone, Debug)]
pub enum Condition {
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

/// Longer operators stand before those they begin with.
const OPERATORS: [&str; 8] = ["==", "!=", "<=", ">=", "<", ">", "contains", "exists"];

/// Reads a comparison: the path, and what must hold of what is there.
///
/// # Errors
/// Says which part is wrong and what was expected.
pub fn parse(text: &str) -> Result<(Path, Condition), ConditionError> {
    let (path, rest) = Path::parse_prefix(text.trim())?;
    let rest = rest.trim_start();
    let Some(operator) = OPERATORS.into_iter().find(|operator| rest.starts_with(operator)) else {
        return Err(ConditionError::Operator(rest.to_owned()));
    };
    let rest = rest[operator.len()..].trim();
    if operator == "exists" {
        return if rest.is_empty() {
            Ok((path, Condition::Exists))
        } else {
            Err(ConditionError::Trailing(rest.to_owned()))
        };
    }
    let literal = Literal::parse(rest).ok_or_else(|| ConditionError::Value(rest.to_owned()))?;
    let kind = |wanted| {
        Err(ConditionError::Kind {
            operator,
            wanted,
            value: rest.to_owned(),
        })
    };
    let condition = match (operator, literal) {
        ("==", literal) => Condition::Equals {
            literal,
            negated: false,
        },
        ("!=", literal) => Condition::Equals { literal, negated: true },
        ("contains", Literal::Text(text)) => Condition::Contains(Box::new(memmem::Finder::new(&text).into_owned())),
        ("contains", _) => return kind("a text"),
        (_, Literal::Word(_)) => return kind("a number or a text"),
        (_, literal) => Condition::Ordered {
            literal,
            wanted: if operator.starts_with('<') {
                Ordering::Less
            } else {
                Ordering::Greater
            },
            or_equal: operator.ends_with('='),
        },
    };
    Ok((path, condition))
}

impl Condition {
    /// Whether it holds of a value, given as it stands in the document.
    pub fn holds(&self, json: &str) -> bool {
        match self {
            Condition::Exists => true,
            Condition::Equals { literal, negated } => (literal.compare(json) == Some(Ordering::Equal)) != *negated,
            Condition::Ordered {
                literal,
                wanted,
                or_equal,
            } => literal
                .compare(json)
                .is_some_and(|found| found == *wanted || (*or_equal && found == Ordering::Equal)),
            Condition::Contains(finder) => text(json).is_some_and(|text| finder.find(text.as_bytes()).is_some()),
        }
    }
}

impl Literal {
    fn parse(source: &str) -> Option<Self> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(condition: &str, json: &str) -> bool {
        parse(&format!("$.x {condition}")).unwrap().1.holds(json)
    }

    #[test]
    fn comparisons_hold_and_fail() {
        let cases = [
            (">= 500", "500", true),
            (">= 500", "499.9", false),
            ("<500", "-1", true),
            ("< 500", "5e2", false),
            ("> 9007199254740992", "9007199254740993", true),
            ("== 1", "1.0", true),
            ("== 1", "\"1\"", false),
            ("!= 1", "\"1\"", true),
            (
                "== 340282366920938463463374607431768211456",
                "340282366920938463463374607431768211456",
                true,
            ),
            ("== \"DE\"", "\"DE\"", true),
            ("== 'DE'", "\"\\u0044E\"", true),
            ("< \"b\"", "\"a\"", true),
            ("< \"b\"", "1", false),
            ("== true", "true", true),
            ("!= null", "0", true),
            ("== null", "null", true),
            ("contains \"time\"", "\"a timeout\"", true),
            ("contains \"é\"", "\"caf\\u00e9\"", true),
            ("contains \"1\"", "1", false),
            ("exists", "null", true),
        ];
        for (condition, json, expected) in cases {
            assert_eq!(holds(condition, json), expected, "{json} {condition}");
        }
    }

    #[test]
    fn what_is_no_comparison_is_refused() {
        let operators = "expected one of == != < <= > >= contains exists, found";
        let values = "is no value to compare with: a number, true, false, null, or a text in quotes like \"DE\"";
        let cases = [
            ("", "path \"\": expected a name at character 1".to_owned()),
            ("$.a", format!("{operators} \"\"")),
            ("$.a = 1", format!("{operators} \"= 1\"")),
            ("$.a == DE", format!("\"DE\" {values}")),
            ("$.a ==", format!("\"\" {values}")),
            ("$.a == [1]", format!("\"[1]\" {values}")),
            ("$.a == 1 && $.b == 2", format!("\"1 && $.b == 2\" {values}")),
            ("$.a contains 1", "contains takes a text, not 1".to_owned()),
            ("$.a >= null", ">= takes a number or a text, not null".to_owned()),
            ("$.a exists 1", "expected the end after exists, found \"1\"".to_owned()),
        ];
        for (text, message) in cases {
            assert_eq!(parse(text).unwrap_err().to_string(), message, "{text}");
        }
    }
}
