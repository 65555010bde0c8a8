//! Reading what a group gives its member.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use millstream_proto::v1;
use tokio::time::{Instant, sleep_until};

use super::{Change, GroupMember, GroupSettings, TopicPartition};
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
    /// How often to commit by itself; `None` leaves it to whoever reads.
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

/// Reads the partitions that a group gives it.
///
/// Whoever asks for the next record has done with those before it: so far is committed, by itself or by
/// [`commit`](Self::commit), and before a partition goes to another member. A record may come twice, to this member or to
/// another one, where a member dies or hangs; none is left out. All of its methods may be given up while they wait.
#[derive(Debug)]
pub struct GroupConsumer {
    member: GroupMember,
    consumer: Consumer,
    start: Start,
    auto_commit: Option<Duration>,
    next_commit: Option<Instant>,
    /// Given, and not read yet.
    gained: BTreeSet<TopicPartition>,
    /// What is stored of what is read.
    committed: BTreeMap<TopicPartition, u64>,
    /// How often to say that it is at work while nothing comes.
    poll_interval: Duration,
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
        let member = GroupMember::join(connection, group, topics, settings.group).await?;
        Ok(GroupConsumer {
            member,
            consumer: Consumer::new(connection, settings.consumer),
            start: settings.start,
            auto_commit: settings.auto_commit,
            next_commit: settings.auto_commit.map(|interval| Instant::now() + interval),
            gained: BTreeSet::new(),
            committed: BTreeMap::new(),
            poll_interval,
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

    /// The next record; waits for one.
    ///
    /// # Errors
    /// Those of [`Consumer`], which end the reading of one partition; and why it can be a member no longer.
    pub async fn next(&mut self) -> Result<Consumed, ClientError> {
        loop {
            self.keep_up().await?;
            let until = self.until();
            tokio::select! {
                consumed = self.consumer.next() => return consumed.expect("a consumer never ends"),
                () = self.member.changed() => {}
                () = sleep_until(until) => {}
            }
        }
    }

    /// The next records, of one partition; waits for some.
    ///
    /// # Errors
    /// As [`GroupConsumer::next`].
    pub async fn next_chunk(&mut self) -> Result<Chunk, ClientError> {
        loop {
            self.keep_up().await?;
            let until = self.until();
            tokio::select! {
                chunk = self.consumer.next_chunk() => return chunk,
                () = self.member.changed() => {}
                () = sleep_until(until) => {}
            }
        }
    }

    /// The records as a stream, which never ends.
    pub fn stream(&mut self) -> impl Stream<Item = Result<Consumed, ClientError>> + '_ {
        futures::stream::unfold(self, |this| async move {
            let next = this.next().await;
            Some((next, this))
        })
    }

    /// Stores how far it has read.
    ///
    /// # Errors
    /// Why nothing, or some of it, was not stored. Partitions that went to others meanwhile are no error.
    pub async fn commit(&mut self) -> Result<(), ClientError> {
        let partitions = self.consumer.assigned();
        self.commit_of(&partitions).await
    }

    /// Goes on reading a partition that it has somewhere else.
    ///
    /// # Errors
    /// As [`Consumer::seek`].
    pub async fn seek(&mut self, topic: &str, partition: u32, start: Start) -> Result<(), ClientError> {
        self.consumer.seek(topic, partition, start).await
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

    /// Does what the group asks for, and commits where that is due.
    async fn keep_up(&mut self) -> Result<(), ClientError> {
        while let Some(change) = self.member.take_change()? {
            match change {
                Change::Lost => self.drop_all(),
                Change::Revoked(partitions) => self.give_up(&partitions).await,
                Change::Assigned(partitions) => self.gained.extend(partitions),
            }
        }
        self.take_up().await?;
        let is_due = self.next_commit.is_some_and(|at| at <= Instant::now());
        if let Some(interval) = self.auto_commit.filter(|_| is_due) {
            self.next_commit = Some(Instant::now() + interval);
            let partitions = self.consumer.assigned();
            self.commit_if_possible(&partitions).await;
        }
        Ok(())
    }

    fn drop_all(&mut self) {
        for (topic, partition) in self.consumer.assigned() {
            self.consumer.unassign(&topic, partition);
        }
        self.gained.clear();
        self.committed.clear();
    }

    async fn give_up(&mut self, partitions: &[TopicPartition]) {
        if self.auto_commit.is_some() {
            self.commit_if_possible(partitions).await;
        }
        for at in partitions {
            self.consumer.unassign(&at.0, at.1);
            self.gained.remove(at);
            self.committed.remove(at);
        }
        self.member.give_up(partitions);
    }

    /// Begins to read what was given, from where the group has come to.
    async fn take_up(&mut self) -> Result<(), ClientError> {
        if self.gained.is_empty() {
            return Ok(());
        }
        let gained: Vec<TopicPartition> = self.gained.iter().cloned().collect();
        let stored = self.member.committed(&gained).await?.into_iter();
        let stored: BTreeMap<TopicPartition, u64> = stored
            .map(|offset| ((offset.topic, offset.partition), offset.offset))
            .collect();
        for at in gained {
            let (topic, partition) = (at.0.as_str(), at.1);
            let start = stored.get(&at).map_or(self.start, |offset| Start::Offset(*offset));
            match self.consumer.assign(topic, partition, start).await {
                // It was deleted meanwhile.
                Err(ClientError::OutOfRange { .. }) => self.consumer.assign(topic, partition, self.start).await?,
                assigned => assigned?,
            }
            if let Some(offset) = stored.get(&at) {
                self.committed.insert(at.clone(), *offset);
            }
            self.gained.remove(&at);
        }
        Ok(())
    }

    /// What is not stored now is stored later, or read again by somebody else.
    async fn commit_if_possible(&mut self, partitions: &[TopicPartition]) {
        let _ = self.commit_of(partitions).await;
    }

    async fn commit_of(&mut self, partitions: &[TopicPartition]) -> Result<(), ClientError> {
        let read = partitions.iter().filter_map(|at| {
            let offset = self.consumer.position(&at.0, at.1)?.next_offset;
            (self.committed.get(at) != Some(&offset)).then_some((at.clone(), offset))
        });
        let read: Vec<(TopicPartition, u64)> = read.collect();
        if read.is_empty() {
            return Ok(());
        }
        let offsets = read.iter().map(|((topic, partition), offset)| v1::CommittedOffset {
            topic: topic.clone(),
            partition: *partition,
            offset: *offset,
            ..v1::CommittedOffset::default()
        });
        let failures = self.member.commit(offsets.collect()).await?;
        let mut failed = BTreeMap::new();
        for failure in failures {
            let error = failure.error.map(ClientError::from_message);
            failed.insert((failure.topic, failure.partition), error);
        }
        for (at, offset) in read {
            if !failed.contains_key(&at) {
                self.committed.insert(at, offset);
            }
        }
        let others = |error: &ClientError| error.reason() != Some("PARTITION_NOT_OWNED");
        match failed.into_values().flatten().find(others) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// When there is something to do whether records come or not.
    fn until(&self) -> Instant {
        let poll = Instant::now() + self.poll_interval;
        self.next_commit.map_or(poll, |commit| commit.min(poll))
    }
}
