//! How activations spread: each has a number, greater than all before it, and each agent says up to which one everything
//! that it serves has switched, but for topics that it names.
//!
//! Numbers are given in the transaction that activates, in which the counter's row is written: who sees one activation sees
//! all with a smaller number.

use std::num::NonZeroU32;

use uuid::Uuid;

use crate::database::{Tx, as_json, bigint, sql};
use crate::pipelines::in_force;
use crate::{Metadata, PipelineInForce, Result};

/// An agent that may serve a topic by an older pipeline than one that was activated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentBehind {
    /// The agent.
    pub name: String,
    /// HOST:PORT at which it answers other agents.
    pub address: String,
    /// Whether its lease time is not over.
    pub live: bool,
    /// The topic, of which it holds a partition.
    pub topic_id: Uuid,
}

impl Metadata {
    /// The pipelines in force that were activated after a number; and of the activation with that number those of topics with
    /// a greater id than `topic_id`. In order of number and id, at most `limit`.
    pub async fn activated_since(
        &self,
        activation: u64,
        topic_id: Uuid,
        limit: NonZeroU32,
    ) -> Result<Vec<PipelineInForce>> {
        let found = sql(
            "SELECT t.id, t.name, p.version, p.stages, a.activated_at_ms, a.reason, a.activation \
             FROM pipeline_activations a JOIN topics t ON t.id = a.topic_id AND t.pipeline_version = a.version \
             JOIN pipelines p ON p.topic_id = a.topic_id AND p.version = a.version \
             WHERE (a.activation, a.topic_id) > ($1, $2) ORDER BY a.activation, a.topic_id LIMIT $3",
        );
        let found = found.bind(bigint("activation", activation)?).bind(topic_id);
        let rows = self.database.read_all(found.bind(limit.get())).await?;
        rows.iter().map(in_force).collect()
    }

    /// Says that everything which an agent serves has switched to what was activated up to this number, but for some topics.
    /// The number never goes back; of an incarnation that is not its agent's current one nothing is kept.
    pub async fn reach_activation(&self, incarnation: Uuid, activation: u64, but_for: &[Uuid]) -> Result<()> {
        let reach = sql("UPDATE agents SET activation_reached = $2, topics_behind = $3 \
             WHERE incarnation = $1 AND activation_reached <= $2");
        let reach = reach.bind(incarnation).bind(bigint("activation", activation)?);
        self.database.write(reach.bind(as_json(&ids(but_for)))).await.map(drop)
    }

    /// Which agents other than that of `but` hold partitions of these topics and have not come as far as this activation with
    /// them, by name.
    ///
    /// 1. Asked after the activation, who holds a partition and is not named runs it: it said so, or has left, or holds the
    ///    partition since and found the pipeline when it opened it.
    /// 2. One whose lease time is over is named as long as nobody else holds what it held: it may only be cut off.
    pub async fn behind(&self, activation: u64, topics: &[Uuid], but: Uuid) -> Result<Vec<AgentBehind>> {
        let found = sql(
            "SELECT DISTINCT a.name, a.address, a.lease_expires_at_ms > {now_ms} AS live, l.topic_id \
             FROM json_each($1) e JOIN partition_leases l ON l.topic_id = unhex(e.value) \
             JOIN agents a ON a.incarnation = l.incarnation \
             WHERE a.incarnation <> $2 AND a.lease_expires_at_ms > 0 AND (a.activation_reached < $3 \
                 OR EXISTS (SELECT 1 FROM json_each(a.topics_behind) b WHERE unhex(b.value) = l.topic_id)) ORDER BY a.name",
        )
        .on_postgres(
            "SELECT DISTINCT a.name, a.address, a.lease_expires_at_ms > {now_ms} AS live, l.topic_id \
             FROM jsonb_array_elements_text($1) e (value) JOIN partition_leases l ON l.topic_id = CAST(e.value AS UUID) \
             JOIN agents a ON a.incarnation = l.incarnation \
             WHERE a.incarnation <> $2 AND a.lease_expires_at_ms > 0 AND (a.activation_reached < $3 \
                 OR EXISTS (SELECT 1 FROM jsonb_array_elements_text(a.topics_behind) b (value) \
                            WHERE CAST(b.value AS UUID) = l.topic_id)) ORDER BY a.name",
        );
        let found = found.bind(as_json(&ids(topics))).bind(but);
        let rows = self
            .database
            .read_all(found.bind(bigint("activation", activation)?))
            .await?;
        let behind = rows.iter().map(|row| {
            Ok(AgentBehind {
                name: row.text("name")?,
                address: row.text("address")?,
                live: row.bool("live")?,
                topic_id: row.uuid("topic_id")?,
            })
        });
        behind.collect()
    }
}

/// Ids as a list of JSON has them.
fn ids(ids: &[Uuid]) -> Vec<String> {
    ids.iter().map(|id| id.simple().to_string()).collect()
}

/// The number of the activation that this transaction makes, and whether there is no more than one agent that may serve
/// something.
///
/// An agent that registers beside it, and is not seen here, has read the counter before or after: either the database finds no
/// order for the two and runs one again, or it comes later, and finds the activation when it starts.
pub(crate) async fn next_activation(tx: &mut Tx) -> Result<(u64, bool)> {
    let next = sql("INSERT INTO activation_counter (one, last) VALUES (1, 1) \
         ON CONFLICT (one) DO UPDATE SET last = activation_counter.last + 1 \
         RETURNING last, (SELECT COUNT(*) FROM agents WHERE lease_expires_at_ms > 0) AS agents");
    let row = tx.one(next).await?.expect("the statement writes one row");
    Ok((row.u64("last")?, row.u64("agents")? <= 1))
}
