//! A module that selects, removes, renames and sets fields of JSON records.
//!
//! `params` reads what is to change, once; `source` says what a field is set to, record by record. The changes are made in
//! one pass by `json_path::Edit`.

mod params;
mod source;

use json_path::{ApplyError, Edit, Paths};
use millstream_guest::prelude::*;
use on_invalid::OnInvalid;

use source::{Source, Values};

/// What a stage may set. Paths name fields as they are called in the record that comes in.
#[derive(Debug, Params)]
pub struct Params {
    /// Paths of the fields to keep, with commas between; all others go: $.id,$.customer.email
    select: Option<String>,
    /// Paths of the fields to remove, with commas between: $.debug,$.items[*].cost
    remove: Option<String>,
    /// Fields that get another name in their place, with commas between: $.customer.mail=email
    rename: Option<String>,
    /// Fields to set, with commas between: to JSON or a text ($.v=2,$.env='prod'), another field ($.email=$.customer.email),
    /// or key, timestamp, append-time, offset, partition, topic, header('name').
    set: Option<String>,
    /// What becomes of a record that is not JSON, or to which the changes cannot be made: reject, drop or keep.
    #[param(default = "reject")]
    invalid: OnInvalid,
}

/// The parameters, made ready.
#[derive(Debug)]
pub struct Map {
    edit: Edit,
    sources: Vec<Source>,
    /// The fields that others are set to.
    paths: Paths,
    invalid: OnInvalid,
    values: Values,
}

impl Prepare for Map {
    type Params = Params;

    fn prepare(params: Params, context: &Context) -> Result<Self, String> {
        let plan = params::read(&params)?;
        Ok(Self {
            values: Values::new(&plan.sources, context),
            edit: plan.edit,
            sources: plan.sources,
            paths: Paths::new(&plan.paths).map_err(|error| format!("parameter \"set\": {error}"))?,
            invalid: params.invalid,
        })
    }
}

/// Selects, removes, renames and sets fields of JSON records.
#[map]
pub fn change(record: &Record, out: &mut Output, map: &mut Map) -> Decision {
    // A record without a value has no fields, and says that its key is gone.
    let Some(value) = record.value() else {
        return Decision::Keep;
    };
    match map.apply(record, value, out) {
        Ok(true) => Decision::Replace,
        Ok(false) => Decision::Keep,
        Err(why) => map.invalid.decide(why),
    }
}

impl Map {
    fn apply(&mut self, record: &Record, value: &[u8], out: &mut Output) -> Result<bool, ApplyError> {
        self.values.take(&self.sources, &self.paths, record, value)?;
        let values = &self.values;
        self.edit.apply(value, |number| values.get(number), out.value_mut())
    }
}
