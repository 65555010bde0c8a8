//! The way from columns to Rust values: unsigned numbers are BIGINT, ids are 16 bytes or UUID, JSON is TEXT or JSONB.
//!
//! A value that no method can have written is `Corrupt`.

use std::sync::Arc;

use millstream_batch::{Epoch, Offset};
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::types::{Json, JsonRawValue};
use sqlx::{Decode, Postgres, Row as _, Sqlite, Type};
use uuid::Uuid;

use crate::{MetaError, Result};

/// A row of either database.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// One row of an answer, read by column name.
pub(crate) struct Fields {
    row: Row,
    database: Arc<str>,
}

impl Fields {
    pub(super) fn new(row: Row, database: &Arc<str>) -> Fields {
        Fields {
            row,
            database: database.clone(),
        }
    }

    pub(crate) fn text(&self, column: &str) -> Result<String> {
        self.get(column)
    }

    pub(crate) fn text_or_null(&self, column: &str) -> Result<Option<String>> {
        self.get(column)
    }

    pub(crate) fn bool(&self, column: &str) -> Result<bool> {
        self.get(column)
    }

    pub(crate) fn i64(&self, column: &str) -> Result<i64> {
        self.get(column)
    }

    pub(crate) fn i64_or_null(&self, column: &str) -> Result<Option<i64>> {
        self.get(column)
    }

    pub(crate) fn u64(&self, column: &str) -> Result<u64> {
        let value = self.i64(column)?;
        u64::try_from(value).map_err(|_| self.corrupt(column, format!("is {value}")))
    }

    pub(crate) fn u32(&self, column: &str) -> Result<u32> {
        let value = self.i64(column)?;
        u32::try_from(value).map_err(|_| self.corrupt(column, format!("is {value}")))
    }

    pub(crate) fn offset(&self, column: &str) -> Result<Offset> {
        self.u64(column).map(Offset)
    }

    pub(crate) fn epoch(&self, column: &str) -> Result<Epoch> {
        self.u64(column).map(Epoch)
    }

    pub(crate) fn uuid(&self, column: &str) -> Result<Uuid> {
        self.get(column)
    }

    pub(crate) fn uuid_or_null(&self, column: &str) -> Result<Option<Uuid>> {
        self.get(column)
    }

    /// A JSON document. PostgreSQL gives it with its own spaces and order of keys.
    pub(crate) fn json(&self, column: &str) -> Result<String> {
        match &self.row {
            Row::Sqlite(row) => self.checked(column, row.try_get(column)),
            Row::Postgres(row) => {
                let document: Json<Box<JsonRawValue>> = self.checked(column, row.try_get(column))?;
                Ok(document.0.get().to_owned())
            }
        }
    }

    /// The error for a value that this column can never have been given.
    pub(crate) fn corrupt(&self, column: &str, found: String) -> MetaError {
        MetaError::Corrupt {
            database: self.database.to_string(),
            reason: format!("column {column} {found}"),
        }
    }

    fn get<'r, T>(&'r self, column: &str) -> Result<T>
    where
        T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>,
    {
        self.checked(
            column,
            match &self.row {
                Row::Sqlite(row) => row.try_get(column),
                Row::Postgres(row) => row.try_get(column),
            },
        )
    }

    fn checked<T>(&self, column: &str, value: sqlx::Result<T>) -> Result<T> {
        value.map_err(|error| self.corrupt(column, format!("cannot be read: {error}")))
    }
}
