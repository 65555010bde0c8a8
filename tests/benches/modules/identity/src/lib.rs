//! Leaves every record as it is, or writes each anew as it was: what a module costs that does nothing.

use millstream_guest::prelude::*;

/// What a stage may set.
#[derive(Debug, Params)]
pub struct Params {
    /// Write every record anew.
    #[param(default = false)]
    rewrite: bool,
}

/// Gives every record back.
#[map]
pub fn same(record: &Record, out: &mut Output, params: &Params) -> Decision {
    if !params.rewrite {
        return Decision::Keep;
    }
    match record.value() {
        Some(value) => out.set_value(value),
        None => out.remove_value(),
    }
    Decision::Replace
}
