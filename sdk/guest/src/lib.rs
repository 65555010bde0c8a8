//! Write Millstream modules in Rust.
//!
//! A module is one ordinary function with an attribute. The attribute adds what the broker calls; the function itself
//! stays as it is and can be called and tested natively.
//!
//! ```
//! use millstream_guest::prelude::*;
//!
//! #[derive(Params)]
//! struct Params {
//!     /// Shorter values are dropped, in bytes.
//!     #[param(default = 1)]
//!     bytes_min: u64,
//! }
//!
//! /// Keeps records whose value is long enough.
//! #[filter]
//! fn long_enough(record: &Record, params: &Params) -> bool {
//!     record.value().is_some_and(|value| value.len() as u64 >= params.bytes_min)
//! }
//! ```
//!
//! | attribute | function | what it decides |
//! |---|---|---|
//! | [`#[filter]`](filter) | `fn(&Record) -> bool` | keep or drop |
//! | [`#[map]`](map) | `fn(&Record, &mut Output) -> Decision` | keep, replace, drop or reject |
//! | [`#[filter_map]`](filter_map) | `fn(&Record, &mut Output) -> Option<()>` | `Some` replaces, `None` drops |
//! | [`#[flat_map]`](flat_map) | `fn(&Record, &mut Outputs)` | any number of records for one |
//! | [`#[batch]`](batch) | `fn(&Records, &mut Decisions)` | all of these, with all records of the call in view |
//!
//! Each may return a `Result` of that instead: the error's text is the reason for which the record is rejected (that of
//! `#[batch]` fails the whole batch). A function that panics fails, too: the broker finds the record at fault and does
//! with it what the stage's `on_error` says. Each may take one argument more, `&Params` with [`derive(Params)`](Params), or any type of its own that is made of such
//! parameters once, before the first record ([`Prepare`]).
//!
//! Floors inside: `record`, `output`, `decision` and `batch` are what authors see; `process` turns a function over records into
//! one over batches; `module` holds one configured module; `component` (wasm only) is the contract of `sdk/wit`.

mod batch;
mod decision;
pub mod host;
mod module;
mod outcome;
mod output;
mod params;
pub mod process;
mod record;
mod rewrite;
pub mod testing;

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod component;

pub use batch::{Decisions, Records};
pub use decision::{Decision, IntoDecision, IntoEmitted, IntoKeep, IntoReplaced};
pub use host::{Level, count};
pub use millstream_guest_macros::{Choice, Params, batch, filter, filter_map, flat_map, map};
pub use module::{Info, Instance, Module, Prepare};
pub use outcome::{Bitmap, Emitted, Outcome, Reject, Verdict};
pub use output::{Output, Outputs};
pub use params::{Given, Param, ParamValue, Params};
pub use record::{Batch, Context, Headers, Record};

/// Everything a module needs: `use millstream_guest::prelude::*;`.
pub mod prelude {
    pub use crate::{
        Choice, Context, Decision, Decisions, Level, Output, Outputs, Params, Prepare, Record, Records, batch, count,
        filter, filter_map, flat_map, map,
    };
    pub use crate::{debug, error, info, log, trace, warn};
}
