//! Points in time as people write them, after an `@`: in UTC `2026-01-23T15:00:00Z` or `2026-01-23`, or milliseconds since
//! 1970.

use std::{str::FromStr, time::UNIX_EPOCH};

/// A place in a partition: an offset, or the first record of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// This offset.
    Offset(u64),
    /// The first record of this time or later, in milliseconds since the Unix epoch.
    Time(i64),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        match text.strip_prefix('@') {
            Some(time) => parse_ms(time).map(Place::Time),
            None => match text.parse() {
                Ok(offset) => Ok(Place::Offset(offset)),
                Err(_) => Err("it is neither an offset nor @TIME".to_owned()),
            },
        }
    }
}

fn parse_ms(text: &str) -> Result<i64, String> {
    if let Ok(ms) = text.parse() {
        return Ok(ms);
    }
    let day = text.len() == "2026-01-23".len();
    let parsed = match day {
        true => humantime::parse_rfc3339(&format!("{text}T00:00:00Z")),
        false => humantime::parse_rfc3339(text),
    };
    let since = parsed.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .ok_or_else(|| {
            format!(
                "{text:?} is no time; write it in UTC, ending in Z, or in milliseconds since 1970: @2026-01-23T15:00:00Z, \
                 @2026-01-23 or @1769180400000"
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_an_offset_or_a_time() {
        for (text, place) in [
            ("0", Place::Offset(0)),
            ("17", Place::Offset(17)),
            ("@1769180400000", Place::Time(1_769_180_400_000)),
            ("@0", Place::Time(0)),
            ("@-5", Place::Time(-5)),
            ("@2026-01-23T15:00:00Z", Place::Time(1_769_180_400_000)),
            ("@2026-01-23T15:00:00.25Z", Place::Time(1_769_180_400_250)),
            ("@2026-01-23", Place::Time(1_769_126_400_000)),
        ] {
            assert_eq!(text.parse(), Ok(place), "{text:?}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        for text in [
            "@",
            "@nonsense",
            "@2026-13-01",
            "@2026-01-23T25:00:00Z",
            "@15:00",
            "@1.5",
        ] {
            let error = text.parse::<Place>().unwrap_err();
            assert!(error.contains("@2026-01-23T15:00:00Z"), "{text:?}: {error}");
        }
        for text in ["", "-1", "soon", "2026-01-23"] {
            let error = text.parse::<Place>().unwrap_err();
            assert!(error.contains("neither an offset nor @TIME"), "{text:?}: {error}");
        }
    }
}
