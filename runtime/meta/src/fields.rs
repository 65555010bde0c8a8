//! The way between Rust values and columns: unsigned numbers are BIGINT, ids are 16 bytes.
//!
//! Numbers are checked in both directions: one that does not fit is `Invalid` on the way in and `Corrupt` on the way
//! out.

use std::sync::Arc;

use millstream_batch::{Epoch, Offset};
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Row, Sqlite, Type};
use uuid::Uuid;

use crate::{MetaError, Result};

/// The column value of a number that may not fit BIGINT; `what` names it in the error.
pub(crate) fn bigint(what: &str, value: u64) -> Result<i64> {
    i64::try_from(value).map_err(|_| MetaError::Invalid {
        reason: format!("{what} {value} is above {}", i64::MAX),
    })
}

/// One row of an answer, read by column name.
pub(crate) struct Fields {
    pub(crate) row: SqliteRow,
    pub(crate) database: Arc<str>,
}

impl Fields {
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
        self.uuid_or_null(column)?
            .ok_or_else(|| self.corrupt(column, "is null".into()))
    }

    pub(crate) fn uuid_or_null(&self, column: &str) -> Result<Option<Uuid>> {
        let Some(bytes) = self.get::<Option<Vec<u8>>>(column)? else {
            return Ok(None);
        };
        match Uuid::from_slice(&bytes) {
            Ok(id) => Ok(Some(id)),
            Err(_) => Err(self.corrupt(column, format!("has {} bytes, an id has 16", bytes.len()))),
        }
    }

    /// The error for a value that this column can never have been given.
    pub(crate) fn corrupt(&self, column: &str, found: String) -> MetaError {
        MetaError::Corrupt {
            database: self.database.to_string(),
            reason: format!("column {column} {found}"),
        }
    }

    fn get<'r, T: Decode<'r, Sqlite> + Type<Sqlite>>(&'r self, column: &str) -> Result<T> {
        self.row
            .try_get(column)
            .map_err(|error| self.corrupt(column, format!("cannot be read: {error}")))
    }
}
