//! What a module may ask of the broker: a log line, a counter. Natively both go to the test harness while one records,
//! else log lines go to standard error and counts nowhere.

use std::fmt;

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Something failed.
    Error = 0,
    /// Something is odd.
    Warn = 1,
    /// Worth knowing.
    Info = 2,
    /// For whoever looks for a fault.
    Debug = 3,
    /// Every step.
    Trace = 4,
}

/// Logs a line; the macros [`log!`](crate::log!), [`error!`](crate::error), [`warn!`](crate::warn), [`info!`](crate::info),
/// [`debug!`](crate::debug) and [`trace!`](crate::trace) are the short way.
pub fn log(level: Level, text: fmt::Arguments<'_>) {
    imp::log(level, text);
}

/// Adds to a counter of the module: a metric that the broker shows beside its own, under this name.
pub fn count(name: &str, by: u64) {
    imp::count(name, by);
}

#[cfg(target_arch = "wasm32")]
mod imp {
    use std::fmt;

    use super::Level;
    use crate::component::bindings::millstream::module::host;

    pub(super) fn log(level: Level, text: fmt::Arguments<'_>) {
        match text.as_str() {
            Some(text) => host::log(level as u8, text),
            None => host::log(level as u8, &text.to_string()),
        }
    }

    pub(super) fn count(name: &str, by: u64) {
        host::count(name, by);
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod imp {
    use std::fmt;

    use super::Level;
    use crate::testing::record;

    pub(super) fn log(level: Level, text: fmt::Arguments<'_>) {
        if !record(|recorded| recorded.logs.push((level, text.to_string()))) {
            eprintln!("{level:?}: {text}");
        }
    }

    pub(super) fn count(name: &str, by: u64) {
        record(|recorded| *recorded.counters.entry(name.to_owned()).or_default() += by);
    }
}

/// Logs a line of a level: `log!(Level::Warn, "{} bytes", value.len())`.
#[macro_export]
macro_rules! log {
    ($level:expr, $($text:tt)+) => { $crate::host::log($level, ::core::format_args!($($text)+)) };
}

/// Logs what failed.
#[macro_export]
macro_rules! error {
    ($($text:tt)+) => { $crate::host::log($crate::Level::Error, ::core::format_args!($($text)+)) };
}

/// Logs what is odd.
#[macro_export]
macro_rules! warn {
    ($($text:tt)+) => { $crate::host::log($crate::Level::Warn, ::core::format_args!($($text)+)) };
}

/// Logs what is worth knowing.
#[macro_export]
macro_rules! info {
    ($($text:tt)+) => { $crate::host::log($crate::Level::Info, ::core::format_args!($($text)+)) };
}

/// Logs what helps to find a fault.
#[macro_export]
macro_rules! debug {
    ($($text:tt)+) => { $crate::host::log($crate::Level::Debug, ::core::format_args!($($text)+)) };
}

/// Logs every step.
#[macro_export]
macro_rules! trace {
    ($($text:tt)+) => { $crate::host::log($crate::Level::Trace, ::core::format_args!($($text)+)) };
}
