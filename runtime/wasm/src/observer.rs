//! Who hears what a module says while it runs.

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something is odd.
    Warn,
    /// Something to know.
    Info,
    /// For whoever looks for a fault.
    Debug,
    /// Every step.
    Trace,
}

impl Level {
    /// The level a module gave as a number; all numbers beyond the last mean [`Level::Trace`].
    pub(crate) fn of_contract(level: u8) -> Level {
        match level {
            0 => Level::Error,
            1 => Level::Warn,
            2 => Level::Info,
            3 => Level::Debug,
            _ => Level::Trace,
        }
    }

    /// The level in lower case letters.
    pub fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        }
    }
}

/// Hears what a module says while it runs. It is called on the thread that runs the module, and its time is the
/// module's own: it must be quick and must not wait.
///
/// What it may rely on:
/// 1. A line is one line without control characters, no longer than the limit, and no more of them come from one call
///    than the limits allow; one more line says how many were dropped.
/// 2. A counter's name has no control characters and at most 64 bytes, an instance uses at most 64 names, and each is
///    told at most once a call. An instance made anew may use other names, so an observer that keeps them needs a bound
///    of its own.
pub trait Observer: Send + Sync {
    /// The module logged a line.
    fn log(&self, level: Level, line: &str);
    /// The module counted, since it was last told.
    fn count(&self, name: &str, by: u64);
}

/// Hears nothing: for calls whose words are for nobody, as when a module describes itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unheard;

impl Observer for Unheard {
    fn log(&self, _: Level, _: &str) {}
    fn count(&self, _: &str, _: u64) {}
}
