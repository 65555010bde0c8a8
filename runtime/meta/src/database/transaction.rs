//! Transactions, and how often they are tried.
//!
//! What the database has certainly rolled back is run again from the beginning, a bounded number of times: where it could
//! not be serialised with what ran beside it, and where the connection was lost before the commit was sent. A connection
//! lost during a commit is not: it may have happened, and the caller hears `Unavailable`.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use super::connection::Connection;
use super::fate::Fate;
use super::fields::Fields;
use super::statement::Statement;
use super::{Database, Pool};
use crate::{MetaError, Result};

/// How often one call is run again at most. Of many that race for one row one wins each round.
const RETRIES_MAX: usize = 40;
/// The pauses between: from a few ms, so that racers spread out, to what a busy database needs.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(2);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(100);

/// A transaction. Dropped without `commit` it is rolled back.
pub(crate) struct Tx {
    connection: Connection,
    database: Arc<str>,
    /// Set where the transaction may be run again after what went wrong.
    retried: Arc<AtomicBool>,
}

impl Tx {
    /// Runs a statement; how many rows it changed.
    pub(crate) async fn execute(&mut self, statement: Statement) -> Result<u64> {
        let answer = self.connection.execute(&statement).await;
        self.noted(answer)
    }

    /// Runs a statement that gives at most one row.
    pub(crate) async fn one(&mut self, statement: Statement) -> Result<Option<Fields>> {
        Ok(self.all(statement).await?.into_iter().next())
    }

    /// Runs a statement that gives rows.
    pub(crate) async fn all(&mut self, statement: Statement) -> Result<Vec<Fields>> {
        let answer = self.connection.all(&statement).await;
        let rows = self.noted(answer)?.into_iter();
        Ok(rows.map(|row| Fields::new(row, &self.database)).collect())
    }

    /// Makes everything that was done durable.
    pub(crate) async fn commit(self) -> Result<()> {
        let answer = self.connection.commit().await;
        answer.map_err(|error| {
            // Everything else leaves open whether it happened.
            let rolled_back = Fate::of(&error) == Fate::RolledBack;
            self.retried.store(rolled_back, Ordering::Relaxed);
            MetaError::from_database(&self.database, error)
        })
    }

    fn noted<T>(&self, answer: sqlx::Result<T>) -> Result<T> {
        answer.map_err(|error| {
            self.retried.store(Fate::of(&error).is_retried(), Ordering::Relaxed);
            MetaError::from_database(&self.database, error)
        })
    }
}

impl Database {
    /// Runs a transaction that writes; `run` commits it, or gives it up by returning without.
    ///
    /// `run` may be called again from the beginning: it does nothing but through its transaction.
    pub(crate) async fn transaction<T, F, Fut>(&self, run: F) -> Result<T>
    where
        F: Fn(Tx) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T>> + Send,
        T: Send,
    {
        let mut tries = self.tries();
        loop {
            let retried = Arc::new(AtomicBool::new(false));
            let outcome = match self.begin_write(&retried).await {
                Ok(tx) => run(tx).await,
                Err(error) => Err(error),
            };
            match outcome {
                Err(error) if retried.load(Ordering::Relaxed) => tries.pause(error).await?,
                outcome => return outcome,
            }
        }
    }

    /// A transaction that only reads: everything in it is of one moment.
    pub(crate) async fn snapshot(&self) -> Result<Tx> {
        let retried = Arc::default();
        let postgres = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        self.begin(&self.readers, "BEGIN", postgres, &retried).await
    }

    /// A transaction that writes and is tried once: for what cannot be begun again.
    pub(crate) async fn begin_once(&self) -> Result<Tx> {
        self.begin_write(&Arc::default()).await
    }

    /// Runs one statement that writes, by itself; how many rows it changed.
    ///
    /// It is run again after a connection was lost, whatever became of it: to be used only where asking twice does no
    /// harm.
    pub(crate) async fn write(&self, statement: Statement) -> Result<u64> {
        self.write_by(&self.writers, statement).await
    }

    /// [`Database::write`] past all that wait to write: for what a lease's time depends on.
    pub(crate) async fn write_urgent(&self, statement: Statement) -> Result<u64> {
        self.write_by(&self.urgent, statement).await
    }

