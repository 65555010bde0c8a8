//! Lines into an empty database.

use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};
use uuid::Uuid;

use super::export::{names, schema};
use super::format::{LINE_BYTES_MAX, Lines, Row, SnapshotHeader, SnapshotReport, Taken, refused};
use super::tables::{Column, IDENTITY, Kind, TABLES, Table};
use crate::database::{Dialect, Statement, Tx, as_json, sql};
use crate::{MetaError, Metadata, Result};

/// Rows that are written at once, and about how many bytes of them.
const BATCH_ROWS: usize = 1_000;
const BATCH_BYTES: usize = 1 << 20;

/// What an import is told beyond its snapshot.
#[derive(Clone, Copy, Debug)]
pub struct ImportOptions {
    /// The id that the database gets, where that of the snapshot has one: no two databases have the same.
    pub database: Uuid,
    /// Takes a snapshot of which agents were running: what they wrote afterwards is lost.
    pub running: bool,
}

impl Metadata {
    /// Fills an empty database with a snapshot. `progress` hears how many rows there were.
    ///
    /// 1. All or nothing: after an error the database is as empty as before.
    /// 2. The database has an id of its own, and knows that of the snapshot as the former one: it may follow that as the owner
    ///    of its object store.
    /// 3. Epochs are those of the snapshot, so that every later holder has a greater one; no lease is live.
    /// 4. Memory is bounded by a batch of rows.
    ///
    /// # Errors
    /// `Snapshot` names the line that is at fault; `NotEmpty`; `SnapshotFile` where `input` cannot be read.
    pub async fn import(
        &self,
        input: &mut (dyn AsyncBufRead + Send + Unpin),
        options: ImportOptions,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<SnapshotReport> {
        let _forget = self.cache.forgetting(|cache| cache.forget_all());
        let mut input = Input::new(input);
        let mut tx = self.database.begin_once().await?;
        let first = input.line().await?.unwrap_or_default();
        let (mut lines, header) = Lines::begin(first, schema(&mut tx).await?)?;
        check_running(&header, options)?;
        if self.database.dialect() == Dialect::Postgres {
            // The file may come slowly; and an agent that starts now waits, and then finds what was imported.
            tx.execute(sql("SET LOCAL idle_in_transaction_session_timeout = 0"))
                .await?;
            tx.execute(sql("LOCK TABLE identity, agents IN SHARE ROW EXCLUSIVE MODE"))
                .await?;
        }
        self.check_empty(&mut tx).await?;

        let mut batch = Batch::default();
        let counts = loop {
            let Some(line) = input.line().await? else {
                return Err(lines.cut());
            };
            let bytes = line.len();
            match lines.take(line)? {
                Taken::End(counts) => break counts,
                Taken::Row(table, mut row) => {
                    if table.name == IDENTITY {
                        succeed(&mut row, options.database);
                    }
                    if !batch.takes(table) {
                        progress(batch.write(&mut tx).await?);
                    }
                    batch.push(table, row, bytes, lines.number());
                }
            }
        };
        progress(batch.write(&mut tx).await?);
        if input.line().await?.is_some() {
            let reason = "there is more after the last line: import one snapshot at a time".to_owned();
            return Err(refused(lines.number() + 1, reason));
        }
        tx.commit().await?;
        Ok(SnapshotReport::new(header, &counts))
    }

    pub(crate) async fn check_empty(&self, tx: &mut Tx) -> Result<()> {
        for table in &TABLES {
            let any = sql(format!("SELECT 1 AS one FROM {} LIMIT 1", table.name));
            if tx.one(any).await?.is_some() {
                return Err(MetaError::NotEmpty {
                    database: self.place().to_owned(),
                    table: table.name,
                });
            }
        }
        Ok(())
    }
}

/// Makes the row that names the snapshot's database one of another that follows it.
fn succeed(row: &mut Row, database: Uuid) {
    let former = row.insert("id".to_owned(), database.to_string().into());
    row.insert("former".to_owned(), former.expect("a row has every column"));
}

fn check_running(header: &SnapshotHeader, options: ImportOptions) -> Result<()> {
    if options.running || header.live_agents.is_empty() {
        return Ok(());
    }
    let agents = header.live_agents.join(", ");
    Err(refused(
        1,
        format!(
            "running agents were exported ({agents}): what they wrote afterwards is not in the snapshot. Stop them and \
             export again; or, where they are gone for good, import with --running"
        ),
    ))
}

/// Lines of bounded length.
struct Input<'a> {
    input: &'a mut (dyn AsyncBufRead + Send + Unpin),
    line: Vec<u8>,
    number: u64,
}

