//! Both databases have one schema, and it comes into being whoever opens it.

use std::collections::BTreeSet;
use std::path::Path;

use millstream_meta::{MetaError, Metadata};
use tokio::task::JoinSet;

use crate::{Fixture, TASKS};

on_both! {
    a_new_database_opened_by_many_at_once_is_migrated_once,
    a_newer_schema_is_refused_and_left_alone,
    a_schema_left_half_done_says_what_to_do,
    a_database_opened_again_is_the_same,
}

const COLUMNS_OF_SQLITE: &str = "SELECT t.name || '.' || c.name || ' ' || \
     CASE c.type WHEN 'BLOB' THEN 'id' WHEN 'BIGINT' THEN 'number' WHEN 'BOOLEAN' THEN 'truth' ELSE 'text' END || \
     CASE c.\"notnull\" WHEN 1 THEN '' ELSE ' or null' END || CASE c.pk WHEN 0 THEN '' ELSE ' key ' || c.pk END \
     FROM sqlite_master t, pragma_table_info(t.name) c WHERE t.type = 'table' AND t.name NOT LIKE '\\_%' ESCAPE '\\' \
     AND t.name NOT LIKE 'sqlite%'";
const COLUMNS_OF_POSTGRES: &str = "SELECT c.table_name || '.' || c.column_name || ' ' || \
     CASE c.data_type WHEN 'uuid' THEN 'id' WHEN 'bigint' THEN 'number' WHEN 'boolean' THEN 'truth' \
                      WHEN 'text' THEN 'text' WHEN 'jsonb' THEN 'text' ELSE c.data_type END || \
     CASE c.is_nullable WHEN 'NO' THEN '' ELSE ' or null' END || COALESCE(' key ' || k.ordinal_position, '') \
     FROM information_schema.columns c \
     LEFT JOIN information_schema.key_column_usage k ON k.table_schema = 'public' AND k.table_name = c.table_name \
          AND k.column_name = c.column_name AND k.constraint_name LIKE '%\\_pkey' \
     WHERE c.table_schema = 'public' AND c.table_name NOT LIKE '\\_%'";

const INDEXES_OF_SQLITE: &str =
    "SELECT tbl_name || ' ' || name FROM sqlite_master WHERE type = 'index' AND sql NOT NULL";
const INDEXES_OF_POSTGRES: &str = "SELECT tablename || ' ' || indexname FROM pg_indexes WHERE schemaname = 'public' \
     AND tablename NOT LIKE '\\_%' AND NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conname = indexname)";

const REFERENCES_OF_SQLITE: &str = "SELECT t.name || '.' || r.\"from\" || ' ' || r.\"table\" || '.' || r.\"to\" || ' ' || \
     r.on_delete FROM sqlite_master t, pragma_foreign_key_list(t.name) r WHERE t.type = 'table'";
const REFERENCES_OF_POSTGRES: &str = "SELECT c.conrelid::regclass || '.' || a.attname || ' ' || \
     c.confrelid::regclass || '.' || f.attname || ' ' || \
     CASE c.confdeltype WHEN 'c' THEN 'CASCADE' WHEN 'a' THEN 'NO ACTION' ELSE c.confdeltype::text END \
     FROM pg_constraint c CROSS JOIN unnest(c.conkey, c.confkey) AS u (our, their) \
     JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = u.our \
     JOIN pg_attribute f ON f.attrelid = c.confrelid AND f.attnum = u.their WHERE c.contype = 'f'";

/// Checks, by table; those that hold the length of an id are the type's own on PostgreSQL, and those that a JSON
/// document is not empty too.
const CHECKS_OF_POSTGRES: &str = "SELECT conrelid::regclass || ' ' || count(*) FROM pg_constraint WHERE contype = 'c' \
     AND conrelid <> 0 AND conrelid::regclass::text NOT LIKE '\\_%' GROUP BY conrelid";

