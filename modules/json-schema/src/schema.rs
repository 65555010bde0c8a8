//! A schema, compiled. Schemas within it are numbered, since they may refer to each other in circles.

use regex_lite::Regex;
use serde_json::{Number, Value};

/// The number of a schema.
pub type Id = usize;

/// All schemas; the first is the one that documents are held against.
#[derive(Debug, Default)]
pub struct Schema {
    pub all: Vec<Vec<Keyword>>,
}

/// A type of JSON, as `type` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Null,
    Boolean,
    Object,
    Array,
    Number,
    Integer,
    String,
}

impl Type {
    pub const ALL: [(&'static str, Type); 7] = [
        ("null", Type::Null),
        ("boolean", Type::Boolean),
        ("object", Type::Object),
        ("array", Type::Array),
        ("number", Type::Number),
        ("integer", Type::Integer),
        ("string", Type::String),
    ];

    pub fn name(self) -> &'static str {
        Type::ALL
            .into_iter()
            .find(|(_, kind)| *kind == self)
            .map_or("", |(name, _)| name)
    }
}

/// Which end of a range a number bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    Minimum,
    ExclusiveMinimum,
    Maximum,
    ExclusiveMaximum,
}

/// Something that must hold of a value. Most hold of every value that is of another type than they speak of.
#[derive(Debug)]
pub enum Keyword {
    /// The schema `false`.
    Never,
    Ref(Id),
    Type(Vec<Type>),
    Enum(Vec<Value>),
    Const(Value),
    Bound(Bound, Number),
    MultipleOf(f64),
    MinLength(u64),
    MaxLength(u64),
    Pattern(Regex),
    Items {
        prefix: Vec<Id>,
        rest: Option<Id>,
    },
    Contains {
        schema: Id,
        min: u64,
        max: Option<u64>,
    },
    MinItems(u64),
    MaxItems(u64),
    UniqueItems,
    Properties(Properties),
    PropertyNames(Id),
    Required(Vec<String>),
    MinProperties(u64),
    MaxProperties(u64),
    DependentRequired(Vec<(String, Vec<String>)>),
    DependentSchemas(Vec<(String, Id)>),
    AllOf(Vec<Id>),
    AnyOf(Vec<Id>),
    OneOf(Vec<Id>),
    Not(Id),
    If {
        condition: Id,
        then: Option<Id>,
        otherwise: Option<Id>,
    },
}

/// What the members of an object must be.
#[derive(Debug, Default)]
pub struct Properties {
    pub named: Vec<(String, Id)>,
    pub matching: Vec<(Regex, Id)>,
    /// Those that neither name nor pattern speaks of.
    pub additional: Option<Id>,
}
