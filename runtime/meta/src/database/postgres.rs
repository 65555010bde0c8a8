//! PostgreSQL: opening a database on a server, its pools, and what each session is told.
//!
//! Everything a session needs is sent with its first packet, so that a connection costs no further round trip. Poolers
//! between may keep that for themselves, so opening looks whether what the promises rest on has arrived.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::time::{Instant, timeout};

use super::url::Location;
use super::{Database, Pool, migrate};
use crate::{MetaError, MetadataSettings, Result};

/// A connection this long unused is asked whether it is still there before it is used again.
const PING_AFTER: Duration = Duration::from_secs(5);
/// So many that do not answer may be met, one after the other, while one call waits for a connection.
const PINGS_IN_TIME: u32 = 8;
/// One that nobody needed for so long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// No connection gets older: so a name that moves to another server is followed, and memory of the server freed.
const LIFETIME_MAX: Duration = Duration::from_secs(30 * 60);
/// The pauses between tries to reach the server at the start.
const CONNECT_PAUSE: Duration = Duration::from_millis(500);
/// What a network may take beyond the statement's own timeout before the connection is given up.
const NETWORK_MARGIN: Duration = Duration::from_secs(5);
/// How long the migrations, those of another agent included, may take.
const MIGRATION_PATIENCE: Duration = Duration::from_secs(10 * 60);

/// What is urgent has so many connections of its own.
const URGENT_MAX: u32 = 1;
/// Fewer connections serve nobody: an urgent one, one that writes and one that reads.
const CONNECTIONS_MIN: u32 = 3;

/// What a writing session is told.
const WRITING: [(&str, &str); 2] = [
    ("default_transaction_isolation", "serializable"),
    // A whole table read is a whole table that others conflict with, however small it is.
    ("enable_seqscan", "off"),
];
/// What a reading session is told.
const READING: [(&str, &str); 2] = [
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "on"),
];

pub(super) async fn open(options: &PgConnectOptions, settings: &MetadataSettings) -> Result<Database> {
    let place: Arc<str> = Location::Postgres(Box::new(options.clone())).place().into();
    let migrating = session(options, MIGRATION_PATIENCE, &WRITING);
    let mut connection = connect(&migrating, settings, &place).await?;
    check_session(&mut connection, &place).await?;
    let migrated = timeout(MIGRATION_PATIENCE, migrate::postgres(&mut connection, &place)).await;
    migrated.unwrap_or_else(|_| {
        Err(MetaError::Unavailable {
            database: place.to_string(),
            reason: "another agent has been migrating its schema for 10 minutes: look what it waits for".into(),
        })
    })?;
    let closed = connection.close().await;
    closed.map_err(|error| MetaError::from_database(&place, error))?;
    let pool = |connections_max: u32, of_session: &[(&'static str, &'static str)]| {
        let options = session(options, settings.statement_timeout, of_session);
        Pool::Postgres(pool(connections_max, settings).connect_lazy_with(options))
    };
    let urgent = pool(URGENT_MAX, &WRITING);
    let others = settings.connections_max.max(CONNECTIONS_MIN) - URGENT_MAX;
    let writers = pool(others / 2, &WRITING);
    let readers = pool(others.div_ceil(2), &READING);
    let patience = settings.statement_timeout.saturating_add(NETWORK_MARGIN);
    Ok(Database::new(writers, urgent, readers, place, patience))
}

/// Connects, and where the server is not there tries again as long as the settings allow.
async fn connect(options: &PgConnectOptions, settings: &MetadataSettings, place: &str) -> Result<PgConnection> {
    let deadline = Instant::now() + settings.connect_patience;
    let mut told = false;
    loop {
        let patience = settings.statement_timeout.saturating_add(NETWORK_MARGIN);
        let connected = timeout(patience, options.connect()).await;
        let connected = connected.unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())));
        match connected.map_err(|error| MetaError::from_database(place, error)) {
            Err(error @ MetaError::Unavailable { .. }) if Instant::now() + CONNECT_PAUSE < deadline => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%error, patience = ?settings.connect_patience,
                        "the metadata database is asked again until it is there");
                }
                tokio::time::sleep(CONNECT_PAUSE).await;
            }
            answer => return answer,
        }
    }
}

/// Fails where sessions do not get what they are told: a statement by itself would neither have a place in the order of
/// the others nor survive the loss of power.
async fn check_session(connection: &mut PgConnection, place: &str) -> Result<()> {
    let settings = "SELECT current_setting('default_transaction_isolation'), current_setting('synchronous_commit')";
    let found = sqlx::query_as(settings).fetch_one(connection).await;
    let (isolation, commit): (String, String) = found.map_err(|error| MetaError::from_database(place, error))?;
    let (name, found, wanted) = match (isolation.as_str(), commit.as_str()) {
        ("serializable", "off") => ("synchronous_commit", commit, "on"),
        ("serializable", _) => return Ok(()),
        _ => ("default_transaction_isolation", isolation, "serializable"),
    };
    Err(MetaError::CannotOpen {
        database: place.to_owned(),
        reason: format!(
            "its sessions have {name} = {found}, though they are told {wanted}: a pooler between drops what they are \
             told; name the server itself in the URL, or ALTER ROLE ... SET {name} = '{wanted}' for this user"
        ),
    })
}

fn session(options: &PgConnectOptions, statement_timeout: Duration, more: &[(&str, &str)]) -> PgConnectOptions {
    let statement_ms = statement_timeout.as_millis().max(1);
    let options = options.clone().application_name("millstream").options([
        ("statement_timeout", statement_ms),
        // Shorter, so that the message tells a wait for others from a slow statement.
        ("lock_timeout", (statement_ms / 2).max(1)),
        // An agent that hangs in the midst of a transaction must not hold its locks for ever.
        ("idle_in_transaction_session_timeout", statement_ms * 2),
    ]);
    let options = options.options([("synchronous_commit", "on"), ("client_min_messages", "warning")]);
    options.options(more.iter().copied())
}

fn pool(connections_max: u32, settings: &MetadataSettings) -> PgPoolOptions {
    let ping_patience = settings.statement_timeout / PINGS_IN_TIME;
    PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(settings.statement_timeout)
        // Who waited in vain says so; of a busy server every single call would.
        .acquire_slow_threshold(settings.statement_timeout)
        .idle_timeout(IDLE_TIMEOUT)
        .max_lifetime(LIFETIME_MAX)
        // A ping before each use would double the round trips.
        .test_before_acquire(false)
        .before_acquire(move |connection, unused| {
            Box::pin(async move {
                if unused.idle_for >= PING_AFTER {
                    let answer = timeout(ping_patience, connection.ping()).await;
                    answer.unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())))?;
                }
                Ok(true)
            })
        })
}

#[cfg(test)]
mod tests;
