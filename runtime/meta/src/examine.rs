//! What a database is and how fast it answers: for whoever has to trust it.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::database::{Fields, sql};
use crate::{Metadata, Result};

/// How often a round trip is measured, and a commit.
const ROUNDS: usize = 20;
/// An entry that a crash leaves behind is taken off the list of deletions after a day, as any other.
const LEFT_BEHIND_MS: i64 = 24 * 3_600_000;

/// What an examination of a database found.
#[derive(Clone, Debug)]
pub struct Examination {
    /// The software behind it, `PostgreSQL 17.2`.
    pub software: String,
    /// How many topics it knows.
    pub topics: u64,
    /// How long the smallest question takes: the median, and the longest.
    pub round_trip: (Duration, Duration),
    /// How long a transaction takes that writes one row: the median, and the longest.
    pub commit: (Duration, Duration),
    /// What only a server has.
    pub server: Option<ServerFacts>,
}

/// What there is to know of a server, as a session that writes sees it.
#[derive(Clone, Debug)]
pub struct ServerFacts {
    /// `serializable` is what is asked for.
    pub isolation: String,
    /// `on` is what is asked for.
    pub synchronous_commit: String,
    /// Whether it writes to its disk before it answers a commit.
    pub fsync: bool,
    /// Whether a page that was half written when the power went can be repaired.
    pub full_page_writes: bool,
    /// The version of TLS in use; none where the connection is not encrypted.
    pub tls: Option<String>,
    /// How far its clock is ahead of `now_ms`.
    pub clock_ahead_ms: i64,
}

impl Metadata {
    /// Looks at the database and measures it. `now_ms` is the caller's clock, `id` a new one.
    ///
    /// 1. Rows are written and removed again; nothing else changes.
    pub async fn examine(&self, id: Uuid, now_ms: &(dyn Fn() -> i64 + Send + Sync)) -> Result<Examination> {
        let topics = self
            .database
            .read_one(sql("SELECT count(*) AS topics FROM topics"))
            .await?;
        let topics = topics.map_or(Ok(0), |row| row.u64("topics"))?;
        let round_trip = self.round_trips().await?;
        let commit = self.commits(id, now_ms()).await?;
        let facts = sql("SELECT 'SQLite ' || sqlite_version() AS software, NULL AS isolation").on_postgres(
            "SELECT 'PostgreSQL ' || split_part(current_setting('server_version'), ' ', 1) AS software, \
                    current_setting('transaction_isolation') AS isolation, \
                    current_setting('synchronous_commit') AS synchronous_commit, \
                    current_setting('fsync')::boolean AS fsync, \
                    current_setting('full_page_writes')::boolean AS full_page_writes, \
                    (SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl) AS tls, \
                    {now_ms} AS now_ms",
        );
        let before_ms = now_ms();
        let ask = self.database.transaction(|mut tx| {
            let facts = facts.clone();
            async move { tx.one(facts).await }
        });
        let row = ask.await?.expect("a selection of values has one row");
        let asked_at_ms = before_ms + (now_ms() - before_ms) / 2;
        Ok(Examination {
            software: row.text("software")?,
            topics,
            round_trip,
            commit,
            server: server_facts(&row, asked_at_ms)?,
        })
    }

    async fn round_trips(&self) -> Result<(Duration, Duration)> {
        let mut times = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let began = Instant::now();
            self.database.read_one(sql("SELECT 1 AS one")).await?;
            times.push(began.elapsed());
        }
        Ok(median_and_longest(times))
    }

    async fn commits(&self, id: Uuid, now_ms: i64) -> Result<(Duration, Duration)> {
        let key = &format!("_doctor/{id}");
        let mut times = Vec::with_capacity(2 * ROUNDS);
        let insert = sql("INSERT INTO object_deletions (object_key, recorded_at_ms) VALUES ($1, $2)");
        let insert = insert.bind(key).bind(now_ms.saturating_add(LEFT_BEHIND_MS));
        let delete = sql("DELETE FROM object_deletions WHERE object_key = $1").bind(key);
        for statement in [insert, delete].iter().cycle().take(2 * ROUNDS) {
            let began = Instant::now();
            let write = self.database.transaction(|mut tx| async move {
                tx.execute(statement.clone()).await?;
                tx.commit().await
            });
            write.await?;
            times.push(began.elapsed());
        }
        Ok(median_and_longest(times))
    }
}

fn server_facts(row: &Fields, asked_at_ms: i64) -> Result<Option<ServerFacts>> {
    let Some(isolation) = row.text_or_null("isolation")? else {
        return Ok(None);
    };
    Ok(Some(ServerFacts {
        isolation,
        synchronous_commit: row.text("synchronous_commit")?,
        fsync: row.bool("fsync")?,
        full_page_writes: row.bool("full_page_writes")?,
        tls: row.text_or_null("tls")?,
        clock_ahead_ms: row.i64("now_ms")? - asked_at_ms,
    }))
}

/// The first of these opened a connection, which the median does not show.
fn median_and_longest(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() - 1])
}