    /// [`Database::write_urgent`] that gives the row which it changed, where there is one.
    pub(crate) async fn write_urgent_one(&self, statement: Statement) -> Result<Option<Fields>> {
        Ok(self.read_by(&self.urgent, statement).await?.into_iter().next())
    }

    async fn write_by(&self, pool: &Pool, statement: Statement) -> Result<u64> {
        let mut tries = self.tries();
        loop {
            let error = match self.acquire(pool).await?.execute(&statement).await {
                Ok(changed) => return Ok(changed),
                Err(error) => error,
            };
            tries.after(error).await?;
        }
    }

    /// Reads at most one row.
    pub(crate) async fn read_one(&self, statement: Statement) -> Result<Option<Fields>> {
        Ok(self.read_all(statement).await?.into_iter().next())
    }

    /// Reads all rows, of one moment.
    pub(crate) async fn read_all(&self, statement: Statement) -> Result<Vec<Fields>> {
        self.read_by(&self.readers, statement).await
    }

    /// [`Database::read_all`] with a place in the order of the writers, past all that wait to write. On PostgreSQL a
    /// writer that could come neither before nor after this is rolled back, or this is, and runs again.
    pub(crate) async fn read_urgent(&self, statement: Statement) -> Result<Vec<Fields>> {
        self.read_by(&self.urgent, statement).await
    }

    async fn read_by(&self, pool: &Pool, statement: Statement) -> Result<Vec<Fields>> {
        let mut tries = self.tries();
        let rows = loop {
            let error = match self.acquire(pool).await?.all(&statement).await {
                Ok(rows) => break rows,
                Err(error) => error,
            };
            tries.after(error).await?;
        };
        Ok(rows.into_iter().map(|row| Fields::new(row, &self.place)).collect())
    }

    async fn begin_write(&self, retried: &Arc<AtomicBool>) -> Result<Tx> {
        // SQLite's lock is taken at the beginning: a reader that became a writer could be refused.
        let postgres = "BEGIN ISOLATION LEVEL SERIALIZABLE";
        self.begin(&self.writers, "BEGIN IMMEDIATE", postgres, retried).await
    }

    async fn begin(
        &self,
        pool: &Pool,
        sqlite: &'static str,
        postgres: &'static str,
        retried: &Arc<AtomicBool>,
    ) -> Result<Tx> {
        let begun = self.acquire(pool).await?.begin(sqlite, postgres).await;
        let connection = begun.map_err(|error| {
            retried.store(Fate::of(&error).is_retried(), Ordering::Relaxed);
            MetaError::from_database(&self.place, error)
        })?;
        Ok(Tx {
            connection,
            database: self.place.clone(),
            retried: retried.clone(),
        })
    }

    async fn acquire(&self, pool: &Pool) -> Result<Connection> {
        let connection = pool.acquire(&self.gauge).await;
        // The pool has tried again by itself, as long as it may.
        connection.map_err(|error| MetaError::from_database(&self.place, error))
    }

    fn tries(&self) -> Tries<'_> {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(RETRY_PAUSE_MIN)
            .with_max_delay(RETRY_PAUSE_MAX)
            .with_max_times(RETRIES_MAX)
            .with_jitter();
        Tries {
            database: self,
            pauses: pauses.build(),
        }
    }
}

/// The tries that one call has left.
struct Tries<'a> {
    database: &'a Database,
    pauses: ExponentialBackoff,
}

impl Tries<'_> {
    /// Waits before the next try, where running it again may help.
    async fn after(&mut self, error: sqlx::Error) -> Result<()> {
        let retried = Fate::of(&error).is_retried();
        let error = MetaError::from_database(&self.database.place, error);
        if retried { self.pause(error).await } else { Err(error) }
    }

    /// Waits before the next try, where there is one left.
    async fn pause(&mut self, error: MetaError) -> Result<()> {
        let Some(pause) = self.pauses.next() else {
            return Err(error);
        };
        self.database.gauge.retries.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%error, "the database is asked again");
        tokio::time::sleep(pause).await;
        Ok(())
    }
}
