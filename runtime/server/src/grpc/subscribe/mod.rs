//! `Subscribe`: reading on and on, as far as the client's credits go.
//!
//! ```text
//! messages -> credits, positions
//! positions -> ready --read one after the other--> answers, back to ready
//!                    --nothing there--> waiting --a record, or time to try again--> ready
//! ```
//!
//! The transport drives it: it asks for the next answer only while it has room for one, so one answer at most is in memory
//! for a client that does not read. All partitions of a call are read by this one future, each in its turn.

mod positions;

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream};
use millstream_broker::{Broker, BrokerError, FetchEach, Offset, PartitionOffset, StageSpec};
use millstream_proto::v1::{self, subscribe_request::Message as Asked};
use prost::Message as _;
use tokio::time::{Interval, MissedTickBehavior};
use tonic::{Code, Status, Streaming};

use super::{
    Api,
    bounds::Charge,
    charged::{LastFrame, LeavingRooms},
    consumer::{answer, bytes_max},
    enums::is_plain,
    stage::stage_spec,
    status::{Refusal, of_transport},
    stopping,
};
use positions::{Place, Positions, Start};

/// Credits that one message may give, and that are kept, in bytes.
const CREDIT_BYTES_MAX: u32 = 64 << 20;
const CREDITS_KEPT_MAX: i64 = 256 << 20;
/// How often to look whether a topic has got more partitions.
const LOOK: Duration = Duration::from_secs(1);
/// Topics that one call may name.
const TOPICS_MAX: usize = 1_000;
/// How long an agent takes to start again, at the least.
const STOPPING_RETRY_MS: u32 = 500;

/// One call.
pub(super) struct Subscription {
    broker: Arc<Broker>,
    requests: Streaming<v1::SubscribeRequest>,
    charge: Arc<Charge>,
    last_frame: Arc<LastFrame>,
    rooms: Arc<LeavingRooms>,
    stopping: BoxFuture<'static, ()>,
    /// Bytes that may be sent; below 0 after an answer that was larger than what was left.
    credits: i64,
    bytes_max: usize,
    plain: bool,
    stage: Option<StageSpec>,
    positions: Positions,
    /// Topics that are read as a whole, and how many partitions of each are read by now.
    topics: Vec<(String, u32)>,
    looks: Interval,
}

/// What happens next.
enum Event {
    Asked(Option<Box<Result<v1::SubscribeRequest, Status>>>),
    Ready(Place),
    Look,
    Stopping,
}

