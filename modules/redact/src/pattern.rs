//! Redacts what a regular expression matches, so that JSON stays JSON.

use std::borrow::Cow;

use memchr::memchr2;
use regex::bytes::{Captures, NoExpand, Regex, RegexBuilder};
use serde::de::IgnoredAny;

use crate::how::How;

/// The compiled expression may take so many bytes, and so many more while it searches.
const REGEX_BYTES_MAX: usize = 4 << 20;

/// The expression, and what becomes of its matches.
#[derive(Debug)]
pub struct Pattern {
    regex: Regex,
    how: How,
}

impl Pattern {
    /// Compiles the expression.
    ///
    /// # Errors
    /// It is none, it is too large, or it matches where nothing is.
    pub fn new(pattern: &str, how: &How) -> Result<Self, String> {
        let regex = RegexBuilder::new(pattern)
            .size_limit(REGEX_BYTES_MAX)
            .dfa_size_limit(REGEX_BYTES_MAX)
            .build()
            .map_err(|error| format!("parameter \"pattern\": {error}"))?;
        if regex.is_match(b"") {
            return Err(format!("parameter \"pattern\": {pattern:?} matches the empty text"));
        }
        Ok(Self {
            regex,
            how: how.clone(),
        })
    }

    /// The text with its matches redacted; `None` when it has none.
    pub fn replace<'t>(&self, text: &'t [u8]) -> Option<Cow<'t, [u8]>> {
        let replaced = match &self.how {
            How::Mask(with) => self.regex.replace_all(text, NoExpand(with.as_bytes())),
            How::Drop => self.regex.replace_all(text, NoExpand(b"")),
            hash => self.regex.replace_all(text, |found: &Captures| {
                hash.redacted(&found[0]).unwrap_or_default().into_bytes()
            }),
        };
        match replaced {
            Cow::Borrowed(_) => None,
            masked => Some(masked),
        }
    }

    /// Writes the value with its matches redacted; false, and nothing is written, when it has none.
    pub fn mask(&self, value: &[u8], into: &mut Vec<u8>) -> bool {
        if serde_json::from_slice::<IgnoredAny>(value).is_ok() {
            return self.mask_json(value, into);
        }
        match self.replace(value) {
            Some(masked) => into.extend_from_slice(&masked),
            None => return false,
        }
        true
    }

    /// Looks into each string and number of a document that is known to be JSON.
    fn mask_json(&self, document: &[u8], into: &mut Vec<u8>) -> bool {
        let mut copied = 0;
        let mut position = 0;
        while let Some((token, next)) = next_token(document, position) {
            position = next;
            let text = &document[token.clone()];
            if let Some(masked) = if text[0] == b'"' {
                self.mask_string(text)
            } else {
                self.mask_number(text)
            } {
                into.extend_from_slice(&document[copied..token.start]);
                into.extend_from_slice(&masked);
                copied = token.end;
            }
        }
        if copied == 0 {
            return false;
        }
        into.extend_from_slice(&document[copied..]);
        true
    }

    fn mask_string(&self, token: &[u8]) -> Option<Vec<u8>> {
        let inside = &token[1..token.len() - 1];
        if !inside.contains(&b'\\') && !self.regex.is_match(inside) {
            return None;
        }
        // An escape may hide a match, and one that names no character hides the text: then all of it is redacted.
        let Ok(text) = serde_json::from_slice::<String>(token) else {
            return Some(quoted(&self.how.redacted(inside).unwrap_or_default()).into_bytes());
        };
        let masked = self.replace(text.as_bytes())?;
        Some(quoted(&String::from_utf8_lossy(&masked)).into_bytes())
    }

    /// A number that loses digits is no number any more: it becomes a string.
    fn mask_number(&self, token: &[u8]) -> Option<Vec<u8>> {
        let masked = self.replace(token)?;
        Some(quoted(&String::from_utf8_lossy(&masked)).into_bytes())
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The next string, with its quotes, or number of a JSON document, and where to look on.
fn next_token(document: &[u8], from: usize) -> Option<(std::ops::Range<usize>, usize)> {
    let starts = |byte: &u8| matches!(byte, b'"' | b'-' | b'0'..=b'9');
    let start = from + document[from..].iter().position(starts)?;
    let mut end = start + 1;
    if document[start] == b'"' {
        loop {
            end += memchr2(b'"', b'\\', &document[end..])?;
            match document[end] {
                b'"' => break,
                _ => end += 2,
            }
        }
        end += 1;
    } else {
        let goes_on = |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
        end += document[end..].iter().take_while(|byte| goes_on(byte)).count();
    }
    Some((start..end, end))
}
