//! The database of an agent, and how it comes to hold more than an agent would write in an evening.

use std::path::PathBuf;

use millstream_postgres::Database;
use millstream_tests::Setup;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, SqliteConnection};

/// Where an agent keeps its metadata.
pub enum Place {
    /// In its data folder.
    Sqlite,
    Postgres(Database),
}

impl Place {
    pub fn name(&self) -> &'static str {
        match self {
            Place::Sqlite => "SQLite",
            Place::Postgres(_) => "PostgreSQL",
        }
    }

    /// How an agent runs on it.
    pub fn setup(&self) -> Setup {
        match self {
            Place::Sqlite => Setup::new(),
            Place::Postgres(database) => Setup::new().env("MILLSTREAM_METADATA", database.url()),
        }
    }

    /// Gives every partition so many segments, whose objects are not there. No agent runs meanwhile.
    pub async fn fill(&self, setup: &Setup, segments: u64, segment_records: u64, now_ms: i64) {
        // As large as segments become: small ones would be merged.
        let bytes = 64 << 20;
        let insert = format!(
            "INSERT INTO segments (topic_id, partition, base_offset, end_offset, epoch, object_key, record_count, \
                 raw_bytes, stored_bytes, min_timestamp_ms, max_timestamp_ms, created_at_ms) \
             WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < {segments}) \
             SELECT p.topic_id, p.partition, n * {segment_records}, (n + 1) * {segment_records}, 1, \
                 t.name || '/' || p.partition || '/seg_0' || (1000000000000000000 + n * {segment_records}) || \
                 '_0123456789abcdef0123456789abcdef.bin', {segment_records}, {bytes}, {bytes}, {now_ms}, {now_ms}, {now_ms} \
             FROM partitions p JOIN topics t ON t.id = p.topic_id CROSS JOIN numbers"
        );
        let advance = format!(
            "UPDATE partitions SET epoch = epoch + 1, committed_end = {}",
            segments * segment_records
        );
        self.run(setup, &[insert, advance, "ANALYZE".to_owned()]).await;
    }

    async fn run(&self, setup: &Setup, statements: &[String]) {
        match self {
            Place::Sqlite => {
                let file: PathBuf = setup.data_dir().join("metadata.db");
                let connection = SqliteConnection::connect(&format!("sqlite:{}", file.display())).await;
                let mut connection = connection.expect("the agent has made it");
                for statement in statements {
                    let done = connection.execute(sqlx::query(AssertSqlSafe(statement.as_str()))).await;
                    done.unwrap_or_else(|error| panic!("{statement}: {error}"));
                }
                connection.close().await.expect("nothing is open any more");
            }
            Place::Postgres(database) => statements.iter().for_each(|statement| drop(database.sql(statement))),
        }
    }
}
