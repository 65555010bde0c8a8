//! What a member does for its group between two records: it gives up partitions, takes up others, and commits.

use std::{
    collections::BTreeMap,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _, stream};
use millstream_proto::v1;
use tokio::time::{Instant, sleep_until};

use super::keeper::Common;
use super::{Change, GroupConsumer, TopicPartition};
use crate::{ClientError, Connection, Start, consumer::Beginning};

/// Partitions whose beginning is looked for at once.
const LOOKS_AT_ONCE: usize = 16;
/// Until a partition that could not be read is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// A job that is done.
pub(super) enum Done {
    /// Committed, because it was time to.
    Committed(Stored),
    /// Committed, before these go to others.
    Revoked(Stored, Vec<TopicPartition>),
    /// Looked for where to begin.
    Found(Result<Vec<Found>, ClientError>),
}

/// What was to be stored, and which of it was not.
pub(super) struct Stored {
    offsets: Vec<(TopicPartition, u64)>,
    failures: Result<Vec<v1::CommitFailure>, ClientError>,
}

/// Where a partition is to be read from.
pub(super) struct Found {
    at: TopicPartition,
    /// What the group has committed of it.
    committed: Option<u64>,
    beginning: Result<Beginning, ClientError>,
}

impl GroupConsumer {
    /// Does what the group asks for, and commits where that is due; ready once records may be given.
    pub(super) fn poll_upkeep(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        loop {
            ready!(self.poll_job(cx))?;
            match self.member.take_change()? {
                Some(Change::Lost) => self.drop_all(),
                Some(Change::Revoked(partitions)) => self.give_up(partitions),
                Some(Change::Assigned(partitions)) => self.gained.extend(partitions),
                None if self.begin_what_is_due() => {}
                None => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Ready when there may be something to do.
    pub(super) fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waiting.is_none() {
            let (common, until) = (self.member.common().clone(), self.until());
            let waiting = async move {
                tokio::select! {
                    () = common.wait_for(|share| share.has_change()) => {}
                    () = sleep_until(until) => {}
                }
            };
            self.waiting = Some(waiting.boxed());
        }
        if let Some(waiting) = &mut self.waiting {
            ready!(waiting.poll_unpin(cx));
        }
        self.waiting = None;
        Poll::Ready(())
    }

    /// Waits for the job that is under way. What went wrong is tried again.
    pub(super) async fn finish_job(&mut self) {
        let _ = std::future::poll_fn(|cx| self.poll_job(cx)).await;
    }

    /// Ready where nothing is being done any more.
    fn poll_job(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        let Some(job) = &mut self.job else {
            return Poll::Ready(Ok(()));
        };
        // Whoever waits for the group is at work.
        self.member.poll();
        let done = ready!(job.poll_unpin(cx));
        self.job = None;
        match done {
            // What is not stored now is stored later, or read again by somebody else.
            Done::Committed(stored) => drop(self.take_committed(stored)),
            Done::Revoked(stored, partitions) => {
                let _ = self.take_committed(stored);
                self.leave_to_others(&partitions);
            }
            Done::Found(found) => return Poll::Ready(self.take_up(found)),
        }
        Poll::Ready(Ok(()))
    }

    /// Begins the next job; false where there is none.
    fn begin_what_is_due(&mut self) -> bool {
        let now = Instant::now();
        let is_barred = self.barred.is_some_and(|(_, until)| until > now);
        if !self.gained.is_empty() && !is_barred {
            let gained = self.gained.iter().cloned().collect();
            let (common, connection, start) = (self.member.common().clone(), self.connection.clone(), self.start);
            self.job = Some(looking(common, connection, gained, start).map(Done::Found).boxed());
            return true;
        }
        let is_due = self.next_commit.is_some_and(|at| at <= now);
        let Some(interval) = self.auto_commit.filter(|_| is_due) else {
            return false;
        };
        self.next_commit = Some(now + interval);
        let offsets = self.uncommitted(&self.consumer.assigned());
        let committing = committing(self.member.common().clone(), offsets);
        self.job = Some(committing.map(Done::Committed).boxed());
        true
    }

    fn drop_all(&mut self) {
        for (topic, partition) in self.consumer.assigned() {
            self.consumer.unassign(&topic, partition);
        }
        self.gained.clear();
        self.committed.clear();
    }

    /// Reads these no longer, and commits how far it came.
    fn give_up(&mut self, partitions: Vec<TopicPartition>) {
        let offsets = match self.auto_commit {
            Some(_) => self.uncommitted(&partitions),
            None => Vec::new(),
        };
        for at in &partitions {
            self.consumer.unassign(&at.0, at.1);
            self.gained.remove(at);
        }
        let committing = committing(self.member.common().clone(), offsets);
        let revoked = committing.map(|stored| Done::Revoked(stored, partitions));
        self.job = Some(revoked.boxed());
    }

    fn leave_to_others(&mut self, partitions: &[TopicPartition]) {
        self.committed.retain(|at, _| !partitions.contains(at));
        self.member.give_up(partitions);
    }

    /// Begins to read what was given, from where the group has come to.
    fn take_up(&mut self, found: Result<Vec<Found>, ClientError>) -> Result<(), ClientError> {
        let (found, mut failed) = match found {
            Ok(found) => (found, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        for found in found {
            let begun = found.beginning.and_then(|beginning| {
                let (topic, partition) = (&found.at.0, found.at.1);
                self.consumer.begin(topic, partition, beginning)
            });
            match begun {
                Ok(()) => {
                    self.gained.remove(&found.at);
                    if let Some(offset) = found.committed {
                        self.committed.insert(found.at, offset);
                    }
                }
                Err(error) => failed = Some(error),
            }
        }
        let Some(error) = failed else {
            self.barred = None;
            return Ok(());
        };
        let now = Instant::now();
        let since = self.barred.map_or(now, |(since, _)| since);
        if !error.is_temporary() || now - since >= self.retry_for {
            self.barred = None;
            return Err(error);
        }
        self.barred = Some((since, now + RETRY));
        Ok(())
    }

    /// How far it has read, where that is not stored.
    pub(super) fn uncommitted(&self, partitions: &[TopicPartition]) -> Vec<(TopicPartition, u64)> {
        let read = partitions.iter().filter_map(|at| {
            let offset = self.consumer.position(&at.0, at.1)?.next_offset;
            (self.committed.get(at) != Some(&offset)).then_some((at.clone(), offset))
        });
        read.collect()
    }

    /// Notes what was stored; why the rest was not, but for what went to others.
    pub(super) fn take_committed(&mut self, stored: Stored) -> Result<(), ClientError> {
        let mut failed = BTreeMap::new();
        for failure in stored.failures? {
            let error = failure.error.map(ClientError::from_message);
            failed.insert((failure.topic, failure.partition), error);
        }
        for (at, offset) in stored.offsets {
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
        let barred = self.barred.map(|(_, until)| until);
        let due = self.next_commit.into_iter().chain(barred).min();
        due.map_or(poll, |due| due.min(poll))
    }
}

/// Commits offsets.
pub(super) async fn committing(common: Arc<Common>, offsets: Vec<(TopicPartition, u64)>) -> Stored {
    let messages = offsets.iter().map(|((topic, partition), offset)| v1::CommittedOffset {
        topic: topic.clone(),
        partition: *partition,
        offset: *offset,
        ..v1::CommittedOffset::default()
    });
    let failures = common.commit(messages.collect()).await;
    Stored { offsets, failures }
}

/// Looks for where these are to be read from.
async fn looking(
    common: Arc<Common>,
    connection: Connection,
    gained: Vec<TopicPartition>,
    start: Start,
) -> Result<Vec<Found>, ClientError> {
    let stored = common.committed(&gained).await?.into_iter();
    let stored: BTreeMap<TopicPartition, u64> = stored
        .map(|offset| ((offset.topic, offset.partition), offset.offset))
        .collect();
    let looks = gained.into_iter().map(|at| {
        let (committed, connection, common) = (stored.get(&at).copied(), connection.clone(), common.clone());
        async move {
            let look = |from| {
                let found = Beginning::find(&connection, &at.0, at.1, from);
                common.in_time("a look for offsets", connection.url(), found)
            };
            let beginning = match look(committed.map_or(start, Start::Offset)).await {
                // It was deleted meanwhile.
                Err(ClientError::OutOfRange { .. }) => look(start).await,
                found => found,
            };
            Found {
                at,
                committed,
                beginning,
            }
        }
    });
    Ok(stream::iter(looks).buffered(LOOKS_AT_ONCE).collect().await)
}
