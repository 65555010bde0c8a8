//! The consumer: reads partitions on and on, over one `Subscribe` call.
//!
//! ```text
//! Subscribe call -(answers, as far as the credits go)-> Chunk -> records
//! ```
//!
//! Nothing runs beside it: what comes is taken in when the consumer is asked for more, and credits are given back as it is
//! handed out, so that no more than the prefetch bound waits here. A call that breaks is opened again where the last one ended:
//! no record comes twice, and none is left out. A module that halts, or an offset that is gone, is told, and ends the reading of
//! its partition; the others go on.

mod call;
mod positions;
mod record;
mod settings;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{FutureExt, Stream, future::BoxFuture};
use millstream_proto::v1::{self, subscribe_request::Message};
use tokio::time::{Instant, Sleep};
use tonic::Code;

use crate::{Admin, ClientError, Connection};
use call::Call;
pub use positions::Position;
use positions::Positions;
use record::decode;
pub use record::{Chunk, Consumed, Record};
pub use settings::{ConsumerSettings, Start};

/// Bounds on the pause before a call is opened again: each twice the one before.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Reads partitions of one or several topics. As a [`Stream`] it gives one record after the other, [`Consumer::next_chunk`]
/// many at once; both may be used in turn.
pub struct Consumer {
    connection: Connection,
    settings: ConsumerSettings,
    positions: Positions,
    /// Topics that are read as a whole.
    topics: Vec<String>,
    state: State,
    /// What is being handed out record by record.
    current: Option<Current>,
    pause: Duration,
    down_since: Option<Instant>,
}

/// How far the way to the agent is made.
enum State {
    Closed,
    Pausing(Pin<Box<Sleep>>),
    Opening(BoxFuture<'static, Result<Call, ClientError>>),
    Open(Box<Call>),
}

struct Current {
    topic: Arc<str>,
    partition: u32,
    records: std::vec::IntoIter<Record>,
}

impl Consumer {
    /// Reads one partition from `start` on.
    ///
    /// # Errors
    /// What `ListOffsets` answers, and [`ClientError::OutOfRange`] for an offset that cannot be read.
    pub async fn open(
        connection: &Connection,
        topic: &str,
        partition: u32,
        start: Start,
        settings: ConsumerSettings,
    ) -> Result<Consumer, ClientError> {
        let mut consumer = Consumer::new(connection, settings);
        consumer.begin(topic, partition, start).await?;
        Ok(consumer)
    }

    /// Reads all partitions of some topics, those that are added later too, each from `start` on.
    ///
    /// # Errors
    /// What `GetTopic` and `ListOffsets` answer.
    pub async fn open_topics(
        connection: &Connection,
        topics: &[&str],
        start: Start,
        settings: ConsumerSettings,
    ) -> Result<Consumer, ClientError> {
        let mut consumer = Consumer::new(connection, settings);
        for topic in topics {
            let partitions = Admin::new(connection).topic(topic).await?.partitions;
            for partition in 0..partitions {
                consumer.begin(topic, partition, start).await?;
            }
            consumer.topics.push((*topic).to_owned());
        }
        Ok(consumer)
    }

    /// Reads nothing yet: [`Consumer::assign`] says what.
    pub fn new(connection: &Connection, settings: ConsumerSettings) -> Consumer {
        Consumer {
            connection: connection.clone(),
            settings,
            positions: Positions::default(),
            topics: Vec::new(),
            state: State::Closed,
            current: None,
            pause: Duration::ZERO,
            down_since: None,
        }
    }

    /// Reads a partition too, or reads it from another position.
    ///
    /// # Errors
    /// As [`Consumer::open`].
    pub async fn assign(&mut self, topic: &str, partition: u32, start: Start) -> Result<(), ClientError> {
        let was_read = self.positions.get(topic, partition).is_some();
        self.begin(topic, partition, start).await?;
        if was_read {
            // What was on its way of the old position comes no more.
            self.reopen();
        } else if let State::Open(call) = &self.state {
            let partitions = self.positions.message_of(topic, partition).into_iter().collect();
            call.ask(Message::Assign(v1::PartitionPositions { partitions }));
        } else {
            self.reopen();
        }
        Ok(())
    }

