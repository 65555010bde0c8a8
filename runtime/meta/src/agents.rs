//! Agents, their incarnations, and how long each was heard of.
//!
//! A lease has no time of its own: all those of an incarnation live and die with its agent's row, which one statement
//! renews however many they are. Time is the database's clock, so agents need not agree on theirs. A lease time that ends
//! at 0 was given up for good: nothing renews it but a new start.

use std::time::Duration;

use uuid::Uuid;

use crate::database::{Dialect, Fields, Tx, sql};
use crate::topics::check_name;
use crate::{MetaError, Metadata, Result, WalKind};

/// The longest lease: after so long an agent that is not heard of is gone, whatever it was told.
const LEASE_MAX: Duration = Duration::from_secs(24 * 3_600);

/// A start of an agent that is to be made known.
#[derive(Clone, Copy, Debug)]
pub struct NewIncarnation<'a> {
    /// Its agent's name.
    pub agent_name: &'a str,
    /// HOST:PORT at which it answers other agents.
    pub address: &'a str,
    /// Its id, and that of the WAL it is going to write.
    pub incarnation: Uuid,
    /// Where that WAL is kept.
    pub wal_kind: WalKind,
    /// How long its leases live after it was heard of.
    pub lease: Duration,
}

/// An agent with its current incarnation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRow {
    /// Its name.
    pub name: String,
    /// HOST:PORT at which it answers other agents.
    pub address: String,
    /// Its current incarnation.
    pub incarnation: Uuid,
    /// When that was registered.
    pub registered_at_ms: i64,
    /// Whether its lease time is not over.
    pub live: bool,
}

/// An agent with what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentShare {
    /// The agent.
    pub agent: AgentRow,
    /// Partitions that its current incarnation holds; where its lease time is over, those that nobody has taken over yet.
    pub partitions: u64,
}

/// What a new start of an agent finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The number of the last activation: whatever pipeline is read from now on is no older.
    pub activation: u64,
    /// Whether another agent lives.
    pub others: bool,
}

impl Metadata {
    /// Makes a new start of an agent known, with the WAL it is going to write.
    ///
    /// 1. `incarnation` is the agent's current one afterwards; the WALs of earlier ones stay until they are retired.
    /// 2. The leases of earlier incarnations of the agent are not live any more, whatever time they had left.
    /// 3. Its lease time begins now.
    /// 4. It has reached the last activation: what it serves it is yet to open.
    /// 5. Asking again after a lost answer changes nothing but the time and that.
    ///
    /// # Errors
    /// `AlreadyExists` for an incarnation that another agent or another kind of WAL used, or whose WAL is marked deleted;
    /// `Superseded` for one that a later one has followed; `Invalid` for a name that is empty or too long.
    pub async fn register_incarnation(&self, new: &NewIncarnation<'_>, now_ms: i64) -> Result<Registered> {
        check_name("agent", new.agent_name)?;
        let lease_ms = lease_ms(new.lease)?;
        let _forget = self.cache.forgetting(|cache| cache.forget_partitions());
        let register = self.database.transaction(|mut tx| async move {
            let known = is_known(&mut tx, new).await?;
            let agent = sql(
                "INSERT INTO agents (name, incarnation, registered_at_ms, address, lease_ms, lease_expires_at_ms, \
                                     activation_reached, topics_behind) \
                 VALUES ($1, $2, $3, $4, $5, {now_ms} + $5, COALESCE((SELECT last FROM activation_counter), 0), '[]') \
                 ON CONFLICT (name) DO UPDATE \
                 SET incarnation = excluded.incarnation, registered_at_ms = excluded.registered_at_ms, \
                     address = excluded.address, lease_ms = excluded.lease_ms, \
                     lease_expires_at_ms = excluded.lease_expires_at_ms, \
                     activation_reached = excluded.activation_reached, topics_behind = excluded.topics_behind \
                 RETURNING activation_reached, EXISTS (SELECT 1 FROM agents other \
                     WHERE other.name <> $1 AND other.lease_expires_at_ms > {now_ms}) AS others",
            );
            let agent = agent.bind(new.agent_name).bind(new.incarnation).bind(now_ms);
            let row = tx.one(agent.bind(new.address).bind(lease_ms)).await?;
            let row = row.expect("the statement writes one row");
            let registered = Registered {
                activation: row.u64("activation_reached")?,
                others: row.bool("others")?,
            };
            if !known {
                let wal = sql(
                    "INSERT INTO wal_streams (id, agent, kind, created_at_ms) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
                );
                let wal = wal.bind(new.incarnation).bind(new.agent_name);
                tx.execute(wal.bind(new.wal_kind.name()).bind(now_ms)).await?;
            }
            tx.commit().await?;
            Ok(registered)
        });
        register.await
    }

