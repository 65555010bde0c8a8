//! The one pass: members and elements that paths lead to are entered, everything else is skipped.

use std::ops::Range;

use crate::block;
use crate::paths::{Paths, Reached, Set};
use crate::scan::{End, Scanner, behind};

/// A value that a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// The value as it stands in the document: `"text"`, `12`, `{"a":1}`.
    pub json: &'a str,
    /// Where it stands, in bytes.
    pub range: Range<usize>,
    /// The paths that name it: the lowest bit is the first of the paths that were looked for.
    pub paths: u64,
}

impl Found<'_> {
    /// The numbers of the paths that name it.
    pub fn path_numbers(&self) -> impl Iterator<Item = usize> + use<> {
        let mut left = self.paths;
        std::iter::from_fn(move || {
            let number = (left != 0).then(|| left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some(number)
        })
    }
}

/// Calls `visit` for each value that a path names, in the order of the document. Within a found value nothing more is
/// looked for.
///
/// # Errors
/// The document is not JSON; values may have been visited before that was known.
pub fn find<'a>(document: &'a [u8], paths: &Paths, visit: impl FnMut(Found<'a>)) -> Result<(), serde_json::Error> {
    walk(document, paths, false, visit)
}

/// Calls `visit` for each value that a path names, also for those within others, which come first.
///
/// # Errors
/// As [`find`].
pub fn find_nested<'a>(
    document: &'a [u8],
    paths: &Paths,
    visit: impl FnMut(Found<'a>),
) -> Result<(), serde_json::Error> {
    walk(document, paths, true, visit)
}

/// The JSON value that a text begins with, and what follows it; `None` where there is none.
pub fn split_value(text: &str) -> Option<(&str, &str)> {
    let scanner = Scanner { bytes: text.as_bytes() };
    let (first, at) = scanner.peek(0);
    let end = scanner.value(first, at)?.get();
    serde_json::from_str::<serde_json::Value>(&text[at..end]).ok()?;
    Some((&text[at..end], &text[end..]))
}

fn walk<'a>(
    document: &'a [u8],
    paths: &Paths,
    nested: bool,
    visit: impl FnMut(Found<'a>),
) -> Result<(), serde_json::Error> {
    let scanner = Scanner { bytes: document };
    let mut walk = Walk {
        scanner,
        paths,
        nested,
        visit,
    };
    let (first, at) = scanner.peek(0);
    match walk.value(paths.start(), first, at) {
        Some(end) if scanner.is_end(end.get()) => Ok(()),
        _ => Err(why_invalid(document)),
    }
}

struct Walk<'a, 'p, F> {
    scanner: Scanner<'a>,
    paths: &'p Paths,
    nested: bool,
    visit: F,
}

impl<'a, F: FnMut(Found<'a>)> Walk<'a, '_, F> {
    /// Reads the value that begins with this byte, here. Goes no deeper than the paths have steps.
    fn value(&mut self, reached: Reached, first: u8, start: usize) -> End {
        let enters = reached.next != 0 && (self.nested || reached.found == 0);
        let end = match first {
            b'{' if enters => self.object(reached.next, start)?,
            b'[' if enters => self.array(reached.next, start)?,
            _ => {
                let end = self.scanner.value(first, start)?;
                if enters && !self.scanner.is_readable(start..end.get()) {
                    return None;
                }
                end
            }
        };
        if reached.found != 0 {
            let range = start..end.get();
            (self.visit)(Found {
                json: self.scanner.text(range.clone())?,
                range,
                paths: reached.found,
            });
        }
        Some(end)
    }

    fn object(&mut self, set: Set, start: usize) -> End {
        let scanner = self.scanner;
        let (mut byte, mut at) = scanner.peek(start + 1);
        if byte == b'}' {
            return behind(at);
        }
        loop {
            if byte != b'"' {
                return None;
            }
            let (end, is_plain) = scanner.plain_string(at);
            let quoted = at..end?.get();
            (byte, at) = scanner.peek(quoted.end);
            if byte != b':' {
                return None;
            }
            let reached = self.member(set, quoted, is_plain)?;
            (byte, at) = scanner.peek(at + 1);
            let end = if reached.is_nowhere() {
                scanner.value(byte, at)?
            } else {
                self.value(reached, byte, at)?
            };
            (byte, at) = scanner.peek(end.get());
            match byte {
                b',' => (byte, at) = scanner.peek(at + 1),
                b'}' => return behind(at),
                _ => return None,
            }
        }
    }

    /// Where the member leads to whose name stands in a range, with its quotes.
    #[inline(always)]
    fn member(&self, set: Set, quoted: Range<usize>, is_plain: bool) -> Option<Reached> {
        if is_plain {
            let name = quoted.start + 1..quoted.end - 1;
            let head = block::head_at(self.scanner.bytes, name.start);
            return Some(self.paths.member(set, &self.scanner.bytes[name], head));
        }
        let name = self.scanner.decoded(quoted)?;
        Some(self.paths.member(set, name.as_bytes(), block::head(name.as_bytes())))
    }