    /// Reads a partition no longer.
    pub fn unassign(&mut self, topic: &str, partition: u32) {
        match self.topics.iter().any(|of| of == topic) {
            // Else the topic would bring it back.
            true => self.pause(topic, partition),
            false => self.positions.remove(topic, partition),
        }
        self.stop_reading(topic, partition);
    }

    /// Goes on reading a partition somewhere else.
    ///
    /// # Errors
    /// As [`Consumer::open`].
    pub async fn seek(&mut self, topic: &str, partition: u32, start: Start) -> Result<(), ClientError> {
        self.assign(topic, partition, start).await
    }

    /// Gives no records of a partition until it is resumed; it goes on where it was then.
    pub fn pause(&mut self, topic: &str, partition: u32) {
        let position = self.position(topic, partition);
        if let Some(position) = position {
            self.positions.leave_out(topic, partition, position);
            self.stop_reading(topic, partition);
        }
    }

    /// Ends a pause.
    pub fn resume(&mut self, topic: &str, partition: u32) {
        if self.positions.take_in(topic, partition) {
            self.reopen();
        }
    }

    /// How far a partition was read: the next record that comes of it, and what its last answer said.
    pub fn position(&self, topic: &str, partition: u32) -> Option<Position> {
        let position = *self.positions.get(topic, partition)?;
        let current = self.current.as_ref();
        let current = current.filter(|current| *current.topic == *topic && current.partition == partition);
        let next = current.and_then(|current| current.records.as_slice().first());
        Some(Position {
            next_offset: next.map_or(position.next_offset, |record| record.offset),
            ..position
        })
    }

    /// The partitions that are read, in order of topic and partition.
    pub fn assigned(&self) -> Vec<(String, u32)> {
        self.positions.all()
    }

    /// The next records, of one partition; waits for some. What [`Stream`] has not given of the last ones comes first.
    ///
    /// # Errors
    /// Where a partition cannot be read any more, which ends it alone; and where the agent is away for too long or refuses
    /// the call.
    pub async fn next_chunk(&mut self) -> Result<Chunk, ClientError> {
        std::future::poll_fn(|cx| self.poll_chunk(cx)).await
    }

    /// The same as encoded batches, back to back, which begin at or below the position before: for who does not look into
    /// them, or has their own way to.
    ///
    /// # Errors
    /// As [`Consumer::next_chunk`].
    pub async fn next_batches(&mut self) -> Result<v1::FetchedPartition, ClientError> {
        let (fetched, _) = std::future::poll_fn(|cx| self.poll_answer(cx)).await?;
        Ok(fetched)
    }

    /// Sets the position of a partition.
    async fn begin(&mut self, topic: &str, partition: u32, start: Start) -> Result<(), ClientError> {
        let timestamp_ms = match start {
            Start::Timestamp(ms) => Some(ms),
            _ => None,
        };
        let offsets = Admin::new(&self.connection)
            .offsets(topic, partition, timestamp_ms)
            .await?;
        let v1::ListOffsetsResponse {
            log_start_offset,
            high_watermark,
            offset_at,
        } = offsets;
        let next_offset = match start {
            Start::Earliest => log_start_offset,
            Start::Latest => high_watermark,
            Start::Timestamp(_) => offset_at.unwrap_or(high_watermark),
            Start::Offset(offset) if (log_start_offset..=high_watermark).contains(&offset) => offset,
            Start::Offset(offset) => {
                return Err(ClientError::OutOfRange {
                    topic: topic.to_owned(),
                    partition,
                    offset,
                    log_start_offset,
                    high_watermark,
                });
            }
        };
        self.drop_current(topic, partition);
        self.positions.put(
            topic,
            partition,
            Position {
                next_offset,
                log_start_offset,
                high_watermark,
            },
        );
        Ok(())
    }

    fn stop_reading(&mut self, topic: &str, partition: u32) {
        self.drop_current(topic, partition);
        match &self.state {
            State::Open(call) => call.ask(unassign(vec![positions::named(topic, partition)])),
            _ => self.reopen(),
        }
    }

    fn drop_current(&mut self, topic: &str, partition: u32) {
        self.current
            .take_if(|current| *current.topic == *topic && current.partition == partition);
    }

