//! A module that keeps JSON records for which a condition holds.
//!
//! `parse` reads the condition once; `condition` decides it for a document, and `comparison` a part of it for a value, as
//! it stands in the document.

mod comparison;
mod condition;
mod parse;

use millstream_guest::prelude::*;

use condition::Condition;

/// What becomes of a record that is not JSON, or lacks what the condition hangs on.
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
    /// The condition: comparisons such as $.status >= 500 or $.country = "DE" (= != < <= > >= contains ~ !~), exists $.path,
    /// joined by and, or, not and brackets.
    r#where: String,
    /// What becomes of a record that is not JSON or has nothing at a path on which the condition hangs: drop, keep or
    /// reject.
    #[param(default = "drop")]
    missing: OnMissing,
}

/// The parameters, made ready.
#[derive(Debug)]
pub struct Filter {
    condition: Condition,
    missing: OnMissing,
}

impl Prepare for Filter {
    type Params = Params;

    fn prepare(params: Params, _context: &Context) -> Result<Self, String> {
        let condition = Condition::parse(&params.r#where).map_err(|error| format!("parameter \"where\": {error}"))?;
        let missing = params.missing;
        Ok(Self { condition, missing })
    }
}

/// Keeps JSON records for which a condition holds.
#[filter]
pub fn keep(record: &Record, filter: &Filter) -> Result<bool, String> {
    match (
        filter.condition.holds(record.value().unwrap_or_default()),
        filter.missing,
    ) {
        (Ok(Some(holds)), _) => Ok(holds),
        (_, OnMissing::Drop) => Ok(false),
        (_, OnMissing::Keep) => Ok(true),
        (Ok(None), OnMissing::Reject) => Err("the value has nothing at a path on which the condition hangs".to_owned()),
        (Err(error), OnMissing::Reject) => Err(format!("the value is not JSON: {error}")),
    }
}
