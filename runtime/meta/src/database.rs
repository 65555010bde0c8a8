//! Connections, transactions and migrations: the one place that knows which database stands behind.
//!
//! SQLite takes one writer at a time. All writing goes through a single connection, so writers of this process queue up
//! fairly in the pool instead of polling the file's lock; readers have connections of their own and are never blocked
//! (WAL mode).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::query::Query;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, Sqlite, SqliteConnection, Transaction};

use crate::fields::Fields;
use crate::{MetaError, Result};

static MIGRATOR: Migrator = sqlx::migrate!("../../migrations/sqlite");

/// Connections that read side by side.
const READERS_MAX: u32 = 4;
/// How long a lock that another process holds on the file is waited for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one attempt to turn the file to WAL mode lasts, and the pause after it.
const SWITCH_PAUSE: Duration = Duration::from_millis(10);
/// How long a call waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

/// One SQL statement with its arguments.
pub(crate) type Statement = Query<'static, Sqlite, SqliteArguments>;

/// The connections to one database.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    writer: SqlitePool,
    readers: SqlitePool,
    /// Where it is, for errors. Never a URL: it could carry a password.
    place: Arc<str>,
}

impl Database {
    pub(crate) async fn open(url: &str) -> Result<Database> {
        Database::open_sqlite(sqlite_path(url)?, BUSY_TIMEOUT).await
    }

    async fn open_sqlite(path: &str, busy_timeout: Duration) -> Result<Database> {
        let path = std::path::absolute(path).map_err(|error| invalid_url(&error.to_string()))?;
        let place: Arc<str> = path.display().to_string().into();
        check_place(&path, &place)?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(busy_timeout);
        let switched = switch_to_wal(&options, busy_timeout, &place).await?;
        let writer = pool(1).connect_with(options.clone()).await;
        let writer = writer.map_err(|error| MetaError::from_database(&place, error))?;
        switched
            .close()
            .await
            .map_err(|error| MetaError::from_database(&place, error))?;
        let readers = pool(READERS_MAX).connect_lazy_with(options);
        let database = Database { writer, readers, place };
        database.migrate().await?;
        Ok(database)
    }

    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Starts a transaction that holds the write lock from the beginning; dropped without `commit` it is rolled back.
    pub(crate) async fn begin(&self) -> Result<Tx> {
        let transaction = self.writer.begin_with("BEGIN IMMEDIATE").await;
        let transaction = transaction.map_err(|error| MetaError::from_database(&self.place, error))?;
        Ok(Tx {
            transaction,
            place: self.place.clone(),
        })
    }

    /// Reads at most one row.
    pub(crate) async fn read_one(&self, statement: Statement) -> Result<Option<Fields>> {
        one(statement.fetch_optional(&self.readers).await, &self.place)
    }

    /// Reads all rows, of one moment.
    pub(crate) async fn read_all(&self, statement: Statement) -> Result<Vec<Fields>> {
        all(statement.fetch_all(&self.readers).await, &self.place)
    }

    /// Applies the migrations this database lacks, all in one transaction.
    async fn migrate(&self) -> Result<()> {
        let mut tx = self.begin().await?;
        // `Migrator::run` is generic over how it gets its connection, which leaves the future of every caller without
        // `Send`.
        let applied = MIGRATOR.run_direct(None, &mut *tx.transaction, false).await;
        applied.map_err(|error| self.migration_error(error))?;
        // A file that cannot be written opens like any other. It is refused here, not when a producer waits.
        tx.execute(sqlx::query("DELETE FROM partition_leases WHERE FALSE"))
            .await?;
        tx.commit().await
    }

    fn migration_error(&self, error: MigrateError) -> MetaError {
        let known = MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or(0);
        match error {
            MigrateError::VersionMissing(found) if found > known => MetaError::SchemaNewer {
                database: self.place.to_string(),
                found,
                known,
            },
            // An SQL error is damage or a foreign file, everything else says what it is.
            MigrateError::Execute(source) => MetaError::from_database(&self.place, source),
            other => MetaError::Migration {
                database: self.place.to_string(),
                source: Box::new(other),
            },
        }
    }
}

/// A write transaction.
pub(crate) struct Tx {
    transaction: Transaction<'static, Sqlite>,
    place: Arc<str>,
}

