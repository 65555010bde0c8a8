//! Where the write-ahead log is kept, and when an append to it counts as durable.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Where the write-ahead log is kept: `disk` or `object`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum WalPlace {
    /// Files in the data folder.
    Disk,
    /// Objects in the store, so that nothing but the store is needed to recover.
    Object,
}

impl FromStr for WalPlace {
    type Err = String;

    fn from_str(text: &str) -> Result<WalPlace, String> {
        match text {
            "disk" => Ok(WalPlace::Disk),
            "object" => Ok(WalPlace::Object),
            _ => Err(format!("{text:?} is neither disk nor object")),
        }
    }
}

impl fmt::Display for WalPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WalPlace::Disk => "disk",
            WalPlace::Object => "object",
        })
    }
}

impl TryFrom<String> for WalPlace {
    type Error = String;

    fn try_from(text: String) -> Result<WalPlace, String> {
        text.parse()
    }
}

impl From<WalPlace> for String {
    fn from(place: WalPlace) -> String {
        place.to_string()
    }
}

/// When the write-ahead log syncs its file: `always`, `never` or `interval:MS`.
///
/// Under the last two an acknowledged record survives the loss of the process, not that of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum WalSync {
    /// Before every answer.
    Always,
    /// As the operating system sees fit.
    Never,
    /// Every so many milliseconds.
    Interval {
        /// At least 1.
        ms: u64,
    },
}

impl WalSync {
    /// Milliseconds between two syncs; 0 where there is no such time.
    pub(super) fn interval_ms(self) -> u64 {
        match self {
            WalSync::Interval { ms } => ms,
            WalSync::Always | WalSync::Never => 0,
        }
    }
}

impl FromStr for WalSync {
    type Err = String;

    fn from_str(text: &str) -> Result<WalSync, String> {
        let interval = || text.strip_prefix("interval:")?.parse().ok().filter(|ms| *ms > 0);
        match text {
            "always" => Ok(WalSync::Always),
            "never" => Ok(WalSync::Never),
            _ => match interval() {
                Some(ms) => Ok(WalSync::Interval { ms }),
                None => Err(format!("{text:?} is none of always, never, interval:MS")),
            },
        }
    }
}

impl fmt::Display for WalSync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalSync::Always => f.write_str("always"),
            WalSync::Never => f.write_str("never"),
            WalSync::Interval { ms } => write!(f, "interval:{ms}"),
        }
    }
}

impl TryFrom<String> for WalSync {
    type Error = String;

    fn try_from(text: String) -> Result<WalSync, String> {
        text.parse()
    }
}

impl From<WalSync> for String {
    fn from(sync: WalSync) -> String {
        sync.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        for sync in [WalSync::Always, WalSync::Never, WalSync::Interval { ms: 50 }] {
            assert_eq!(sync.to_string().parse(), Ok(sync));
        }
        for place in [WalPlace::Disk, WalPlace::Object] {
            assert_eq!(place.to_string().parse(), Ok(place));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "sometimes", "interval:", "interval:0", "interval:x", "Always"] {
            assert!(text.parse::<WalSync>().is_err(), "{text:?}");
        }
        for text in ["", "s3", "Disk", "disk:always"] {
            assert!(text.parse::<WalPlace>().is_err(), "{text:?}");
        }
    }
}
