//! What a module function returns, and the plain Rust types that stand for it.

use std::fmt::Display;

/// What becomes of a record in a `#[map]` function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The record stays exactly as it came, whatever was written to the output.
    Keep,
    /// The record takes on what was written to the [`Output`](crate::Output) and keeps everything else.
    Replace,
    /// The record goes, silently.
    Drop,
    /// The record is refused, and whoever sent it learns the reason.
    Reject(String),
}

impl Decision {
    /// A rejection for this reason.
    pub fn reject(reason: impl Display) -> Self {
        Decision::Reject(reason.to_string())
    }
}

/// What a `#[filter]` function may return: `bool`, or a `Result` of it whose error rejects the record.
#[diagnostic::on_unimplemented(
    message = "a `#[filter]` function returns `bool` or `Result<bool, E>`, not `{Self}`",
    label = "the function returns `{Self}`"
)]
pub trait IntoKeep {
    /// True keeps the record, false drops it, an error rejects it.
    fn into_keep(self) -> Result<bool, String>;
}

impl IntoKeep for bool {
    fn into_keep(self) -> Result<bool, String> {
        Ok(self)
    }
}

impl<E: Display> IntoKeep for Result<bool, E> {
    fn into_keep(self) -> Result<bool, String> {
        self.map_err(|error| error.to_string())
    }
}

/// What a `#[map]` function may return: a [`Decision`], or a `Result` of it whose error rejects the record.
#[diagnostic::on_unimplemented(
    message = "a `#[map]` function returns `Decision` or `Result<Decision, E>`, not `{Self}`",
    label = "the function returns `{Self}`"
)]
pub trait IntoDecision {
    /// The decision.
    fn into_decision(self) -> Decision;
}

impl IntoDecision for Decision {
    fn into_decision(self) -> Decision {
        self
    }
}

impl<E: Display> IntoDecision for Result<Decision, E> {
    fn into_decision(self) -> Decision {
        self.unwrap_or_else(Decision::reject)
    }
}

/// What a `#[filter_map]` function may return: `Option<()>`, or a `Result` of it whose error rejects the record.
#[diagnostic::on_unimplemented(
    message = "a `#[filter_map]` function returns `Option<()>` or `Result<Option<()>, E>`, not `{Self}`",
    label = "the function returns `{Self}`"
)]
pub trait IntoReplaced {
    /// `Some` replaces the record by what was written, `None` drops it, an error rejects it.
    fn into_replaced(self) -> Decision;
}

impl IntoReplaced for Option<()> {
    fn into_replaced(self) -> Decision {
        match self {
            Some(()) => Decision::Replace,
            None => Decision::Drop,
        }
    }
}

impl<E: Display> IntoReplaced for Result<Option<()>, E> {
    fn into_replaced(self) -> Decision {
        self.map_or_else(Decision::reject, IntoReplaced::into_replaced)
    }
}

/// What a `#[flat_map]` or `#[batch]` function may return: nothing, or a `Result` of it. The error of a `#[flat_map]`
/// function rejects the record, that of a `#[batch]` function fails the batch.
#[diagnostic::on_unimplemented(
    message = "a `#[flat_map]` or `#[batch]` function returns nothing or `Result<(), E>`, not `{Self}`",
    label = "the function returns `{Self}`"
)]
pub trait IntoEmitted {
    /// After an error nothing that was emitted counts.
    fn into_emitted(self) -> Result<(), String>;
}

impl IntoEmitted for () {
    fn into_emitted(self) -> Result<(), String> {
        Ok(())
    }
}

impl<E: Display> IntoEmitted for Result<(), E> {
    fn into_emitted(self) -> Result<(), String> {
        self.map_err(|error| error.to_string())
    }
}
