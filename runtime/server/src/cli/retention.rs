//! Retention as people write it: `168h`, `7d`, `30m`, `forever`; and in bytes, `10000000`, `forever`.

use std::{fmt, str::FromStr};

use indicatif::BinaryBytes;
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

/// How many bytes each partition keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetentionBytes {
    /// All.
    Forever,
    /// At most this many, at least 1.
    Bytes(u64),
}

impl RetentionBytes {
    /// As the topic configuration has it: 0 means no bound.
    pub fn from_config(bytes: u64) -> RetentionBytes {
        match bytes {
            0 => RetentionBytes::Forever,
            bytes => RetentionBytes::Bytes(bytes),
        }
    }

    /// As the topic configuration has it: 0 means no bound.
    pub fn config(self) -> u64 {
        match self {
            RetentionBytes::Forever => 0,
            RetentionBytes::Bytes(bytes) => bytes,
        }
    }
}

impl FromStr for RetentionBytes {
    type Err = String;

    fn from_str(text: &str) -> Result<RetentionBytes, String> {
        match text.parse() {
            Ok(0) => Err("it must be at least 1; without a bound is written forever".to_owned()),
            Ok(bytes) => Ok(RetentionBytes::Bytes(bytes)),
            Err(_) if text == "forever" => Ok(RetentionBytes::Forever),
            Err(_) => Err("it is neither a number of bytes nor forever".to_owned()),
        }
    }
}

impl fmt::Display for RetentionBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RetentionBytes::Forever => f.write_str("forever"),
            RetentionBytes::Bytes(bytes) => write!(f, "{}", BinaryBytes(*bytes)),
        }
    }
}

/// A number of bytes, or null for no bound.
impl Serialize for RetentionBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Some(self.config()).filter(|bytes| *bytes > 0).serialize(serializer)
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

    #[test]
    fn retention_by_bytes_is_a_number_or_forever() {
        assert_eq!("5000".parse(), Ok(RetentionBytes::Bytes(5_000)));
        assert_eq!("forever".parse(), Ok(RetentionBytes::Forever));
        for text in ["", "0", "-1", "1.5", "much", "99999999999999999999"] {
            assert!(text.parse::<RetentionBytes>().is_err(), "{text:?}");
        }
        for bytes in [RetentionBytes::Bytes(7), RetentionBytes::Forever] {
            assert_eq!(RetentionBytes::from_config(bytes.config()), bytes);
        }
    }
}
