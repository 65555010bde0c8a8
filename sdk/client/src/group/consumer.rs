//! Reading what a group gives its member.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{Stream, StreamExt as _, future::BoxFuture};
use millstream_proto::v1;
use tokio::time::Instant;

use super::upkeep::{Done, committing};
use super::{GroupMember, GroupSettings, TopicPartition};
use crate::{Chunk, ClientError, Connection, Consumed, Consumer, ConsumerSettings, Start};

/// How a member reads and commits.
#[derive(Clone, Debug)]
pub struct GroupConsumerSettings {
    /// How it takes part.
    pub group: GroupSettings,
    /// How it reads.
    pub consumer: ConsumerSettings,
    /// Where to begin where nothing was committed, or what was is gone.
    pub start: Start,
    /// How often to commit by itself; it does so too before a partition goes to another member. `None` leaves both to whoever
    /// reads: what was read since the last commit is read again by the other member.
    pub auto_commit: Option<Duration>,
}

impl Default for GroupConsumerSettings {
    fn default() -> GroupConsumerSettings {
        GroupConsumerSettings {
            group: GroupSettings::default(),
            consumer: ConsumerSettings::default(),
            start: Start::Earliest,
            auto_commit: Some(Duration::from_secs(5)),
        }
    }
}

/// Reads the partitions that a group gives it: as a [`Stream`] one record after the other, with
/// [`next_chunk`](Self::next_chunk) many at once; both may be used in turn.
///
/// Whoever asks for the next record has done with those before it: so far is committed, by
/// [`commit`](Self::commit), and with [`auto_commit`](GroupConsumerSettings::auto_commit) by itself too, before a partition goes to
/// another member and time after time. Who works on several records at once commits by
/// [`commit_offsets`](Self::commit_offsets) alone. A record may come twice, to this member or to another one, where a member
/// dies or hangs; none is left out. All of its methods may be given up while they wait.
pub struct GroupConsumer {
    pub(super) member: GroupMember,
    pub(super) consumer: Consumer,
    pub(super) connection: Connection,
    pub(super) start: Start,
    pub(super) auto_commit: Option<Duration>,
    pub(super) next_commit: Option<Instant>,
    /// Given, and not read yet.
    pub(super) gained: BTreeSet<TopicPartition>,
    /// Since when that cannot be read, and when it is tried again.
    pub(super) barred: Option<(Instant, Instant)>,
    /// What is stored of what is read.
    pub(super) committed: BTreeMap<TopicPartition, u64>,
    /// What is being done for it. No record is given meanwhile.
    pub(super) job: Option<BoxFuture<'static, Done>>,
    /// Ends when there is something to do whether records come or not.
    pub(super) waiting: Option<BoxFuture<'static, ()>>,
    /// How often to say that it is at work while nothing comes.
    pub(super) poll_interval: Duration,
    /// For how long something that may be temporary is no error.
    pub(super) retry_for: Duration,
}

impl GroupConsumer {
    /// Joins a group to read some topics.
    ///
    /// # Errors
    /// What the first heartbeat is answered.
    pub async fn join(
        connection: &Connection,
        group: &str,
        topics: &[&str],
        settings: GroupConsumerSettings,
    ) -> Result<GroupConsumer, ClientError> {
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        let poll_interval = settings.group.max_poll_interval / 3;
        let retry_for = settings.consumer.retry_for;
        let member = GroupMember::join(connection, group, topics, settings.group).await?;
        Ok(GroupConsumer {
            member,
            consumer: Consumer::new(connection, settings.consumer),
            connection: connection.clone(),
            start: settings.start,
            auto_commit: settings.auto_commit,
            next_commit: settings.auto_commit.map(|interval| Instant::now() + interval),
            gained: BTreeSet::new(),
            barred: None,
            committed: BTreeMap::new(),
            job: None,
            waiting: None,
            poll_interval,
            retry_for,
        })
    }

    /// The membership.
    pub fn member(&self) -> &GroupMember {
        &self.member
    }

    /// What is read, and how far.
    pub fn consumer(&self) -> &Consumer {
        &self.consumer
    }

    /// The next records, of one partition; waits for some. What [`Stream`] has not given of the last ones comes first.
    ///
    /// # Errors
    /// Those of [`Consumer`], which end the reading of one partition; and why it can be a member no longer.
    pub async fn next_chunk(&mut self) -> Result<Chunk, ClientError> {
        std::future::poll_fn(|cx| self.poll_read(cx, Consumer::poll_chunk)).await
    }