#[tokio::test(flavor = "multi_thread")]
async fn both_databases_have_the_same_tables_columns_keys_references_and_indexes() {
    let (sqlite, postgres) = (Fixture::sqlite().await, Fixture::postgres().await);
    for (of_sqlite, of_postgres, least) in [
        (COLUMNS_OF_SQLITE, COLUMNS_OF_POSTGRES, 60),
        (INDEXES_OF_SQLITE, INDEXES_OF_POSTGRES, 5),
        (REFERENCES_OF_SQLITE, REFERENCES_OF_POSTGRES, 10),
    ] {
        let ours: BTreeSet<String> = sqlite.column(of_sqlite).await.into_iter().collect();
        let theirs: BTreeSet<String> = postgres.column(of_postgres).await.into_iter().collect();
        assert!(ours.len() > least, "{ours:#?}");
        let only_here: Vec<_> = ours.difference(&theirs).collect();
        let only_there: Vec<_> = theirs.difference(&ours).collect();
        assert!(
            only_here.is_empty() && only_there.is_empty(),
            "SQLite {only_here:#?}, PostgreSQL {only_there:#?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_databases_check_the_same() {
    let (sqlite, postgres) = (Fixture::sqlite().await, Fixture::postgres().await);
    let tables = sqlite
        .column("SELECT name || ' ' || sql FROM sqlite_master WHERE type = 'table'")
        .await
        .join("\n");
    assert!(!tables.is_empty());
    let mut of_sqlite = BTreeSet::new();
    for table in sqlite
        .column("SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE '%CHECK%'")
        .await
    {
        let made = sqlite
            .column(&format!("SELECT sql FROM sqlite_master WHERE name = '{table}'"))
            .await
            .join("\n");
        let of_types = [
            "id) = 16",
            "incarnation) = 16",
            "former) = 16",
            "config) >",
            "stages) >",
            "info) >",
        ];
        let own =
            made.matches("CHECK").count() - of_types.iter().map(|check| made.matches(check).count()).sum::<usize>();
        if own > 0 {
            of_sqlite.insert(format!("{table} {own}"));
        }
    }
    let of_postgres: BTreeSet<String> = postgres.column(CHECKS_OF_POSTGRES).await.into_iter().collect();
    assert_eq!(of_sqlite, of_postgres);
}

#[test]
fn migrations_have_the_same_names_on_both_sides() {
    assert!(migrations("sqlite").len() >= 3);
    assert_eq!(migrations("sqlite"), migrations("postgres"));
}

/// The names of the files, in order.
fn migrations(side: &str) -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../migrations")
        .join(side);
    let files = std::fs::read_dir(folder).unwrap();
    files
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// The number that a migration's name begins with.
fn version(name: &str) -> String {
    name.split('_').next().unwrap().trim_start_matches('0').to_owned()
}

async fn a_new_database_opened_by_many_at_once_is_migrated_once(fixture: Fixture) {
    // The fixture has opened its own, which is taken away again.
    fixture.empty().await;
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let url = fixture.place.url();
        tasks.spawn(async move { Metadata::open(&url).await?.topics().await });
    }
    for answer in tasks.join_all().await {
        assert!(answer.unwrap().is_empty());
    }
    let applied = fixture.column("SELECT version FROM _sqlx_migrations").await;
    let known: BTreeSet<String> = migrations("sqlite").iter().map(|name| version(name)).collect();
    assert_eq!(applied.len(), known.len());
    assert_eq!(applied.into_iter().collect::<BTreeSet<_>>(), known);
}

async fn a_newer_schema_is_refused_and_left_alone(fixture: Fixture) {
    fixture
        .sql(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (99, 'from later', TRUE, '', 0)",
        )
        .await;
    let error = Metadata::open(&fixture.place.url()).await.unwrap_err();
    assert!(matches!(error, MetaError::SchemaNewer { found: 99, .. }), "{error:?}");
    assert!(error.to_string().contains("start the newer millstream"), "{error}");
    assert!(fixture.metadata.topics().await.unwrap().is_empty());
}

async fn a_schema_left_half_done_says_what_to_do(fixture: Fixture) {
    fixture
        .sql("UPDATE _sqlx_migrations SET success = FALSE WHERE version = 2")
        .await;
    let error = Metadata::open(&fixture.place.url()).await.unwrap_err();
    assert!(matches!(error, MetaError::Migration { .. }), "{error:?}");
    for word in ["migration 2", "half done", "restore a backup", "empty database"] {
        assert!(error.to_string().contains(word), "{error}");
    }
}

async fn a_database_opened_again_is_the_same(fixture: Fixture) {
    let topic = fixture.topic(1, "orders", 2).await;
    let again = Metadata::open(&fixture.place.url()).await.unwrap();
    assert_eq!(again.topic("orders").await.unwrap(), Some(topic));
    assert_eq!(again.place(), fixture.metadata.place());
}