impl Subscription {
    /// Waits for the first message.
    pub(super) async fn open(
        api: &Api,
        mut requests: Streaming<v1::SubscribeRequest>,
        charge: Arc<Charge>,
        last_frame: Arc<LastFrame>,
        rooms: Arc<LeavingRooms>,
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
            rooms,
            stopping: stopping(api.stop.clone()).boxed(),
            credits: 0,
            bytes_max: bytes_max(start.max_bytes),
            plain: is_plain(start.format)?,
            stage: start.stage.map(stage_spec).transpose()?,
            positions: Positions::default(),
            topics: Vec::new(),
            looks,
        };
        // The bytes of its messages are not held.
        drop(subscription.charge.split(0, 0));
        if start.credit_bytes > 0 {
            subscription.give(start.credit_bytes)?;
        }
        // Partitions that are named are read from where they say, also those of the topics.
        subscription.subscribe(start.topics, Start::of(start.start)).await?;
        subscription.assign(start.partitions)?;
        Ok(subscription)
    }

    /// The answers, one after the other.
    pub(super) fn answers(self) -> impl Stream<Item = Result<v1::SubscribeResponse, Status>> + Send {
        stream::unfold(Some(self), |subscription| async move {
            let mut subscription = subscription?;
            match subscription.next().await {
                Ok(Some(answer)) => Some((Ok(answer), Some(subscription))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        })
    }

    /// The next answer; `None` once the client has ended its side.
    async fn next(&mut self) -> Result<Option<v1::SubscribeResponse>, Status> {
        loop {
            match self.next_event().await {
                Event::Asked(None) => return Ok(None),
                Event::Asked(Some(request)) => self.on_asked((*request).map_err(of_transport)?)?,
                Event::Ready(place) => {
                    if let Some(answer) = self.read(place).await {
                        return Ok(Some(answer));
                    }
                }
                Event::Look => self.look().await?,
                Event::Stopping => {
                    let refusal = Refusal::new(Code::Unavailable, "AGENT_STOPPING", "the agent is stopping");
                    return Err(refusal.retry_after(STOPPING_RETRY_MS).into());
                }
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let may_send = self.credits > 0;
        tokio::select! {
            biased;
            request = self.requests.next() => Event::Asked(request.map(Box::new)),
            () = &mut self.stopping => Event::Stopping,
            _ = self.looks.tick(), if !self.topics.is_empty() => Event::Look,
            place = self.positions.turn(may_send) => Event::Ready(place),
        }
    }

    fn on_asked(&mut self, request: v1::SubscribeRequest) -> Result<(), Refusal> {
        let bytes = request.encoded_len();
        drop(self.charge.split(bytes, self.last_frame.bytes()));
        match request.message {
            Some(Asked::CreditBytes(bytes)) => self.give(bytes),
            Some(Asked::Assign(assigned)) => self.assign(assigned.partitions),
            Some(Asked::Unassign(unassigned)) => {
                let partitions = unassigned.partitions.iter();
                partitions.for_each(|of| self.positions.remove(&of.topic, of.partition));
                Ok(())
            }
            Some(Asked::Start(_)) => Err(Refusal::invalid(
                "ARGUMENT_INVALID",
                "start comes first, and only first",
            )),
            None => Err(Refusal::missing("message")),
        }
    }

    fn give(&mut self, bytes: u32) -> Result<(), Refusal> {
        if !(1..=CREDIT_BYTES_MAX).contains(&bytes) {
            let message = format!("credit_bytes is {bytes}; allowed are 1 to {CREDIT_BYTES_MAX}");
            return Err(Refusal::invalid("CREDITS_INVALID", message));
        }
        self.credits = (self.credits + i64::from(bytes)).min(CREDITS_KEPT_MAX);
        Ok(())
    }

    fn assign(&mut self, partitions: Vec<v1::PartitionPosition>) -> Result<(), Refusal> {
        for assigned in partitions {
            self.positions
                .put(assigned.topic, assigned.partition, Start::of(assigned.start))?;
        }
        Ok(())
    }

    async fn subscribe(&mut self, topics: Vec<String>, start: Start) -> Result<(), Status> {
        if topics.len() > TOPICS_MAX {
            let message = format!("one call names {TOPICS_MAX} topics at most");
            return Err(Refusal::invalid("TOPICS_TOO_MANY", message).into());
        }
        for topic in topics {
            let partitions = partitions_of(&self.broker, &topic).await.map_err(Refusal::from)?;
            for partition in 0..partitions {
                self.positions.put(topic.clone(), partition, start)?;
            }
            self.topics.push((topic, partitions));
        }
        Ok(())
    }

    /// Reads partitions that were added to a topic, from their beginning.
    async fn look(&mut self) -> Result<(), Status> {
        for i in 0..self.topics.len() {
            let (topic, known) = self.topics[i].clone();
            // A topic that is gone is told by its partitions.
            let Ok(partitions) = partitions_of(&self.broker, &topic).await else {
                continue;
            };
            for partition in known..partitions {
                self.positions.put(topic.clone(), partition, Start::Earliest)?;
            }
            self.topics[i].1 = partitions.max(known);
        }
        Ok(())
    }

    /// What there is of one partition; `None` where nothing has to be told.
    async fn read(&mut self, mut place: Place) -> Option<v1::SubscribeResponse> {
        let told = self.fetch(&mut place).await;
        match told {
            Ok((fetched, cost)) => {
                let moved = place.offset != Some(Offset(fetched.next_offset));
                let announce = !place.announced;
                place.offset = Some(Offset(fetched.next_offset));
                place.announced = true;
                if moved {
                    self.positions.back_to_ready(place);
                } else {
                    self.positions.wait(&self.broker, place);
                }
                self.credits -= i64::from(cost);
                (moved || announce).then_some(v1::SubscribeResponse {
                    fetched: Some(fetched),
                    credit_bytes: cost,
                })
            }
            Err(error) => match error.retry_after_ms() {
                Some(ms) => {
                    self.positions.pause(place, Duration::from_millis(u64::from(ms)));
                    None
                }
                None => {
                    let (topic, partition) = (place.topic.to_string(), place.partition);
                    self.positions.forget(&place);
                    Some(v1::SubscribeResponse {
                        fetched: Some(v1::FetchedPartition {
                            topic,
                            partition,
                            error: Some(Refusal::from(error).message()),
                            ..v1::FetchedPartition::default()
                        }),
                        credit_bytes: 0,
                    })
                }
            },
        }
    }

    /// Reads once, without a wait; what was read, and what it costs.
    async fn fetch(&mut self, place: &mut Place) -> Result<(v1::FetchedPartition, u32), BrokerError> {
        let offset = match place.offset {
            Some(offset) => offset,
            None => place.start.resolve(&self.broker, &place.topic, place.partition).await?,
        };
        place.offset = Some(offset);
        let wanted = PartitionOffset {
            topic: place.topic.to_string(),
            partition: place.partition,
            offset,
        };
        let query = FetchEach {
            partitions: vec![wanted.clone()],
            bytes_max: self.bytes_max,
            bytes_min: 0,
            wait: Duration::ZERO,
            stage: self.stage.clone(),
        };
        let mut fetched = self.broker.fetch_each(query).await?;
        if let Some(error) = fetched.parts.pop_if(|part| part.is_err()) {
            return Err(error.expect_err("it was looked at"));
        }
        let (mut parts, room) = answer(vec![wanted], fetched, self.plain, self.bytes_max).await?;
        let part = parts.pop().expect("there is a part for the partition");
        let cost = match part.records.is_empty() {
            true => part.batches.len(),
            false => part.encoded_len(),
        };
        if cost > 0 {
            self.rooms.push(room);
        }
        Ok((part, u32::try_from(cost).unwrap_or(u32::MAX)))
    }
}

async fn partitions_of(broker: &Broker, topic: &str) -> Result<u32, BrokerError> {
    Ok(broker.describe(topic).await?.partitions)
}