    /// The next call begins at the positions as they are now.
    fn reopen(&mut self) {
        if !matches!(self.state, State::Pausing(_)) {
            self.state = State::Closed;
        }
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Chunk, ClientError>> {
        if let Some(current) = self.current.take()
            && !current.records.as_slice().is_empty()
            && let Some(position) = self.positions.get(&current.topic, current.partition)
        {
            return Poll::Ready(Ok(chunk(
                current.topic,
                current.partition,
                current.records.collect(),
                position,
            )));
        }
        let (fetched, from) = ready!(self.poll_answer(cx))?;
        let (topic, partition) = (self.positions.name(&fetched.topic), fetched.partition);
        let records = decode(fetched.batches, from).map_err(|reason| ClientError::BadAnswer {
            reason: format!("partition {partition} of topic {topic:?}: {reason}"),
        })?;
        let position = self.positions.get(&topic, partition).copied().unwrap_or_default();
        Poll::Ready(Ok(chunk(topic, partition, records, &position)))
    }

    /// The next answer about a partition that is read, and from where on it is wanted.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(v1::FetchedPartition, u64), ClientError>> {
        loop {
            match &mut self.state {
                State::Closed => {
                    let opening = Call::open(self.connection.clone(), self.beginning());
                    self.state = State::Opening(opening.boxed());
                }
                State::Pausing(pause) => {
                    ready!(pause.poll_unpin(cx));
                    self.state = State::Closed;
                }
                State::Opening(opening) => match ready!(opening.poll_unpin(cx)) {
                    Ok(call) => {
                        // The topics name them again.
                        let left_out = self.positions.left_out();
                        if !self.topics.is_empty() && !left_out.is_empty() {
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
    fn take(&mut self, fetched: v1::FetchedPartition) -> Option<Result<(v1::FetchedPartition, u64), ClientError>> {
        let (topic, partition) = (&fetched.topic, fetched.partition);
        if self.positions.is_left_out(topic, partition) {
            return None;
        }
        let known = self.positions.get(topic, partition).copied();
        if known.is_none() && !self.topics.contains(topic) {
            return None;
        }
        if let Some(error) = fetched.error {
            self.positions.remove(topic, partition);
            return Some(Err(ClientError::from_message(error)));
        }
        let from = known.map_or(0, |known| known.next_offset);
        if fetched.next_offset < from {
            let told = fetched.next_offset;
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
        Some(Ok((fetched, from)))
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
        }
    }

    /// The call has ended: another one is opened after a while, unless that is of no use.
    fn on_lost(&mut self, error: ClientError) -> Result<(), ClientError> {
        let comes_back = match &error {
            ClientError::ConnectionLost { .. } | ClientError::Unreachable { .. } => true,
            other => matches!(other.code(), Some(Code::Unavailable | Code::ResourceExhausted)),
        };
        let now = Instant::now();
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

impl Stream for Consumer {
    type Item = Result<Consumed, ClientError>;

    /// Never ends: behind the last record it waits for the next one.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(current) = &mut self.current {
                if let Some(record) = current.records.next() {
                    let (topic, partition) = (current.topic.clone(), current.partition);
                    return Poll::Ready(Some(Ok(Consumed {
                        topic,
                        partition,
                        record,
                    })));
                }
                self.current = None;
            }
            match ready!(self.poll_chunk(cx)) {
                Err(error) => return Poll::Ready(Some(Err(error))),
                Ok(chunk) => {
                    self.current = Some(Current {
                        topic: chunk.topic,
                        partition: chunk.partition,
                        records: chunk.records.into_iter(),
                    });
                }
            }
        }
    }
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer")
            .field("positions", &self.positions)
            .finish_non_exhaustive()
    }
}

fn unassign(partitions: Vec<v1::TopicPartition>) -> Message {
    Message::Unassign(v1::PartitionList { partitions })
}

fn chunk(topic: Arc<str>, partition: u32, records: Vec<Record>, position: &Position) -> Chunk {
    Chunk {
        topic,
        partition,
        records,
        next_offset: position.next_offset,
        high_watermark: position.high_watermark,
        log_start_offset: position.log_start_offset,
        lag: position.lag(),
    }
}
