//! Retention as people write it: `168h`, `7d`, `30m`, `forever`.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

const UNITS_MS: [(&str, u64); 4] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];

/// How long records are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Never deleted.
    Forever,
    /// Milliseconds, at least 1.
    Milliseconds(u64),
}

impl Retention {
    /// As the topic configuration has it: 0 means for ever.
    pub fn from_config_ms(ms: u64) -> Retention {
        match ms {
            0 => Retention::Forever,
            ms => Retention::Milliseconds(ms),
        }
    }

    /// As the topic configuration has it: 0 means for ever.
    pub fn config_ms(self) -> u64 {
        match self {
            Retention::Forever => 0,
            Retention::Milliseconds(ms) => ms,
        }
    }
}

impl FromStr for Retention {
    type Err = String;

    fn from_str(text: &str) -> Result<Retention, String> {
        if text == "forever" {
            return Ok(Retention::Forever);
        }
        let duration = humantime::parse_duration(text)
            .map_err(|error| format!("{error}; write for instance 168h, 7d, 30m or forever"))?;
        match u64::try_from(duration.as_millis()) {
            Ok(0) => Err("it must be at least 1ms; for ever is written forever".to_owned()),
            Ok(ms) => Ok(Retention::Milliseconds(ms)),
            Err(_) => Err("it is too long; write forever".to_owned()),
        }
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Retention::Milliseconds(ms) = *self else {
            return f.write_str("forever");
        };
        match UNITS_MS.iter().find(|(_, unit_ms)| ms % unit_ms == 0) {
            Some((unit, unit_ms)) => write!(f, "{}{unit}", ms / unit_ms),
            None => write!(f, "{ms}ms"),
        }
    }
}

impl Serialize for Retention {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_is_read_as_people_write_it() {
        for (text, ms) in [
            ("168h", 604_800_000),
            ("7d", 604_800_000),
            ("30m", 1_800_000),
            ("1h 30m", 5_400_000),
            ("250ms", 250),
            ("forever", 0),
        ] {
            assert_eq!(text.parse::<Retention>().map(Retention::config_ms), Ok(ms), "{text:?}");
        }
        for text in ["", "7", "0s", "-1h", "ever", "99999999999999999999d", "10000000000y"] {
            assert!(text.parse::<Retention>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn retention_is_shown_in_its_largest_whole_unit_and_reads_back() {
        for (ms, text) in [
            (604_800_000, "7d"),
            (5_400_000, "90m"),
            (3_600_000, "1h"),
            (1_001, "1001ms"),
            (0, "forever"),
        ] {
            let retention = Retention::from_config_ms(ms);
            assert_eq!(retention.to_string(), text);
            assert_eq!(text.parse(), Ok(retention));
        }
    }
}
