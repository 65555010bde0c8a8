//! One moment of a database, as lines.

use serde_json::Value;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::format::{Counts, FORMAT, Row, SnapshotHeader, SnapshotReport, VERSION, end_line, row_line};
use super::tables::{Column, Kind, TABLES, Table};
use crate::database::{Dialect, Fields, Statement, Tx, sql};
use crate::{MetaError, Metadata, Result};

/// Rows that are read at once, and the same where a row holds a document.
const PAGE_ROWS: usize = 1_000;
const PAGE_ROWS_OF_DOCUMENTS: usize = 50;

impl Metadata {
    /// Writes everything that the database holds to `out`, one line a row. `progress` hears how many rows there were.
    ///
    /// 1. All of it is of one moment, whatever is written meanwhile.
    /// 2. Memory is bounded by a page of rows.
    /// 3. Equal metadata give equal lines between the first and the last, from either database.
    ///
    /// # Errors
    /// `SnapshotFile` where `out` takes no more.
    pub async fn export(
        &self,
        out: &mut (dyn AsyncWrite + Send + Unpin),
        exported_at_ms: i64,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<SnapshotReport> {
        let mut tx = self.database.snapshot().await?;
        if self.database.dialect() == Dialect::Postgres {
            // Whoever reads `out` may be slow.
            tx.execute(sql("SET LOCAL idle_in_transaction_session_timeout = 0"))
                .await?;
        }
        let header = self.header(&mut tx, exported_at_ms).await?;
        let mut lines = Lines::new(out);
        lines
            .put(serde_json::to_vec(&header).expect("texts and numbers always become JSON"))
            .await?;
        let mut counts: Counts = [0; TABLES.len()];
        for (table, count) in TABLES.iter().zip(&mut counts) {
            let mut after: Option<Fields> = None;
            loop {
                let rows = tx.all(page(table, after.as_ref())?).await?;
                for fields in &rows {
                    lines.put(row_line(table, &row(table, fields)?)).await?;
                }
                *count += rows.len() as u64;
                progress(rows.len() as u64);
                after = rows.into_iter().last();
                if after.is_none() {
                    break;
                }
            }
        }
        lines.end(&counts).await?;
        Ok(SnapshotReport::new(header, &counts))
    }

    async fn header(&self, tx: &mut Tx, exported_at_ms: i64) -> Result<SnapshotHeader> {
        let identity = tx.one(sql("SELECT id FROM identity")).await?;
        let identity = identity.map(|row| row.uuid("id")).transpose()?;
        let live = sql("SELECT name FROM agents WHERE lease_expires_at_ms > {now_ms} ORDER BY name");
        let live = tx.all(live).await?;
        let exported_from = match self.database.dialect() {
            Dialect::Sqlite => "sqlite",
            Dialect::Postgres => "postgres",
        };
        Ok(SnapshotHeader {
            format: FORMAT.to_owned(),
            version: VERSION,
            schema: schema(tx).await?,
            database: identity.map(|id| id.to_string()),
            exported_from: exported_from.to_owned(),
            exported_at_ms,
            live_agents: live.iter().map(|row| row.text("name")).collect::<Result<_>>()?,
        })
    }
}

/// The version of the schema: its last migration.
pub(super) async fn schema(tx: &mut Tx) -> Result<i64> {
    let row = tx
        .one(sql("SELECT max(version) AS version FROM _sqlx_migrations"))
        .await?;
    row.expect("an aggregate without groups has one row").i64("version")
}

/// Lines on their way out, with what the last one says of them.
struct Lines<'a> {
    out: tokio::io::BufWriter<&'a mut (dyn AsyncWrite + Send + Unpin)>,
    crc: crc32fast::Hasher,
}

impl<'a> Lines<'a> {
    fn new(out: &'a mut (dyn AsyncWrite + Send + Unpin)) -> Lines<'a> {
        Lines {
            out: tokio::io::BufWriter::with_capacity(64 << 10, out),
            crc: crc32fast::Hasher::new(),
        }
    }

    async fn put(&mut self, mut line: Vec<u8>) -> Result<()> {
        line.push(b'\n');
        self.crc.update(&line);
        let written = self.out.write_all(&line).await;
        written.map_err(|source| MetaError::SnapshotFile { source })
    }

    async fn end(mut self, counts: &Counts) -> Result<()> {
        let crc = self.crc.clone().finalize();
        self.put(end_line(counts, crc)).await?;
        let flushed = self.out.flush().await;
        flushed.map_err(|source| MetaError::SnapshotFile { source })
    }
}

/// The rows of a table after one of them.
fn page(table: &Table, after: Option<&Fields>) -> Result<Statement> {
    let columns = names(table.columns);
    let key = names(table.key());
    let documents = table.columns.iter().any(|column| column.kind == Kind::Json);
    let rows = if documents { PAGE_ROWS_OF_DOCUMENTS } else { PAGE_ROWS };
    let name = table.name;
    let Some(after) = after else {
        return Ok(sql(format!("SELECT {columns} FROM {name} ORDER BY {key} LIMIT {rows}")));
    };
    let arguments: Vec<String> = (1..=table.key().len()).map(|number| format!("${number}")).collect();
    let arguments = arguments.join(", ");
    let mut page = sql(format!(
        "SELECT {columns} FROM {name} WHERE ({key}) > ({arguments}) ORDER BY {key} LIMIT {rows}"
    ));
    for column in table.key() {
        page = match column.kind {
            Kind::Id => page.bind(after.uuid(column.name)?),
            Kind::Text => page.bind(&after.text(column.name)?),
            _ => page.bind(after.i64(column.name)?),
        };
    }
    Ok(page)
}

pub(super) fn names(columns: &[Column]) -> String {
    let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
    names.join(", ")
}

fn row(table: &Table, fields: &Fields) -> Result<Row> {
    let columns = table.columns.iter();
    columns
        .map(|column| Ok((column.name.to_owned(), value(column, fields)?)))
        .collect()
}

fn value(column: &Column, fields: &Fields) -> Result<Value> {
    let name = column.name;
    Ok(match column.kind {
        Kind::Id => fields.uuid_or_null(name)?.map(|id| id.to_string()).into(),
        Kind::Integer => fields.i64_or_null(name)?.into(),
        Kind::Text => fields.text_or_null(name)?.into(),
        Kind::Boolean => fields.bool(name)?.into(),
        Kind::Json => {
            let document = serde_json::from_str(&fields.json(name)?);
            document.map_err(|error| fields.corrupt(name, format!("is no JSON: {error}")))?
        }
        Kind::LeaseEnd => 0.into(),
    })
}
