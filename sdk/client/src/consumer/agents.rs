//! Which agent each partition of a consumer is read from.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, StreamExt};

use super::{
    Answer, Consumer,
    positions::{Entry, Reading},
    reader::{Reader, Told},
};
use crate::{ClientError, Connection};

/// The place of the agent that the consumer was made for.
pub(super) const HOME: usize = 0;
/// Agents that one consumer reads from.
const READERS_MAX: usize = 64;
/// How often a partition goes from one agent to the next at once, and how long it waits each time after that.
const HOPS_AT_ONCE: u32 = 2;
const HELD: Duration = Duration::from_millis(250);

impl Consumer {
    /// The next answer about a partition that is read; those who have none are looked at in turn.
    pub(super) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answer, ClientError>> {
        loop {
            while let Poll::Ready(Some((topic, partition))) = self.held.poll_next_unpin(cx) {
                self.readers
                    .iter_mut()
                    .for_each(|reader| reader.release(&topic, partition));
            }
            let mut has_changed = false;
            for _ in 0..self.readers.len() {
                self.turn = (self.turn + 1) % self.readers.len();
                let reader = self.turn;
                let Poll::Ready(told) = self.readers[reader].poll_told(cx) else {
                    continue;
                };
                has_changed = true;
                match told? {
                    Told::Fetched(fetched, from) => return Poll::Ready(Ok(Answer { fetched, from, reader })),
                    Told::Elsewhere {
                        topic,
                        partition,
                        leader,
                        error,
                    } => {
                        let at = self.connection.at(&leader);
                        self.follow(reader, &topic, partition, at, error)?;
                    }
                    Told::Away => self.bring_home(reader),
                }
            }
            if !has_changed {
                return Poll::Pending;
            }
        }
    }

    /// Another agent leads a partition than the one that was asked, which said so by `error`. Where that has gone on for too
    /// long, or the other one cannot be asked, it is an error; who asks again tries again.
    fn follow(
        &mut self,
        from: usize,
        topic: &str,
        partition: u32,
        leader: Result<Connection, ClientError>,
        error: ClientError,
    ) -> Result<(), ClientError> {
        let mut entry = self.readers[from].forget(topic, partition);
        let hops = entry.hop();
        let told = match leader.and_then(|leader| self.reader_at(&leader)) {
            Ok(reader) if hops.since.elapsed() < self.settings.retry_for => Ok(reader),
            Ok(reader) => {
                entry.hops = None;
                Err((reader, error))
            }
            // Then no place was moved.
            Err(error) => Err((from, error)),
        };
        if told.is_err() || hops.count > HOPS_AT_ONCE {
            entry.reading = Reading::Held;
            let (topic, held) = (topic.to_owned(), tokio::time::sleep(HELD));
            self.held.push(held.map(move |()| (topic, partition)).boxed());
        }
        let (Ok(reader) | Err((reader, _))) = &told;
        self.give(*reader, topic, partition, entry);
        told.map(drop).map_err(|(_, error)| error)
    }

    /// An agent does not answer: the first one knows who leads what it led, or will.
    fn bring_home(&mut self, from: usize) {
        let partitions: Vec<(String, u32)> = self.readers[from].positions.all().collect();
        for (topic, partition) in partitions {
            let entry = self.readers[from].forget(&topic, partition);
            self.give(HOME, &topic, partition, entry);
        }
    }

    /// Lets an agent read a partition that none reads.
    pub(super) fn give(&mut self, reader: usize, topic: &str, partition: u32, entry: Entry) {
        if reader != HOME && self.readers[HOME].reads_whole(topic) {
            self.readers[HOME].leave_to_others(topic, partition);
        }
        self.readers[reader].take_in(topic, partition, entry);
    }

    /// Who reads a partition, now or later.
    pub(super) fn reader_of(&self, topic: &str, partition: u32) -> Option<usize> {
        let mut readers = self.readers.iter();
        readers.position(|reader| reader.positions.entry(topic, partition).is_some())
    }

    /// What is read from an agent. Where there are too many, one from which nothing is read makes room.
    pub(super) fn reader_at(&mut self, agent: &Connection) -> Result<usize, ClientError> {
        let at = |reader: &Reader| reader.connection.url() == agent.url();
        if let Some(reader) = self.readers.iter().position(at) {
            return Ok(reader);
        }
        if self.readers.len() == READERS_MAX {
            let mut others = self.readers.iter().skip(HOME + 1);
            let free = others.position(|reader| reader.positions.is_empty());
            self.readers.remove(HOME + 1 + free.ok_or(ClientError::TooManyAgents)?);
        }
        self.readers
            .push(Reader::new(agent.clone(), self.settings.clone(), false));
        Ok(self.readers.len() - 1)
    }
}
