//! Masks the values that paths name.

use json_path::{Path, Paths, find};

/// The paths, and the JSON that takes the place of what they name.
#[derive(Debug)]
pub struct Fields {
    paths: Paths,
    with: String,
}

impl Fields {
    /// Reads paths with commas between.
    ///
    /// # Errors
    /// They are no paths.
    pub fn new(fields: &str, with: &str) -> Result<Self, String> {
        let wrong = |error: String| format!("parameter \"fields\": {error}");
        let paths = Path::parse_list(fields).map_err(|error| wrong(error.to_string()))?;
        let paths = Paths::new(&paths).map_err(wrong)?;
        Ok(Self {
            paths,
            with: serde_json::Value::from(with).to_string(),
        })
    }

    /// Writes the value with what the paths name masked; false, and nothing is written, when it has none of them.
    ///
    /// # Errors
    /// The value is not JSON; what was written by then means nothing.
    pub fn mask(&self, value: &[u8], into: &mut Vec<u8>) -> Result<bool, serde_json::Error> {
        let mut copied = 0;
        find(value, &self.paths, |found| {
            into.extend_from_slice(&value[copied..found.range.start]);
            into.extend_from_slice(self.with.as_bytes());
            copied = found.range.end;
        })?;
        if copied == 0 {
            return Ok(false);
        }
        into.extend_from_slice(&value[copied..]);
        Ok(true)
    }
}
