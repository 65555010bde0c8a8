//! The table of columns against the schemas.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::database::sql;
use crate::snapshot::tables::{Column, Kind, TABLES};

/// Of each table its columns: name, type, whether it may be null, and its place in the primary key, 0 for none.
type Schema = BTreeMap<String, BTreeSet<(String, String, bool, i64)>>;

async fn schema_of(metadata: &Metadata) -> Schema {
    let columns = sql(
        "SELECT m.name AS table_name, c.name AS column_name, c.type AS type, c.\"notnull\" = 0 AS nullable, c.pk AS key \
         FROM sqlite_schema m JOIN pragma_table_info(m.name) c \
         WHERE m.type = 'table' AND m.name NOT LIKE '\\_sqlx%' ESCAPE '\\' AND m.name NOT LIKE 'sqlite%'",
    )
    .on_postgres(
        "SELECT c.table_name::text AS table_name, c.column_name::text AS column_name, upper(c.data_type::text) AS type, \
                c.is_nullable = 'YES' AS nullable, coalesce(k.ordinal_position, 0)::bigint AS key \
         FROM information_schema.columns c \
         LEFT JOIN (information_schema.table_constraints t JOIN information_schema.key_column_usage k \
                    ON k.constraint_name = t.constraint_name AND k.table_name = t.table_name \
                    AND t.constraint_type = 'PRIMARY KEY' AND t.table_schema = 'public') \
              ON k.table_name = c.table_name AND k.column_name = c.column_name \
         WHERE c.table_schema = 'public' AND c.table_name NOT LIKE '\\_sqlx%'",
    );
    let mut schema = Schema::new();
    for row in metadata.database.read_all(columns).await.unwrap() {
        schema.entry(row.text("table_name").unwrap()).or_default().insert((
            row.text("column_name").unwrap(),
            row.text("type").unwrap(),
            row.bool("nullable").unwrap(),
            row.i64("key").unwrap(),
        ));
    }
    schema
}

fn ours(types: fn(Kind) -> &'static str) -> Schema {
    let tables = TABLES.iter().map(|table| {
        let key = |column: &Column| table.key().iter().position(|key| key == column);
        let columns = table.columns.iter().map(|column| {
            let place = key(column).map_or(0, |at| at as i64 + 1);
            (
                column.name.to_owned(),
                types(column.kind).to_owned(),
                column.nullable,
                place,
            )
        });
        (table.name.to_owned(), columns.collect())
    });
    tables.collect()
}

#[tokio::test]
async fn every_table_and_column_of_sqlite_is_known() {
    let world = sqlite().await;
    let ours = ours(|kind| match kind {
        Kind::Id => "BLOB",
        Kind::Integer | Kind::LeaseEnd => "BIGINT",
        Kind::Text | Kind::Json => "TEXT",
        Kind::Boolean => "BOOLEAN",
    });
    assert_eq!(schema_of(&world.metadata).await, ours);
}

#[tokio::test]
async fn every_table_and_column_of_postgres_is_known() {
    let world = postgres().await;
    let ours = ours(|kind| match kind {
        Kind::Id => "UUID",
        Kind::Integer | Kind::LeaseEnd => "BIGINT",
        Kind::Text => "TEXT",
        Kind::Json => "JSONB",
        Kind::Boolean => "BOOLEAN",
    });
    assert_eq!(schema_of(&world.metadata).await, ours);
}

#[test]
fn no_table_refers_to_a_later_one() {
    let place = |name: &str| TABLES.iter().position(|table| table.name == name).unwrap();
    for (from, to) in [
        ("wal_streams", "agents"),
        ("partitions", "topics"),
        ("partitions", "wal_streams"),
        ("partition_leases", "partitions"),
        ("segments", "partitions"),
        ("module_versions", "modules"),
        ("pipelines", "topics"),
        ("pipeline_activations", "pipelines"),
        ("consumer_offsets", "consumer_groups"),
        ("consumer_offsets", "partitions"),
        ("partition_producers", "partitions"),
    ] {
        assert!(place(from) > place(to), "{from} {to}");
    }
}
