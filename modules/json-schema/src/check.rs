//! Holds a value against a schema and says where and why it does not fit.

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Map, Value};

use crate::equal::{compare, equal, is_multiple, is_whole};
use crate::schema::{Bound, Id, Keyword, Properties, Schema, Type};

/// Schemas that may be applied within each other: a document is no deeper than half of it, so more are a circle.
const DEPTH_MAX: usize = 256;

/// Where and why a value does not fit. It names no part of the value but names of members.
#[derive(Debug)]
pub struct Mismatch {
    /// The way to the value, innermost first.
    way: Vec<String>,
    what: String,
    keyword: &'static str,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in self.way.iter().rev() {
            write!(formatter, "/{}", step.replace('~', "~0").replace('/', "~1"))?;
        }
        let colon = if self.way.is_empty() { "" } else { ": " };
        write!(formatter, "{colon}{} ({})", self.what, self.keyword)
    }
}

type Checked = Result<(), Mismatch>;

fn mismatch(keyword: &'static str, what: impl Into<String>) -> Checked {
    let what = what.into();
    Err(Mismatch {
        way: Vec::new(),
        what,
        keyword,
    })
}

fn ensure(holds: bool, keyword: &'static str, what: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { mismatch(keyword, what()) }
}

impl Schema {
    /// Checks a document.
    pub fn check(&self, value: &Value) -> Checked {
        self.apply(0, value, 0)
    }

    fn apply(&self, id: Id, value: &Value, depth: usize) -> Checked {
        if depth == DEPTH_MAX {
            return mismatch("$ref", "the schema refers to itself without end");
        }
        self.all[id]
            .iter()
            .try_for_each(|keyword| self.keyword(keyword, value, depth + 1))
    }

    fn fits(&self, id: Id, value: &Value, depth: usize) -> bool {
        self.apply(id, value, depth).is_ok()
    }

    /// Checks a part of a value.
    fn inside(&self, id: Id, step: impl ToString, value: &Value, depth: usize) -> Checked {
        self.apply(id, value, depth).map_err(|mut mismatch| {
            mismatch.way.push(step.to_string());
            mismatch
        })
    }

    fn keyword(&self, keyword: &Keyword, value: &Value, depth: usize) -> Checked {
        match (keyword, value) {
            (Keyword::Never, _) => mismatch("false", "nothing is allowed here"),
            (Keyword::Ref(id), _) => self.apply(*id, value, depth),
            (Keyword::Type(types), _) => ensure(types.iter().any(|kind| is_of(*kind, value)), "type", || {
                let names: Vec<&str> = types.iter().map(|kind| kind.name()).collect();
                format!("must be of type {}", names.join(" or "))
            }),
            (Keyword::Enum(values), _) => ensure(values.iter().any(|one| equal(one, value)), "enum", || {
                "must be one of the listed values".to_owned()
            }),
            (Keyword::Const(wanted), _) => ensure(equal(wanted, value), "const", || format!("must be {wanted}")),
            (Keyword::AllOf(ids), _) => ids.iter().try_for_each(|id| self.apply(*id, value, depth)),
            (Keyword::AnyOf(ids), _) => ensure(ids.iter().any(|id| self.fits(*id, value, depth)), "anyOf", || {
                "fits none of the alternatives".to_owned()
            }),
            (Keyword::OneOf(ids), _) => {
                let fitting = ids.iter().filter(|id| self.fits(**id, value, depth)).count();
                ensure(fitting == 1, "oneOf", || {
                    format!("fits {fitting} of the alternatives, not exactly one")
                })
            }
            (Keyword::Not(id), _) => ensure(!self.fits(*id, value, depth), "not", || {
                "fits what it must not".to_owned()
            }),
            (
                Keyword::If {
                    condition,
                    then,
                    otherwise,
                },
                _,
            ) => {
                let branch = if self.fits(*condition, value, depth) {
                    then
                } else {
                    otherwise
                };
                branch.map_or(Ok(()), |id| self.apply(id, value, depth))
            }
            (Keyword::DependentSchemas(all), Value::Object(members)) => {
                let mut there = all.iter().filter(|(name, _)| members.contains_key(name));
                there.try_for_each(|(_, id)| self.apply(*id, value, depth))
            }
            (_, Value::Number(number)) => check_number(keyword, number),
            (_, Value::String(text)) => check_text(keyword, text),
            (_, Value::Array(elements)) => self.array(keyword, elements, depth),
            (_, Value::Object(members)) => self.object(keyword, members, depth),
            _ => Ok(()),
        }
    }

