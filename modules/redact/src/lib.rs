//! A module that masks, hashes or drops fields of JSON records, or whatever matches a pattern.
//!
//! `fields` redacts the values that paths name, `pattern` what a regular expression matches, `how` says what takes its
//! place; everything else of the value stays as it stands.
//!
//! Invariant: what was to be redacted never passes. A value in which the fields cannot be found because it is not JSON is
//! refused unless the stage says otherwise.

mod fields;
mod how;
mod pattern;

use millstream_guest::prelude::*;

use fields::Fields;
use how::How;
use pattern::Pattern;

/// What becomes of what is redacted.
#[derive(Choice, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redaction {
    /// Another text takes its place.
    Mask,
    /// The hash of salt and text takes its place.
    Hash,
    /// It goes.
    Drop,
}

/// What becomes of a value that is not JSON where fields are to be redacted.
#[derive(Choice, Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnInvalid {
    /// The record is refused.
    Reject,
    /// The record goes.
    Drop,
    /// The whole value is redacted.
    Mask,
    /// The value stays, but for what the pattern matches.
    Keep,
}

/// What becomes of the record's key.
#[derive(Choice, Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnKey {
    /// It stays, but for what the pattern matches.
    Keep,
    /// It is redacted.
    Mask,
    /// It goes.
    Remove,
}

/// What a stage may set.
#[derive(Debug, Params)]
pub struct Params {
    /// Paths of the JSON fields to redact, with commas between: $.client,$.cards[*].number
    fields: Option<String>,
    /// A regular expression; what it matches is redacted in strings, numbers and names of JSON values, in values that are
    /// no JSON, in keys and in header values.
    pattern: Option<String>,
    /// What becomes of what is redacted: mask puts a text in its place, hash the SHA-256 of salt and text, drop nothing.
    #[param(default = "mask")]
    how: Redaction,
    /// The text that mask puts in place.
    #[param(default = "***")]
    with: String,
    /// What is hashed before the text. Without knowing it nobody finds the text by trying.
    salt: Option<String>,
    /// What becomes of a value that is not JSON where fields are to be redacted: reject, drop, mask it whole, or keep it.
    #[param(default = "reject")]
    invalid: OnInvalid,
    /// What becomes of the record's key: keep, mask (hashed where fields are) or remove. A field that is also the key is
    /// redacted in both only so.
    #[param(default = "keep")]
    key: OnKey,
}

/// The parameters, made ready.
#[derive(Debug)]
pub struct Redact {
    fields: Option<Fields>,
    pattern: Option<Pattern>,
    how: How,
    invalid: OnInvalid,
    key: OnKey,
    /// The value after its fields and after the pattern, in buffers that are used again for each record.
    after_fields: Vec<u8>,
    after_pattern: Vec<u8>,
}

impl Prepare for Redact {
    type Params = Params;

    fn prepare(params: Params, _context: &Context) -> Result<Self, String> {
        if params.fields.is_none() && params.pattern.is_none() && params.key == OnKey::Keep {
            return Err("nothing to redact: set \"fields\", \"pattern\" or \"key\"".to_owned());
        }
        let how = match (params.how, params.salt.as_deref()) {
            (Redaction::Hash, Some(salt)) if !salt.is_empty() => How::hash(salt),
            (Redaction::Hash, _) => {
                return Err("parameter \"salt\" is missing: without one a hash is found by trying texts".to_owned());
            }
            (_, Some(_)) => return Err("parameter \"salt\" is for how=hash".to_owned()),
            (Redaction::Mask, None) => How::Mask(params.with),
            (Redaction::Drop, None) => How::Drop,
        };
        let fields = params.fields.map(|fields| Fields::new(&fields, &how)).transpose()?;
        let pattern = params.pattern.map(|pattern| Pattern::new(&pattern, &how)).transpose()?;
        let (invalid, key) = (params.invalid, params.key);
        Ok(Self {
            fields,
            pattern,
            how,
            invalid,
            key,
            after_fields: Vec::new(),
            after_pattern: Vec::new(),
        })
    }
}

/// Masks, hashes or drops fields of JSON records, or whatever matches a pattern.
#[map]
pub fn mask(record: &Record, out: &mut Output, redact: &mut Redact) -> Decision {
    redact.redact_key(record, out);
    redact.redact_headers(record, out);
    match redact.redact_value(record, out) {
        // An output that nothing was written to leaves the record as it is.
        Ok(()) => Decision::Replace,
        Err(Unredacted::Reject(reason)) => Decision::Reject(reason),
        Err(Unredacted::Drop) => Decision::Drop,
    }
}

/// Why a record does not pass.
enum Unredacted {
    Reject(String),
    Drop,
}

impl Redact {
    fn redact_key(&self, record: &Record, out: &mut Output) {
        let Some(key) = record.key() else { return };
        match (self.key, &self.pattern) {
            (OnKey::Remove, _) => out.remove_key(),
            (OnKey::Mask, _) => match self.how.redacted(key) {
                Some(redacted) => out.set_key(redacted),
                None => out.remove_key(),
            },
            (OnKey::Keep, Some(pattern)) => {
                if let Some(masked) = pattern.replace(key) {
                    out.set_key(masked);
                }
            }
            (OnKey::Keep, None) => {}
        }
    }

    fn redact_headers(&self, record: &Record, out: &mut Output) {
        let Some(pattern) = &self.pattern else { return };
        if !record
            .headers()
            .any(|(_, value)| value.is_some_and(|value| pattern.replace(value).is_some()))
        {
            return;
        }
        out.clear_headers();
        for (name, value) in record.headers() {
            match value {
                Some(value) => out.add_header(name, pattern.replace(value).as_deref().unwrap_or(value)),
                None => out.add_empty_header(name),
            }
        }
    }

    fn redact_value(&mut self, record: &Record, out: &mut Output) -> Result<(), Unredacted> {
        let Some(value) = record.value() else { return Ok(()) };
        self.after_fields.clear();
        self.after_pattern.clear();
        let mut changed = false;
        if let Some(fields) = &self.fields {
            match fields.redact(value, &mut self.after_fields) {
                Ok(found) => changed = found,
                Err(error) => match self.invalid {
                    OnInvalid::Reject => return Err(Unredacted::Reject(error.to_string())),
                    OnInvalid::Drop => return Err(Unredacted::Drop),
                    OnInvalid::Mask => {
                        match self.how.redacted(value) {
                            Some(redacted) => out.set_value(redacted),
                            None => out.remove_value(),
                        }
                        return Ok(());
                    }
                    OnInvalid::Keep => {}
                },
            }
        }
        let after_fields = if changed { &self.after_fields } else { value };
        if self
            .pattern
            .as_ref()
            .is_some_and(|pattern| pattern.mask(after_fields, &mut self.after_pattern))
        {
            std::mem::swap(out.value_mut(), &mut self.after_pattern);
        } else if changed {
            std::mem::swap(out.value_mut(), &mut self.after_fields);
        }
        Ok(())
    }
}
