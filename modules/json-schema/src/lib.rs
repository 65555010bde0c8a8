//! A module that lets only those JSON records pass that fit a JSON Schema (draft 2020-12).
//!
//! `compile` reads the schema once, `schema` is what it becomes, `check` holds a document against it, and `equal` says
//! when two values are the same.

mod check;
mod compile;
mod equal;
mod schema;

use millstream_guest::prelude::*;

use schema::Schema;

/// What becomes of a record that does not fit.
#[derive(Choice, Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMismatch {
    /// It is refused, with the reason; where it goes then is up to the stage.
    Reject,
    /// It goes.
    Drop,
}

/// What a stage may set.
#[derive(Debug, Params)]
pub struct Params {
    /// The schema, as JSON.
    schema: String,
    /// What becomes of a record that does not fit: reject with the reason, which the stage's on_error policy may turn into
    /// a dead letter, or drop.
    #[param(default = "reject")]
    mismatch: OnMismatch,
}

/// The parameters, made ready.
#[derive(Debug)]
pub struct Validator {
    schema: Schema,
    mismatch: OnMismatch,
}

impl Prepare for Validator {
    type Params = Params;

    fn prepare(params: Params, _context: &Context) -> Result<Self, String> {
        let schema = compile::schema(&params.schema).map_err(|error| format!("parameter \"schema\": {error}"))?;
        let mismatch = params.mismatch;
        Ok(Self { schema, mismatch })
    }
}

/// Refuses records whose value does not fit a JSON Schema.
#[filter]
pub fn validate(record: &Record, validator: &Validator) -> Result<bool, String> {
    let why = match serde_json::from_slice(record.value().unwrap_or_default()) {
        Ok(value) => match validator.schema.check(&value) {
            Ok(()) => return Ok(true),
            Err(mismatch) => mismatch.to_string(),
        },
        Err(error) => format!("the value is not JSON: {error}"),
    };
    count("mismatches", 1);
    match validator.mismatch {
        OnMismatch::Reject => Err(why),
        OnMismatch::Drop => Ok(false),
    }
}