impl<'a> Input<'a> {
    fn new(input: &'a mut (dyn AsyncBufRead + Send + Unpin)) -> Input<'a> {
        Input {
            input,
            line: Vec::new(),
            number: 0,
        }
    }

    /// The next line without its end; none at the end of the file.
    async fn line(&mut self) -> Result<Option<&[u8]>> {
        self.line.clear();
        self.number += 1;
        let mut bounded = (&mut *self.input).take(LINE_BYTES_MAX);
        let read = bounded.read_until(b'\n', &mut self.line).await;
        let read = read.map_err(|source| MetaError::SnapshotFile { source })?;
        match self.line.strip_suffix(b"\n") {
            Some(line) => Ok(Some(line)),
            None if read == 0 => Ok(None),
            None if read as u64 == LINE_BYTES_MAX => Err(refused(
                self.number,
                format!("it is longer than {LINE_BYTES_MAX} bytes: it is not what `millstream meta export` writes"),
            )),
            None => Err(refused(
                self.number,
                "the line has no end: the file was cut, copy or export it again".to_owned(),
            )),
        }
    }
}

/// Rows of one table that are written at once.
#[derive(Default)]
struct Batch {
    table: Option<&'static Table>,
    rows: Vec<Value>,
    bytes: usize,
    /// The lines of the first and the last.
    lines: (u64, u64),
}

impl Batch {
    /// Whether one more row of this table may be pushed.
    fn takes(&self, table: &'static Table) -> bool {
        self.rows.is_empty() || self.table == Some(table) && self.rows.len() < BATCH_ROWS && self.bytes < BATCH_BYTES
    }

    fn push(&mut self, table: &'static Table, row: Row, bytes: usize, line: u64) {
        if self.rows.is_empty() {
            (self.table, self.lines.0) = (Some(table), line);
        }
        self.rows.push(Value::Object(row));
        self.bytes += bytes;
        self.lines.1 = line;
    }

    /// Writes the rows; how many they were.
    async fn write(&mut self, tx: &mut Tx) -> Result<u64> {
        let Some(table) = self.table.take() else {
            return Ok(0);
        };
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        let count = rows.len() as u64;
        let written = tx.execute(insert(table).bind(as_json(&rows))).await;
        written.map_err(|error| self.explain(table, error))?;
        Ok(count)
    }

    /// What the database refuses of a file is the file's fault.
    fn explain(&self, table: &Table, error: MetaError) -> MetaError {
        let (first, last) = self.lines;
        match error {
            MetaError::Database { source, .. } => refused(
                first,
                format!(
                    "the database refuses a row of {} in lines {first} to {last}: {source}; export again",
                    table.name
                ),
            ),
            error => error,
        }
    }
}

/// Inserts rows into the table of this name, each an object with its columns as a snapshot has them.
pub(crate) fn insert_into(table: &str, rows: &[Value]) -> Statement {
    let table = TABLES.iter().find(|known| known.name == table);
    insert(table.expect("the caller names one of the tables")).bind(as_json(rows))
}

/// Inserts the rows of a JSON array.
fn insert(table: &Table) -> Statement {
    let (name, columns) = (table.name, names(table.columns));
    let values = |value: fn(&Column) -> String| {
        let values: Vec<String> = table.columns.iter().map(value).collect();
        values.join(", ")
    };
    let (from_sqlite, from_postgres) = (values(value_on_sqlite), values(value_on_postgres));
    let types = values(|column| format!("{} {}", column.name, type_on_postgres(column.kind)));
    sql(format!(
        "INSERT INTO {name} ({columns}) SELECT {from_sqlite} FROM json_each($1)"
    ))
    .on_postgres(format!(
        "INSERT INTO {name} ({columns}) SELECT {from_postgres} FROM jsonb_to_recordset($1) AS r ({types})"
    ))
}

fn value_on_sqlite(column: &Column) -> String {
    let name = column.name;
    match column.kind {
        Kind::Id => format!("unhex(replace(value ->> '{name}', '-', ''))"),
        Kind::Integer | Kind::Text | Kind::Boolean => format!("value ->> '{name}'"),
        Kind::Json => format!("value -> '{name}'"),
        Kind::LeaseEnd => "0".to_owned(),
    }
}

fn value_on_postgres(column: &Column) -> String {
    match column.kind {
        Kind::LeaseEnd => "0".to_owned(),
        _ => format!("r.{}", column.name),
    }
}

fn type_on_postgres(kind: Kind) -> &'static str {
    match kind {
        Kind::Id => "UUID",
        Kind::Integer | Kind::LeaseEnd => "BIGINT",
        Kind::Text => "TEXT",
        Kind::Json => "JSONB",
        Kind::Boolean => "BOOLEAN",
    }
}
