//! The consumer: reads partitions on and on, over one `Subscribe` call to each agent that leads some of them.
//!
//! ```text
//! Subscribe call -(answers, as far as the credits go)-> Reader -> Chunk -> records
//! ```
//!
//! Nothing runs beside it: what comes is taken in when the consumer is asked for more, and credits are given back as it is
//! handed out, so that no more than the prefetch bound waits here. A call that breaks is opened again where the last one ended:
//! no record comes twice, and none is left out. A module that halts, or an offset that is gone, is told, and ends the reading of
//! its partition; the others go on.
//!
//! The agent that it was made for is asked for everything. What another one leads is read from that one until it says that
//! it leads it no more, or does not answer.

mod agents;
mod call;
mod positions;
mod reader;
mod record;
mod settings;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::{Stream, future::BoxFuture, stream::FuturesUnordered};
use millstream_proto::v1;

use crate::{Admin, ClientError, Connection};
use agents::HOME;
pub use positions::Position;
use positions::{Entry, Reading};
use reader::Reader;
use record::decode;
pub use record::{Chunk, Consumed, Record};
pub use settings::{ConsumerSettings, Start};

/// Reads partitions of one or several topics. As a [`Stream`] it gives one record after the other, [`Consumer::next_chunk`]
/// many at once; both may be used in turn.
pub struct Consumer {
    connection: Connection,
    settings: Arc<ConsumerSettings>,
    /// What is read from each agent; the first is the one that the consumer was made for. A partition is one's at most.
    readers: Vec<Reader>,
    /// Which of them was looked at last.
    turn: usize,
    /// Partitions that are asked for after a while, because nobody says that it leads them.
    held: FuturesUnordered<BoxFuture<'static, (String, u32)>>,
    /// What is being handed out record by record.
    current: Option<Current>,
}

struct Current {
    topic: Arc<str>,
    partition: u32,
    records: std::vec::IntoIter<Record>,
}

/// Where a partition begins to be read, and from whom.
pub(crate) struct Beginning {
    leader: Connection,
    position: Position,
}

