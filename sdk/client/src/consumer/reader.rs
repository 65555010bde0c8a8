//! What is read from one agent, over one `Subscribe` call.

use std::{
    collections::BTreeSet,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use millstream_proto::v1::{self, subscribe_request::Message};
use tokio::time::{Instant, Sleep};
use tonic::Code;

use super::{
    ConsumerSettings, Position, Start,
    call::Call,
    positions::{Entry, Positions, Reading, named},
};
use crate::{ClientError, Connection};

/// Bounds on the pause before a call is opened again: each twice the one before.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// An agent that was not missed for so long is as good as any other.
const CALM: Duration = Duration::from_secs(10);

/// Reads partitions from one agent.
pub(super) struct Reader {
    pub(super) connection: Connection,
    settings: Arc<ConsumerSettings>,
    pub(super) positions: Positions,
    /// Topics that are read as a whole.
    topics: Vec<String>,
    /// Whether it is the agent that the consumer was made for, which is asked for what nobody else is known to lead.
    is_home: bool,
    state: State,
    /// What the call was told to stop reading since it was opened: answers about it may still come.
    let_go: BTreeSet<(String, u32)>,
    pause: Duration,
    down_since: Option<Instant>,
    lost_at: Option<Instant>,
}

/// How far the way to the agent is made.
enum State {
    Closed,
    Pausing(Pin<Box<Sleep>>),
    Opening(BoxFuture<'static, Result<Call, ClientError>>),
    Open(Box<Call>),
}

/// What an agent tells.
pub(super) enum Told {
    /// What was read of a partition, which was wanted from this offset on.
    Fetched(v1::FetchedPartition, u64),
    /// Another agent leads this partition: `error` says so and names its HOST:PORT, `leader`.
    Elsewhere {
        topic: String,
        partition: u32,
        leader: String,
        error: ClientError,
    },
    /// Nothing: it does not answer, and others may lead what it led.
    Away,
}

impl Reader {
    pub(super) fn new(connection: Connection, settings: Arc<ConsumerSettings>, is_home: bool) -> Reader {
        Reader {
            connection,
            settings,
            positions: Positions::default(),
            topics: Vec::new(),
            is_home,
            state: State::Closed,
            let_go: BTreeSet::new(),
            pause: Duration::ZERO,
            down_since: None,
            lost_at: None,
        }
    }

    /// Reads a topic as a whole, beside the partitions that it reads.
    pub(super) fn read_whole(&mut self, topic: &str) {
        self.topics.push(topic.to_owned());
        self.reopen();
    }

    pub(super) fn reads_whole(&self, topic: &str) -> bool {
        self.topics.iter().any(|of| of == topic)
    }

    /// Reads a partition too, which it does not read yet.
    pub(super) fn take_in(&mut self, topic: &str, partition: u32, entry: Entry) {
        if self.lost_at.is_some_and(|lost| lost.elapsed() > CALM) {
            (self.pause, self.down_since, self.lost_at) = (Duration::ZERO, None, None);
        }
        self.positions.set(topic, partition, entry);
        if entry.reading == Reading::On {
            self.ask_for(topic, partition);
        }
    }

    fn ask_for(&mut self, topic: &str, partition: u32) {
        // Nothing tells an answer about where it was read before from one about where it is read now.
        let may_mix = self.let_go.contains(&(topic.to_owned(), partition));
        match &self.state {
            State::Open(call) if !may_mix => {
                let partitions = self.positions.message_of(topic, partition).into_iter().collect();
                call.ask(Message::Assign(v1::PartitionPositions { partitions }));
            }
            _ => self.reopen(),
        }
    }

    /// Reads a partition from another position; a pause goes on. What was on its way of the old one comes no more.
    pub(super) fn restart(&mut self, topic: &str, partition: u32, position: Position) {
        if self.positions.is_paused(topic, partition) {
            self.positions.set(topic, partition, Entry::paused(position));
            return;
        }
        self.positions.put(topic, partition, position);
        self.reopen();
    }

    /// Reads a partition no longer; as it was read.
    pub(super) fn let_go(&mut self, topic: &str, partition: u32) -> Entry {
        let entry = self.forget(topic, partition);
        self.stop_reading(topic, partition);
        self.let_go.insert((topic.to_owned(), partition));
        entry
    }

    /// The same for one that the agent has stopped to read by itself.
    pub(super) fn forget(&mut self, topic: &str, partition: u32) -> Entry {
        let entry = self.positions.entry(topic, partition).copied().unwrap_or_default();
        match self.reads_whole(topic) {
            // Else the topic would bring it back.
            true => self.leave_to_others(topic, partition),
            false => self.positions.remove(topic, partition),
        }
        entry
    }

    /// Does not read a partition of a topic that is read as a whole.
    pub(super) fn leave_to_others(&mut self, topic: &str, partition: u32) {
        let gone = Entry {
            reading: Reading::Gone,
            ..Entry::default()
        };
        self.positions.set(topic, partition, gone);
    }

    /// Reads nothing of a partition until [`Reader::resume`], then from `position` on.
    pub(super) fn pause(&mut self, topic: &str, partition: u32, position: Position) {
        self.positions.set(topic, partition, Entry::paused(position));
        self.stop_reading(topic, partition);
    }

    pub(super) fn resume(&mut self, topic: &str, partition: u32) {
        if self.positions.turn(topic, partition, Reading::Paused, Reading::On) {
            self.reopen();
        }
    }

    /// Reads a partition that was held back.
    pub(super) fn release(&mut self, topic: &str, partition: u32) {
        if self.positions.turn(topic, partition, Reading::Held, Reading::On) {
            self.ask_for(topic, partition);
        }
    }

    fn stop_reading(&mut self, topic: &str, partition: u32) {
        match &self.state {
            State::Open(call) => call.ask(unassign(vec![named(topic, partition)])),
            _ => self.reopen(),
        }
    }

    /// The next call begins at the positions as they are now.
    fn reopen(&mut self) {
        if !matches!(self.state, State::Pausing(_)) {
            self.state = State::Closed;
        }
    }

    /// The next thing that the agent tells about what is read from it.
    pub(super) fn poll_told(&mut self, cx: &mut Context<'_>) -> Poll<Result<Told, ClientError>> {
        loop {
            match &mut self.state {
                // Whatever is read from it next opens a call.
                _ if self.topics.is_empty() && self.positions.is_empty() => {
                    self.state = State::Closed;
                    return Poll::Pending;
                }
                State::Closed => {
                    self.let_go.clear();
                    let opening = Call::open(self.connection.clone(), self.beginning());
                    self.state = State::Opening(opening.boxed());
                }
                State::Pausing(pause) => {
                    ready!(pause.poll_unpin(cx));
                    self.state = State::Closed;
                    if !self.is_home {
                        return Poll::Ready(Ok(Told::Away));
                    }
                }
                State::Opening(opening) => match ready!(opening.poll_unpin(cx)) {
                    Ok(call) => {
                        // The topics name them again: until the agent hears of it they are read from their beginning.
                        let mut left_out = self.positions.left_out();
                        left_out.retain(|at| self.reads_whole(&at.topic));
                        if !left_out.is_empty() {
                            let named = left_out.iter().map(|at| (at.topic.clone(), at.partition));
                            self.let_go.extend(named);
                            call.ask(unassign(left_out));
                        }
                        self.state = State::Open(Box::new(call));
                    }
                    Err(error) => self.on_lost(error)?,
                },
                State::Open(call) => match ready!(call.poll_answer(cx)) {
                    Ok(fetched) => {
                        (self.pause, self.down_since) = (Duration::ZERO, None);
                        if let Some(taken) = self.take(fetched) {
                            return Poll::Ready(taken);
                        }
                    }
                    Err(error) => self.on_lost(error)?,
                },
            }
        }
    }

    /// Moves a partition's position behind an answer; `None` where the partition is not read.
    fn take(&mut self, fetched: v1::FetchedPartition) -> Option<Result<Told, ClientError>> {
        let (topic, partition) = (&fetched.topic, fetched.partition);
        if self.positions.is_left_out(topic, partition) {
            return None;
        }
        let known = self.positions.get(topic, partition);
        if known.is_none() && !self.topics.contains(topic) {
            return None;
        }
        if let Some(error) = fetched.error {
            let error = ClientError::from_message(error);
            let Some(leader) = error.leader().map(str::to_owned) else {
                self.forget(topic, partition);
                return Some(Err(error));
            };
            let topic = fetched.topic;
            return Some(Ok(Told::Elsewhere {
                topic,
                partition,
                leader,
                error,
            }));
        }
        let from = known.map_or(0, |known| known.next_offset);
        if fetched.next_offset < from {
            let told = fetched.next_offset;
            self.let_go(topic, partition);
            return Some(Err(ClientError::BadAnswer {
                reason: format!(
                    "partition {partition} of topic {topic:?}: it was read up to offset {from}, and is to go on at {told}"
                ),
            }));
        }
        let position = Position {
            next_offset: fetched.next_offset,
            log_start_offset: fetched.log_start_offset,
            high_watermark: fetched.high_watermark,
        };
        self.positions.put(topic, partition, position);
        Some(Ok(Told::Fetched(fetched, from)))
    }

    /// What the next call begins with.
    fn beginning(&self) -> v1::SubscribeStart {
        v1::SubscribeStart {
            partitions: self.positions.message(),
            topics: self.topics.clone(),
            // What is added later is read from its beginning.
            start: Some(Start::Earliest.message()),
            credit_bytes: self.settings.credits(),
            max_bytes: self.settings.max_bytes,
            format: v1::FetchFormat::Batches.into(),
            stage: self.settings.stage.clone(),
            group: None,
            tell_leaders: true,
        }
    }

    /// The call has ended: another one is opened after a while, unless that is of no use.
    fn on_lost(&mut self, error: ClientError) -> Result<(), ClientError> {
        let comes_back = error.is_away() || matches!(error.code(), Some(Code::Unavailable | Code::ResourceExhausted));
        let now = Instant::now();
        self.lost_at = Some(now);
        let down_since = *self.down_since.get_or_insert(now);
        if !comes_back || now - down_since >= self.settings.retry_for {
            // Who asks again tries again.
            (self.state, self.down_since) = (State::Closed, None);
            return Err(error);
        }
        self.pause = (self.pause * 2).clamp(PAUSE_FIRST, PAUSE_MAX);
        self.state = State::Pausing(Box::pin(tokio::time::sleep(self.pause)));
        Ok(())
    }
}

fn unassign(partitions: Vec<v1::TopicPartition>) -> Message {
    Message::Unassign(v1::PartitionList { partitions })
}
