//! The schema: applies the migrations that a database lacks, all or none, one process after the other.

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Connection, PgConnection, SqliteConnection};

use crate::{MetaError, Result};

static SQLITE: Migrator = sqlx::migrate!("../../migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("../../migrations/postgres");

/// Names the lock under which agents migrate, one after the other: "millstrm" in ASCII.
const POSTGRES_LOCK: i64 = 0x6d69_6c6c_7374_726d;

pub(super) async fn sqlite(connection: &mut SqliteConnection, place: &str) -> Result<()> {
    let failed = |error| MetaError::from_database(place, error);
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    // `Migrator::run` is generic over how it gets its connection, which leaves the future of every caller without
    // `Send`.
    let applied = SQLITE.run_direct(None, &mut *tx, false).await;
    applied.map_err(|error| refused(place, &SQLITE, error))?;
    // A file that cannot be written opens like any other. It is refused here, not when a producer waits.
    let write = sqlx::query("DELETE FROM partition_leases WHERE FALSE");
    write.execute(&mut *tx).await.map_err(failed)?;
    tx.commit().await.map_err(failed)
}

pub(super) async fn postgres(connection: &mut PgConnection, place: &str) -> Result<()> {
    let failed = |error| MetaError::from_database(place, error);
    // Each statement sees what was committed before it, what was done while the lock was waited for included.
    let begun = connection.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await;
    let mut tx = begun.map_err(failed)?;
    // Kept until the commit, unlike the migrator's own: whoever comes next sees what was done here.
    let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(POSTGRES_LOCK);
    lock.execute(&mut *tx).await.map_err(failed)?;
    let applied = POSTGRES.run_direct(None, &mut *tx, false).await;
    applied.map_err(|error| refused(place, &POSTGRES, error))?;
    tx.commit().await.map_err(failed)
}

fn refused(place: &str, migrator: &Migrator, error: MigrateError) -> MetaError {
    let known = migrator.iter().map(|migration| migration.version).max().unwrap_or(0);
    let database = place.to_string();
    let reason = match error {
        MigrateError::VersionMissing(found) if found > known => {
            return MetaError::SchemaNewer { database, found, known };
        }
        MigrateError::VersionMissing(version) | MigrateError::VersionMismatch(version) => format!(
            "its migration {version} is not the one of this millstream: start the millstream that made the database"
        ),
        MigrateError::Dirty(version) => format!(
            "migration {version} was left half done: restore a backup from before it, or name an empty database"
        ),
        // An SQL error is damage, a lack of rights or of space, and says so.
        MigrateError::Execute(source) => return MetaError::from_database(place, source),
        MigrateError::ExecuteMigration(source, version) => match MetaError::from_database(place, source) {
            MetaError::Database { source, .. } => format!(
                "migration {version}: {source}: is it a database of millstream? Tables that something else made there, \
                 or a migration done by hand and half, are in the way: name an empty database, or restore a backup"
            ),
            error => return error,
        },
        other => other.to_string(),
    };
    MetaError::Migration { database, reason }
}
