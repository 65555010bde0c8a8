//! A module that keeps JSON records for which a comparison holds.
//!
//! `condition` reads the comparison and decides it for a value, as it stands in the document.

mod condition;

use std::fmt;

use json_path::{Paths, find};
use millstream_guest::prelude::*;

pub use condition::{Condition, ConditionError};

/// What becomes of a record that is not JSON, or has nothing where the path leads.
#[derive(Choice, Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMissing {
    /// It goes.
    Drop,
    /// It stays.
    Keep,
    /// It is refused.
    Reject,
}

/// What a stage may set.
#[derive(Debug, Params)]
pub struct Params {
    /// The comparison: a path, one of == != < <= > >= contains, and a JSON value, as in $.status >= 500 or
    /// $.user.country == "DE"; or a path and exists.
    r#where: String,
    /// What becomes of a record that is not JSON or has nothing at the path: drop, keep or reject.
    #[param(default = "drop")]
    missing: OnMissing,
}

/// The parameters, made ready.
#[derive(Debug)]
pub struct Filter {
    paths: Paths,
    condition: Condition,
    missing: OnMissing,
}

impl Prepare for Filter {
    type Params = Params;

    fn prepare(params: Params, _context: &Context) -> Result<Self, String> {
        let wrong = |error: &dyn fmt::Display| format!("parameter \"where\": {error}");
        let (path, condition) = condition::parse(&params.r#where).map_err(|error| wrong(&error))?;
        let paths = Paths::new(&[path]).map_err(|error| wrong(&error))?;
        Ok(Self {
            paths,
            condition,
            missing: params.missing,
        })
    }
}

/// Keeps JSON records for which a comparison holds.
#[filter]
pub fn keep(record: &Record, filter: &Filter) -> Result<bool, String> {
    let (mut found, mut holds) = (false, false);
    let read = find(record.value().unwrap_or_default(), &filter.paths, |value| {
        found = true;
        holds = holds || filter.condition.holds(value.json);
    });
    match (read, filter.missing) {
        (Ok(()), _) if found => Ok(holds),
        (_, OnMissing::Drop) => Ok(false),
        (_, OnMissing::Keep) => Ok(true),
        (Ok(()), OnMissing::Reject) => Err("the value has nothing at the path".to_owned()),
        (Err(error), OnMissing::Reject) => Err(format!("the value is not JSON: {error}")),
    }
}