    fn array(&mut self, set: Set, start: usize) -> End {
        let scanner = self.scanner;
        let (mut byte, mut at) = scanner.peek(start + 1);
        if byte == b']' {
            return behind(at);
        }
        let mut index = 0;
        loop {
            let end = self.value(self.paths.element(set, index), byte, at)?;
            (byte, at) = scanner.peek(end.get());
            match byte {
                b',' => (byte, at) = scanner.peek(at + 1),
                b']' => return behind(at),
                _ => return None,
            }
            index += 1;
        }
    }
}

/// Asks `serde_json` what is wrong with a document.
#[cold]
pub(crate) fn why_invalid(document: &[u8]) -> serde_json::Error {
    match serde_json::from_slice::<serde_json::Value>(document) {
        Err(error) => error,
        Ok(_) => serde::de::Error::custom("a text or number that cannot be read"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Range, find, find_nested};
    use crate::path::Path;
    use crate::paths::Paths;

    fn found<'a>(document: &'a str, paths: &str) -> Result<Vec<&'a str>, String> {
        let paths = Paths::new(&Path::parse_list(paths).unwrap()).unwrap();
        let mut all = Vec::new();
        find(document.as_bytes(), &paths, |found| {
            assert_eq!(&document[found.range.clone()], found.json);
            all.push(found.json);
        })
        .map_err(|error| error.to_string())?;
        Ok(all)
    }

    #[test]
    fn values_are_found_where_they_stand() {
        let document = r#" {"a": {"b": [1, {"c": "x"}, {"c": [true, null]}]}, "d" : -1.50e3 , "e":{"a":0}} "#;
        let cases: [(&str, &[&str]); 8] = [
            ("$.d", &["-1.50e3"]),
            ("$.a.b[0]", &["1"]),
            ("$.a.b[1].c", &["\"x\""]),
            ("$.a.b[*].c", &["\"x\"", "[true, null]"]),
            ("$.a.b[*].c,$.a.b[1].c,$.d", &["\"x\"", "[true, null]", "-1.50e3"]),
            ("$.a.b[2].c[1]", &["null"]),
            ("$.e", &["{\"a\":0}"]),
            ("$.b,$.a.c,$.a.b.c,$.d.e,$.a[0]", &[]),
        ];
        for (paths, values) in cases {
            assert_eq!(found(document, paths).unwrap(), values, "{paths}");
        }
        assert_eq!(found(document, "$").unwrap(), [document.trim()]);
    }

    #[test]
    fn names_are_compared_decoded_and_every_one_of_a_name_counts() {
        assert_eq!(found(r#"{"\u0061":1,"a":2,"A":3}"#, "a").unwrap(), ["1", "2"]);
    }

    #[test]
    fn the_outermost_of_nested_paths_is_found() {
        assert_eq!(found(r#"{"a":{"b":1},"c":2}"#, "$.a.b,$.a").unwrap(), [r#"{"b":1}"#]);
    }

    #[test]
    fn what_is_not_json_is_an_error_even_behind_the_value() {
        for document in [
            "",
            "{",
            "{\"a\":1",
            "{\"a\":1}}",
            "{\"a\":1} x",
            "{\"a\":1,}",
            "plain text",
            "{\"a\":01}",
        ] {
            assert!(found(document, "a").is_err(), "{document}");
        }
        let deep = "[".repeat(100_000);
        assert!(found(&deep, "a").is_err());
        assert!(found(&deep, "$[*]").is_err());
    }

    #[test]
    fn too_many_steps_are_refused() {
        let list = vec!["a.b"; 33].join(",");
        assert_eq!(
            Paths::new(&Path::parse_list(&list).unwrap()).unwrap_err(),
            "the paths have 66 steps together, more than 64"
        );
    }

    /// What comes of a document, one way or the other: what was found, or that it is not JSON.
    type Found<'a> = Option<Vec<(&'a str, Range<usize>)>>;

    fn ours<'a>(document: &'a [u8], paths: &Paths) -> Found<'a> {
        let mut all = Vec::new();
        let read = find(document, paths, |found| all.push((found.json, found.range)));
        read.is_ok().then_some(all)
    }

    fn serdes<'a>(document: &'a [u8], paths: &Paths) -> Found<'a> {
        let mut all = Vec::new();
        let read = crate::oracle::find(document, paths, |found| all.push((found.json, found.range)));
        read.is_ok().then_some(all)
    }

    fn paths() -> Vec<Paths> {
        let lists = [
            "$",
            "a",
            "$.a.b",
            "$[*].a,$.b[0]",
            "$.a[*].b,$.a.a,b",
            "$[1],$.aa['\u{e9}']",
        ];
        let paths = lists
            .iter()
            .map(|list| Paths::new(&Path::parse_list(list).unwrap()).unwrap());
        paths.collect()
    }

    fn assert_agree(document: &[u8]) -> bool {
        let mut is_json = true;
        for paths in paths() {
            let (ours, serdes) = (ours(document, &paths), serdes(document, &paths));
            assert_eq!(ours, serdes, "{} ({document:?})", String::from_utf8_lossy(document));
            is_json &= ours.is_some();
        }
        is_json
    }

    /// Documents whose names meet the paths, with the numbers, texts and spaces that are hard to read.
    fn document() -> impl Strategy<Value = String> {
        let number = prop_oneof![
            any::<i64>().prop_map(|number| number.to_string()),
            "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,12})?([eE][+-]?[0-9]{1,3})?",
        ];
        let text = prop_oneof![
            "[ab\u{e9}\u{1f980}]{0,40}",
            r#"([a-z~ ]|\\\\|\\"|\\n|\\u00e9|\\ud83e\\udd80|\\ud800){0,20}"#,
        ];
        let word = prop_oneof![
            Just("true".to_owned()),
            Just("false".to_owned()),
            Just("null".to_owned())
        ];
        let scalar = prop_oneof![number, text.prop_map(|text| format!("\"{text}\"")), word];
        let space = || prop_oneof![4 => Just(""), 1 => Just(" "), 1 => Just(" \r\n\t")];
        let name = prop_oneof![
            Just("a"),
            Just("b"),
            Just("aa"),
            Just("\\u0061"),
            Just("\u{e9}"),
            Just("\\ud800")
        ];
        let nested = scalar.prop_recursive(5, 40, 5, move |inner| {
            let element =
                (space(), inner, space()).prop_map(|(before, value, behind)| format!("{before}{value}{behind}"));
            let member = (name.clone(), element.clone()).prop_map(|(name, value)| format!("\"{name}\":{value}"));
            let members = proptest::collection::vec(member, 0..5).prop_map(|all| format!("{{{}}}", all.join(",")));
            let elements = proptest::collection::vec(element, 0..5).prop_map(|all| format!("[{}]", all.join(",")));
            prop_oneof![3 => members, 2 => elements]
        });
        (space(), nested, space()).prop_map(|(before, value, behind)| format!("{before}{value}{behind}"))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn documents_are_read_as_serde_json_reads_them(document in document()) {
            assert_agree(document.as_bytes());
        }

        #[test]
        fn what_is_almost_json_is_refused_as_serde_json_refuses_it(
            document in document(),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), 0..3u8, prop_oneof![
                prop::sample::select(&b"{}[]:,\"\\ 0-+.eEtfnu/"[..]),
                any::<u8>(),
            ]), 1..4),
        ) {
            let mut document = document.into_bytes();
            for (at, change, byte) in changes {
                let at = at.index(document.len() + 1);
                match change {
                    0 => document.insert(at, byte),
                    1 if at < document.len() => document[at] = byte,
                    _ if at < document.len() => _ = document.remove(at),
                    _ => {}
                }
            }
            assert_agree(&document);
        }

        #[test]
        fn bytes_are_read_as_serde_json_reads_them(document in proptest::collection::vec(
            prop::sample::select(&b"{}[]:,\"\\ab0123-.e tru\xc3\xa9\n\0"[..]), 0..24,
        )) {
            assert_agree(&document);
        }
    }

    #[test]
    fn every_cut_of_a_document_is_refused() {
        let document = r#"{"a":[-1.5e+3,0,{"b":"x\u00e9\\"},[],{},"0123456789abcdef0123"],"b":[true,false,null],"aa":123456789012345678}"#;
        assert!(assert_agree(document.as_bytes()));
        for end in 0..document.len() {
            assert!(!assert_agree(&document.as_bytes()[..end]), "{}", &document[..end]);
        }
    }

    #[test]
    fn depth_has_no_bound_where_nothing_is_looked_for() {
        let deep = format!("{}1{}", "[{\"a\":".repeat(10_000), "}]".repeat(10_000));
        assert_eq!(found(&deep, "b").unwrap(), [] as [&str; 0]);
        assert!(found(&deep[..deep.len() - 1], "b").is_err());
        assert!(found(&deep.replace("1}]}]", "1]}}]"), "b").is_err());
    }

    #[test]
    fn nested_values_and_the_numbers_of_their_paths_are_found() {
        let paths = Paths::new(&Path::parse_list("$.a,$.a.b,a,$").unwrap()).unwrap();
        let mut all = Vec::new();
        find_nested(br#"{"a":{"b":1}}"#, &paths, |found| {
            all.push((found.json, found.path_numbers().collect::<Vec<_>>()))
        })
        .unwrap();
        let document = r#"{"a":{"b":1}}"#;
        assert_eq!(all, [("1", vec![1]), (r#"{"b":1}"#, vec![0, 2]), (document, vec![3])]);
    }
}
