//! What becomes of a record that a module cannot do its work on: the parameter `invalid`, as several modules have it.

use std::fmt::Display;

use millstream_guest::prelude::*;

/// What becomes of such a record.
#[derive(Choice, Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnInvalid {
    /// It is refused.
    Reject,
    /// It goes.
    Drop,
    /// It stays as it is.
    Keep,
}

impl OnInvalid {
    /// The decision of a module that makes one record of one.
    pub fn decide(self, why: impl Display) -> Decision {
        match self {
            OnInvalid::Reject => Decision::reject(why),
            OnInvalid::Drop => Decision::Drop,
            OnInvalid::Keep => Decision::Keep,
        }
    }

    /// The answer of a module that makes several records of one, and has put none into `out`.
    ///
    /// # Errors
    /// Why the record is refused.
    pub fn settle(self, why: String, out: &mut Outputs) -> Result<(), String> {
        match self {
            OnInvalid::Reject => Err(why),
            OnInvalid::Drop => Ok(()),
            OnInvalid::Keep => {
                out.keep();
                Ok(())
            }
        }
    }
}
