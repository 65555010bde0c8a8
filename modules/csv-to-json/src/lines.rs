//! Cuts text into lines and lines into fields, as RFC 4180 says.

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

/// What a line is read into at first; both grow with what they meet.
const TEXT_BYTES: usize = 1 << 10;
const FIELDS: usize = 32;

/// The buffers, used again for every line.
#[derive(Debug)]
pub struct Lines {
    reader: Reader,
    text: Vec<u8>,
    ends: Vec<usize>,
}

/// The fields of a line.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    text: &'a [u8],
    ends: &'a [usize],
}

impl<'a> Fields<'a> {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let Fields { text, ends } = *self;
        let starts = std::iter::once(0).chain(ends.iter().copied());
        starts.zip(ends).map(move |(start, &end)| &text[start..end])
    }
}

impl Lines {
    pub fn new(delimiter: u8, quote: Option<u8>) -> Self {
        let mut builder = ReaderBuilder::new();
        builder.delimiter(delimiter).quoting(quote.is_some());
        if let Some(quote) = quote {
            builder.quote(quote);
        }
        Self {
            reader: builder.build(),
            text: vec![0; TEXT_BYTES],
            ends: vec![0; FIELDS],
        }
    }

    /// Calls `visit` with the number of each line, from 1 on, and its fields. Empty lines are no lines.
    ///
    /// # Errors
    /// A quote is not closed, or what `visit` said.
    pub fn each(
        &mut self,
        value: &[u8],
        mut visit: impl FnMut(usize, &Fields<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        self.reader.reset();
        // The line break ends the last line, unless a quote is open: then it is part of a field.
        let (mut parts, mut line) = ([value, b"\n"].into_iter(), 1);
        let (mut input, mut text_len, mut ends_len) = (parts.next().unwrap_or_default(), 0, 0);
        loop {
            let (text, ends) = (&mut self.text[text_len..], &mut self.ends[ends_len..]);
            let (result, read, written, ended) = self.reader.read_record(input, text, ends);
            input = &input[read..];
            text_len += written;
            ends_len += ended;
            match result {
                ReadRecordResult::OutputFull => self.text.resize(self.text.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record => {
                    let (text, ends) = (&self.text[..text_len], &self.ends[..ends_len]);
                    visit(line, &Fields { text, ends })?;
                    (line, text_len, ends_len) = (line + 1, 0, 0);
                }
                ReadRecordResult::InputEmpty | ReadRecordResult::End => match parts.next() {
                    Some(part) => input = part,
                    None if text_len + ends_len == 0 => return Ok(()),
                    None => return Err(format!("line {line}: a quote is not closed")),
                },
            }
        }
    }
}
