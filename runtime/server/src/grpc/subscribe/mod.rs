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
//!
//! | file | owns |
//! |---|---|
//! | `positions` | how far each partition is read, and whose turn it is |
//! | `membership` | being a member of a group: the task that sends heartbeats, and what they bring |
//! | `opening` | what a call begins with |

mod membership;
mod opening;
mod positions;

use std::{sync::Arc, time::Duration};

use futures::{Stream, StreamExt, future::BoxFuture, stream};
use millstream_broker::{Broker, BrokerError, FetchEach, Offset, PartitionOffset, Room, StageSpec};
use millstream_proto::v1::{self, subscribe_request::Message as Asked};
use prost::Message as _;
use tokio::time::Interval;
use tonic::{Code, Status, Streaming};

use super::{
    bounds::Charge,
    charged::LastFrame,
    consumer::answer,
    group::place,
    status::{LED_ELSEWHERE, Refusal, of_transport},
    whole::{Answer, Part},
};
use membership::Membership;
pub(super) use membership::Memberships;
use positions::{Place, Positions, Start};

/// Credits that one message may give, and that are kept, in bytes.
const CREDIT_BYTES_MAX: u32 = 64 << 20;
const CREDITS_KEPT_MAX: i64 = 256 << 20;
/// How long an agent takes to start again, at the least.
const STOPPING_RETRY_MS: u32 = 500;

/// One call.
pub(super) struct Subscription {
    broker: Arc<Broker>,
    requests: Streaming<v1::SubscribeRequest>,
    charge: Arc<Charge>,
    last_frame: Arc<LastFrame>,
    stopping: BoxFuture<'static, ()>,
    /// Bytes that may be sent; below 0 after an answer that was larger than what was left.
    credits: i64,
    bytes_max: usize,
    pub(super) plain: bool,
    stage: Option<StageSpec>,
    /// Whether the client goes to the agent that leads a partition.
    tells_leaders: bool,
    positions: Positions,
    /// Topics that are read as a whole, and how many partitions of each are read by now.
    topics: Vec<(String, u32)>,
    /// Where the call reads what a group gives it.
    membership: Option<Membership>,
    looks: Interval,
}

/// What happens next.
enum Event {
    Asked(Option<Box<Result<v1::SubscribeRequest, Status>>>),
    Ready(Place),
    /// The group has something to tell.
    Member,
    Look,
    Stopping,
}

