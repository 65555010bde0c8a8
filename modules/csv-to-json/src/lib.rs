//! A module that turns lines of CSV into JSON records.
//!
//! `lines` cuts a value into lines and fields; here they become records.

mod lines;

use millstream_guest::prelude::*;
use on_invalid::OnInvalid;

use lines::Lines;

/// What a field becomes.
#[derive(Choice, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Types {
    /// Always a text.
    Text,
    /// A number where it is written as JSON writes one; true, false; null where it is empty; else a text.
    Infer,
}

/// What a stage may set.
#[derive(Debug, Params)]
pub struct Params {
    /// The names of the columns, with commas between: time,host,"bytes sent"
    columns: String,
    /// What stands between fields: a character, or tab.
    #[param(default = ",")]
    delimiter: String,
    /// What may stand around a field, doubled within it: a character, or none.
    #[param(default = "\"")]
    quote: String,
    /// What fields become: text, or infer to make numbers, true, false and null of what looks like them.
    #[param(default = "text")]
    types: Types,
    /// What becomes of a record with a line that has not as many fields as there are columns: reject, drop or keep.
    #[param(default = "reject")]
    invalid: OnInvalid,
}

/// The parameters, made ready.
#[derive(Debug)]
pub struct Csv {
    columns: Vec<String>,
    /// The same names as JSON.
    names: Vec<String>,
    lines: Lines,
    types: Types,
    invalid: OnInvalid,
}

impl Prepare for Csv {
    type Params = Params;

    fn prepare(params: Params, context: &Context) -> Result<Self, String> {
        if context.on_fetch {
            return Err("csv-to-json may make several records of one, which only a stage on produce may".to_owned());
        }
        let columns = columns(&params.columns).map_err(|error| format!("parameter \"columns\": {error}"))?;
        let delimiter = match params.delimiter.as_str() {
            "tab" | "\\t" => b'\t',
            other => character("delimiter", other)?,
        };
        let quote = match params.quote.as_str() {
            "none" => None,
            other => Some(character("quote", other)?),
        };
        if quote == Some(delimiter) {
            return Err("parameter \"quote\" is the same as \"delimiter\"".to_owned());
        }
        Ok(Self {
            names: columns
                .iter()
                .map(|name| serde_json::Value::from(name.as_str()).to_string())
                .collect(),
            columns,
            lines: Lines::new(delimiter, quote),
            types: params.types,
            invalid: params.invalid,
        })
    }
}

fn columns(text: &str) -> Result<Vec<String>, String> {
    let mut columns: Vec<String> = Vec::new();
    Lines::new(b',', Some(b'"')).each(text.as_bytes(), |number, fields| {
        if number > 1 {
            return Err("one line of names was expected".to_owned());
        }
        columns = fields
            .iter()
            .map(|name| String::from_utf8_lossy(name).trim().to_owned())
            .collect();
        Ok(())
    })?;
    match columns
        .iter()
        .enumerate()
        .find(|(at, name)| name.is_empty() || columns[..*at].contains(name))
    {
        Some((_, name)) if name.is_empty() => Err("a name is empty".to_owned()),
        Some((_, name)) => Err(format!("{name:?} stands there twice")),
        None if columns.is_empty() => Err("no names".to_owned()),
        None => Ok(columns),
    }
}

fn character(param: &str, text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [byte] if byte.is_ascii() && !matches!(byte, b'\r' | b'\n') => Ok(*byte),
        _ => Err(format!("parameter {param:?}: {text:?} is not one ASCII character")),
    }
}

/// Turns lines of CSV into JSON records, one of each line.
#[flat_map]
pub fn parse_lines(record: &Record, out: &mut Outputs, csv: &mut Csv) -> Result<(), String> {
    let value = record.value().unwrap_or_default();
    let Csv {
        columns,
        names,
        types,
        lines,
        ..
    } = &mut *csv;
    // A first pass decides whether all of the value fits, so that never half of it is written.
    let checked = lines.each(value, |number, fields| {
        if fields.len() == columns.len() {
            return Ok(());
        }
        let (found, wanted) = (fields.len(), columns.len());
        Err(format!(
            "line {number} has {found} fields, and there are {wanted} columns"
        ))
    });
    if let Err(why) = checked {
        return csv.invalid.settle(why, out);
    }
    lines.each(value, |_, fields| {
        let is_header = fields
            .iter()
            .zip(&*columns)
            .all(|(field, name)| field.trim_ascii() == name.as_bytes());
        if !is_header {
            write_object(names, fields, *types, out.push().value_mut());
        }
        Ok(())
    })
}

fn write_object(names: &[String], fields: &lines::Fields<'_>, types: Types, into: &mut Vec<u8>) {
    into.push(b'{');
    for (index, (name, field)) in names.iter().zip(fields.iter()).enumerate() {
        if index > 0 {
            into.push(b',');
        }
        into.extend_from_slice(name.as_bytes());
        into.push(b':');
        if types == Types::Infer && stands_for_itself(field) {
            into.extend_from_slice(if field.is_empty() { b"null" } else { field });
        } else {
            write_text(field, into);
        }
    }
    into.push(b'}');
}

/// Whether a field is JSON as it is: a number, `true`, `false`, or nothing, which is null.
fn stands_for_itself(field: &[u8]) -> bool {
    match field {
        b"" | b"true" | b"false" => true,
        [b'-' | b'0'..=b'9', ..] => serde_json::from_slice::<serde_json::Number>(field).is_ok(),
        _ => false,
    }
}

fn write_text(field: &[u8], into: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(field);
    serde_json::to_writer(into, &text).expect("text can be written to memory");
}
