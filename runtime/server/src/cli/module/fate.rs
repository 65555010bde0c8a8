//! What became of a record, for people and for programs.

use millstream_client::Record;
use serde::{Serialize, Serializer, ser::SerializeMap};
use similar::{ChangeTag, TextDiff};

use crate::cli::record_json::RecordJson;

/// Characters of a value that stand for a record.
const PREVIEW_CHARS: usize = 72;

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stayed as it was.
    Kept,
    /// It became another one, or several.
    Became(Vec<Record>),
    /// It went.
    Dropped,
    /// The module refused it.
    Rejected(String),
    /// The module failed on it, alone.
    Failed(String),
    /// The module failed on records among which it is, and the search for the one at fault ended before its turn.
    Undecided(String),
}

impl Fate {
    /// What it is that a record became these.
    pub fn of(record: &Record, became: Vec<Record>) -> Fate {
        match became.as_slice() {
            [] => Fate::Dropped,
            [same] if same == record => Fate::Kept,
            _ => Fate::Became(became),
        }
    }

    /// The word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Fate::Kept => "kept",
            Fate::Became(records) if records.len() == 1 => "changed",
            Fate::Became(_) => "several",
            Fate::Dropped => "dropped",
            Fate::Rejected(_) => "rejected",
            Fate::Failed(_) => "failed",
            Fate::Undecided(_) => "undecided",
        }
    }

    /// Whether it is the module's fault, not its decision.
    pub fn is_failure(&self) -> bool {
        matches!(self, Fate::Failed(_) | Fate::Undecided(_))
    }

    /// What comes of the record, which is `record` where it stays.
    pub fn records<'a>(&'a self, record: &'a Record) -> &'a [Record] {
        match self {
            Fate::Kept => std::slice::from_ref(record),
            Fate::Became(records) => records,
            _ => &[],
        }
    }

    /// Why, where there is a reason.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Fate::Rejected(reason) | Fate::Failed(reason) | Fate::Undecided(reason) => Some(reason),
            _ => None,
        }
    }

    /// The fate of a record in lines: the word and the record, then what changed.
    pub fn text(&self, record: &Record) -> String {
        let title = format!("{:>8}  {:9}  ", record.offset, self.word());
        match self {
            Fate::Kept | Fate::Dropped => format!("{title}{}\n", preview(record)),
            Fate::Rejected(reason) | Fate::Failed(reason) | Fate::Undecided(reason) => {
                format!("{title}{}\n{INDENT}{reason}\n", preview(record))
            }
            Fate::Became(records) => {
                let mut text = format!("{title}{}\n", preview(record));
                for (number, became) in (1..).zip(records) {
                    if records.len() > 1 {
                        text.push_str(&format!("{INDENT}{number} of {}\n", records.len()));
                    }
                    text.push_str(&match difference(record, became) {
                        same if same.is_empty() => format!("{INDENT}as it came\n"),
                        changes => changes,
                    });
                }
                text
            }
        }
    }
}

/// What stands below a record's line.
pub const INDENT: &str = "                     ";

/// The lines of `before` and `after` in which they differ.
pub fn difference(before: &Record, after: &Record) -> String {
    let shown = (lines(before, true), lines(after, true));
    // JSON that differs in nothing but spaces and order looks the same then.
    let (before, after) = match shown.0 == shown.1 {
        true => (lines(before, false), lines(after, false)),
        false => shown,
    };
    let diff = TextDiff::from_lines(&before, &after);
    let changes = diff.iter_all_changes().filter_map(|change| {
        let sign = match change.tag() {
            ChangeTag::Equal => return None,
            ChangeTag::Delete => '-',
            ChangeTag::Insert => '+',
        };
        Some(format!("{INDENT}{sign} {}\n", change.value().trim_end_matches('\n')))
    });
    changes.collect()
}

