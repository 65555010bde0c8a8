//! A line of the combined format, as Apache and nginx write it:
//!
//! ```text
//! client ident user [time] "request" status bytes "referrer" "agent" anything
//! ```
//!
//! Within quotes `\"` and `\\` stand for `"` and `\`. Other escapes (`\xe4`) stay as they are written, since nobody knows
//! the encoding of the bytes they stand for. Bytes that are not UTF-8 become the replacement character.

use std::borrow::Cow;

use serde::Serialize;

use crate::time::LoggedTime;

/// Why a line is not in the format. The text goes into a header or to the producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unparsed {
    /// The line ends within or before a field.
    #[error("the line ends in or before the {0}")]
    CutOff(&'static str),
    /// A field does not look as it should.
    #[error("malformed {0}")]
    Malformed(&'static str),
}

/// The fields of a line. Its JSON has them in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line<'a> {
    /// Address or name of who asked.
    pub client: Cow<'a, str>,
    /// When.
    pub time: LoggedTime,
    /// `GET`; none where the request is not of the form `METHOD path PROTOCOL`.
    pub method: Option<Cow<'a, str>>,
    /// What was asked for, or the request as it was logged; none where nothing was.
    pub path: Option<Cow<'a, str>>,
    /// `HTTP/1.1`.
    pub protocol: Option<Cow<'a, str>>,
    /// The status of the answer.
    pub status: u16,
    /// Bytes of the answer; `-` is 0.
    pub bytes: u64,
    /// Where the client came from; none for `-`.
    pub referrer: Option<Cow<'a, str>>,
    /// What the client calls itself; none for `-`.
    pub agent: Option<Cow<'a, str>>,
}

impl Line<'_> {
    /// Writes the line as a JSON object.
    pub fn write_json(&self, into: &mut Vec<u8>) {
        serde_json::to_writer(into, self).expect("text and numbers can be written to memory");
    }
}

/// Cuts a line into its fields.
///
/// # Errors
/// The first field that is missing, cut off or malformed.
pub fn parse(line: &[u8]) -> Result<Line<'_>, Unparsed> {
    let mut fields = Fields {
        rest: line.trim_ascii_end(),
    };
    let client = fields.word("client")?;
    fields.word("ident")?;
    fields.word("user")?;
    let time = fields.bracketed("time")?;
    let request = fields.quoted("request")?;
    let status = fields.word("status")?;
    let bytes = fields.word("bytes")?;
    let referrer = fields.quoted("referrer")?;
    let agent = fields.quoted("agent")?;
    let (method, path, protocol) = split_request(request);
    Ok(Line {
        client: String::from_utf8_lossy(client),
        time: LoggedTime::parse(time).ok_or(Unparsed::Malformed("time"))?,
        method: method.map(unescape),
        path: path.map(unescape),
        protocol: protocol.map(unescape),
        status: if status.len() == 3 { decimal(status) } else { None }.ok_or(Unparsed::Malformed("status"))?,
        bytes: if bytes == b"-" { Some(0) } else { decimal(bytes) }.ok_or(Unparsed::Malformed("bytes"))?,
        referrer: present(referrer).map(unescape),
        agent: present(agent).map(unescape),
    })
}

/// What is left of the line; fields have one space between.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn word(&mut self, name: &'static str) -> Result<&'a [u8], Unparsed> {
        let end = self
            .rest
            .iter()
            .position(|&byte| byte == b' ')
            .ok_or(Unparsed::CutOff(name))?;
        if end == 0 {
            return Err(Unparsed::Malformed(name));
        }
        let word = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Ok(word)
    }

    fn bracketed(&mut self, name: &'static str) -> Result<&'a [u8], Unparsed> {
        self.open(name, b'[')?;
        let end = self
            .rest
            .iter()
            .position(|&byte| byte == b']')
            .ok_or(Unparsed::CutOff(name))?;
        self.close(end)
    }

    fn quoted(&mut self, name: &'static str) -> Result<&'a [u8], Unparsed> {
        self.open(name, b'"')?;
        let mut escaped = false;
        let end = self.rest.iter().position(|&byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        });
        self.close(end.ok_or(Unparsed::CutOff(name))?)
    }

    fn open(&mut self, name: &'static str, bracket: u8) -> Result<(), Unparsed> {
        let (&first, rest) = self.rest.split_first().ok_or(Unparsed::CutOff(name))?;
        self.rest = rest;
        if first == bracket {
            Ok(())
        } else {
            Err(Unparsed::Malformed(name))
        }
    }

    /// Takes what is before the closing bracket at `end`, and the space behind it.
    fn close(&mut self, end: usize) -> Result<&'a [u8], Unparsed> {
        let inside = &self.rest[..end];
        let behind = &self.rest[end + 1..];
        self.rest = behind.strip_prefix(b" ").unwrap_or(behind);
        Ok(inside)
    }
}

type Part<'a> = Option<&'a [u8]>;

/// `GET /a b HTTP/1.1` has a method, a path and a protocol; `GET /` has no protocol; anything else is all path.
fn split_request(request: &[u8]) -> (Part<'_>, Part<'_>, Part<'_>) {
    let is_method =
        |word: &[u8]| !word.is_empty() && word.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'-');
    let Some(first) = request
        .iter()
        .position(|&byte| byte == b' ')
        .filter(|&end| is_method(&request[..end]))
    else {
        return (None, present(request), None);
    };
    let (method, rest) = (&request[..first], &request[first + 1..]);
    match rest
        .iter()
        .rposition(|&byte| byte == b' ')
        .filter(|&at| rest[at + 1..].starts_with(b"HTTP/"))
    {
        Some(last) => (Some(method), present(&rest[..last]), Some(&rest[last + 1..])),
        None => (Some(method), present(rest), None),
    }
}

