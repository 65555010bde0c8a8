//! The smallest useful module: keeps log lines of a level or a worse one. Copy this folder to begin your own.

use millstream_guest::prelude::*;

/// How bad a line is; an enum of words is a parameter that can be one of them.
#[derive(Choice, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// All is well.
    Info,
    /// Something is odd.
    Warn,
    /// Something failed.
    Error,
}

/// What a stage may set: `millstream pipeline add logs errors-only --on produce --param level=warn`.
#[derive(Params)]
pub struct Params {
    /// Lines of a lower level are dropped.
    #[param(default = "error")]
    level: Level,
}

/// Keeps lines that begin with a level of this or a worse one: `ERROR disk full`.
#[filter]
pub fn keep(record: &Record, params: &Params) -> bool {
    level(record.value().unwrap_or_default()).is_some_and(|level| level >= params.level)
}

fn level(line: &[u8]) -> Option<Level> {
    match line.split(|&byte| byte == b' ').next()? {
        b"INFO" => Some(Level::Info),
        b"WARN" => Some(Level::Warn),
        b"ERROR" => Some(Level::Error),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use millstream_guest::testing::{Fate, Harness, Sample};

    use super::*;

    #[test]
    fn lines_of_a_lower_level_are_dropped() {
        let lines = ["INFO up", "WARN slow", "ERROR disk full", "hello"].map(Sample::value);
        let (kept, dropped) = (Fate::Kept, Fate::Dropped);
        let mut errors = Harness::<keep>::new(&[]).unwrap();
        assert_eq!(
            errors.run(&lines),
            [dropped.clone(), dropped.clone(), kept.clone(), dropped.clone()]
        );
        let mut warnings = Harness::<keep>::new(&[("level", "warn")]).unwrap();
        assert_eq!(warnings.run(&lines), [dropped.clone(), kept.clone(), kept, dropped]);
    }
}