    /// Says that an agent is still there: all its leases live for `lease` from now on. On SQLite the answer is whether another
    /// agent lives, for nothing. On PostgreSQL it is none, and [`Metadata::has_others`] says it: heartbeats that read what others
    /// write would keep each other from being serialised.
    ///
    /// # Errors
    /// `Superseded` where `incarnation` is not its agent's current one, or has left: it must step down from everything.
    pub async fn renew_leases(&self, incarnation: Uuid, lease: Duration) -> Result<Option<bool>> {
        let renew = sql("UPDATE agents SET lease_expires_at_ms = {now_ms} + $2, lease_ms = $2 \
             WHERE incarnation = $1 AND lease_expires_at_ms > 0 \
             RETURNING EXISTS (SELECT 1 FROM agents other \
                 WHERE other.incarnation <> $1 AND other.lease_expires_at_ms > {now_ms}) AS others")
        .on_postgres(
            "UPDATE agents SET lease_expires_at_ms = {now_ms} + $2, lease_ms = $2 \
             WHERE incarnation = $1 AND lease_expires_at_ms > 0 RETURNING incarnation",
        );
        let renew = renew.bind(incarnation).bind(lease_ms(lease)?);
        let row = self.database.write_urgent_one(renew).await?;
        let row = row.ok_or(MetaError::Superseded { incarnation })?;
        match self.database.dialect() {
            Dialect::Sqlite => row.bool("others").map(Some),
            Dialect::Postgres => Ok(None),
        }
    }

    /// Whether an agent lives beside the one of this incarnation.
    pub async fn has_others(&self, incarnation: Uuid) -> Result<bool> {
        let found =
            sql("SELECT 1 AS other FROM agents WHERE incarnation <> $1 AND lease_expires_at_ms > {now_ms} LIMIT 1");
        Ok(self.database.read_one(found.bind(incarnation)).await?.is_some())
    }

    /// Says that an agent has stopped: its leases keep nobody off any more, and a renewal or an acquisition that comes
    /// late does not bring them back. One that is not its agent's current incarnation changes nothing.
    pub async fn leave(&self, incarnation: Uuid) -> Result<()> {
        let _forget = self.cache.forgetting(|cache| cache.forget_partitions());
        let leave = sql("UPDATE agents SET lease_expires_at_ms = 0 WHERE incarnation = $1");
        self.database.write_urgent(leave.bind(incarnation)).await?;
        Ok(())
    }

    /// All agents that were ever registered, by name.
    pub async fn agents(&self) -> Result<Vec<AgentRow>> {
        let found = sql(
            "SELECT name, address, incarnation, registered_at_ms, lease_expires_at_ms > {now_ms} AS live \
             FROM agents ORDER BY name",
        );
        self.database.read_all(found).await?.iter().map(agent).collect()
    }

    /// The same with what each of them holds, of one moment.
    pub async fn agent_shares(&self) -> Result<Vec<AgentShare>> {
        let found = sql(
            "SELECT name, address, incarnation, registered_at_ms, lease_expires_at_ms > {now_ms} AS live, \
                    (SELECT COUNT(*) FROM partition_leases l WHERE l.incarnation = a.incarnation) AS held \
             FROM agents a ORDER BY name",
        );
        let rows = self.database.read_all(found).await?;
        let shares = rows.iter().map(|row| {
            Ok(AgentShare {
                agent: agent(row)?,
                partitions: row.u64("held")?,
            })
        });
        shares.collect()
    }
}

/// Whether this incarnation was registered before, as the same.
async fn is_known(tx: &mut Tx, new: &NewIncarnation<'_>) -> Result<bool> {
    let found = sql(
        "SELECT w.agent, w.kind, w.deleted, a.incarnation FROM wal_streams w JOIN agents a ON a.name = w.agent \
         WHERE w.id = $1",
    );
    let Some(row) = tx.one(found.bind(new.incarnation)).await? else {
        return Ok(false);
    };
    if row.text("agent")? != new.agent_name || WalKind::read(&row)? != new.wal_kind || row.bool("deleted")? {
        return Err(MetaError::AlreadyExists {
            what: "incarnation",
            name: new.incarnation.to_string(),
        });
    }
    let incarnation = new.incarnation;
    if row.uuid("incarnation")? != incarnation {
        return Err(MetaError::Superseded { incarnation });
    }
    Ok(true)
}

/// The agent whose current incarnation this is. Where its lease time is over it begins anew, unless the agent has left.
pub(crate) async fn own_agent(tx: &mut Tx, incarnation: Uuid) -> Result<String> {
    let found = sql(
        "SELECT a.name, a.incarnation, a.lease_expires_at_ms > {now_ms} AS live, a.lease_expires_at_ms = 0 AS gone \
         FROM wal_streams w JOIN agents a ON a.name = w.agent WHERE w.id = $1",
    );
    let row = tx.one(found.bind(incarnation)).await?;
    let row = row.ok_or_else(|| MetaError::NotFound {
        what: "incarnation",
        name: incarnation.to_string(),
    })?;
    if row.uuid("incarnation")? != incarnation || row.bool("gone")? {
        return Err(MetaError::Superseded { incarnation });
    }
    if !row.bool("live")? {
        let renew = sql("UPDATE agents SET lease_expires_at_ms = {now_ms} + lease_ms WHERE incarnation = $1");
        tx.execute(renew.bind(incarnation)).await?;
    }
    row.text("name")
}

fn lease_ms(lease: Duration) -> Result<i64> {
    match i64::try_from(lease.as_millis()) {
        Ok(ms) if lease <= LEASE_MAX => Ok(ms),
        _ => Err(MetaError::Invalid {
            reason: format!(
                "a lease lasts at most {} s, not {} s",
                LEASE_MAX.as_secs(),
                lease.as_secs()
            ),
        }),
    }
}

fn agent(row: &Fields) -> Result<AgentRow> {
    Ok(AgentRow {
        name: row.text("name")?,
        address: row.text("address")?,
        incarnation: row.uuid("incarnation")?,
        registered_at_ms: row.i64("registered_at_ms")?,
        live: row.bool("live")?,
    })
}