impl Tx {
    /// Runs a statement; how many rows it changed.
    pub(crate) async fn execute(&mut self, statement: Statement) -> Result<u64> {
        let done = statement.execute(&mut *self.transaction).await;
        done.map(|done| done.rows_affected())
            .map_err(|error| MetaError::from_database(&self.place, error))
    }

    /// Runs a statement that gives at most one row.
    pub(crate) async fn one(&mut self, statement: Statement) -> Result<Option<Fields>> {
        one(statement.fetch_optional(&mut *self.transaction).await, &self.place)
    }

    /// Runs a statement that gives rows.
    pub(crate) async fn all(&mut self, statement: Statement) -> Result<Vec<Fields>> {
        all(statement.fetch_all(&mut *self.transaction).await, &self.place)
    }

    /// Makes everything that was done durable.
    pub(crate) async fn commit(self) -> Result<()> {
        self.transaction
            .commit()
            .await
            .map_err(|error| MetaError::from_database(&self.place, error))
    }
}

/// Turns the file to WAL mode, where it is not; the connection that did it.
///
/// SQLite does not wait for the lock that this step takes, as it does for every other: of several processes that open a
/// new file at once all but one are told that it is locked. So this waits, at most `timeout` in pauses and as long
/// again in attempts.
async fn switch_to_wal(options: &SqliteConnectOptions, timeout: Duration, place: &str) -> Result<SqliteConnection> {
    let options = options.clone().busy_timeout(SWITCH_PAUSE);
    let mut attempts_left = timeout.as_millis() / SWITCH_PAUSE.as_millis();
    loop {
        match options
            .connect()
            .await
            .map_err(|error| MetaError::from_database(place, error))
        {
            Err(MetaError::Unavailable { .. }) if attempts_left > 0 => {
                attempts_left -= 1;
                tokio::time::sleep(SWITCH_PAUSE).await;
            }
            answer => return answer,
        }
    }
}

fn one(answer: sqlx::Result<Option<sqlx::sqlite::SqliteRow>>, place: &Arc<str>) -> Result<Option<Fields>> {
    let row = answer.map_err(|error| MetaError::from_database(place, error))?;
    Ok(row.map(|row| Fields {
        row,
        database: place.clone(),
    }))
}

fn all(answer: sqlx::Result<Vec<sqlx::sqlite::SqliteRow>>, place: &Arc<str>) -> Result<Vec<Fields>> {
    let rows = answer.map_err(|error| MetaError::from_database(place, error))?;
    Ok(rows
        .into_iter()
        .map(|row| Fields {
            row,
            database: place.clone(),
        })
        .collect())
}

/// Connections to a local file neither age nor go away, so none is closed or pinged for that.
fn pool(connections_max: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .max_lifetime(None)
        .idle_timeout(None)
        .test_before_acquire(false)
        .after_release(|connection, _| {
            Box::pin(async move {
                // On a full disk SQLite ends a transaction by itself. The driver does not notice and would begin no other
                // on this connection, so it is closed; the ping waits for a rollback that is still on its way.
                connection.ping().await?;
                Ok(!connection.is_in_transaction())
            })
        })
}

fn sqlite_path(url: &str) -> Result<&str> {
    let path = match url.split_once(':') {
        Some(("sqlite", path)) => path.strip_prefix("//").unwrap_or(path),
        Some(("postgres" | "postgresql", _)) => return Err(invalid_url("PostgreSQL is not offered")),
        _ => return Err(invalid_url("unknown kind of URL")),
    };
    match path {
        "" => Err(invalid_url("the path is missing")),
        ":memory:" => Err(invalid_url("metadata must outlive the process, so it needs a file")),
        path => Ok(path),
    }
}

fn invalid_url(reason: &str) -> MetaError {
    MetaError::Invalid {
        reason: format!("metadata URL: {reason}; write sqlite:PATH"),
    }
}

