//! How far groups have read.

use std::collections::HashSet;

use futures::{StreamExt as _, stream};
use millstream_batch::Offset;
use millstream_meta::{CommittedOffset, OFFSET_METADATA_BYTES_MAX};

use super::{GroupError, PARTITIONS_MAX, TopicPartition, check_count, document::Read, invalid};
use crate::{
    broker::{Broker, PARTITIONS_AT_ONCE},
    error::{BrokerError, Result},
    names::check_group_name,
    topic::LiveTopic,
};

/// Offsets that a group is to remember.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupCommit {
    /// The group.
    pub group: String,
    /// Empty for whoever is no member.
    pub member_id: String,
    /// The member's present generation.
    pub generation: u64,
    /// 1 to 10,000, each partition once.
    pub offsets: Vec<GroupOffset>,
}

/// How far one partition was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOffset {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The next offset to read.
    pub offset: Offset,
    /// Whatever whoever commits wants to find again, 4,096 bytes at most.
    pub metadata: String,
    /// When it was committed, in milliseconds since the Unix epoch. Not looked at in a commit.
    pub committed_at_ms: i64,
}

/// A partition whose offset was not stored, and why.
#[derive(Debug)]
pub struct CommitFailure {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Why.
    pub error: BrokerError,
}

impl Broker {
    /// Stores how far a group has read. Every partition that is not among the answers is stored, durably.
    ///
    /// # Errors
    /// [`GroupError::MemberUnknown`], [`GroupError::GenerationStale`]; [`GroupError::HasMembers`] for whoever is no member
    /// while there are some. Nothing is stored then.
    pub async fn group_commit(&self, commit: GroupCommit) -> Result<Vec<CommitFailure>> {
        check_group_name(&commit.group)?;
        check_count("offsets", commit.offsets.len(), PARTITIONS_MAX)?;
        if commit.offsets.is_empty() {
            return Err(invalid("a commit names 1 to 10,000 offsets".to_owned()));
        }
        let GroupCommit {
            group: name,
            member_id,
            generation,
            offsets,
        } = commit;
        // Before anything is looked up for somebody who may not commit.
        let read = self.read_group(&name).await?;
        check_may_commit(&read, &name, &member_id, generation)?;

        let (checked, mut failures) = self.checked(offsets).await;
        let mut tries = self.group_tries(&name).await;
        loop {
            let read = tries.read().await?;
            check_may_commit(&read, &name, &member_id, generation)?;
            let (owned, not_owned) = split_owned(&read, &name, &member_id, &checked);
            if let Some(stored) = tries.outcome(self.store_offsets(&name, &read, &owned).await) {
                stored?;
                failures.extend(not_owned);
                return Ok(failures);
            }
        }
    }

    /// Stores offsets, where the group is still as it was read.
    pub(super) async fn store_offsets(&self, name: &str, read: &Read, offsets: &[CommittedOffset]) -> Result<()> {
        if !offsets.is_empty() {
            let metadata = &self.shared().metadata;
            metadata.commit_offsets(name, read.version, offsets).await?;
            self.groups().figures.committed(offsets.len());
        }
        Ok(())
    }

    /// What a group has committed: of these partitions, or of all.
    pub async fn group_offsets(&self, name: &str, partitions: &[TopicPartition]) -> Result<Vec<GroupOffset>> {
        check_group_name(name)?;
        check_count("partitions", partitions.len(), PARTITIONS_MAX)?;
        let wanted: HashSet<(&str, u32)> = partitions.iter().map(|(topic, at)| (topic.as_str(), *at)).collect();
        let committed = self.shared().metadata.committed_offsets(name).await?.into_iter();
        let committed =
            committed.filter(|offset| wanted.is_empty() || wanted.contains(&(offset.topic.as_str(), offset.partition)));
        Ok(committed.map(GroupOffset::from).collect())
    }

