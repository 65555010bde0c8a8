//! The time of a log line: `17/May/2015:10:05:03 +0000`.

use jiff::civil::DateTime;
use jiff::tz::Offset;
use serde::{Serialize, Serializer};

const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// `dd/Mon/yyyy:HH:MM:SS +hhmm`.
const LOGGED_BYTES: usize = 26;

/// A moment, as an instant and as the wall time and offset it was logged with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggedTime {
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    wall: DateTime,
    offset_minutes: i32,
}

impl LoggedTime {
    /// Reads the text between the brackets; `None` where it is no time.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text: &[u8; LOGGED_BYTES] = text.try_into().ok()?;
        let [
            ..,
            b'/',
            _,
            _,
            _,
            b'/',
            _,
            _,
            _,
            _,
            b':',
            _,
            _,
            b':',
            _,
            _,
            b':',
            _,
            _,
            b' ',
            sign,
            _,
            _,
            _,
            _,
        ] = text
        else {
            return None;
        };
        let month = MONTHS
            .iter()
            .position(|month| text[3..6].eq_ignore_ascii_case(*month))?
            + 1;
        let [day, hour, minute] = [number(&text[0..2])?, number(&text[12..14])?, number(&text[15..17])?];
        // A leap second is logged as 60 and has no instant of its own.
        let second = number(&text[18..20])?.min(if text[18..20] == *b"60" { 59 } else { 99 });
        let [year, offset_hours, offset_minutes] =
            [number(&text[7..11])?, number(&text[22..24])?, number(&text[24..26])?];
        let minutes = offset_hours * 60 + offset_minutes;
        let offset_minutes = match sign {
            b'+' if offset_minutes < 60 => minutes,
            b'-' if offset_minutes < 60 => -minutes,
            _ => return None,
        };
        let small = |number: i32| i8::try_from(number).ok();
        let wall = DateTime::new(
            i16::try_from(year).ok()?,
            i8::try_from(month).ok()?,
            small(day)?,
            small(hour)?,
            small(minute)?,
            small(second)?,
            0,
        )
        .ok()?;
        let timestamp = Offset::from_seconds(offset_minutes * 60)
            .ok()?
            .to_timestamp(wall)
            .ok()?;
        Some(Self {
            timestamp_ms: timestamp.as_millisecond(),
            wall,
            offset_minutes,
        })
    }
}

/// RFC 3339 with the offset it was logged with, `Z` where that is none.
impl Serialize for LoggedTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let minutes = self.offset_minutes.unsigned_abs();
        let (sign, hours, minutes) = (
            if self.offset_minutes < 0 { '-' } else { '+' },
            minutes / 60,
            minutes % 60,
        );
        match self.offset_minutes {
            0 => serializer.collect_str(&format_args!("{}Z", self.wall)),
            _ => serializer.collect_str(&format_args!("{}{sign}{hours:02}:{minutes:02}", self.wall)),
        }
    }
}

fn number(digits: &[u8]) -> Option<i32> {
    digits.iter().try_fold(0, |number, digit| {
        digit.is_ascii_digit().then(|| number * 10 + i32::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rfc3339(text: &str) -> Option<(i64, String)> {
        let time = LoggedTime::parse(text.as_bytes())?;
        Some((time.timestamp_ms, serde_json::to_string(&time).unwrap()))
    }

    #[test]
    fn times_are_instants_and_keep_their_offset() {
        let cases = [
            (
                "17/May/2015:10:05:03 +0000",
                1_431_857_103_000,
                "\"2015-05-17T10:05:03Z\"",
            ),
            (
                "17/May/2015:12:05:03 +0200",
                1_431_857_103_000,
                "\"2015-05-17T12:05:03+02:00\"",
            ),
            (
                "17/May/2015:00:35:03 -0930",
                1_431_857_103_000,
                "\"2015-05-17T00:35:03-09:30\"",
            ),
            (
                "29/Feb/2016:23:59:60 +0000",
                1_456_790_399_000,
                "\"2016-02-29T23:59:59Z\"",
            ),
            ("31/dec/1969:23:59:59 +0000", -1_000, "\"1969-12-31T23:59:59Z\""),
        ];
        for (text, timestamp_ms, json) in cases {
            assert_eq!(rfc3339(text), Some((timestamp_ms, json.to_owned())), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "-",
            "2015-05-17T10:05:03Z",
            "29/Feb/2015:10:05:03 +0000",
            "17/Mai/2015:10:05:03 +0000",
            "17/May/2015:24:05:03 +0000",
            "17/May/2015:10:05:61 +0000",
            "17/May/2015:10:05:03 +9900",
            "17/May/2015:10:05:03 +0060",
            "17/May/2015:10:05:03  0000",
            "17/May/2015:10:05:0x +0000",
        ] {
            assert_eq!(rfc3339(text), None, "{text}");
        }
    }
}
