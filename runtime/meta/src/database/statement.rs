//! One SQL statement with its arguments, for either database.

use std::borrow::Cow;

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::types::{Json, JsonRawValue};
use sqlx::{AssertSqlSafe, Postgres, SqlSafeStr, SqlStr, Sqlite};
use uuid::Uuid;

use crate::{MetaError, Result};

/// Stands in a text for the database's own clock, ms since 1970.
const NOW_MS: &str = "{now_ms}";
const NOW_MS_SQLITE: &str = "CAST(unixepoch('subsec') * 1000 AS BIGINT)";
const NOW_MS_POSTGRES: &str = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";

/// A statement. One text serves both databases, except where their dialects must differ.
#[derive(Clone)]
pub(crate) struct Statement {
    text: Cow<'static, str>,
    postgres: Option<Cow<'static, str>>,
    arguments: Vec<Argument>,
}

/// A statement of this text. `{now_ms}` in it is the database's clock; `$1`, `$2`... are its arguments.
pub(crate) fn sql(text: impl Into<Cow<'static, str>>) -> Statement {
    Statement {
        text: text.into(),
        postgres: None,
        arguments: Vec::new(),
    }
}

impl Statement {
    /// What PostgreSQL gets in the place of the text.
    pub(crate) fn on_postgres(mut self, text: impl Into<Cow<'static, str>>) -> Statement {
        self.postgres = Some(text.into());
        self
    }

    /// The next argument.
    pub(crate) fn bind(mut self, value: impl Into<Argument>) -> Statement {
        self.arguments.push(value.into());
        self
    }

    pub(super) fn for_sqlite(&self) -> Query<'static, Sqlite, SqliteArguments> {
        let mut query = sqlx::query(with_clock(self.text.clone(), NOW_MS_SQLITE));
        for argument in &self.arguments {
            query = match argument {
                Argument::Integer(value) => query.bind(*value),
                Argument::Text(value) => query.bind(value.clone()),
                Argument::Id(value) => query.bind(*value),
                Argument::Json(value) => query.bind(value.get().to_owned()),
            };
        }
        query
    }

    pub(super) fn for_postgres(&self) -> Query<'static, Postgres, PgArguments> {
        let text = self.postgres.as_ref().unwrap_or(&self.text);
        let mut query = sqlx::query(with_clock(text.clone(), NOW_MS_POSTGRES));
        for argument in &self.arguments {
            query = match argument {
                Argument::Integer(value) => query.bind(*value),
                Argument::Text(value) => query.bind(value.clone()),
                Argument::Id(value) => query.bind(*value),
                Argument::Json(value) => query.bind(Json(value.clone())),
            };
        }
        query
    }
}

fn with_clock(text: Cow<'static, str>, clock: &str) -> SqlStr {
    match text {
        text if text.contains(NOW_MS) => AssertSqlSafe(text.replace(NOW_MS, clock)).into_sql_str(),
        Cow::Borrowed(text) => text.into_sql_str(),
        Cow::Owned(text) => AssertSqlSafe(text).into_sql_str(),
    }
}

/// The value of an argument: BIGINT, TEXT, an id (16 bytes or UUID), or JSON (TEXT or JSONB).
#[derive(Clone)]
pub(crate) enum Argument {
    Integer(Option<i64>),
    Text(Option<String>),
    Id(Option<Uuid>),
    Json(Box<JsonRawValue>),
}

impl From<i64> for Argument {
    fn from(value: i64) -> Argument {
        Argument::Integer(Some(value))
    }
}

impl From<u32> for Argument {
    fn from(value: u32) -> Argument {
        Argument::Integer(Some(i64::from(value)))
    }
}

impl From<Option<i64>> for Argument {
    fn from(value: Option<i64>) -> Argument {
        Argument::Integer(value)
    }
}

impl From<&str> for Argument {
    fn from(value: &str) -> Argument {
        Argument::Text(Some(value.to_owned()))
    }
}

impl From<&String> for Argument {
    fn from(value: &String) -> Argument {
        Argument::Text(Some(value.clone()))
    }
}

impl From<&Option<String>> for Argument {
    fn from(value: &Option<String>) -> Argument {
        Argument::Text(value.clone())
    }
}

impl From<Uuid> for Argument {
    fn from(value: Uuid) -> Argument {
        Argument::Id(Some(value))
    }
}

impl From<Box<JsonRawValue>> for Argument {
    fn from(value: Box<JsonRawValue>) -> Argument {
        Argument::Json(value)
    }
}

/// The column value of a number that may not fit BIGINT; `what` names it in the error.
pub(crate) fn bigint(what: &str, value: u64) -> Result<i64> {
    i64::try_from(value).map_err(|_| MetaError::Invalid {
        reason: format!("{what} {value} is above {}", i64::MAX),
    })
}

/// The column value of a JSON document; `what` names it in the error.
pub(crate) fn json(what: &str, document: &str) -> Result<Box<JsonRawValue>> {
    let invalid = |reason: String| MetaError::Invalid {
        reason: format!("{what}: {reason}"),
    };
    if document.contains("\\u0000") {
        // JSONB cannot hold it, so no database is given it.
        return Err(invalid("a text in it has the character U+0000".into()));
    }
    JsonRawValue::from_string(document.to_owned()).map_err(|error| invalid(format!("it is no JSON: {error}")))
}

/// The column value of what always becomes JSON.
pub(crate) fn as_json<T: serde::Serialize + ?Sized>(value: &T) -> Box<JsonRawValue> {
    let document = serde_json::to_string(value).expect("numbers, names and ids always become JSON");
    JsonRawValue::from_string(document).expect("it was just made")
}