    /// Finds the topics, and holds the offsets to the ends of their partitions.
    async fn checked(&self, offsets: Vec<GroupOffset>) -> (Vec<CommittedOffset>, Vec<CommitFailure>) {
        let mut named = HashSet::new();
        let once: Vec<bool> = offsets
            .iter()
            .map(|offset| named.insert((offset.topic.clone(), offset.partition)))
            .collect();
        let checks = offsets.into_iter().zip(once).map(|(offset, once)| async move {
            let (topic, partition) = (offset.topic.clone(), offset.partition);
            let checked = match once {
                true => self.check_offset(offset).await,
                false => Err(invalid(format!("partition {partition} of {topic:?} is named twice"))),
            };
            checked.map_err(|error| CommitFailure {
                topic,
                partition,
                error,
            })
        });
        let checked: Vec<_> = stream::iter(checks).buffered(PARTITIONS_AT_ONCE).collect().await;
        let (mut good, mut failures) = (Vec::new(), Vec::new());
        for checked in checked {
            match checked {
                Ok(offset) => good.push(offset),
                Err(failure) => failures.push(failure),
            }
        }
        (good, failures)
    }

    async fn check_offset(&self, offset: GroupOffset) -> Result<CommittedOffset> {
        if offset.metadata.len() > OFFSET_METADATA_BYTES_MAX || offset.metadata.contains('\0') {
            return Err(invalid(format!(
                "the metadata of an offset have at most {OFFSET_METADATA_BYTES_MAX} bytes, none of them 0"
            )));
        }
        let live = self.live(&offset.topic).await?;
        match self.partition(&live, offset.partition).await {
            Ok(partition) => {
                let (start, end, _) = partition.offsets();
                if offset.offset > end {
                    return Err(BrokerError::OffsetOutOfRange {
                        topic: offset.topic,
                        partition: offset.partition,
                        offset: offset.offset,
                        start,
                        end,
                    });
                }
            }
            // Where it ends only its leader knows, but that is never before the end of its segments.
            Err(error) if error.is_elsewhere() => {
                if !self.is_in_segments(&live, offset.partition, offset.offset).await? {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
        Ok(CommittedOffset {
            topic_id: live.topic().id,
            topic: offset.topic,
            partition: offset.partition,
            offset: offset.offset,
            metadata: offset.metadata,
            committed_at_ms: self.shared().clock.now_ms(),
        })
    }

    /// Whether the segments of a partition reach up to an offset. Their end only grows: the database is asked for it where what
    /// it has said before is not enough.
    async fn is_in_segments(&self, live: &LiveTopic, partition: u32, offset: Offset) -> Result<bool> {
        let place = live.place(partition)?;
        if offset <= place.stored_end() {
            return Ok(true);
        }
        let row = self.shared().metadata.partition(live.topic().id, partition).await?;
        let end = row.map_or(Offset(0), |row| row.committed_end);
        place.set_stored(end);
        Ok(offset <= end)
    }
}

fn check_may_commit(read: &Read, name: &str, member_id: &str, generation: u64) -> Result<()> {
    if member_id.is_empty() {
        return read.check_without_members(name);
    }
    let checked = read.now().check_member(member_id, generation).map(drop);
    checked.map_err(|refusal| GroupError::of(refusal, name, member_id, generation).into())
}

/// What the member may commit, and what it may not because it does not own it. Whoever is no member may commit everything.
fn split_owned(
    read: &Read,
    name: &str,
    member_id: &str,
    offsets: &[CommittedOffset],
) -> (Vec<CommittedOffset>, Vec<CommitFailure>) {
    let held: HashSet<(&str, u32)> = match read.stored.members().get(member_id) {
        None => return (offsets.to_vec(), Vec::new()),
        Some(member) => member
            .held()
            .map(|(key, partition)| (read.stored.topics()[&key].id.as_str(), partition))
            .collect(),
    };
    let is_owned = |offset: &&CommittedOffset| held.contains(&(offset.topic_id.to_string().as_str(), offset.partition));
    let (owned, others): (Vec<_>, Vec<_>) = offsets.iter().partition(is_owned);
    let not_owned = others.into_iter().map(|offset| CommitFailure {
        topic: offset.topic.clone(),
        partition: offset.partition,
        error: GroupError::NotOwned {
            group: name.to_owned(),
            member: member_id.to_owned(),
            topic: offset.topic.clone(),
            partition: offset.partition,
        }
        .into(),
    });
    (owned.into_iter().cloned().collect(), not_owned.collect())
}

impl From<CommittedOffset> for GroupOffset {
    fn from(offset: CommittedOffset) -> GroupOffset {
        GroupOffset {
            topic: offset.topic,
            partition: offset.partition,
            offset: offset.offset,
            metadata: offset.metadata,
            committed_at_ms: offset.committed_at_ms,
        }
    }
}