fn present(field: &[u8]) -> Part<'_> {
    (!matches!(field, b"" | b"-")).then_some(field)
}

fn unescape(field: &[u8]) -> Cow<'_, str> {
    if !field.contains(&b'\\') {
        return String::from_utf8_lossy(field);
    }
    let mut text = Vec::with_capacity(field.len());
    let mut bytes = field.iter().peekable();
    while let Some(&byte) = bytes.next() {
        let escaped = if byte == b'\\' {
            bytes.next_if(|&&next| matches!(next, b'"' | b'\\'))
        } else {
            None
        };
        text.push(*escaped.unwrap_or(&byte));
    }
    Cow::Owned(String::from_utf8_lossy(&text).into_owned())
}

fn decimal<N: std::str::FromStr>(digits: &[u8]) -> Option<N> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRONT: &str = "1.2.3.4 - bob [17/May/2015:10:05:03 +0000]";

    fn json(line: impl AsRef<[u8]>) -> Result<String, String> {
        let mut json = Vec::new();
        parse(line.as_ref())
            .map_err(|unparsed| unparsed.to_string())?
            .write_json(&mut json);
        Ok(String::from_utf8(json).unwrap())
    }

    fn request(request: &str) -> String {
        let json = json(format!("{FRONT} \"{request}\" 200 - \"-\" \"-\"")).unwrap();
        let start = json.find("\"method\"").unwrap();
        json[start..json.find(",\"status\"").unwrap()].to_owned()
    }

    #[test]
    fn a_line_becomes_an_object() {
        assert_eq!(
            json(format!(
                "{FRONT} \"GET /a?b=c HTTP/1.1\" 200 203023 \"http://x.org/\" \"Mozilla/5.0 (X)\"\r\n"
            ))
            .unwrap(),
            concat!(
                r#"{"client":"1.2.3.4","time":"2015-05-17T10:05:03Z","method":"GET","path":"/a?b=c","#,
                r#""protocol":"HTTP/1.1","status":200,"bytes":203023,"referrer":"http://x.org/","agent":"Mozilla/5.0 (X)"}"#
            )
        );
    }

    #[test]
    fn requests_keep_what_they_have() {
        assert_eq!(request("GET /"), r#""method":"GET","path":"/","protocol":null"#);
        assert_eq!(
            request("GET /a b HTTP/1.0"),
            r#""method":"GET","path":"/a b","protocol":"HTTP/1.0""#
        );
        assert_eq!(
            request("M-SEARCH * HTTP/1.1"),
            r#""method":"M-SEARCH","path":"*","protocol":"HTTP/1.1""#
        );
        assert_eq!(
            request(r"\x16\x03\x01"),
            r#""method":null,"path":"\\x16\\x03\\x01","protocol":null"#
        );
        assert_eq!(request("-"), r#""method":null,"path":null,"protocol":null"#);
        assert_eq!(request(""), r#""method":null,"path":null,"protocol":null"#);
        assert_eq!(
            request(r#"GET /\"q\"\\ HTTP/1.1"#),
            r#""method":"GET","path":"/\"q\"\\","protocol":"HTTP/1.1""#
        );
    }

    #[test]
    fn dashes_are_absent_and_no_bytes_are_zero() {
        let json = json(format!("{FRONT} \"GET / HTTP/1.1\" 304 - \"-\" \"-\"")).unwrap();
        assert!(
            json.ends_with(r#""status":304,"bytes":0,"referrer":null,"agent":null}"#),
            "{json}"
        );
    }

    #[test]
    fn bytes_that_are_no_utf8_are_replaced() {
        let line = [FRONT.as_bytes(), b" \"GET /\xff HTTP/1.1\" 200 1 \"-\" \"-\""].concat();
        assert!(json(line).unwrap().contains("\"path\":\"/\u{fffd}\""));
    }

    #[test]
    fn fields_behind_the_agent_do_not_matter() {
        assert!(
            json(format!(
                "{FRONT} \"GET / HTTP/1.1\" 200 1 \"-\" \"-\" \"10.0.0.1\" 0.005"
            ))
            .is_ok()
        );
    }

    #[test]
    fn what_is_no_line_says_why() {
        let request = "\"GET / HTTP/1.1\"";
        let cases = [
            (String::new(), "the line ends in or before the client"),
            ("hello".to_owned(), "the line ends in or before the client"),
            ("a b c d e".to_owned(), "malformed time"),
            (format!("{FRONT} \"GET /"), "the line ends in or before the request"),
            (
                format!("{FRONT} {request} 200"),
                "the line ends in or before the status",
            ),
            (
                format!("{FRONT} {request} 200 1"),
                "the line ends in or before the bytes",
            ),
            (
                format!("{FRONT} {request} 200 1 \"-\""),
                "the line ends in or before the agent",
            ),
            (
                format!("{FRONT} {request} 200 1 \"-\" \"Mozilla\\\""),
                "the line ends in or before the agent",
            ),
            (format!("{FRONT} {request} 2000 1 \"-\" \"-\""), "malformed status"),
            (format!("{FRONT} {request} 200 +1 \"-\" \"-\""), "malformed bytes"),
            (
                "1.2.3.4 - - [yesterday] \"\" 200 1 \"-\" \"-\"".to_owned(),
                "malformed time",
            ),
        ];
        for (line, why) in cases {
            assert_eq!(json(&line).unwrap_err(), why, "{line}");
        }
    }
}
