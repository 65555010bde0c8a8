//! Reads a schema. What it does not know it refuses by name, so that a misspelt keyword is not taken for a comment and
//! no record passes unchecked.

use std::collections::HashMap;

use regex_lite::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use crate::schema::{Bound, Id, Keyword, Properties, Schema, Type};

/// A schema in JSON may have so many bytes, and so many schemas in it.
const SCHEMA_BYTES_MAX: usize = 64 << 10;
const SCHEMAS_MAX: usize = 10_000;
/// A compiled pattern may take so many bytes.
const REGEX_BYTES_MAX: usize = 1 << 20;

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// What a schema says beside what must hold. `format` is a note too, as the draft has it unless told otherwise.
const NOTES: [&str; 19] = [
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
    "$anchor",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "format",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "then",
    "else",
];

/// Where in the schema something is wrong, and what.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The parameter is too long.
    #[error("the schema has more than {SCHEMA_BYTES_MAX} bytes or {SCHEMAS_MAX} schemas in it")]
    TooLarge,
    /// It is not JSON.
    #[error("the schema is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Something in it is not understood.
    #[error("{at}: {what}")]
    At {
        /// JSON pointer to the schema.
        at: String,
        /// What.
        what: String,
    },
}

type Compiled<T> = Result<T, SchemaError>;

/// Compiles a schema.
pub fn schema(text: &str) -> Compiled<Schema> {
    if text.len() > SCHEMA_BYTES_MAX {
        return Err(SchemaError::TooLarge);
    }
    let root: Value = serde_json::from_str(text)?;
    let mut compiler = Compiler {
        root: &root,
        id: root
            .get("$id")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .trim_end_matches('#'),
        anchors: HashMap::new(),
        known: HashMap::new(),
        schema: Schema::default(),
    };
    compiler.find_anchors(&root, "");
    compiler.compile("")?;
    Ok(compiler.schema)
}

struct Compiler<'a> {
    root: &'a Value,
    id: &'a str,
    /// Pointers by the names that `$anchor` gives.
    anchors: HashMap<&'a str, String>,
    /// What has been compiled, by pointer.
    known: HashMap<String, Id>,
    schema: Schema,
}

/// One keyword in its object, and the pointer to that.
struct At<'s> {
    pointer: &'s str,
    name: &'s str,
    value: &'s Value,
}

impl At<'_> {
    fn error(&self, what: impl Into<String>) -> SchemaError {
        let at = format!("#{}/{}", self.pointer, self.name);
        SchemaError::At { at, what: what.into() }
    }

    fn expected(&self, what: &str) -> SchemaError {
        self.error(format!("expected {what}"))
    }

    fn below(&self, step: impl std::fmt::Display) -> String {
        let step = step.to_string().replace('~', "~0").replace('/', "~1");
        format!("{}/{}/{step}", self.pointer, self.name)
    }

    fn count(&self) -> Compiled<u64> {
        let whole = self
            .value
            .as_f64()
            .filter(|count| *count >= 0.0 && count.fract() == 0.0);
        whole
            .map(|count| count as u64)
            .ok_or_else(|| self.expected("a whole number of at least 0"))
    }

    fn object(&self) -> Compiled<&Map<String, Value>> {
        self.value.as_object().ok_or_else(|| self.expected("an object"))
    }

    fn array(&self) -> Compiled<&Vec<Value>> {
        self.value.as_array().ok_or_else(|| self.expected("an array"))
    }

    fn names(&self, value: &Value) -> Compiled<Vec<String>> {
        let names = value
            .as_array()
            .and_then(|names| names.iter().map(|name| name.as_str().map(str::to_owned)).collect());
        names.ok_or_else(|| self.expected("names in an array"))
    }

    fn regex(&self, pattern: &str) -> Compiled<Regex> {
        let built = RegexBuilder::new(pattern).size_limit(REGEX_BYTES_MAX).build();
        built.map_err(|error| self.error(format!("{pattern:?} is no regular expression: {error}")))
    }
}

impl<'a> Compiler<'a> {
    fn find_anchors(&mut self, value: &'a Value, pointer: &str) {
        let children: Vec<(String, &Value)> = match value {
            Value::Object(members) => {
                if let Some(anchor) = members.get("$anchor").and_then(Value::as_str) {
                    self.anchors.insert(anchor, pointer.to_owned());
                }
                members
                    .iter()
                    .map(|(name, value)| (name.replace('~', "~0").replace('/', "~1"), value))
                    .collect()
            }
            Value::Array(elements) => elements
                .iter()
                .enumerate()
                .map(|(index, value)| (index.to_string(), value))
                .collect(),
            _ => return,
        };
        for (step, value) in children {
            self.find_anchors(value, &format!("{pointer}/{step}"));
        }
    }

