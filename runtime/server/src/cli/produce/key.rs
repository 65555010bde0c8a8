//! Where a record's key comes from.

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

/// The source of keys.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// Records have no key.
    None,
    /// Every record has this one.
    Fixed(String),
    /// The top-level field of this name of the JSON object that a record is.
    Field(String),
}

impl KeySource {
    /// The key of a record: a text as it is, anything else as JSON writes it, null as no key.
    ///
    /// # Errors
    /// For a record that is no JSON object, or that does not have the field: a key that silently went missing would
    /// send the record to another partition than its like.
    pub fn key_of(&self, value: &[u8]) -> Result<Option<Cow<'_, [u8]>>, String> {
        let field = match self {
            KeySource::None => return Ok(None),
            KeySource::Fixed(key) => return Ok(Some(Cow::Borrowed(key.as_bytes()))),
            KeySource::Field(field) => field,
        };
        let mut json = serde_json::Deserializer::from_slice(value);
        let found = FieldOf(field)
            .deserialize(&mut json)
            .and_then(|found| json.end().map(|()| found))
            .map_err(|error| format!("it is no JSON object ({error}), so it has no field {field:?}"))?;
        match found {
            None => Err(format!("it has no field {field:?}")),
            Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(Cow::Owned(text.into_bytes()))),
            Some(other) => Ok(Some(Cow::Owned(other.to_string().into_bytes()))),
        }
    }
}

/// Reads one field of an object and skips the others without keeping them.
struct FieldOf<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for FieldOf<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Value>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldOf<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<Value>, A::Error> {
        let mut found = None;
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            if name == self.0 {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(value: &str) -> Result<Option<String>, String> {
        let source = KeySource::Field("user".to_owned());
        let key = source.key_of(value.as_bytes())?;
        Ok(key.map(|key| String::from_utf8(key.into_owned()).unwrap()))
    }

    #[test]
    fn a_field_becomes_the_key() {
        for (value, expected) in [
            (r#"{"a":[1,{"user":"inner"}],"user":"u\u0031"}"#, Some("u1")),
            (r#"{"user":17}"#, Some("17")),
            (r#"{"user":true,"z":1}"#, Some("true")),
            (r#"{"user":{"id":1}}"#, Some(r#"{"id":1}"#)),
            (r#"{"user":null}"#, None),
        ] {
            assert_eq!(key(value), Ok(expected.map(str::to_owned)), "{value}");
        }
    }

    #[test]
    fn a_record_without_the_field_is_refused() {
        assert_eq!(key(r#"{"a":1}"#), Err("it has no field \"user\"".to_owned()));
        for value in ["", "text", "[1]", r#"{"user":"a"} x"#, r#"{"user":"#] {
            assert!(key(value).unwrap_err().contains("no JSON object"), "{value}");
        }
    }
}
