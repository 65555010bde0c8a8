//! The lines of a snapshot, and every check of them that needs no database.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::tables::{Column, Kind, TABLES, Table};
use crate::{MetaError, Result};

/// What the first line begins with.
pub(super) const FORMAT: &str = "millstream-metadata";
/// The version of the format that is written, and the only one that is read.
pub(super) const VERSION: u32 = 1;
/// Bound on one line; the largest is a row with a pipeline.
pub(super) const LINE_BYTES_MAX: u64 = 64 << 20;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotHeader {
    /// Always `millstream-metadata`.
    pub format: String,
    /// The version of the format.
    pub version: u32,
    /// The version of the schema: its last migration.
    pub schema: i64,
    /// The id of the database, which its object store carries as well; none where it was never used.
    pub database: Option<String>,
    /// `sqlite` or `postgres`.
    pub exported_from: String,
    /// When it was made, by the clock of whoever made it.
    pub exported_at_ms: i64,
    /// Agents that were running: what they wrote afterwards is not in the snapshot.
    pub live_agents: Vec<String>,
}

/// The rows of one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableCount {
    /// The table.
    pub table: &'static str,
    /// How many rows.
    pub rows: u64,
}

/// What a snapshot holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SnapshotReport {
    /// Its first line.
    pub header: SnapshotHeader,
    /// Every table.
    pub tables: Vec<TableCount>,
}

impl SnapshotReport {
    pub(super) fn new(header: SnapshotHeader, counts: &Counts) -> SnapshotReport {
        let tables = TABLES.iter().zip(counts);
        let tables = tables.map(|(table, rows)| TableCount {
            table: table.name,
            rows: *rows,
        });
        SnapshotReport {
            header,
            tables: tables.collect(),
        }
    }
}

/// What a check of a line says: something, or why the line is refused.
type Checked<T> = std::result::Result<T, String>;

/// Rows of each table.
pub(super) type Counts = [u64; TABLES.len()];

/// A row by its columns.
pub(super) type Row = Map<String, Value>;

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RowLine<'a, R> {
    table: &'a str,
    row: R,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct EndLine {
    end: Map<String, Value>,
    crc32: String,
}

/// One row as a line without its end.
pub(super) fn row_line(table: &Table, row: &Row) -> Vec<u8> {
    let line = RowLine { table: table.name, row };
    serde_json::to_vec(&line).expect("values with text keys always become JSON")
}

/// The last line without its end.
pub(super) fn end_line(counts: &Counts, crc: u32) -> Vec<u8> {
    let counts = TABLES.iter().zip(counts);
    let line = EndLine {
        end: counts
            .map(|(table, rows)| (table.name.to_owned(), Value::from(*rows)))
            .collect(),
        crc32: format!("{crc:08x}"),
    };
    serde_json::to_vec(&line).expect("values with text keys always become JSON")
}

/// Takes a snapshot line by line and refuses whatever cannot be one.
pub(super) struct Lines {
    /// The number of the line that was taken last.
    number: u64,
    crc: crc32fast::Hasher,
    /// The table of the row that was taken last.
    table: usize,
    last_key: Option<Vec<KeyPart>>,
    counts: Counts,
}