    /// Compiles the schema at a pointer, once.
    fn compile(&mut self, pointer: &str) -> Compiled<Id> {
        if let Some(known) = self.known.get(pointer) {
            return Ok(*known);
        }
        let id = self.schema.all.len();
        if id == SCHEMAS_MAX {
            return Err(SchemaError::TooLarge);
        }
        // A schema that refers to itself finds its number.
        self.known.insert(pointer.to_owned(), id);
        self.schema.all.push(Vec::new());
        let wrong = |what: &str| SchemaError::At {
            at: format!("#{pointer}"),
            what: what.to_owned(),
        };
        self.schema.all[id] = match self.root.pointer(pointer) {
            Some(Value::Bool(true)) => Vec::new(),
            Some(Value::Bool(false)) => vec![Keyword::Never],
            Some(Value::Object(members)) => self.keywords(pointer, members)?,
            Some(_) => return Err(wrong("a schema is an object, true or false")),
            None => return Err(wrong("there is no such schema")),
        };
        Ok(id)
    }

    fn keywords(&mut self, pointer: &str, members: &Map<String, Value>) -> Compiled<Vec<Keyword>> {
        let mut keywords = Vec::new();
        for (name, value) in members {
            let at = At { pointer, name, value };
            match name.as_str() {
                "$schema" if value.as_str().map(|draft| draft.trim_end_matches('#')) != Some(DRAFT) => {
                    return Err(at.error(format!("only draft {DRAFT} is known")));
                }
                "$id" if !pointer.is_empty() => return Err(at.error("only the outermost schema can have an $id")),
                known if NOTES.contains(&known) || known.starts_with("x-") => {}
                // These are read together with another one.
                "minContains" | "maxContains" | "prefixItems" | "patternProperties" | "additionalProperties" => {}
                _ => keywords.push(self.keyword(&at, members)?),
            }
        }
        let has = |name: &str| members.contains_key(name);
        if has("prefixItems") && !has("items") {
            keywords.push(self.items(pointer, members)?);
        }
        if (has("patternProperties") || has("additionalProperties")) && !has("properties") {
            keywords.push(self.properties(pointer, members)?);
        }
        Ok(keywords)
    }

    fn keyword(&mut self, at: &At<'_>, members: &Map<String, Value>) -> Compiled<Keyword> {
        let value = at.value;
        let bound = |bound| match value {
            Value::Number(limit) => Ok(Keyword::Bound(bound, limit.clone())),
            _ => Err(at.expected("a number")),
        };
        Ok(match at.name {
            "$ref" => Keyword::Ref(self.reference(at)?),
            "type" => Keyword::Type(types(at)?),
            "enum" => Keyword::Enum(at.array()?.clone()),
            "const" => Keyword::Const(value.clone()),
            "minimum" => bound(Bound::Minimum)?,
            "maximum" => bound(Bound::Maximum)?,
            "exclusiveMinimum" => bound(Bound::ExclusiveMinimum)?,
            "exclusiveMaximum" => bound(Bound::ExclusiveMaximum)?,
            "multipleOf" => match value.as_f64().filter(|of| *of > 0.0) {
                Some(of) => Keyword::MultipleOf(of),
                None => return Err(at.expected("a number above 0")),
            },
            "minLength" => Keyword::MinLength(at.count()?),
            "maxLength" => Keyword::MaxLength(at.count()?),
            "pattern" => Keyword::Pattern(at.regex(value.as_str().ok_or_else(|| at.expected("a text"))?)?),
            "items" => self.items(at.pointer, members)?,
            "contains" => self.contains(at, members)?,
            "minItems" => Keyword::MinItems(at.count()?),
            "maxItems" => Keyword::MaxItems(at.count()?),
            "uniqueItems" if value == &Value::Bool(true) => Keyword::UniqueItems,
            "uniqueItems" => Keyword::AllOf(Vec::new()),
            "properties" => self.properties(at.pointer, members)?,
            "propertyNames" => Keyword::PropertyNames(self.child(at)?),
            "required" => Keyword::Required(at.names(value)?),
            "minProperties" => Keyword::MinProperties(at.count()?),
            "maxProperties" => Keyword::MaxProperties(at.count()?),
            "dependentRequired" => {
                let all = at
                    .object()?
                    .iter()
                    .map(|(name, names)| Ok((name.clone(), at.names(names)?)));
                Keyword::DependentRequired(all.collect::<Compiled<_>>()?)
            }
            "dependentSchemas" => Keyword::DependentSchemas(self.named(at)?),
            "allOf" => Keyword::AllOf(self.list(at)?),
            "anyOf" => Keyword::AnyOf(self.list(at)?),
            "oneOf" => Keyword::OneOf(self.list(at)?),
            "not" => Keyword::Not(self.child(at)?),
            "if" => {
                let mut branch = |name: &str| {
                    let pointer = format!("{}/{name}", at.pointer);
                    members.contains_key(name).then(|| self.compile(&pointer)).transpose()
                };
                let (then, otherwise) = (branch("then")?, branch("else")?);
                let condition = self.child(at)?;
                Keyword::If {
                    condition,
                    then,
                    otherwise,
                }
            }
            _ => return Err(at.error("this module does not know the keyword")),
        })
    }

