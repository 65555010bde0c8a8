//! Files that are refused, with the line and what to do; nothing of them is imported.

use super::*;
use crate::MetaError;

/// The snapshot, and the number of the first line with a text.
struct Original {
    text: String,
}

impl Original {
    async fn new() -> Original {
        let from = sqlite().await;
        fill(&from.metadata).await;
        let text = exported(&from.metadata).await;
        Original { text }
    }

    fn line_with(&self, text: &str) -> usize {
        self.lines()
            .iter()
            .position(|line| line.contains(text))
            .expect("there is one")
            + 1
    }

    fn lines(&self) -> Vec<&str> {
        self.text.lines().collect()
    }

    fn changed(&self, line: usize, change: impl FnOnce(&mut Vec<String>, usize)) -> String {
        let mut lines: Vec<String> = self.lines().iter().map(|line| (*line).to_owned()).collect();
        change(&mut lines, line - 1);
        lines.join("\n") + "\n"
    }

    fn replaced(&self, line: usize, from: &str, to: &str) -> String {
        self.changed(line, |lines, at| {
            assert!(lines[at].contains(from), "{}", lines[at]);
            lines[at] = lines[at].replacen(from, to, 1);
        })
    }
}

/// Checks that a file is refused at a line by every database, and that nothing is left of it.
async fn refused(snapshot: &str, at: usize, words: &str) {
    for to in [sqlite().await, postgres().await] {
        let before = exported(&to.metadata).await;
        let error = import(&to.metadata, snapshot).await.unwrap_err();
        let MetaError::Snapshot { line, reason } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(*line as usize, at, "{error}");
        assert!(reason.contains(words), "{error}");
        assert_eq!(exported(&to.metadata).await, before);
    }
}

#[tokio::test]
async fn a_file_that_was_cut() {
    let original = Original::new().await;
    let lines = original.lines();
    refused("", 1, "it is not what `millstream meta export` writes").await;
    let without_end = lines[..lines.len() - 1].join("\n") + "\n";
    refused(&without_end, lines.len(), "it was cut").await;
    let in_a_line = &original.text[..original.text.len() - 5];
    refused(in_a_line, lines.len(), "was cut").await;
    let only_header = format!("{}\n", lines[0]);
    refused(&only_header, 2, "it was cut").await;
}

#[tokio::test]
async fn a_file_that_goes_on() {
    let original = Original::new().await;
    let lines = original.lines().len();
    refused(&original.text.repeat(2), lines + 1, "one snapshot at a time").await;
}

#[tokio::test]
async fn a_file_that_was_changed() {
    let original = Original::new().await;
    let (last, segment) = (original.lines().len(), original.line_with(r#""table":"segments""#));
    for (from, to) in [
        (r#""stored_bytes":7"#, r#""stored_bytes":8"#),
        ("t/1/seg_0", "t/1/seg_9"),
    ] {
        refused(
            &original.replaced(segment, from, to),
            last,
            "was changed after the export",
        )
        .await;
    }
    let fewer = original.changed(segment, |lines, at| drop(lines.remove(at)));
    refused(&fewer, last - 1, "segments has 1 rows, and 2 is stated").await;
    let other_line_ends = original.text.replace('\n', "\r\n");
    refused(&other_line_ends, last, "was changed after the export").await;
}

#[tokio::test]
async fn values_that_no_export_writes() {
    let original = Original::new().await;
    let segment = original.line_with(r#""table":"segments""#);
    for (from, to) in [
        (r#""stored_bytes":7"#, r#""stored_bytes":7.5"#),
        (r#""stored_bytes":7"#, r#""stored_bytes":18446744073709551615"#),
        (r#""stored_bytes":7"#, r#""stored_bytes":"7""#),
        (r#""stored_bytes":7"#, r#""stored_bytes":null"#),
        (r#""object_key":"t/1/seg_0""#, r#""object_key":"t\u0000""#),
        (r#""topic_id":"00000000-"#, r#""topic_id":"0000000000000000-"#),
        (r#""topic_id":"00000000-0000"#, r#""topic_id":"000000000000"#),
    ] {
        refused(&original.replaced(segment, from, to), segment, "column").await;
    }
    let missing = original.replaced(segment, r#""stored_bytes":7"#, r#""epoch":1"#);
    refused(&missing, segment, "lacks its column stored_bytes").await;
    let agent = original.line_with(r#""table":"agents""#);
    let lease = original.replaced(agent, r#""lease_expires_at_ms":0"#, r#""lease_expires_at_ms":9"#);
    refused(&lease, agent, "lease_expires_at_ms").await;
    refused(
        &original.replaced(segment, "{", "["),
        segment,
        "it is no row of a snapshot",
    )
    .await;
}

#[tokio::test]
async fn rows_that_are_not_in_order() {
    let original = Original::new().await;
    let segment = original.line_with(r#""table":"segments""#);
    let swapped = original.changed(segment, |lines, at| lines.swap(at, at + 1));
    refused(&swapped, segment + 1, "further up").await;
    let doubled = original.changed(segment, |lines, at| lines.insert(at, lines[at].clone()));
    refused(&doubled, segment + 1, "twice").await;
    let topic = original.line_with(r#""table":"deleted_topics""#);
    let tables = original.changed(topic, |lines, at| {
        let line = lines.remove(at);
        lines.insert(segment - 1, line);
    });
    refused(&tables, segment, "a row of deleted_topics after those of").await;
}

#[tokio::test]
async fn tables_and_columns_that_there_are_not() {
    let original = Original::new().await;
    let segment = original.line_with(r#""table":"segments""#);
    let table = original.replaced(segment, r#""table":"segments""#, r#""table":"pg_authid""#);
    refused(&table, segment, "there is no table \"pg_authid\"").await;
    let column = original.replaced(segment, r#""stored_bytes":7"#, r#""stored_bytes":7,"x":1"#);
    refused(&column, segment, "segments has no column \"x\"").await;
}

#[tokio::test]
async fn headers_of_others() {
    let original = Original::new().await;
    let header = |from: &str, to: &str| original.replaced(1, from, to);
    refused("{}\n", 1, "it is not what").await;
    refused("hello\n", 1, "it is not what").await;
    refused(&header("millstream-metadata", "other"), 1, "it is not what").await;
    refused(
        &header(r#""version":1"#, r#""version":2"#),
        1,
        "import with the newer millstream",
    )
    .await;
    refused(&header(r#""version":1"#, r#""version":0"#), 1, "there is no version 0").await;
    refused(
        &header(r#""schema":"#, r#""schema":9"#),
        1,
        "import with the newer millstream",
    )
    .await;
    let schema = &original.text[original.text.find(r#""schema":"#).unwrap()..];
    let schema = &schema[..schema.find(',').unwrap()];
    refused(&header(schema, r#""schema":1"#), 1, "export again with this millstream").await;
    refused(&header(r#""version":1"#, r#""version":1,"x":1"#), 1, "it is not what").await;
}

#[tokio::test]
async fn rows_that_the_database_refuses() {
    let original = Original::new().await;
    let segment = original.line_with(r#""table":"segments""#);
    // The topic's last digit: there is no such topic.
    let foreign = original.replaced(segment, "000000000002\"", "000000000001\"");
    refused(&foreign, segment, "the database refuses a row of segments in lines").await;
}