/// What was read of a partition.
struct Answer {
    fetched: v1::FetchedPartition,
    /// What is below was read before.
    from: u64,
    /// Who read it.
    reader: usize,
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
        consumer.assign(topic, partition, start).await?;
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
            consumer.readers[HOME].read_whole(topic);
            for partition in 0..partitions {
                consumer.assign(topic, partition, start).await?;
            }
        }
        Ok(consumer)
    }

    /// Reads nothing yet: [`Consumer::assign`] says what.
    pub fn new(connection: &Connection, settings: ConsumerSettings) -> Consumer {
        let settings = Arc::new(settings);
        Consumer {
            connection: connection.clone(),
            readers: vec![Reader::new(connection.clone(), settings.clone(), true)],
            settings,
            turn: HOME,
            held: FuturesUnordered::new(),
            current: None,
        }
    }

    /// Reads a partition too, or reads it from another position.
    ///
    /// # Errors
    /// As [`Consumer::open`].
    pub async fn assign(&mut self, topic: &str, partition: u32, start: Start) -> Result<(), ClientError> {
        let beginning = Beginning::find(&self.connection, topic, partition, start).await?;
        self.begin(topic, partition, beginning)
    }

    /// Reads a partition no longer.
    pub fn unassign(&mut self, topic: &str, partition: u32) {
        self.drop_current(topic, partition);
        if let Some(reader) = self.reader_of(topic, partition) {
            self.readers[reader].let_go(topic, partition);
        }
    }

    /// Goes on reading a partition somewhere else; one that is paused once it is resumed.
    ///
    /// # Errors
    /// As [`Consumer::open`].
    pub async fn seek(&mut self, topic: &str, partition: u32, start: Start) -> Result<(), ClientError> {
        self.assign(topic, partition, start).await
    }

    /// Gives no records of a partition until it is resumed; it goes on where it was then.
    pub fn pause(&mut self, topic: &str, partition: u32) {
        let reader = self.reader_of(topic, partition);
        if let Some((reader, position)) = reader.zip(self.position(topic, partition)) {
            self.drop_current(topic, partition);
            self.readers[reader].pause(topic, partition, position);
        }
    }

    /// Ends a pause.
    pub fn resume(&mut self, topic: &str, partition: u32) {
        if let Some(reader) = self.reader_of(topic, partition) {
            self.readers[reader].resume(topic, partition);
        }
    }

    /// How far a partition was read: the next record that comes of it, and what its last answer said.
    pub fn position(&self, topic: &str, partition: u32) -> Option<Position> {
        let mut readers = self.readers.iter();
        let position = readers.find_map(|reader| reader.positions.get(topic, partition))?;
        let current = self.current.as_ref();
        let current = current.filter(|current| *current.topic == *topic && current.partition == partition);
        let next = current.and_then(|current| current.records.as_slice().first());
        Some(Position {
            next_offset: next.map_or(position.next_offset, |record| record.offset),
            ..position
        })
    }

    /// The partitions that are read, or would be but for a pause, in order of topic and partition.
    pub fn assigned(&self) -> Vec<(String, u32)> {
        let all: BTreeSet<(String, u32)> = self.readers.iter().flat_map(|reader| reader.positions.all()).collect();
        all.into_iter().collect()
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
        std::future::poll_fn(|cx| self.poll_batches(cx)).await
    }

    /// Reads a partition from where it was found to begin.
    pub(crate) fn begin(&mut self, topic: &str, partition: u32, beginning: Beginning) -> Result<(), ClientError> {
        self.drop_current(topic, partition);
        let Beginning { leader, position } = beginning;
        let (reader, from) = (self.reader_at(&leader)?, self.reader_of(topic, partition));
        if from == Some(reader) {
            self.readers[reader].restart(topic, partition, position);
            return Ok(());
        }
        let before = from.map(|from| self.readers[from].let_go(topic, partition));
        let is_paused = before.is_some_and(|before| before.reading == Reading::Paused);
        let entry = if is_paused { Entry::paused } else { Entry::at };
        self.give(reader, topic, partition, entry(position));
        Ok(())
    }

    fn drop_current(&mut self, topic: &str, partition: u32) {
        self.current
            .take_if(|current| *current.topic == *topic && current.partition == partition);
    }

    pub(crate) fn poll_batches(&mut self, cx: &mut Context<'_>) -> Poll<Result<v1::FetchedPartition, ClientError>> {
        Poll::Ready(Ok(ready!(self.poll_answer(cx))?.fetched))
    }

    pub(crate) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Chunk, ClientError>> {
        if let Some(current) = self.current.take()
            && !current.records.as_slice().is_empty()
            && let Some(reader) = self.reader_of(&current.topic, current.partition)
        {
            let position = self.readers[reader].positions.get(&current.topic, current.partition);
            let (topic, records) = (current.topic, current.records.collect());
            return Poll::Ready(Ok(chunk(topic, current.partition, records, position)));
        }
        let Answer { fetched, from, reader } = ready!(self.poll_answer(cx))?;
        let positions = &self.readers[reader].positions;
        let (topic, partition) = (positions.name(&fetched.topic), fetched.partition);
        let position = positions.get(&topic, partition);
        match decode(fetched.batches, from) {
            Ok(records) => Poll::Ready(Ok(chunk(topic, partition, records, position))),
            Err(reason) => {
                // What follows would leave a gap, which nobody may take for read.
                self.readers[reader].let_go(&topic, partition);
                Poll::Ready(Err(ClientError::BadAnswer {
                    reason: format!("partition {partition} of topic {topic:?}: {reason}"),
                }))
            }
        }
    }
}

impl Beginning {
    /// Looks for the offset that a partition is to be read from, and for who leads it.
    pub(crate) async fn find(
        connection: &Connection,
        topic: &str,
        partition: u32,
        start: Start,
    ) -> Result<Beginning, ClientError> {
        let timestamp_ms = match start {
            Start::Timestamp(ms) => Some(ms),
            _ => None,
        };
        let admin = Admin::new(connection);
        let (leader, offsets) = admin.offsets_at(topic, partition, timestamp_ms).await?;
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
        let position = Position {
            next_offset,
            log_start_offset,
            high_watermark,
        };
        Ok(Beginning { leader, position })
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
        let positions: Vec<_> = self.readers.iter().map(|reader| &reader.positions).collect();
        f.debug_struct("Consumer")
            .field("positions", &positions)
            .finish_non_exhaustive()
    }
}

fn chunk(topic: Arc<str>, partition: u32, records: Vec<Record>, position: Option<Position>) -> Chunk {
    let position = position.unwrap_or_default();
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
