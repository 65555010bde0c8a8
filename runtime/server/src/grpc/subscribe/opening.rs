//! What a call begins with.

use std::{sync::Arc, time::Duration};

use futures::FutureExt;
use millstream_broker::{Broker, BrokerError, GroupHeartbeat};
use millstream_proto::v1::{self, start_position::Position, subscribe_request::Message as Asked};
use tokio::time::MissedTickBehavior;
use tonic::{Status, Streaming};

use super::{Membership, Memberships, Positions, Start, Subscription, partitions_of};
use crate::grpc::{
    Api,
    bounds::Charge,
    charged::LastFrame,
    consumer::bytes_max,
    enums::is_plain,
    stage::stage_spec,
    status::{Refusal, of_transport},
    stopping,
};

/// How often to look whether a topic has got more partitions.
const LOOK: Duration = Duration::from_secs(1);
/// Topics that one call may name.
const TOPICS_MAX: usize = 1_000;

impl Subscription {
    /// Waits for the first message.
    pub(in crate::grpc) async fn open(
        api: &Api,
        mut requests: Streaming<v1::SubscribeRequest>,
        charge: Arc<Charge>,
        last_frame: Arc<LastFrame>,
    ) -> Result<Subscription, Status> {
        let first = requests.message().await.map_err(of_transport)?;
        let Some(Asked::Start(start)) = first.and_then(|first| first.message) else {
            return Err(Refusal::missing("start, which comes first").into());
        };
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut subscription = Subscription {
            broker: api.broker.clone(),
            requests,
            charge,
            last_frame,
            stopping: stopping(api.stop.clone()).boxed(),
            credits: 0,
            bytes_max: bytes_max(start.max_bytes),
            plain: is_plain(start.format)?,
            stage: start.stage.map(stage_spec).transpose()?,
            tells_leaders: start.tell_leaders,
            positions: Positions::default(),
            topics: Vec::new(),
            membership: None,
            looks,
        };
        // The bytes of its messages are not held.
        drop(subscription.charge.split(0, 0));
        if start.credit_bytes > 0 {
            subscription.give(start.credit_bytes)?;
        }
        if start.topics.len() > TOPICS_MAX {
            let message = format!("one call names {TOPICS_MAX} topics at most");
            return Err(Refusal::invalid("TOPICS_TOO_MANY", message).into());
        }
        match start.group {
            Some(_) if !start.partitions.is_empty() => return Err(assigns().into()),
            Some(group) => {
                subscription
                    .join(&api.memberships, group, start.topics, start.start)
                    .await?
            }
            None => {
                // Partitions that are named are read from where they say, also those of the topics.
                subscription.subscribe(start.topics, Start::of(start.start)).await?;
                subscription.assign(start.partitions)?;
            }
        }
        Ok(subscription)
    }

    async fn subscribe(&mut self, topics: Vec<String>, start: Start) -> Result<(), Refusal> {
        for topic in topics {
            let partitions = known_partitions(&self.broker, &topic).await?;
            for partition in 0..partitions {
                self.positions.put(topic.clone(), partition, start)?;
            }
            self.topics.push((topic, partitions));
        }
        Ok(())
    }

    /// Reads what a group gives.
    async fn join(
        &mut self,
        memberships: &Memberships,
        group: v1::SubscribeGroup,
        topics: Vec<String>,
        start: Option<v1::StartPosition>,
    ) -> Result<(), Refusal> {
        let start = match start.and_then(|start| start.position) {
            None | Some(Position::Earliest(_)) => Start::Earliest,
            Some(Position::Latest(_)) => Start::Latest,
            Some(Position::Offset(_) | Position::TimestampMs(_)) => {
                let message = "a member of a group begins at the earliest or the latest offset where nothing is committed: \
                               `group reset` moves a group to an offset or a time";
                return Err(Refusal::invalid("GROUP_START_INVALID", message));
            }
        };
        for topic in &topics {
            known_partitions(&self.broker, topic).await?;
        }
        let heartbeat = GroupHeartbeat {
            group: group.name,
            client_id: group.client_id,
            topics,
            session_timeout_ms: group.session_timeout_ms,
            ..GroupHeartbeat::default()
        };
        let joined = Membership::join(memberships, self.broker.clone(), heartbeat, start).await?;
        self.membership = Some(joined);
        Ok(())
    }
}

/// Why the call of a member cannot choose what to read.
pub(super) fn assigns() -> Refusal {
    let message =
        "a call that names a group reads what the group gives it: it names topics, and no partitions, and assigns none";
    Refusal::invalid("GROUP_ASSIGNS", message)
}

/// How many partitions a topic has; or that it is not known, with the nearest name.
async fn known_partitions(broker: &Broker, topic: &str) -> Result<u32, BrokerError> {
    match partitions_of(broker, topic).await {
        Ok(partitions) => Ok(partitions),
        Err(error) => Err(broker.with_nearest_name(error).await),
    }
}
