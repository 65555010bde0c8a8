//! A record as one JSON object:
//!
//! ```text
//! {"topic":"t","partition":0,"offset":7,"timestamp":1735689600000,"key":"k","value":"v","headers":[{"key":"h","value":"x"}]}
//! ```
//!
//! Null stays null. Bytes that are not UTF-8 come in standard base64 under `key_base64` or `value_base64` instead.
//! Headers are a list and keep their order, since a key may repeat.

use base64::{display::Base64Display, engine::general_purpose::STANDARD};
use millstream_client::Record;
use serde::{Serialize, Serializer, ser::SerializeMap};

/// Serialises a record of a topic's partition.
pub struct RecordJson<'a> {
    /// The topic's name.
    pub topic: &'a str,
    /// The partition.
    pub partition: u32,
    /// The record.
    pub record: &'a Record,
}

impl Serialize for RecordJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let RecordJson {
            topic,
            partition,
            record,
        } = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("topic", topic)?;
        map.serialize_entry("partition", partition)?;
        map.serialize_entry("offset", &record.offset)?;
        map.serialize_entry("timestamp", &record.timestamp_ms)?;
        bytes_entry(&mut map, ["key", "key_base64"], record.key.as_deref())?;
        bytes_entry(&mut map, ["value", "value_base64"], record.value.as_deref())?;
        map.serialize_entry("headers", &Headers(record))?;
        map.end()
    }
}

struct Headers<'a>(&'a Record);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.headers.iter().map(|(key, value)| Header {
            key,
            value: value.as_deref(),
        }))
    }
}

struct Header<'a> {
    key: &'a str,
    value: Option<&'a [u8]>,
}

impl Serialize for Header<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("key", self.key)?;
        bytes_entry(&mut map, ["value", "value_base64"], self.value)?;
        map.end()
    }
}

fn bytes_entry<M: SerializeMap>(map: &mut M, names: [&str; 2], bytes: Option<&[u8]>) -> Result<(), M::Error> {
    match bytes.map(|bytes| (bytes, str::from_utf8(bytes))) {
        None => map.serialize_entry(names[0], &()),
        Some((_, Ok(text))) => map.serialize_entry(names[0], text),
        Some((bytes, Err(_))) => map.serialize_entry(names[1], &Text(Base64Display::new(bytes, &STANDARD))),
    }
}

/// Serialises what can be displayed.
struct Text<T>(T);

impl<T: std::fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_record_has_one_shape_with_base64_where_bytes_are_no_text() {
        let record = Record {
            offset: 7,
            timestamp_ms: -1,
            key: None,
            value: Some(Bytes::from_static(b"\xff\x00")),
            headers: vec![
                ("h".to_owned(), Some(Bytes::from_static(b"\"x\""))),
                ("h".to_owned(), None),
                ("b".to_owned(), Some(Bytes::from_static(b"\xfe"))),
            ],
        };
        let json = serde_json::to_string(&RecordJson {
            topic: "t",
            partition: 2,
            record: &record,
        })
        .unwrap();
        assert_eq!(
            json,
            r#"{"topic":"t","partition":2,"offset":7,"timestamp":-1,"key":null,"value_base64":"/wA=","headers":[{"key":"h","value":"\"x\""},{"key":"h","value":null},{"key":"b","value_base64":"/g=="}]}"#
        );
    }

    #[test]
    fn text_stays_text() {
        let record = Record {
            offset: 0,
            timestamp_ms: 0,
            key: Some(Bytes::from_static("schlüssel".as_bytes())),
            value: Some(Bytes::new()),
            headers: Vec::new(),
        };
        let json = serde_json::to_string(&RecordJson {
            topic: "t",
            partition: 0,
            record: &record,
        })
        .unwrap();
        assert_eq!(
            json,
            r#"{"topic":"t","partition":0,"offset":0,"timestamp":0,"key":"schlüssel","value":"","headers":[]}"#
        );
    }
}
