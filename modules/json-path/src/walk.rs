//! The one pass. `serde_json` reads the document; where no path can lead, it skips.
//!
//! All steps of all paths are numbered through, and a set of them says which could come next. Entering a value moves the
//! set; a value that ends a path is found.

use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::path::{Path, Step};

/// Steps of all paths together, at most: one bit each.
const STEPS_MAX: usize = 64;

/// A set of steps.
type Set = u64;

/// Paths, ready to be looked for together.
#[derive(Clone, Debug)]
pub struct Paths {
    steps: Vec<Step>,
    /// The steps that paths begin with, and those they end with.
    first: Set,
    last: Set,
    whole_document: bool,
}

impl Paths {
    /// Makes paths ready.
    ///
    /// # Errors
    /// They have more than 64 steps together.
    pub fn new(paths: &[Path]) -> Result<Self, String> {
        let count: usize = paths.iter().map(|path| path.steps.len()).sum();
        if count > STEPS_MAX {
            return Err(format!("the paths have {count} steps together, more than {STEPS_MAX}"));
        }
        let mut all = Self {
            steps: Vec::with_capacity(count),
            first: 0,
            last: 0,
            whole_document: false,
        };
        for path in paths {
            if path.steps.is_empty() {
                all.whole_document = true;
                continue;
            }
            all.first |= 1 << all.steps.len();
            all.steps.extend_from_slice(&path.steps);
            all.last |= 1 << (all.steps.len() - 1);
        }
        Ok(all)
    }

    /// Where the steps of `set` that are taken lead to.
    fn enter(&self, set: Set, taken: impl Fn(&Step) -> bool) -> Reached {
        let mut reached = Reached { next: 0, found: false };
        let mut left = set;
        while left != 0 {
            let number = left.trailing_zeros() as usize;
            let bit = 1 << number;
            left &= !bit;
            if taken(&self.steps[number]) {
                let ends = self.last & bit != 0;
                reached.found |= ends;
                reached.next |= if ends { 0 } else { bit << 1 };
            }
        }
        reached
    }
}

/// Where entering a value led: the steps that could come next, and whether a path ended there.
#[derive(Clone, Copy)]
struct Reached {
    next: Set,
    found: bool,
}

/// A value that a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// The value as it stands in the document: `"text"`, `12`, `{"a":1}`.
    pub json: &'a str,
    /// Where it stands, in bytes.
    pub range: Range<usize>,
}

/// Calls `visit` for each value that a path names, in the order of the document. Within a found value nothing more is
/// looked for.
///
/// # Errors
/// The document is not JSON; values may have been visited before that was known.
pub fn find<'a>(document: &'a [u8], paths: &Paths, mut visit: impl FnMut(Found<'a>)) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(document);
    let mut report = |raw: &'a RawValue| {
        let json = raw.get();
        let start = json.as_ptr() as usize - document.as_ptr() as usize;
        visit(Found {
            json,
            range: start..start + json.len(),
        });
    };
    let reached = Reached {
        next: paths.first,
        found: paths.whole_document,
    };
    Value {
        paths,
        reached,
        visit: &mut report,
    }
    .deserialize(&mut deserializer)?;
    deserializer.end()
}

/// Reads one value.
struct Value<'p, F> {
    paths: &'p Paths,
    reached: Reached,
    visit: &'p mut F,
}

impl<'de, F: FnMut(&'de RawValue)> DeserializeSeed<'de> for Value<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.reached.found {
            let raw = serde::Deserialize::deserialize(deserializer)?;
            (self.visit)(raw);
            Ok(())
        } else if self.reached.next == 0 {
            deserializer.deserialize_ignored_any(IgnoredAny).map(drop)
        } else {
            deserializer.deserialize_any(self)
        }
    }
}

impl<'de, F: FnMut(&'de RawValue)> Visitor<'de> for Value<'_, F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self {
            paths,
            reached: Reached { next: set, .. },
            visit,
        } = self;
        while let Some(reached) = map.next_key_seed(Name { paths, set })? {
            map.next_value_seed(Value {
                paths,
                reached,
                visit: &mut *visit,
            })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self {
            paths,
            reached: Reached { next: set, .. },
            visit,
        } = self;
        let mut index = 0;
        loop {
            let reached = paths.enter(set, |step| matches!(step, Step::Every) || *step == Step::Index(index));
            if seq
                .next_element_seed(Value {
                    paths,
                    reached,
                    visit: &mut *visit,
                })?
                .is_none()
            {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Reads the name of an object's member and says where it leads.
struct Name<'p> {
    paths: &'p Paths,
    set: Set,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Reached;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Reached, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Reached;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Reached, E> {
        Ok(self
            .paths
            .enter(self.set, |step| matches!(step, Step::Name(wanted) if wanted == name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
