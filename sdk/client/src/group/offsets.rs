//! What a group has committed, and committing more: each partition's offset is given to the agent that leads it, which alone
//! knows whether there is such an offset.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use millstream_proto::v1;
use tokio::time::timeout;

use super::TopicPartition;
use super::keeper::Common;
use crate::{ClientError, Code, agents::HOPS_MAX};

/// How often a commit is sent again because the generation has changed meanwhile.
const COMMIT_TRIES_MAX: u32 = 10;
/// The word for a session that is over.
const MEMBER_UNKNOWN: &str = "MEMBER_UNKNOWN";

/// HOST:PORT of the agents that lead partitions, as far as the member's own agent does not.
#[derive(Debug, Default)]
pub(super) struct Leaders(Mutex<BTreeMap<TopicPartition, String>>);

impl Leaders {
    fn known(&self) -> MutexGuard<'_, BTreeMap<TopicPartition, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The offsets by whom they go to; those without a name to the member's own agent.
    fn share_out(&self, offsets: Vec<v1::CommittedOffset>) -> BTreeMap<Option<String>, Vec<v1::CommittedOffset>> {
        let known = self.known();
        let mut shares: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for offset in offsets {
            let leader = known.get(&place(&offset)).cloned();
            shares.entry(leader).or_default().push(offset);
        }
        shares
    }

    fn forget(&self, offsets: &[v1::CommittedOffset]) {
        let mut known = self.known();
        offsets.iter().for_each(|offset| drop(known.remove(&place(offset))));
    }
}

impl Common {
    /// Stores how far the group has read; which partitions were not stored, and why. It is an error where no agent says
    /// anything about them.
    pub(super) async fn commit(
        &self,
        offsets: Vec<v1::CommittedOffset>,
    ) -> Result<Vec<v1::CommitFailure>, ClientError> {
        // What was read under one id is not stored under another.
        let member_id = self.state().share.member_id.clone();
        let (mut left, mut failures, mut hops) = (offsets, Vec::new(), 0);
        let (mut is_told, mut failed) = (false, None);
        while !left.is_empty() {
            let mut moved = Vec::new();
            for (leader, share) in self.leaders.share_out(left) {
                let told = match self.commit_at(&member_id, leader.as_deref(), &share).await {
                    Ok(told) => {
                        is_told = true;
                        told
                    }
                    // Its own agent knows who leads them now.
                    Err(error) if leader.is_some() && error.is_away() && hops < HOPS_MAX => {
                        self.leaders.forget(&share);
                        moved.extend(share);
                        continue;
                    }
                    Err(error) if is_over(&error) => return Err(error),
                    // The others are no worse for it.
                    Err(error) => {
                        let told = share.iter().map(|offset| failure(offset, &error)).collect();
                        failed.get_or_insert(error);
                        told
                    }
                };
                for failure in told {
                    match self.moved(&failure, &share).filter(|_| hops < HOPS_MAX) {
                        Some(offset) => moved.push(offset.clone()),
                        None => failures.push(failure),
                    }
                }
            }
            (left, hops) = (moved, hops + 1);
        }
        match failed.filter(|_| !is_told) {
            Some(error) => Err(error),
            None => Ok(failures),
        }
    }

    /// The offset that a failure is about, where another agent may store it.
    fn moved<'a>(
        &self,
        failure: &v1::CommitFailure,
        sent: &'a [v1::CommittedOffset],
    ) -> Option<&'a v1::CommittedOffset> {
        let leader = &failure.error.as_ref()?.leader;
        let is_it =
            |offset: &&v1::CommittedOffset| offset.topic == failure.topic && offset.partition == failure.partition;
        let offset = sent.iter().find(is_it).filter(|_| !leader.is_empty())?;
        self.leaders.known().insert(place(offset), leader.clone());
        Some(offset)
    }

    /// Stores offsets by way of one agent.
    async fn commit_at(
        &self,
        member_id: &str,
        leader: Option<&str>,
        offsets: &[v1::CommittedOffset],
    ) -> Result<Vec<v1::CommitFailure>, ClientError> {
        let agent = match leader {
            None => self.connection.clone(),
            Some(address) => self.connection.at(address)?,
        };
        let mut tries = 1;
        loop {
            // Without an id it would be a commit from outside of the group.
            let generation = self.state().share.generation_of(member_id).ok_or_else(over)?;
            let request = v1::CommitOffsetsRequest {
                group: self.group.clone(),
                member_id: member_id.to_owned(),
                generation,
                offsets: offsets.to_vec(),
            };
            let mut groups = agent.groups();
            let stored = async {
                let answer = groups.commit_offsets(request).await;
                Ok(answer.map_err(|status| agent.error(status))?.into_inner().failures)
            };
            let error = match self.in_time("a commit", agent.url(), stored).await {
                Ok(failures) => return Ok(failures),
                Err(error) => error,
            };
            if error.reason() != Some("GENERATION_STALE") || tries == COMMIT_TRIES_MAX {
                return Err(error);
            }
            // The next heartbeat tells it.
            self.wake.notify_one();
            let other = self.wait_for(|share| share.generation_of(member_id) != Some(generation));
            timeout(self.patience(), other).await.map_err(|_| error)?;
            tries += 1;
        }
    }

    /// What the group has committed of these partitions.
    pub(super) async fn committed(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<v1::CommittedOffset>, ClientError> {
        let partitions = partitions.iter().map(|(topic, partition)| v1::TopicPartition {
            topic: topic.clone(),
            partition: *partition,
        });
        let request = v1::FetchOffsetsRequest {
            group: self.group.clone(),
            partitions: partitions.collect(),
        };
        let agent = &self.connection;
        let stored = async {
            let answer = agent.groups().fetch_offsets(request).await;
            Ok(answer.map_err(|status| agent.error(status))?.into_inner().offsets)
        };
        self.in_time("a look at what is committed", agent.url(), stored).await
    }
}

fn place(offset: &v1::CommittedOffset) -> TopicPartition {
    (offset.topic.clone(), offset.partition)
}

/// An offset that was not stored because its agent stored nothing.
fn failure(offset: &v1::CommittedOffset, error: &ClientError) -> v1::CommitFailure {
    v1::CommitFailure {
        topic: offset.topic.clone(),
        partition: offset.partition,
        error: Some(error.to_message()),
    }
}

/// Whether the member's session is over.
pub(super) fn is_over(error: &ClientError) -> bool {
    error.reason() == Some(MEMBER_UNKNOWN)
}

fn over() -> ClientError {
    ClientError::from_message(v1::Error {
        code: Code::Aborted.into(),
        reason: MEMBER_UNKNOWN.to_owned(),
        message: "the member's session is over: others may read what it read".to_owned(),
        ..v1::Error::default()
    })
}
