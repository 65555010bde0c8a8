//! One connection of either database, as long as somebody uses it.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres, SqlSafeStr, Sqlite, SqliteConnection, SqlitePool, Transaction};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::fate::Fate;
use super::fields::Row;
use super::statement::Statement;

/// A pool of connections to either database.
#[derive(Clone)]
pub(super) enum Pool {
    Sqlite(SqlitePool),
    /// As `Sqlite`, but only one at a time asks the pool: who uses the same pool without standing in line waits for one
    /// of these at most.
    InLine(SqlitePool, Arc<Semaphore>),
    Postgres(PgPool),
}

impl Pool {
    /// Waits for a free connection, as long as the pool is told to.
    pub(super) async fn acquire(&self, gauge: &Arc<Gauge>) -> sqlx::Result<Connection> {
        let gauge = gauge.clone();
        Ok(match self {
            Pool::Sqlite(pool) => Connection::Sqlite(pool.acquire().await?, Beside { gauge, _turn: None }),
            Pool::InLine(pool, line) => {
                let patience = pool.options().get_acquire_timeout();
                let turn = tokio::time::timeout(patience, line.clone().acquire_owned()).await;
                let turn = turn.map_err(|_| sqlx::Error::PoolTimedOut)?;
                let _turn = Some(turn.map_err(|_| sqlx::Error::PoolClosed)?);
                Connection::Sqlite(pool.acquire().await?, Beside { gauge, _turn })
            }
            Pool::Postgres(pool) => Connection::Postgres(PostgresLink {
                connection: Some(pool.acquire().await?),
                in_transaction: false,
                busy: false,
                ended: false,
                gauge,
            }),
        })
    }

    pub(super) async fn close(&self) {
        match self {
            Pool::Sqlite(pool) | Pool::InLine(pool, _) => pool.close().await,
            Pool::Postgres(pool) => pool.close().await,
        }
    }

    /// How many connections are open.
    pub(super) fn size(&self) -> u32 {
        match self {
            Pool::Sqlite(pool) | Pool::InLine(pool, _) => pool.size(),
            Pool::Postgres(pool) => pool.size(),
        }
    }
}

/// What is counted, and what bounds each statement.
pub(super) struct Gauge {
    pub(super) statements: AtomicU64,
    pub(super) retries: AtomicU64,
    /// How long the server has for one answer before the connection is given up.
    pub(super) patience: Duration,
}

/// A connection out of a pool; it goes back there when dropped, with its transaction rolled back.
pub(super) enum Connection {
    Sqlite(PoolConnection<Sqlite>, Beside),
    SqliteTx(Transaction<'static, Sqlite>, Beside),
    Postgres(PostgresLink),
}

/// What goes along with a connection to SQLite.
pub(super) struct Beside {
    gauge: Arc<Gauge>,
    _turn: Option<OwnedSemaphorePermit>,
}

impl Connection {
    /// Begins a transaction with this statement.
    pub(super) async fn begin(self, sqlite: &'static str, postgres: &'static str) -> sqlx::Result<Connection> {
        match self {
            Connection::Sqlite(connection, beside) => {
                let begun = Transaction::begin(connection, Some(sqlite.into_sql_str()));
                Ok(Connection::SqliteTx(counted(&beside.gauge, begun).await?, beside))
            }
            Connection::Postgres(mut link) => {
                link.in_transaction = true;
                link.run(postgres).await?;
                Ok(Connection::Postgres(link))
            }
            in_transaction @ Connection::SqliteTx(..) => Ok(in_transaction),
        }
    }

    /// Commits the transaction.
    pub(super) async fn commit(self) -> sqlx::Result<()> {
        match self {
            Connection::Sqlite(..) => Ok(()),
            Connection::SqliteTx(transaction, beside) => counted(&beside.gauge, transaction.commit()).await,
            Connection::Postgres(mut link) => {
                let answer = link.run("COMMIT").await;
                // Whatever the server answers, the transaction is over.
                link.in_transaction &= !matches!(answer, Ok(()) | Err(sqlx::Error::Database(_)));
                answer
            }
        }
    }