    fn array(&self, keyword: &Keyword, elements: &[Value], depth: usize) -> Checked {
        let len = elements.len() as u64;
        match keyword {
            Keyword::Items { prefix, rest } => elements.iter().enumerate().try_for_each(|(index, element)| {
                let id = prefix.get(index).copied().or(*rest);
                id.map_or(Ok(()), |id| self.inside(id, index, element, depth))
            }),
            Keyword::Contains { schema, min, max } => {
                let found = elements
                    .iter()
                    .filter(|element| self.fits(*schema, element, depth))
                    .count() as u64;
                ensure(found >= *min, "contains", || {
                    format!("must hold at least {min} fitting elements")
                })?;
                let max = max.unwrap_or(u64::MAX);
                ensure(found <= max, "maxContains", || {
                    format!("must hold at most {max} fitting elements")
                })
            }
            Keyword::MinItems(min) => ensure(len >= *min, "minItems", || format!("must have at least {min} elements")),
            Keyword::MaxItems(max) => ensure(len <= *max, "maxItems", || format!("must have at most {max} elements")),
            Keyword::UniqueItems => {
                let repeated = |(index, one): (usize, &Value)| elements[..index].iter().any(|other| equal(one, other));
                let repeats = elements.iter().enumerate().any(repeated);
                ensure(!repeats, "uniqueItems", || "must not hold an element twice".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn object(&self, keyword: &Keyword, members: &Map<String, Value>, depth: usize) -> Checked {
        let len = members.len() as u64;
        match keyword {
            Keyword::Properties(properties) => self.properties(properties, members, depth),
            Keyword::PropertyNames(id) => members
                .keys()
                .try_for_each(|name| self.inside(*id, name, &Value::from(name.as_str()), depth)),
            Keyword::Required(names) => require(names, members, "required"),
            Keyword::MinProperties(min) => ensure(len >= *min, "minProperties", || {
                format!("must have at least {min} members")
            }),
            Keyword::MaxProperties(max) => ensure(len <= *max, "maxProperties", || {
                format!("must have at most {max} members")
            }),
            Keyword::DependentRequired(all) => {
                let mut there = all.iter().filter(|(name, _)| members.contains_key(name));
                there.try_for_each(|(_, names)| require(names, members, "dependentRequired"))
            }
            _ => Ok(()),
        }
    }

    fn properties(&self, properties: &Properties, members: &Map<String, Value>, depth: usize) -> Checked {
        for (name, value) in members {
            let mut is_known = false;
            if let Some((_, id)) = properties.named.iter().find(|(named, _)| named == name) {
                is_known = true;
                self.inside(*id, name, value, depth)?;
            }
            for (_, id) in properties.matching.iter().filter(|(regex, _)| regex.is_match(name)) {
                is_known = true;
                self.inside(*id, name, value, depth)?;
            }
            if let Some(id) = properties.additional.filter(|_| !is_known) {
                if matches!(self.all[id].as_slice(), [Keyword::Never]) {
                    return mismatch("additionalProperties", format!("must not have {name:?}"));
                }
                self.inside(id, name, value, depth)?;
            }
        }
        Ok(())
    }
}

fn require(names: &[String], members: &Map<String, Value>, keyword: &'static str) -> Checked {
    match names.iter().find(|name| !members.contains_key(*name)) {
        Some(missing) => mismatch(keyword, format!("{missing:?} is missing")),
        None => Ok(()),
    }
}

fn check_number(keyword: &Keyword, number: &serde_json::Number) -> Checked {
    match keyword {
        Keyword::Bound(bound, limit) => {
            let order = compare(number, limit);
            let (holds, keyword, what) = match bound {
                Bound::Minimum => (order != Some(Ordering::Less), "minimum", "at least"),
                Bound::ExclusiveMinimum => (order == Some(Ordering::Greater), "exclusiveMinimum", "more than"),
                Bound::Maximum => (order != Some(Ordering::Greater), "maximum", "at most"),
                Bound::ExclusiveMaximum => (order == Some(Ordering::Less), "exclusiveMaximum", "less than"),
            };
            ensure(holds, keyword, || format!("must be {what} {limit}"))
        }
        Keyword::MultipleOf(of) => ensure(is_multiple(number, *of), "multipleOf", || {
            format!("must be a multiple of {of}")
        }),
        _ => Ok(()),
    }
}

fn check_text(keyword: &Keyword, text: &str) -> Checked {
    let len = || text.chars().count() as u64;
    match keyword {
        Keyword::MinLength(min) => ensure(len() >= *min, "minLength", || {
            format!("must have at least {min} characters")
        }),
        Keyword::MaxLength(max) => ensure(len() <= *max, "maxLength", || {
            format!("must have at most {max} characters")
        }),
        Keyword::Pattern(regex) => ensure(regex.is_match(text), "pattern", || format!("must match {regex}")),
        _ => Ok(()),
    }
}

fn is_of(kind: Type, value: &Value) -> bool {
    match (kind, value) {
        (Type::Integer, Value::Number(number)) => is_whole(number),
        (Type::Null, Value::Null)
        | (Type::Boolean, Value::Bool(_))
        | (Type::Object, Value::Object(_))
        | (Type::Array, Value::Array(_))
        | (Type::Number, Value::Number(_))
        | (Type::String, Value::String(_)) => true,
        _ => false,
    }
}
