//! What a field is set to.

use std::io::Write as _;
use std::ops::Range;

use json_path::{Error, Paths, find_nested};
use millstream_guest::prelude::*;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// JSON as it was written.
    Literal(String),
    /// The field at the path of that number, in the record that came in.
    Field(usize),
    /// The record's key, as text.
    Key,
    /// The record's time, in milliseconds.
    Timestamp,
    /// When the broker took the record in, in milliseconds.
    AppendTime,
    /// The record's offset, which is known on fetch only.
    Offset,
    /// The partition's number.
    Partition,
    /// The topic's name.
    Topic,
    /// The first header of that name, as text.
    Header(String),
}

/// The values of one record, as JSON, in buffers that are used again.
#[derive(Debug)]
pub struct Values {
    json: Vec<u8>,
    /// Where each value stands in `json`.
    ranges: Vec<Option<Range<usize>>>,
    topic: String,
    /// Where each path was found in the document.
    found: Vec<Option<Range<usize>>>,
    has_fields: bool,
}

impl Values {
    pub fn new(sources: &[Source], context: &Context) -> Self {
        let fields = sources
            .iter()
            .filter(|source| matches!(source, Source::Field(_)))
            .count();
        Self {
            json: Vec::new(),
            ranges: Vec::with_capacity(sources.len()),
            topic: context.topic.clone(),
            found: vec![None; fields],
            has_fields: fields > 0,
        }
    }

    /// Takes the values from a record and its document.
    ///
    /// # Errors
    /// The document is not JSON.
    pub fn take(&mut self, sources: &[Source], paths: &Paths, record: &Record, document: &[u8]) -> Result<(), Error> {
        self.json.clear();
        self.ranges.clear();
        if self.has_fields {
            self.found.fill(None);
            find_nested(document, paths, |found| {
                for number in found.path_numbers() {
                    self.found[number].get_or_insert(found.range.clone());
                }
            })?;
        }
        for source in sources {
            let start = self.json.len();
            let is_there = self.write(source, record, document).is_some();
            self.ranges.push(is_there.then_some(start..self.json.len()));
        }
        Ok(())
    }

    /// The value of that number, where there is one.
    pub fn get(&self, number: usize) -> Option<&[u8]> {
        Some(&self.json[self.ranges[number].clone()?])
    }

    fn write(&mut self, source: &Source, record: &Record, document: &[u8]) -> Option<()> {
        match source {
            Source::Literal(json) => self.json.extend_from_slice(json.as_bytes()),
            Source::Field(number) => self.json.extend_from_slice(&document[self.found[*number].clone()?]),
            Source::Key => self.write_text(record.key()?),
            Source::Header(name) => self.write_text(record.header(name)??),
            Source::Timestamp => self.write_number(record.timestamp_ms()),
            Source::AppendTime => self.write_number(record.append_time_ms()),
            Source::Offset => self.write_number(record.offset()?),
            Source::Partition => self.write_number(record.partition()),
            Source::Topic => {
                let topic = std::mem::take(&mut self.topic);
                self.write_text(topic.as_bytes());
                self.topic = topic;
            }
        }
        Some(())
    }

    fn write_text(&mut self, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        serde_json::to_writer(&mut self.json, &text).expect("text can be written to memory");
    }

    fn write_number(&mut self, number: impl std::fmt::Display) {
        write!(self.json, "{number}").expect("a number can be written to memory");
    }
}