impl Subscription {
    /// The answers, one after the other.
    pub(super) fn answers(self) -> impl Stream<Item = Result<Answer<v1::SubscribeResponse>, Status>> + Send {
        stream::unfold(Some(self), |subscription| async move {
            let mut subscription = subscription?;
            let end = match subscription.next().await {
                Ok(Some(answer)) => return Some((Ok(answer), Some(subscription))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            };
            if let Some(membership) = subscription.membership {
                membership.leave().await;
            }
            end
        })
    }

    /// The next answer; `None` once the client has ended its side.
    async fn next(&mut self) -> Result<Option<Answer<v1::SubscribeResponse>>, Status> {
        loop {
            match self.next_event().await {
                Event::Asked(None) => return Ok(None),
                Event::Asked(Some(request)) => self.on_asked((*request).map_err(of_transport)?)?,
                Event::Ready(place) => {
                    let busy = self.membership.as_ref().map(Membership::busy);
                    let answer = self.read(place).await;
                    drop(busy);
                    self.check_member()?;
                    if answer.is_some() {
                        return Ok(answer);
                    }
                }
                Event::Look if self.membership.is_none() => self.look().await?,
                Event::Member | Event::Look => {
                    self.check_member()?;
                    if let Some(rest) = self.change().await? {
                        return Ok(Some(Answer {
                            rest,
                            parts: Vec::new(),
                            room: None,
                        }));
                    }
                }
                Event::Stopping => {
                    let refusal = Refusal::new(Code::Unavailable, "AGENT_STOPPING", "the agent is stopping");
                    return Err(refusal.retry_after(STOPPING_RETRY_MS).into());
                }
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let may_send = self.credits > 0;
        let member = self.membership.as_ref();
        let looks = !self.topics.is_empty() || member.is_some_and(Membership::has_taken);
        let changed = async {
            match member {
                Some(member) => member.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            request = self.requests.next() => Event::Asked(request.map(Box::new)),
            () = &mut self.stopping => Event::Stopping,
            () = changed => Event::Member,
            _ = self.looks.tick(), if looks => Event::Look,
            place = self.positions.turn(may_send) => Event::Ready(place),
        }
    }

    fn on_asked(&mut self, request: v1::SubscribeRequest) -> Result<(), Refusal> {
        let bytes = request.encoded_len();
        drop(self.charge.split(bytes, self.last_frame.bytes()));
        if let Some(member) = &self.membership {
            member.hear();
        }
        match (request.message, &self.membership) {
            (Some(Asked::CreditBytes(bytes)), _) => self.give(bytes),
            (Some(Asked::Alive(_)), _) => Ok(()),
            (Some(Asked::Release(released)), Some(member)) => {
                let partitions: Vec<_> = released.partitions.into_iter().map(place).collect();
                member.release(&partitions)
            }
            (Some(Asked::Release(_)), None) => Err(Refusal::invalid(
                "GROUP_MISSING",
                "only a call that names a group releases partitions; one of its own is unassigned",
            )),
            (Some(Asked::Assign(_) | Asked::Unassign(_)), Some(_)) => Err(opening::assigns()),
            (Some(Asked::Assign(assigned)), None) => self.assign(assigned.partitions),
            (Some(Asked::Unassign(unassigned)), None) => {
                let partitions = unassigned.partitions.iter();
                partitions.for_each(|of| self.positions.remove(&of.topic, of.partition));
                Ok(())
            }
            (Some(Asked::Start(_)), _) => Err(Refusal::invalid(
                "ARGUMENT_INVALID",
                "start comes first, and only first",
            )),
            (None, _) => Err(Refusal::missing("message")),
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

    /// Fails once the call is no member any more.
    fn check_member(&self) -> Result<(), Refusal> {
        match self.membership.as_ref().and_then(Membership::over) {
            Some(refusal) => Err(refusal),
            None => Ok(()),
        }
    }

    /// Begins and stops reading as the group has it; what to tell the client of that.
    async fn change(&mut self) -> Result<Option<v1::SubscribeResponse>, Refusal> {
        let Some(member) = &self.membership else {
            return Ok(None);
        };
        let busy = member.busy();
        let change = member.change().await?;
        drop(busy);
        let Some(change) = change else {
            return Ok(None);
        };
        for at in &change.asked_back {
            self.positions.remove(&at.topic, at.partition);
        }
        for at in &change.given {
            let start = Start::Offset(Offset(at.offset));
            self.positions.put(at.topic.clone(), at.partition, start)?;
        }
        Ok(Some(v1::SubscribeResponse {
            membership: Some(change),
            ..v1::SubscribeResponse::default()
        }))
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
    async fn read(&mut self, mut place: Place) -> Option<Answer<v1::SubscribeResponse>> {
        let told = self.fetch(&mut place).await;
        match told {
            Ok((part, room)) => {
                let next = Offset(part.told.next_offset);
                let cost = cost(&part);
                let moved = place.offset != Some(next);
                let announce = !place.announced;
                place.offset = Some(next);
                place.announced = true;
                if moved {
                    self.positions.back_to_ready(place);
                } else {
                    self.positions.wait(&self.broker, place);
                }
                self.credits -= i64::from(cost);
                (moved || announce).then(|| Answer {
                    rest: v1::SubscribeResponse {
                        credit_bytes: cost,
                        ..v1::SubscribeResponse::default()
                    },
                    parts: vec![part],
                    room: (cost > 0).then_some(room),
                })
            }
            Err(error) => match error.retry_after_ms() {
                Some(ms) if !(self.tells_leaders && error.reason() == LED_ELSEWHERE) => {
                    self.positions.pause(place, Duration::from_millis(u64::from(ms)));
                    None
                }
                _ => {
                    let (topic, partition) = (place.topic.to_string(), place.partition);
                    match &self.membership {
                        // What a member cannot read any more it reads on from where it would begin anew.
                        Some(member) if matches!(error, BrokerError::OffsetOutOfRange { .. }) => {
                            self.positions.begin_again(place, member.start());
                        }
                        _ => self.positions.forget(&place),
                    }
                    let told = v1::FetchedPartition {
                        topic,
                        partition,
                        error: Some(Refusal::from(self.broker.with_nearest_name(error).await).message()),
                        ..v1::FetchedPartition::default()
                    };
                    Some(Answer {
                        rest: v1::SubscribeResponse::default(),
                        parts: vec![Part {
                            told,
                            batches: Vec::new(),
                        }],
                        room: None,
                    })
                }
            },
        }
    }

    /// Reads once, without a wait; what was read, and the memory that it takes.
    async fn fetch(&mut self, place: &mut Place) -> Result<(Part, Room), BrokerError> {
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
        Ok((parts.pop().expect("there is a part for the partition"), room))
    }
}

/// What a part of an answer costs of the credits, in bytes.
fn cost(part: &Part) -> u32 {
    let bytes = match part.told.records.is_empty() {
        true => part.batch_bytes(),
        false => part.told.encoded_len(),
    };
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

async fn partitions_of(broker: &Broker, topic: &str) -> Result<u32, BrokerError> {
    Ok(broker.describe(topic).await?.partitions)
}
