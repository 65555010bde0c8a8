//! Redacts the values that paths name.

use std::borrow::Cow;

use json_path::{ApplyError, Edit, Error, Path, Paths, find};

use crate::how::How;

/// The fields, and what becomes of them.
#[derive(Debug)]
pub enum Fields {
    /// Other JSON takes the place of each.
    Mask {
        /// The fields.
        paths: Paths,
        /// The JSON.
        with: String,
    },
    /// The hash of each takes its place.
    Hash {
        /// The fields.
        paths: Paths,
        /// The hash.
        how: How,
    },
    /// They go, name and all.
    Drop(Edit),
}

impl Fields {
    /// Reads paths with commas between.
    ///
    /// # Errors
    /// They are no paths, or more than can be looked for.
    pub fn new(fields: &str, how: &How) -> Result<Self, String> {
        let wrong = |error: String| format!("parameter \"fields\": {error}");
        let paths = Path::parse_list(fields).map_err(|error| wrong(error.to_string()))?;
        if matches!(how, How::Drop) {
            let mut edit = Edit::default();
            for path in &paths {
                edit.remove(path).map_err(|error| wrong(error.to_string()))?;
            }
            return Ok(Fields::Drop(edit));
        }
        let paths = Paths::new(&paths).map_err(wrong)?;
        Ok(match how {
            How::Mask(with) => Fields::Mask {
                paths,
                with: serde_json::Value::from(with.as_str()).to_string(),
            },
            how => Fields::Hash {
                paths,
                how: how.clone(),
            },
        })
    }

    /// Writes the value with what the paths name redacted; false where it has none of them, and what was written then
    /// means nothing.
    ///
    /// # Errors
    /// The value is not JSON; what was written by then means nothing.
    pub fn redact(&self, value: &[u8], into: &mut Vec<u8>) -> Result<bool, ApplyError> {
        match self {
            Fields::Drop(edit) => edit.apply(value, |_| None, into),
            Fields::Mask { paths, with } => {
                let replace = |_: &str, into: &mut Vec<u8>| into.extend_from_slice(with.as_bytes());
                Ok(splice(value, paths, replace, into)?)
            }
            Fields::Hash { paths, how } => {
                let replace = |json: &str, into: &mut Vec<u8>| {
                    into.push(b'"');
                    into.extend_from_slice(how.redacted(&text(json)).unwrap_or_default().as_bytes());
                    into.push(b'"');
                };
                Ok(splice(value, paths, replace, into)?)
            }
        }
    }
}

/// Copies the value, with each that a path names replaced.
fn splice(
    value: &[u8],
    paths: &Paths,
    replace: impl Fn(&str, &mut Vec<u8>),
    into: &mut Vec<u8>,
) -> Result<bool, Error> {
    let mut copied = 0;
    find(value, paths, |found| {
        into.extend_from_slice(&value[copied..found.range.start]);
        replace(found.json, into);
        copied = found.range.end;
    })?;
    if copied == 0 {
        return Ok(false);
    }
    into.extend_from_slice(&value[copied..]);
    Ok(true)
}

/// What is hashed of a value: the text that a string stands for, so that it meets the hash of a key; else the JSON as it
/// is written.
fn text(json: &str) -> Cow<'_, [u8]> {
    if !json.starts_with('"') {
        return Cow::Borrowed(json.as_bytes());
    }
    match serde_json::from_str::<Cow<'_, str>>(json) {
        Ok(Cow::Borrowed(text)) => Cow::Borrowed(text.as_bytes()),
        Ok(Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
        Err(_) => Cow::Borrowed(json.as_bytes()),
    }
}
