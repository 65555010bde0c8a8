//! A module that turns lines of a web server's access log in the combined format into JSON records.
//!
//! `line` cuts a line into its fields, `time` reads its time; here they become a record.

mod line;
mod time;

use millstream_guest::prelude::*;

pub use line::{Line, Unparsed};

/// Header of a record that stayed as it was because it is no log line; its value says why.
pub const UNPARSED_HEADER: &str = "millstream-unparsed";

/// What becomes of a value that is no line of the format.
#[derive(Choice, Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnparsed {
    /// It stays as it was and gets a header that says why.
    Keep,
    /// It goes.
    Drop,
    /// It is refused.
    Reject,
}

/// What a stage may set.
#[derive(Debug, Params)]
pub struct Params {
    /// What becomes of a line that is not in the combined format: keep leaves it as it was with a header
    /// millstream-unparsed that says why.
    #[param(default = "keep")]
    unparsed: OnUnparsed,
}

/// Turns lines of an access log in the combined format into JSON, keyed by client and timed as logged.
#[map]
pub fn parse_line(record: &Record, out: &mut Output, params: &Params) -> Decision {
    match line::parse(record.value().unwrap_or_default()) {
        Ok(line) => {
            out.set_key(line.client.as_bytes());
            out.set_timestamp_ms(line.time.timestamp_ms);
            line.write_json(out.value_mut());
            Decision::Replace
        }
        Err(unparsed) => {
            count("unparsed", 1);
            match params.unparsed {
                OnUnparsed::Keep => {
                    out.add_header(UNPARSED_HEADER, unparsed.to_string());
                    Decision::Replace
                }
                OnUnparsed::Drop => Decision::Drop,
                OnUnparsed::Reject => Decision::reject(unparsed),
            }
        }
    }
}
