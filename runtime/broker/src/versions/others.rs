//! Waiting until other agents have switched to what was activated here.

use std::time::Duration;

use millstream_meta::AgentBehind;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::PipelineSwitch;
use crate::{broker::Broker, error::Result};

/// Between two times that the metadata is asked how far the others are.
const ASK_INTERVAL: Duration = Duration::from_millis(100);
/// How long one answer is waited for.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// How far other agents are that lead partitions of a topic whose pipeline changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// Those that have not switched, by name; all others have.
    pub not_switched: Vec<NotSwitched>,
    /// Whether nobody asked, or the metadata did not say.
    pub unknown: bool,
}

/// An agent that leads a partition of a topic and may run an older pipeline on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotSwitched {
    /// The agent.
    pub agent: String,
    /// HOST:PORT at which it answers others.
    pub address: String,
    /// Whether its lease time is over. It is not waited for: it appends nothing before it has switched. But where it still
    /// runs, cut off from the database, readers whom it reaches may get what the pipeline before lets through.
    pub lease_over: bool,
}

/// What was activated, and is in force on this agent.
#[derive(Default)]
pub(crate) struct Activation {
    /// Its number; `None` where no other agent can serve any of it by the pipeline before.
    pub(super) number: Option<u64>,
    pub(super) switches: Vec<(Uuid, PipelineSwitch)>,
}

impl Activation {
    /// What switched, for whoever does not wait for other agents.
    pub(crate) fn unawaited(self) -> Vec<PipelineSwitch> {
        let unknown = self.number.is_some();
        let switches = self.switches.into_iter();
        let switches = switches.map(|(_, mut switch)| {
            switch.others.unknown = unknown;
            switch
        });
        switches.collect()
    }
}

impl Broker {
    /// Waits until other agents that lead partitions of the topics have switched, as long as the settings say; what switched,
    /// with those who have not. Given up halfway nothing is lost but the answer.
    pub(crate) async fn await_others(&self, activation: Activation) -> Vec<PipelineSwitch> {
        let Some(number) = activation.number else {
            return activation.unawaited();
        };
        let topics: Vec<Uuid> = activation.switches.iter().map(|(topic_id, _)| *topic_id).collect();
        let behind = self.wait_for(number, &topics).await;
        let switches = activation.switches.into_iter().map(|(topic_id, mut switch)| {
            match &behind {
                None => switch.others.unknown = true,
                Some(behind) => {
                    let of_topic = behind.iter().filter(|agent| agent.topic_id == topic_id);
                    switch.others.not_switched = of_topic.map(NotSwitched::from).collect();
                }
            }
            switch
        });
        switches.collect()
    }

    /// How far the others are with the pipeline version of a topic that came into force earlier.
    pub(crate) async fn others_of(&self, topic: &str, pipeline_version: u64) -> Result<Others> {
        let live = self.live(topic).await?;
        let topic_id = live.topic().id;
        let row = self.shared().metadata.pipeline_at(topic_id, pipeline_version).await?;
        let switch = PipelineSwitch {
            topic: topic.to_owned(),
            pipeline_version,
            others: Others::default(),
        };
        let activation = Activation {
            number: row.map(|row| row.activation),
            switches: vec![(topic_id, switch)],
        };
        let switches = self.await_others(activation).await;
        Ok(switches
            .into_iter()
            .next()
            .map(|switch| switch.others)
            .unwrap_or_default())
    }

    /// Who is behind in the end; `None` where the metadata never said.
    async fn wait_for(&self, number: u64, topics: &[Uuid]) -> Option<Vec<AgentBehind>> {
        let shared = self.shared();
        let until = Instant::now() + shared.settings.activation_wait;
        let mut behind = None;
        loop {
            let asked = shared.metadata.behind(number, topics, shared.incarnation);
            match timeout(ANSWER_PATIENCE, asked).await {
                // Nobody waits for one whose lease time is over.
                Ok(Ok(found)) if found.iter().all(|agent| !agent.live) => return Some(found),
                Ok(Ok(found)) => {
                    // We follow them too, before the next heartbeat says so.
                    self.activations().set_others(true);
                    behind = Some(found);
                }
                Ok(Err(error)) => tracing::debug!(%error, "how far other agents are is not known"),
                Err(_) => tracing::debug!("how far other agents are is not answered"),
            }
            let now = Instant::now();
            if now >= until {
                return behind;
            }
            sleep(ASK_INTERVAL.min(until - now)).await;
        }
    }
}

impl From<&AgentBehind> for NotSwitched {
    fn from(behind: &AgentBehind) -> NotSwitched {
        NotSwitched {
            agent: behind.name.clone(),
            address: behind.address.clone(),
            lease_over: !behind.live,
        }
    }
}