/// A row that was taken.
pub(super) enum Taken {
    Row(&'static Table, Row),
    End(Counts),
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum KeyPart {
    Id(Uuid),
    Integer(i64),
    Text(String),
}

impl Lines {
    /// Begins with the first line; `schema` is what this binary knows.
    pub fn begin(line: &[u8], schema: i64) -> Result<(Lines, SnapshotHeader)> {
        let header = header(line, schema).map_err(|reason| refused(1, reason))?;
        let mut lines = Lines {
            number: 1,
            crc: crc32fast::Hasher::new(),
            table: 0,
            last_key: None,
            counts: [0; TABLES.len()],
        };
        lines.sum(line);
        Ok((lines, header))
    }

    /// The number of the line that was taken last.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Takes the next line, without its end.
    pub fn take(&mut self, line: &[u8]) -> Result<Taken> {
        self.number += 1;
        let taken = match line.starts_with(b"{\"end\"") {
            true => self.end(line).map(|()| Taken::End(self.counts)),
            false => self.row(line).map(|(table, row)| Taken::Row(table, row)),
        };
        if taken.is_ok() {
            self.sum(line);
        }
        taken.map_err(|reason| refused(self.number, reason))
    }

    /// The error where the lines are over, and this was not the last one.
    pub fn cut(&self) -> MetaError {
        refused(
            self.number + 1,
            "the file ends here without its last line: it was cut, copy or export it again".to_owned(),
        )
    }

    fn sum(&mut self, line: &[u8]) {
        self.crc.update(line);
        self.crc.update(b"\n");
    }

    fn row(&mut self, line: &[u8]) -> Checked<(&'static Table, Row)> {
        let RowLine::<Row> { table, row } =
            serde_json::from_slice(line).map_err(|error| format!("it is no row of a snapshot: {error}"))?;
        let found = TABLES.iter().position(|known| known.name == table);
        let index =
            found.ok_or_else(|| format!("there is no table {table:?}: import with the millstream that exported it"))?;
        let table = &TABLES[index];
        check_columns(table, &row)?;
        if index < self.table {
            let after = TABLES[self.table].name;
            return Err(format!("a row of {} after those of {after}: {REORDERED}", table.name));
        }
        if index > self.table {
            (self.table, self.last_key) = (index, None);
        }
        let key = key(table, &row)?;
        match self.last_key.as_ref().map(|last| key.cmp(last)) {
            Some(std::cmp::Ordering::Equal) => return Err(format!("the row stands there twice: {REORDERED}")),
            Some(std::cmp::Ordering::Less) => return Err(format!("the row belongs further up: {REORDERED}")),
            Some(std::cmp::Ordering::Greater) | None => self.last_key = Some(key),
        }
        self.counts[index] += 1;
        Ok((table, row))
    }

    fn end(&mut self, line: &[u8]) -> Checked<()> {
        let end: EndLine =
            serde_json::from_slice(line).map_err(|error| format!("it is no end of a snapshot: {error}"))?;
        for (table, rows) in TABLES.iter().zip(self.counts) {
            let stated = end.end.get(table.name).and_then(Value::as_u64);
            if stated != Some(rows) {
                let stated = stated.map_or_else(|| "nothing".to_owned(), |stated| stated.to_string());
                return Err(format!(
                    "{} has {rows} rows, and {stated} is stated: {CHANGED}",
                    table.name
                ));
            }
        }
        let crc = format!("{:08x}", self.crc.clone().finalize());
        if end.crc32 != crc || end.end.len() != TABLES.len() {
            return Err(format!(
                "the lines before sum up to {crc}, and {:?} is stated: {CHANGED}",
                end.crc32
            ));
        }
        Ok(())
    }
}

const REORDERED: &str = "the lines are not as they were exported, export again";
const CHANGED: &str = "the file was changed after the export, export again";

pub(super) fn refused(line: u64, reason: String) -> MetaError {
    MetaError::Snapshot { line, reason }
}

fn header(line: &[u8], schema: i64) -> Checked<SnapshotHeader> {
    const FOREIGN: &str = "it is not what `millstream meta export` writes";
    let value: Value = serde_json::from_slice(line).map_err(|error| format!("{FOREIGN}: {error}"))?;
    if value["format"] != FORMAT {
        return Err(FOREIGN.to_owned());
    }
    match value["version"].as_u64() {
        Some(version) if version > u64::from(VERSION) => {
            return Err(format!(
                "the format is version {version}, this millstream knows up to {VERSION}: import with the newer millstream"
            ));
        }
        _ => {}
    }
    let header: SnapshotHeader = serde_json::from_value(value).map_err(|error| format!("{FOREIGN}: {error}"))?;
    if header.version != VERSION {
        return Err(format!("{FOREIGN}: there is no version {}", header.version));
    }
    if header.schema > schema {
        return Err(format!(
            "the schema is version {}, this millstream knows up to {schema}: import with the newer millstream",
            header.schema
        ));
    }
    if header.schema < schema {
        return Err(format!(
            "the schema is version {}, this millstream has {schema}: export again with this millstream",
            header.schema
        ));
    }
    Ok(header)
}

fn check_columns(table: &Table, row: &Row) -> Checked<()> {
    if let Some(name) = row.keys().find(|name| table.column(name).is_none()) {
        return Err(format!(
            "{} has no column {name:?}: import with the millstream that exported it",
            table.name
        ));
    }
    for column in table.columns {
        let value = row
            .get(column.name)
            .ok_or_else(|| format!("{} lacks its column {}: {CHANGED}", table.name, column.name))?;
        if !fits(column, value) {
            return Err(format!(
                "column {} of {} is {}: {CHANGED}",
                column.name,
                table.name,
                shorten(value)
            ));
        }
    }
    Ok(())
}

fn fits(column: &Column, value: &Value) -> bool {
    match (column.kind, value) {
        (_, Value::Null) => column.nullable,
        (Kind::Id, Value::String(text)) => canonical_id(text).is_some(),
        (Kind::Integer, Value::Number(number)) => number.is_i64(),
        (Kind::Text, Value::String(text)) => !text.contains('\0'),
        (Kind::Json, _) => true,
        (Kind::Boolean, Value::Bool(_)) => true,
        (Kind::LeaseEnd, value) => *value == 0,
        _ => false,
    }
}

/// An id has one way to be written, so that the order of rows is one.
fn canonical_id(text: &str) -> Option<Uuid> {
    text.parse::<Uuid>().ok().filter(|id| id.to_string() == text)
}

fn key(table: &Table, row: &Row) -> Checked<Vec<KeyPart>> {
    let part = |column: &Column| match &row[column.name] {
        Value::Number(number) => number.as_i64().map(KeyPart::Integer),
        Value::String(text) if column.kind == Kind::Id => canonical_id(text).map(KeyPart::Id),
        Value::String(text) => Some(KeyPart::Text(text.clone())),
        _ => None,
    };
    let parts: Option<Vec<KeyPart>> = table.key().iter().map(part).collect();
    parts.ok_or_else(|| format!("a row of {} has no key: {CHANGED}", table.name))
}

/// Values from a file may be long.
fn shorten(value: &Value) -> String {
    const CHARS_MAX: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(CHARS_MAX) {
        None => text,
        Some((end, _)) => format!("{} ...", &text[..end]),
    }
}
