//! SQLite: opening a file, and its pools.
//!
//! It takes one writer at a time. All writing goes through a single connection, so writers of this process queue up
//! fairly instead of polling the file's lock; readers have connections of their own and are never blocked (WAL mode).
//! What is urgent does not stand in that line: it waits for whoever has the connection, and is next.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::sync::Semaphore;

use super::{Database, Pool, migrate};
use crate::{MetaError, Result};

/// Connections that read side by side.
const READERS_MAX: u32 = 4;
/// How long a lock that another process holds on the file is waited for.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one attempt to turn the file to WAL mode lasts, and the pause after it.
const SWITCH_PAUSE: Duration = Duration::from_millis(10);
/// How long a call waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) async fn open(path: &Path, busy_timeout: Duration) -> Result<Database> {
    let place: Arc<str> = path.display().to_string().into();
    check_place(path, &place)?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(busy_timeout)
        // Of what waits for a busy disk the driver would log every single statement.
        .disable_statement_logging();
    let failed = |error| MetaError::from_database(&place, error);
    let switched = switch_to_wal(&options, busy_timeout, &place).await?;
    let writer = pool(1).connect_with(options.clone()).await.map_err(failed)?;
    switched.close().await.map_err(failed)?;
    migrate::sqlite(&mut *writer.acquire().await.map_err(failed)?, &place).await?;
    let writers = Pool::InLine(writer.clone(), Arc::new(Semaphore::new(1)));
    let readers = Pool::Sqlite(pool(READERS_MAX).connect_lazy_with(options));
    // What takes its time here is the disk, and nothing is won by giving up.
    Ok(Database::new(
        writers,
        Pool::Sqlite(writer),
        readers,
        place,
        Duration::MAX,
    ))
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

/// Connections to a local file neither age nor go away, so none is closed or pinged for that.
fn pool(connections_max: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // To wait in line is what writers do here; who waited in vain says so.
        .acquire_slow_threshold(ACQUIRE_TIMEOUT)
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
mod tests;