    /// Runs a statement; how many rows it changed.
    pub(super) async fn execute(&mut self, statement: &Statement) -> sqlx::Result<u64> {
        if let Connection::Postgres(link) = self {
            let (connection, gauge) = link.parts();
            let done = timed(gauge, statement.for_postgres().execute(connection)).await;
            return link.looked_at(done).map(|done| done.rows_affected());
        }
        let (connection, gauge) = self.sqlite();
        let done = counted(gauge, statement.for_sqlite().execute(connection)).await?;
        Ok(done.rows_affected())
    }

    /// Runs a statement that gives rows.
    pub(super) async fn all(&mut self, statement: &Statement) -> sqlx::Result<Vec<Row>> {
        if let Connection::Postgres(link) = self {
            let (connection, gauge) = link.parts();
            let rows = timed(gauge, statement.for_postgres().fetch_all(connection)).await;
            return Ok(link.looked_at(rows)?.into_iter().map(Row::Postgres).collect());
        }
        let (connection, gauge) = self.sqlite();
        let rows = counted(gauge, statement.for_sqlite().fetch_all(connection)).await?;
        Ok(rows.into_iter().map(Row::Sqlite).collect())
    }

    fn sqlite(&mut self) -> (&mut SqliteConnection, &Gauge) {
        match self {
            Connection::Sqlite(connection, beside) => (connection, &beside.gauge),
            Connection::SqliteTx(transaction, beside) => (transaction, &beside.gauge),
            Connection::Postgres(_) => unreachable!("who asks has looked that it is another"),
        }
    }
}

/// A connection to PostgreSQL.
///
/// The driver's own transactions are not used: they keep a connection in the pool that cannot serve any more.
pub(super) struct PostgresLink {
    /// There until it is dropped.
    connection: Option<PoolConnection<Postgres>>,
    in_transaction: bool,
    /// Something was sent whose answer nobody has looked at.
    busy: bool,
    /// It cannot serve any more.
    ended: bool,
    gauge: Arc<Gauge>,
}

impl PostgresLink {
    /// The connection, for one statement.
    fn parts(&mut self) -> (&mut PgConnection, &Gauge) {
        self.busy = true;
        let connection = self.connection.as_mut();
        (connection.expect("it is there until it is dropped"), &self.gauge)
    }

    /// Sends a statement without arguments.
    async fn run(&mut self, text: &'static str) -> sqlx::Result<()> {
        let (connection, gauge) = self.parts();
        let done = timed(gauge, sqlx::raw_sql(text).execute(connection)).await;
        self.looked_at(done).map(drop)
    }

    /// A connection that cannot serve any more must not go back to the pool.
    fn looked_at<T>(&mut self, answer: sqlx::Result<T>) -> sqlx::Result<T> {
        self.busy = false;
        self.ended |= answer.as_ref().is_err_and(|error| Fate::of(error).ends_connection());
        answer
    }
}

impl Drop for PostgresLink {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        if self.ended || (self.busy && !self.in_transaction) {
            // The pool would first wait for an answer, without an end, and let nobody else have its place meanwhile.
            // What was begun ends with the connection.
            drop(connection.detach());
            return;
        }
        if !self.in_transaction {
            return;
        }
        let gauge = self.gauge.clone();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(async move {
                    let rolled_back = timed(&gauge, sqlx::raw_sql("ROLLBACK").execute(&mut *connection)).await;
                    if rolled_back.is_err() {
                        drop(connection.detach());
                    }
                });
            }
            Err(_) => drop(connection.detach()),
        }
    }
}

async fn counted<T>(gauge: &Gauge, answer: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    gauge.statements.fetch_add(1, Ordering::Relaxed);
    answer.await
}

/// The server itself ends what takes too long; this ends the wait for a server that says nothing at all.
async fn timed<T>(gauge: &Gauge, answer: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    let answer = tokio::time::timeout(gauge.patience, counted(gauge, answer)).await;
    answer.unwrap_or_else(|_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into())))
}