/// A record in lines, one a part; a value that is a JSON object or list in one line a member.
fn lines(record: &Record, spread_json: bool) -> String {
    let mut text = format!("timestamp: {}\n", record.timestamp_ms);
    text.push_str(&format!("key: {}\n", shown(record.key.as_deref())));
    for (name, value) in &record.headers {
        text.push_str(&format!("header {name}: {}\n", shown(value.as_deref())));
    }
    let json = record.value.as_deref().filter(|_| spread_json).and_then(|value| {
        let json: serde_json::Value = serde_json::from_slice(value).ok()?;
        let spread = json.is_object() || json.is_array();
        spread.then(|| serde_json::to_string_pretty(&json).ok()).flatten()
    });
    match json {
        // A comma that comes or goes with the next member is no change of this one.
        Some(json) => json.lines().for_each(|line| {
            text.push_str(line.trim_end_matches(','));
            text.push('\n');
        }),
        None => text.push_str(&format!("value: {}\n", shown(record.value.as_deref()))),
    }
    text
}

/// Bytes on one line.
fn shown(bytes: Option<&[u8]>) -> String {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => "null".to_owned(),
        Some((_, Ok(text))) => text.chars().flat_map(escaped).collect(),
        Some((bytes, Err(_))) => format!("b\"{}\"", bytes.escape_ascii()),
    }
}

fn escaped(character: char) -> impl Iterator<Item = char> {
    let escape = character.is_control().then(|| character.escape_default());
    let plain = (!character.is_control()).then_some(character);
    escape.into_iter().flatten().chain(plain)
}

/// The beginning of a record's value.
fn preview(record: &Record) -> String {
    let text = shown(record.value.as_deref());
    match text.char_indices().nth(PREVIEW_CHARS) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text,
    }
}

/// A fate as one JSON object: the word, the reason, and what the record became.
pub struct FateJson<'a> {
    /// The topic and partition of the record.
    pub topic: &'a str,
    /// The partition.
    pub partition: u32,
    /// The record.
    pub record: &'a Record,
    /// Its fate.
    pub fate: &'a Fate,
}

impl Serialize for FateJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let FateJson {
            topic,
            partition,
            record,
            fate,
        } = *self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("offset", &record.offset)?;
        map.serialize_entry("fate", fate.word())?;
        if let Some(reason) = fate.reason() {
            map.serialize_entry("reason", reason)?;
        }
        if let Fate::Became(records) = fate {
            let became: Vec<_> = records
                .iter()
                .map(|record| RecordJson {
                    topic,
                    partition,
                    record,
                })
                .collect();
            map.serialize_entry("became", &became)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record(value: &'static str) -> Record {
        Record {
            offset: 7,
            timestamp_ms: 5,
            key: None,
            value: Some(Bytes::from_static(value.as_bytes())),
            headers: Vec::new(),
        }
    }

    #[test]
    fn of_a_changed_json_value_only_the_changed_members_are_shown() {
        let (before, mut after) = (record(r#"{"a":1,"b":[1]}"#), record(r#"{"a":2,"b":[1],"c":3}"#));
        after.key = Some(Bytes::from_static(b"k\n"));
        let changes = difference(&before, &after);
        let changes: Vec<_> = changes.lines().map(str::trim_start).collect();
        assert_eq!(
            changes,
            [
                "- key: null",
                "+ key: k\\n",
                "-   \"a\": 1",
                "+   \"a\": 2",
                "+   \"c\": 3"
            ]
        );
    }

    #[test]
    fn json_that_differs_in_spaces_alone_is_shown_as_it_is() {
        let changes = difference(&record(r#"{"a":1}"#), &record(r#"{"a": 1}"#));
        let changes: Vec<_> = changes.lines().map(str::trim_start).collect();
        assert_eq!(changes, [r#"- value: {"a":1}"#, r#"+ value: {"a": 1}"#]);
    }

    #[test]
    fn a_record_that_became_itself_was_kept() {
        assert_eq!(Fate::of(&record("a"), vec![record("a")]), Fate::Kept);
        assert_eq!(Fate::of(&record("a"), vec![]), Fate::Dropped);
        assert_eq!(Fate::of(&record("a"), vec![record("b")]).word(), "changed");
        assert_eq!(Fate::of(&record("a"), vec![record("a"), record("a")]).word(), "several");
    }

    #[test]
    fn what_is_no_text_is_escaped() {
        assert_eq!(shown(Some(b"\xff\x00")), "b\"\\xff\\x00\"");
        assert_eq!(shown(Some("é\t".as_bytes())), "é\\t");
        assert_eq!(shown(None), "null");
    }
}