    fn child(&mut self, at: &At<'_>) -> Compiled<Id> {
        self.compile(&format!("{}/{}", at.pointer, at.name))
    }

    fn list(&mut self, at: &At<'_>) -> Compiled<Vec<Id>> {
        match at.array()?.len() {
            0 => Err(at.expected("at least one schema")),
            count => (0..count).map(|index| self.compile(&at.below(index))).collect(),
        }
    }

    fn named(&mut self, at: &At<'_>) -> Compiled<Vec<(String, Id)>> {
        let names = at.object()?.keys();
        names
            .map(|name| Ok((name.clone(), self.compile(&at.below(name))?)))
            .collect()
    }

    fn items(&mut self, pointer: &str, members: &Map<String, Value>) -> Compiled<Keyword> {
        let prefix = match members.get("prefixItems") {
            Some(value) => self.list(&At {
                pointer,
                name: "prefixItems",
                value,
            })?,
            None => Vec::new(),
        };
        let rest = members
            .contains_key("items")
            .then(|| self.compile(&format!("{pointer}/items")))
            .transpose()?;
        Ok(Keyword::Items { prefix, rest })
    }

    fn contains(&mut self, at: &At<'_>, members: &Map<String, Value>) -> Compiled<Keyword> {
        let count = |name| {
            let value = members.get(name)?;
            Some(
                At {
                    pointer: at.pointer,
                    name,
                    value,
                }
                .count(),
            )
        };
        let (min, max) = (count("minContains").transpose()?, count("maxContains").transpose()?);
        let schema = self.child(at)?;
        Ok(Keyword::Contains {
            schema,
            min: min.unwrap_or(1),
            max,
        })
    }

    fn properties(&mut self, pointer: &str, members: &Map<String, Value>) -> Compiled<Keyword> {
        let mut properties = Properties::default();
        if let Some(value) = members.get("properties") {
            properties.named = self.named(&At {
                pointer,
                name: "properties",
                value,
            })?;
        }
        if let Some(value) = members.get("patternProperties") {
            let at = At {
                pointer,
                name: "patternProperties",
                value,
            };
            for (pattern, id) in self.named(&at)? {
                properties.matching.push((at.regex(&pattern)?, id));
            }
        }
        if members.contains_key("additionalProperties") {
            properties.additional = Some(self.compile(&format!("{pointer}/additionalProperties"))?);
        }
        Ok(Keyword::Properties(properties))
    }

    /// `#`, `#/$defs/name`, `#anchor`, or the schema's own id before one of them.
    fn reference(&mut self, at: &At<'_>) -> Compiled<Id> {
        let text = at.value.as_str().ok_or_else(|| at.expected("a text"))?;
        let (id, fragment) = text.split_once('#').unwrap_or((text, ""));
        if !id.is_empty() && id != self.id {
            return Err(at.error(format!(
                "{text:?} is outside of the schema, and a module cannot fetch it"
            )));
        }
        let fragment = fragment.replace("%25", "%").replace("%22", "\"");
        if fragment.is_empty() || fragment.starts_with('/') {
            if self.root.pointer(&fragment).is_none() {
                return Err(at.error(format!("{text:?} names nothing in the schema")));
            }
            return self.compile(&fragment);
        }
        match self.anchors.get(fragment.as_str()).cloned() {
            Some(pointer) => self.compile(&pointer),
            None => Err(at.error(format!("{text:?} names nothing in the schema"))),
        }
    }
}

fn types(at: &At<'_>) -> Compiled<Vec<Type>> {
    let one = |value: &Value| {
        let name = value.as_str()?;
        Type::ALL
            .into_iter()
            .find(|(known, _)| *known == name)
            .map(|(_, kind)| kind)
    };
    let types: Option<Vec<Type>> = match at.value {
        Value::Array(values) if !values.is_empty() => values.iter().map(one).collect(),
        value => one(value).map(|kind| vec![kind]),
    };
    types
        .ok_or_else(|| at.expected("one of null, boolean, object, array, number, integer, string, or an array of them"))
}
