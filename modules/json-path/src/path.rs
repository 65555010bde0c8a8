//! A path, read from its text.

use std::str::FromStr;

/// Characters that end a plain name; a name that has one stands in `['...']`.
const NAME_ENDS: &[char] = &['.', '[', ']', ',', '\'', '"', '=', '!', '<', '>', '~', '(', ')'];

/// What is wrong with a path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("path {text:?}: {what} at character {at}")]
pub struct PathError {
    text: String,
    what: &'static str,
    /// Counted from 1.
    at: usize,
}

impl PathError {
    /// What is wrong: `expected a name`.
    pub fn what(&self) -> &'static str {
        self.what
    }

    /// The character of the text, counted from 1, at which it is.
    pub fn at(&self) -> usize {
        self.at
    }
}

/// One step into a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Name(String),
    Index(usize),
    Every,
}

/// Names a value, or with `[*]` several, in a document. The path `$` is the document itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    pub(crate) steps: Vec<Step>,
}

impl Path {
    /// Every element of a document that is an array: `$[*]`.
    pub fn every() -> Path {
        let steps = vec![Step::Every];
        Path { steps }
    }

    /// Reads a path from the front of a text and returns what follows it.
    ///
    /// # Errors
    /// There is no path, or it does not end as it began.
    pub fn parse_prefix(text: &str) -> Result<(Path, &str), PathError> {
        let mut reader = Reader { text, position: 0 };
        let path = reader.path()?;
        Ok((path, &text[reader.position..]))
    }

    /// Reads paths with commas between.
    ///
    /// # Errors
    /// One of them is no path, or there is none.
    pub fn parse_list(text: &str) -> Result<Vec<Path>, PathError> {
        let mut reader = Reader { text, position: 0 };
        let mut paths = Vec::new();
        loop {
            reader.skip_spaces();
            paths.push(reader.path()?);
            reader.skip_spaces();
            if reader.rest().is_empty() {
                return Ok(paths);
            }
            reader.expect(',', "expected a comma or the end")?;
        }
    }
}

impl FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let mut reader = Reader { text, position: 0 };
        let path = reader.path()?;
        if reader.rest().is_empty() {
            Ok(path)
        } else {
            Err(reader.error("expected the end of the path"))
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> Reader<'a> {
    fn path(&mut self) -> Result<Path, PathError> {
        let mut steps = Vec::new();
        if !self.take('$') {
            let name = self.name()?;
            steps.push(Step::Name(name));
        }
        loop {
            if self.take('.') {
                let name = self.name()?;
                steps.push(Step::Name(name));
            } else if self.take('[') {
                steps.push(self.bracket()?);
            } else {
                return Ok(Path { steps });
            }
        }
    }

    fn name(&mut self) -> Result<String, PathError> {
        let rest = self.rest();
        let end = rest
            .find(|c: char| c.is_whitespace() || NAME_ENDS.contains(&c))
            .unwrap_or(rest.len());
        if end == 0 {
            return Err(self.error("expected a name"));
        }
        self.position += end;
        Ok(rest[..end].to_owned())
    }

    fn bracket(&mut self) -> Result<Step, PathError> {
        let step = if self.take('*') {
            Step::Every
        } else if let Some(quote) = self.rest().chars().next().filter(|c| matches!(c, '\'' | '"')) {
            self.position += 1;
            let rest = self.rest();
            let end = rest
                .find(quote)
                .ok_or_else(|| self.error("the name has no closing quote"))?;
            self.position += end + 1;
            Step::Name(rest[..end].to_owned())
        } else {
            let rest = self.rest();
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let index = rest[..end]
                .parse()
                .map_err(|_| self.error("expected a number, * or a quoted name"))?;
            self.position += end;
            Step::Index(index)
        };
        self.expect(']', "expected ]")?;
        Ok(step)
    }

    fn rest(&self) -> &'a str {
        &self.text[self.position..]
    }

    fn skip_spaces(&mut self) {
        self.position = self.text.len() - self.rest().trim_start().len();
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.rest().starts_with(wanted);
        self.position += if found { wanted.len_utf8() } else { 0 };
        found
    }

    fn expect(&mut self, wanted: char, what: &'static str) -> Result<(), PathError> {
        if self.take(wanted) {
            Ok(())
        } else {
            Err(self.error(what))
        }
    }

    fn error(&self, what: &'static str) -> PathError {
        PathError {
            text: self.text.to_owned(),
            what,
            at: self.text[..self.position].chars().count() + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> Step {
        Step::Name(name.to_owned())
    }

    #[test]
    fn paths_are_read_in_every_form() {
        let cases = [
            ("$", vec![]),
            ("$.a.b", vec![name("a"), name("b")]),
            ("a.b", vec![name("a"), name("b")]),
            (
                "$.a[0][12].b",
                vec![name("a"), Step::Index(0), Step::Index(12), name("b")],
            ),
            ("items[*].price", vec![name("items"), Step::Every, name("price")]),
            ("$['a b'][\"c.d\"]", vec![name("a b"), name("c.d")]),
            ("$.grün-1_x", vec![name("grün-1_x")]),
        ];
        for (text, steps) in cases {
            assert_eq!(text.parse(), Ok(Path { steps }), "{text}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused_where_it_goes_wrong() {
        let cases = [
            ("", "expected a name at character 1"),
            ("$.", "expected a name at character 3"),
            ("$.ä..b", "expected a name at character 5"),
            ("$.a[", "expected a number, * or a quoted name at character 5"),
            ("$.a[1", "expected ] at character 6"),
            ("$.a['b]", "the name has no closing quote at character 6"),
            ("$.a b", "expected the end of the path at character 4"),
            ("$a", "expected the end of the path at character 2"),
            (
                "$[99999999999999999999]",
                "expected a number, * or a quoted name at character 3",
            ),
        ];
        for (text, message) in cases {
            let error = text.parse::<Path>().expect_err(text);
            assert_eq!(error.to_string(), format!("path {text:?}: {message}"));
        }
    }

    #[test]
    fn a_list_has_commas_between_and_spaces_around() {
        let paths = Path::parse_list("$.a , b['c,d']").unwrap();
        assert_eq!(paths, ["a".parse().unwrap(), "$.b[\"c,d\"]".parse().unwrap()]);
        assert!(Path::parse_list("").is_err());
        assert!(Path::parse_list("$.a,").is_err());
        assert!(Path::parse_list("$.a $.b").is_err());
    }

    #[test]
    fn a_prefix_leaves_the_rest() {
        let (path, rest) = Path::parse_prefix("$.status>=500").unwrap();
        assert_eq!((path, rest), ("status".parse().unwrap(), ">=500"));
    }
}