/// SQLite reports each of these as "unable to open database file".
fn check_place(path: &Path, place: &str) -> Result<()> {
    let refuse = |reason: String| {
        Err(MetaError::CannotOpen {
            database: place.to_string(),
            reason,
        })
    };
    if path.is_dir() {
        return refuse("it is a directory: name a file in it".into());
    }
    match path.parent() {
        Some(directory) if !directory.is_dir() => refuse(format!(
            "its directory {} does not exist: create it, or name another file",
            directory.display()
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Metadata, TopicConfig};
    use uuid::Uuid;

    const NOW_MS: i64 = 1_700_000_000_000;

    fn url(path: &Path) -> String {
        format!("sqlite:{}", path.display())
    }

    async fn create_topic(metadata: &Metadata, name: &str, partitions: u32) -> Result<()> {
        let id = Uuid::from_u128(u128::from(partitions));
        metadata
            .create_topic(id, name, partitions, &TopicConfig::default(), NOW_MS)
            .await
            .map(drop)
    }

    async fn on_writer(metadata: &Metadata, statement: &'static str) {
        sqlx::query(statement).execute(&metadata.database.writer).await.unwrap();
    }

    #[tokio::test]
    async fn urls_of_other_kinds_are_refused_without_repeating_their_password() {
        for url in [
            "postgres://joe:geheim@db/millstream",
            "mysql:geheim",
            "geheim",
            "sqlite:",
            "sqlite::memory:",
        ] {
            let error = Metadata::open(url).await.unwrap_err();
            assert!(matches!(error, MetaError::Invalid { .. }), "{error:?}");
            assert!(error.to_string().contains("sqlite:PATH"), "{error}");
            assert!(!format!("{error} {error:?}").contains("geheim"), "{error:?}");
        }
    }

    #[tokio::test]
    async fn a_place_where_no_file_can_be_is_named() {
        let directory = tempfile::tempdir().unwrap();
        for place in [directory.path().join("missing/meta.db"), directory.path().to_path_buf()] {
            let error = Metadata::open(&url(&place)).await.unwrap_err();
            assert!(matches!(error, MetaError::CannotOpen { .. }), "{error:?}");
            assert!(error.to_string().contains(&*place.to_string_lossy()), "{error}");
        }
        assert!(!directory.path().join("missing").exists());
    }

    #[tokio::test]
    async fn a_file_with_odd_characters_in_its_name_is_that_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("100% mill?mode=ro#1.db");
        create_topic(&Metadata::open(&url(&path)).await.unwrap(), "orders", 1)
            .await
            .unwrap();
        assert!(path.is_file());
        let slashes = format!("sqlite://{}", path.display());
        assert_eq!(Metadata::open(&slashes).await.unwrap().topics().await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn every_connection_syncs_each_commit_and_holds_to_foreign_keys() {
        let directory = tempfile::tempdir().unwrap();
        let metadata = Metadata::open(&url(&directory.path().join("meta.db"))).await.unwrap();
        for pool in [&metadata.database.writer, &metadata.database.readers] {
            let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(pool).await.unwrap();
            let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(pool).await.unwrap();
            let foreign_keys: i64 = sqlx::query_scalar("PRAGMA foreign_keys").fetch_one(pool).await.unwrap();
            assert_eq!((mode.as_str(), synchronous, foreign_keys), ("wal", 2, 1));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_new_file_opened_by_many_at_once_is_migrated_once() {
        for _ in 0..5 {
            let directory = tempfile::tempdir().unwrap();
            let mut tasks = tokio::task::JoinSet::new();
            for n in 0..8 {
                let url = url(&directory.path().join("meta.db"));
                tasks.spawn(async move { create_topic(&Metadata::open(&url).await?, &format!("t{n}"), n + 1).await });
            }
            for answer in tasks.join_all().await {
                answer.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_newer_schema_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let url = url(&directory.path().join("meta.db"));
        let metadata = Metadata::open(&url).await.unwrap();
        on_writer(
            &metadata,
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (99, 'from later', TRUE, x'00', 0)",
        )
        .await;
        metadata.close().await;
        let error = Metadata::open(&url).await.unwrap_err();
        assert!(
            matches!(
                error,
                MetaError::SchemaNewer {
                    found: 99,
                    known: 2,
                    ..
                }
            ),
            "{error:?}"
        );
        assert!(error.to_string().contains("start the newer millstream"), "{error}");
    }

    #[tokio::test]
    async fn a_database_of_something_else_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meta.db");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let pool = SqlitePool::connect_with(options).await.unwrap();
        sqlx::query("CREATE TABLE topics (subject TEXT)")
            .execute(&pool)
            .await
            .unwrap();
        let error = Metadata::open(&url(&path)).await.unwrap_err();
        assert!(matches!(error, MetaError::Migration { .. }), "{error:?}");
        let tables: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM sqlite_master")
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(tables, 1);
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_corrupt_and_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meta.db");
        let content = vec![b'x'; 8192];
        std::fs::write(&path, &content).unwrap();
        let error = Metadata::open(&url(&path)).await.unwrap_err();
        assert!(matches!(error, MetaError::Corrupt { .. }), "{error:?}");
        assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), content);
    }

    #[tokio::test]
    async fn damage_inside_the_file_is_corrupt() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meta.db");
        Metadata::open(&url(&path)).await.unwrap().close().await;
        let mut content = std::fs::read(&path).unwrap();
        content[4096..].fill(0xff);
        std::fs::write(&path, &content).unwrap();
        let error = Metadata::open(&url(&path)).await.unwrap_err();
        assert!(matches!(error, MetaError::Corrupt { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn a_file_locked_by_another_is_unavailable_until_it_is_free_and_reads_go_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meta.db");
        let place = path.to_str().unwrap();
        let database = Database::open_sqlite(place, Duration::from_millis(20)).await.unwrap();
        let metadata = Metadata { database };
        let other = SqlitePool::connect_with(SqliteConnectOptions::new().filename(&path))
            .await
            .unwrap();
        let lock = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let error = create_topic(&metadata, "orders", 1).await.unwrap_err();
        assert!(matches!(error, MetaError::Unavailable { .. }), "{error:?}");
        assert!(
            error.to_string().contains(place) && error.to_string().contains("another process"),
            "{error}"
        );
        assert!(metadata.topics().await.unwrap().is_empty());
        lock.rollback().await.unwrap();
        create_topic(&metadata, "orders", 1).await.unwrap();
    }

    #[tokio::test]
    async fn a_full_disk_changes_nothing_and_is_over_when_there_is_space() {
        let directory = tempfile::tempdir().unwrap();
        let metadata = Metadata::open(&url(&directory.path().join("meta.db"))).await.unwrap();
        on_writer(&metadata, "PRAGMA max_page_count = 60").await;
        let error = create_topic(&metadata, "orders", 100_000).await.unwrap_err();
        assert!(matches!(error, MetaError::DiskFull { .. }), "{error:?}");
        assert!(metadata.topics().await.unwrap().is_empty());
        on_writer(&metadata, "PRAGMA max_page_count = 1000000").await;
        create_topic(&metadata, "orders", 100_000).await.unwrap();
    }

    #[tokio::test]
    async fn a_database_that_cannot_be_written_is_read_only() {
        let directory = tempfile::tempdir().unwrap();
        let metadata = Metadata::open(&url(&directory.path().join("meta.db"))).await.unwrap();
        on_writer(&metadata, "PRAGMA query_only = TRUE").await;
        let error = create_topic(&metadata, "orders", 1).await.unwrap_err();
        assert!(matches!(error, MetaError::ReadOnly { .. }), "{error:?}");
        // Opening meets the same: it ends with the check that `migrate` makes.
        let error = metadata.database.migrate().await.unwrap_err();
        assert!(matches!(error, MetaError::ReadOnly { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn a_closed_database_is_unavailable() {
        let directory = tempfile::tempdir().unwrap();
        let metadata = Metadata::open(&url(&directory.path().join("meta.db"))).await.unwrap();
        metadata.close().await;
        assert!(matches!(metadata.topics().await, Err(MetaError::Unavailable { .. })));
    }

    #[tokio::test]
    async fn a_call_given_up_halfway_leaves_no_trace_and_no_lock() {
        let directory = tempfile::tempdir().unwrap();
        let metadata = Metadata::open(&url(&directory.path().join("meta.db"))).await.unwrap();
        let mut tx = metadata.database.begin().await.unwrap();
        let agent =
            sqlx::query("INSERT INTO agents (name, incarnation, registered_at_ms) VALUES ('a', zeroblob(16), 0)");
        tx.execute(agent).await.unwrap();
        drop(tx);
        create_topic(&metadata, "orders", 1).await.unwrap();
        let agents = metadata
            .database
            .read_all(sqlx::query("SELECT name FROM agents"))
            .await
            .unwrap();
        assert!(agents.is_empty());
    }
}
