//! Reads a condition from its text:
//!
//! ```text
//! any        = all { "or" all }
//! all        = one { "and" one }
//! one        = "not" one | "(" any ")" | "exists" path | path operator value
//! ```

use std::cmp::Ordering;

use json_path::Path;
use memchr::memmem;
use regex_lite::{Regex, RegexBuilder};

use crate::comparison::{Comparison, Literal};
use crate::condition::Term;

/// The compiled expression may take so many bytes.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// So many `not` and brackets may stand within each other.
const DEPTH_MAX: usize = 64;

/// Longer operators stand before those they begin with.
const OPERATORS: [&str; 10] = ["==", "!=", "!~", "<=", ">=", "=", "<", ">", "~", "contains"];

/// What is wrong with a condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at character {at} of {text:?}")]
pub struct ConditionError {
    what: String,
    /// Counted from 1.
    at: usize,
    text: String,
}

/// A condition that was read: its terms, and the comparisons they number, each with its path.
#[derive(Debug)]
pub struct Parsed {
    /// The whole of it.
    pub term: Term,
    /// Paths in the order of the comparisons.
    pub paths: Vec<Path>,
    /// What must hold at each.
    pub comparisons: Vec<Comparison>,
}

/// Reads a condition.
///
/// # Errors
/// Says what was expected, and where.
pub fn parse(text: &str) -> Result<Parsed, ConditionError> {
    let mut reader = Reader {
        text,
        at: 0,
        depth: 0,
        paths: Vec::new(),
        comparisons: Vec::new(),
    };
    let term = reader.any()?;
    if !reader.rest().is_empty() {
        return Err(reader.expected("and, or, or the end"));
    }
    let (paths, comparisons) = (reader.paths, reader.comparisons);
    Ok(Parsed {
        term,
        paths,
        comparisons,
    })
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    paths: Vec<Path>,
    comparisons: Vec<Comparison>,
}

impl<'a> Reader<'a> {
    fn any(&mut self) -> Result<Term, ConditionError> {
        let mut terms = vec![self.all()?];
        while self.takes_word("or") {
            terms.push(self.all()?);
        }
        Ok(Term::Any(terms))
    }

    fn all(&mut self) -> Result<Term, ConditionError> {
        let mut terms = vec![self.one()?];
        while self.takes_word("and") {
            terms.push(self.one()?);
        }
        Ok(Term::All(terms))
    }

    fn one(&mut self) -> Result<Term, ConditionError> {
        if self.takes_word("not") {
            let inner = self.deeper(Self::one)?;
            return Ok(Term::Not(Box::new(inner)));
        }
        if self.rest().starts_with('(') {
            self.at += 1;
            let inner = self.deeper(Self::any)?;
            if !self.rest().starts_with(')') {
                return Err(self.expected("and, or, or )"));
            }
            self.at += 1;
            return Ok(inner);
        }
        if self.takes_word("exists") {
            let path = self.path()?;
            return Ok(Term::Exists(self.number(path, Comparison::Exists)));
        }
        let path = self.path()?;
        let comparison = self.comparison()?;
        Ok(Term::Holds(self.number(path, comparison)))
    }

    fn deeper(&mut self, read: impl FnOnce(&mut Self) -> Result<Term, ConditionError>) -> Result<Term, ConditionError> {
        if self.depth == DEPTH_MAX {
            return Err(self.error(format!("more than {DEPTH_MAX} not and ( within each other")));
        }
        self.depth += 1;
        let term = read(self)?;
        self.depth -= 1;
        Ok(term)
    }

    fn number(&mut self, path: Path, comparison: Comparison) -> usize {
        self.paths.push(path);
        self.comparisons.push(comparison);
        self.paths.len() - 1
    }

    fn path(&mut self) -> Result<Path, ConditionError> {
        let rest = self.rest();
        let (path, behind) = Path::parse_prefix(rest).map_err(|error| {
            self.at += rest.char_indices().nth(error.at() - 1).map_or(rest.len(), |(at, _)| at);
            self.error(format!("{} of a path", error.what()))
        })?;
        self.at = self.text.len() - behind.len();
        Ok(path)
    }

    fn comparison(&mut self) -> Result<Comparison, ConditionError> {
        let rest = self.rest();
        let Some(operator) = OPERATORS.into_iter().find(|operator| rest.starts_with(operator)) else {
            let wanted = "one of = != < <= > >= ~ !~ contains";
            return Err(if rest.starts_with("exists") {
                self.error("write exists before the path".to_owned())
            } else {
                self.expected(wanted)
            });
        };
        self.at += operator.len();
        let source = self.value()?;
        let Some(literal) = Literal::parse(source) else {
            return Err(self.expected("a number, true, false, null, or a text in quotes like \"DE\""));
        };
        let kind = |wanted: &str| Err(self.error(format!("{operator} takes {wanted}, not {source}")));
        let comparison = match (operator, literal) {
            ("=" | "==", literal) => Comparison::Equals {
                literal,
                negated: false,
            },
            ("!=", literal) => Comparison::Equals { literal, negated: true },
            ("contains", Literal::Text(text)) => {
                Comparison::Contains(Box::new(memmem::Finder::new(&text).into_owned()))
            }
            ("~" | "!~", Literal::Text(text)) => Comparison::Matches {
                regex: self.regex(&text)?,
                negated: operator == "!~",
            },
            ("contains", _) => return kind("a text"),
            ("~" | "!~", _) => return kind("a regular expression in quotes"),
            (_, Literal::Word(_)) => return kind("a number or a text"),
            (_, literal) => Comparison::Ordered {
                literal,
                wanted: if operator.starts_with('<') {
                    Ordering::Less
                } else {
                    Ordering::Greater
                },
                or_equal: operator.ends_with('='),
            },
        };
        self.at += source.len();
        Ok(comparison)
    }