    /// The same as encoded batches, back to back, which begin at or below the position before.
    ///
    /// # Errors
    /// As [`GroupConsumer::next_chunk`].
    pub async fn next_batches(&mut self) -> Result<v1::FetchedPartition, ClientError> {
        std::future::poll_fn(|cx| self.poll_read(cx, Consumer::poll_batches)).await
    }

    /// Stores how far it has read.
    ///
    /// # Errors
    /// Why nothing, or some of it, was not stored. Partitions that went to others meanwhile are no error.
    pub async fn commit(&mut self) -> Result<(), ClientError> {
        self.finish_job().await;
        self.commit_all(self.uncommitted(&self.consumer.assigned())).await
    }

    /// Stores these offsets, each the next one to read, whatever was given meanwhile. Without
    /// [`auto_commit`](GroupConsumerSettings::auto_commit) nothing else is stored.
    ///
    /// # Errors
    /// As [`GroupConsumer::commit`].
    pub async fn commit_offsets(&mut self, offsets: Vec<(TopicPartition, u64)>) -> Result<(), ClientError> {
        self.finish_job().await;
        self.commit_all(offsets).await
    }

    async fn commit_all(&mut self, offsets: Vec<(TopicPartition, u64)>) -> Result<(), ClientError> {
        let stored = committing(self.member.common().clone(), offsets).await;
        self.take_committed(stored)
    }

    /// Goes on reading a partition that it has somewhere else; one whose reading an error has ended begins again there.
    ///
    /// # Errors
    /// [`ClientError::NotAssigned`] for one that it has not; else as [`Consumer::seek`].
    pub async fn seek(&mut self, topic: &str, partition: u32, start: Start) -> Result<(), ClientError> {
        self.finish_job().await;
        let at = (topic.to_owned(), partition);
        if !self.member.owns(&at) {
            return Err(ClientError::NotAssigned { topic: at.0, partition });
        }
        self.consumer.seek(topic, partition, start).await?;
        self.gained.remove(&at);
        Ok(())
    }

    /// Gives no records of a partition that it reads until it is resumed. It stays a member meanwhile, as long as records are
    /// asked for; a partition that goes to another member and comes back is not paused any more.
    pub fn pause(&mut self, topic: &str, partition: u32) {
        self.consumer.pause(topic, partition);
    }

    /// Ends a pause.
    pub fn resume(&mut self, topic: &str, partition: u32) {
        self.consumer.resume(topic, partition);
    }

    /// Commits, where it does so by itself, and leaves the group.
    ///
    /// # Errors
    /// What could not be committed; it has left all the same.
    pub async fn close(mut self) -> Result<(), ClientError> {
        let committed = match self.auto_commit {
            Some(_) => self.commit().await,
            None => Ok(()),
        };
        let left = self.member.leave().await;
        committed.and(left)
    }

    /// Leaves the group without committing any more.
    ///
    /// # Errors
    /// What the agent answers.
    pub async fn leave(self) -> Result<(), ClientError> {
        self.member.leave().await
    }

    /// Reads what the group gives, after all that it asks for is done.
    fn poll_read<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut read: impl FnMut(&mut Consumer, &mut Context<'_>) -> Poll<Result<T, ClientError>>,
    ) -> Poll<Result<T, ClientError>> {
        loop {
            ready!(self.poll_upkeep(cx))?;
            if let Poll::Ready(read) = read(&mut self.consumer, cx) {
                return Poll::Ready(read);
            }
            ready!(self.poll_waiting(cx));
        }
    }
}

impl Stream for GroupConsumer {
    type Item = Result<Consumed, ClientError>;

    /// Never ends: behind the last record it waits for the next one. An error is one of those of
    /// [`next_chunk`](GroupConsumer::next_chunk).
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = |consumer: &mut Consumer, cx: &mut Context<'_>| {
            let next = ready!(consumer.poll_next_unpin(cx));
            Poll::Ready(next.expect("a consumer never ends"))
        };
        self.poll_read(cx, next).map(Some)
    }
}

impl fmt::Debug for GroupConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupConsumer")
            .field("member", &self.member)
            .field("consumer", &self.consumer)
            .finish_non_exhaustive()
    }
}
