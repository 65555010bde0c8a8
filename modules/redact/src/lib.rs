//! A module that masks fields of JSON records, or whatever matches a pattern.
//!
//! `fields` masks the values that paths name, `pattern` what a regular expression matches; both splice the bytes of the
//! value and leave everything else as it stands.
//!
//! Invariant: what was to be masked never passes. A value in which the fields cannot be found because it is not JSON is
//! refused unless the stage says otherwise.

mod fields;
mod pattern;

use millstream_guest::prelude::*;

use fields::Fields;
use pattern::Pattern;

/// What becomes of a value that is not JSON where fields are to be masked.
#[derive(Choice, Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnInvalid {
    /// The record is refused.
    Reject,
    /// The record goes.
    Drop,
    /// The whole value is masked.
    Mask,
    /// The value stays, but for what the pattern matches.
    Keep,
}

/// What becomes of the record's key.
#[derive(Choice, Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnKey {
    /// It stays, but for what the pattern matches.
    Keep,
    /// It is masked.
    Mask,
    /// It goes.
    Remove,
}

/// What a stage may set.
#[derive(Debug, Params)]
pub struct Params {
    /// Paths of the JSON fields to mask, with commas between: $.client,$.cards[*].number
    fields: Option<String>,
    /// A regular expression; what it matches is masked in strings, numbers and names of JSON values, in values that are
    /// no JSON, in keys and in header values.
    pattern: Option<String>,
    /// What is put in place of what is masked.
    #[param(default = "***")]
    with: String,
    /// What becomes of a value that is not JSON where fields are to be masked: reject, drop, mask it whole, or keep it.
    #[param(default = "reject")]
    invalid: OnInvalid,
    /// What becomes of the record's key: keep, mask or remove. A field that is also the key is masked in both only so.
    #[param(default = "keep")]
    key: OnKey,
}

/// The parameters, made ready.
#[derive(Debug)]
pub struct Redact {
    fields: Option<Fields>,
    pattern: Option<Pattern>,
    with: String,
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
            return Err("nothing to mask: set \"fields\", \"pattern\" or \"key\"".to_owned());
        }
        let fields = params
            .fields
            .map(|fields| Fields::new(&fields, &params.with))
            .transpose()?;
        let pattern = params
            .pattern
            .map(|pattern| Pattern::new(&pattern, &params.with))
            .transpose()?;
        let (with, invalid, key) = (params.with, params.invalid, params.key);
        Ok(Self {
            fields,
            pattern,
            with,
            invalid,
            key,
            after_fields: Vec::new(),
            after_pattern: Vec::new(),
        })
    }
}

/// Masks fields of JSON records, or whatever matches a pattern.
#[map]
pub fn mask(record: &Record, out: &mut Output, redact: &mut Redact) -> Decision {
    redact.mask_key(record, out);
    redact.mask_headers(record, out);
    match redact.mask_value(record, out) {
        // An output that nothing was written to leaves the record as it is.
        Ok(()) => Decision::Replace,
        Err(Unmasked::Reject(reason)) => Decision::Reject(reason),
        Err(Unmasked::Drop) => Decision::Drop,
    }
}

/// Why a record does not pass.
enum Unmasked {
    Reject(String),
    Drop,
}

impl Redact {
    fn mask_key(&self, record: &Record, out: &mut Output) {
        let Some(key) = record.key() else { return };
        match (self.key, &self.pattern) {
            (OnKey::Remove, _) => out.remove_key(),
            (OnKey::Mask, _) => out.set_key(&self.with),
            (OnKey::Keep, Some(pattern)) => {
                if let Some(masked) = pattern.replace(key) {
                    out.set_key(masked);
                }
            }
            (OnKey::Keep, None) => {}
        }
    }

    fn mask_headers(&self, record: &Record, out: &mut Output) {
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

    fn mask_value(&mut self, record: &Record, out: &mut Output) -> Result<(), Unmasked> {
        let Some(value) = record.value() else { return Ok(()) };
        self.after_fields.clear();
        self.after_pattern.clear();
        let mut changed = false;
        if let Some(fields) = &self.fields {
            match fields.mask(value, &mut self.after_fields) {
                Ok(found) => changed = found,
                Err(error) => match self.invalid {
                    OnInvalid::Reject => return Err(Unmasked::Reject(format!("the value is not JSON: {error}"))),
                    OnInvalid::Drop => return Err(Unmasked::Drop),
                    OnInvalid::Mask => {
                        out.set_value(&self.with);
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