    fn regex(&self, text: &str) -> Result<Regex, ConditionError> {
        let built = RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).build();
        built.map_err(|error| self.error(format!("no regular expression ({error})")))
    }

    /// The text of the value that stands next, which is not taken yet.
    fn value(&mut self) -> Result<&'a str, ConditionError> {
        let rest = self.rest();
        let Some(quote) = rest.chars().next().filter(|first| matches!(first, '"' | '\'')) else {
            let end = rest.find(|c: char| c.is_whitespace() || c == ')').unwrap_or(rest.len());
            return Ok(&rest[..end]);
        };
        let mut escaped = false;
        let end = rest[1..].find(|c: char| {
            let ends = c == quote && !escaped;
            escaped = quote == '"' && c == '\\' && !escaped;
            ends
        });
        match end {
            Some(end) => Ok(&rest[..end + 2]),
            None => Err(self.error("the text has no closing quote".to_owned())),
        }
    }

    /// Takes a word that stands alone.
    fn takes_word(&mut self, word: &str) -> bool {
        let behind = self.rest().strip_prefix(word);
        let found = behind.is_some_and(|behind| behind.is_empty() || behind.starts_with([' ', '\t', '\n', '\r', '(']));
        self.at += if found { word.len() } else { 0 };
        found
    }

    /// What is left, from the next character that is no space on.
    fn rest(&mut self) -> &'a str {
        let rest = self.text[self.at..].trim_start();
        self.at = self.text.len() - rest.len();
        rest
    }

    fn expected(&self, wanted: &str) -> ConditionError {
        self.error(format!("expected {wanted}"))
    }

    fn error(&self, what: String) -> ConditionError {
        ConditionError {
            what,
            at: self.text[..self.at].chars().count() + 1,
            text: self.text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_condition_is_refused_where_it_goes_wrong() {
        let operators = "expected one of = != < <= > >= ~ !~ contains";
        let value = "expected a number, true, false, null, or a text in quotes like \"DE\"";
        let cases = [
            ("", "expected a name of a path at character 1".to_owned()),
            ("$.a", format!("{operators} at character 4")),
            ("$.a ? 1", format!("{operators} at character 5")),
            ("$.a. = 1", "expected a name of a path at character 5".to_owned()),
            ("$.a = DE", format!("{value} at character 7")),
            ("$.ä ==", format!("{value} at character 7")),
            ("$.a = [1]", format!("{value} at character 7")),
            (
                "$.a = 1 && $.b = 2",
                "expected and, or, or the end at character 9".to_owned(),
            ),
            ("($.a = 1", "expected and, or, or ) at character 9".to_owned()),
            ("$.a = 1)", "expected and, or, or the end at character 8".to_owned()),
            ("$.a = 1 and", "expected a name of a path at character 12".to_owned()),
            (
                "$.a contains 1",
                "contains takes a text, not 1 at character 14".to_owned(),
            ),
            (
                "$.a >= null",
                ">= takes a number or a text, not null at character 8".to_owned(),
            ),
            (
                "$.a ~ 5",
                "~ takes a regular expression in quotes, not 5 at character 7".to_owned(),
            ),
            ("$.a = \"x", "the text has no closing quote at character 7".to_owned()),
            ("$.a exists", "write exists before the path at character 5".to_owned()),
        ];
        for (text, message) in cases {
            let error = parse(text).unwrap_err().to_string();
            assert_eq!(error, format!("{message} of {text:?}"), "{text}");
        }
        let error = parse("$.a ~ '('").unwrap_err().to_string();
        assert!(
            error.starts_with("no regular expression (") && error.contains(") at character 7 of"),
            "{error}"
        );
        let deep = "(".repeat(100_000);
        assert!(
            parse(&deep)
                .unwrap_err()
                .to_string()
                .starts_with("more than 64 not and (")
        );
    }

    #[test]
    fn brackets_and_words_bind_as_written() {
        let shape = |text| format!("{:?}", parse(text).unwrap().term);
        let all = |terms: &str| format!("All([{terms}])");
        let any = |terms: &str| format!("Any([{terms}])");
        let (a, b, c) = ("Holds(0)", "Holds(1)", "Holds(2)");
        assert_eq!(
            shape("a=1 or b=1 and c=1"),
            any(&format!("{}, {}", all(a), all(&format!("{b}, {c}"))))
        );
        assert_eq!(
            shape("(a=1 or b=1) and not(c=1)"),
            any(&all(&format!(
                "{}, Not({})",
                any(&format!("{}, {}", all(a), all(b))),
                any(&all(c))
            )))
        );
        assert_eq!(shape("exists $.not and order = 1"), any(&all("Exists(0), Holds(1)")));
    }
}
