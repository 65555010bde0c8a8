//! Moving the committed offsets of groups without members, and forgetting them.

use std::collections::BTreeSet;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use millstream_batch::Offset;
use millstream_meta::{CommittedOffset, MetaError};

use super::{GroupError, GroupOffset, PARTITIONS_MAX, TopicPartition, check_count};
use crate::{
    broker::{Broker, PARTITIONS_AT_ONCE},
    error::{BrokerError, Result},
};

/// Where a group is to go on reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetTo {
    /// The first offset that can be read.
    Earliest,
    /// The high watermark.
    Latest,
    /// This offset, between the two.
    Offset(Offset),
    /// The first record of this time or later, in milliseconds since the Unix epoch; the high watermark where there is none.
    Time(i64),
}

/// Which committed offsets are to be moved, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupReset {
    /// The group.
    pub group: String,
    /// These partitions,
    pub partitions: Vec<TopicPartition>,
    /// and all of these topics; with neither everything that was committed.
    pub topics: Vec<String>,
    /// Where to.
    pub to: ResetTo,
    /// Whether only to tell what it would be.
    pub dry_run: bool,
}

impl Broker {
    /// Moves committed offsets: all of them, or none after an error. A group that there is not is made, where the request says
    /// what to move.
    ///
    /// # Errors
    /// [`GroupError::HasMembers`]; [`GroupError::Unknown`]; [`BrokerError::OffsetOutOfRange`].
    pub async fn reset_group(&self, reset: GroupReset) -> Result<Vec<GroupOffset>> {
        let name = &reset.group;
        let read = self.read_group(name).await?;
        read.check_without_members(name)?;
        if reset.partitions.is_empty() && reset.topics.is_empty() && read.version.is_none() {
            return Err(unknown(name));
        }
        let partitions = self.partitions_to_reset(&reset).await?;
        let moves = partitions
            .into_iter()
            .map(|(topic, partition)| self.reset_offset(topic, partition, reset.to));
        let offsets: Vec<CommittedOffset> = stream::iter(moves).buffered(PARTITIONS_AT_ONCE).try_collect().await?;
        if !reset.dry_run {
            self.store_reset(name, &offsets).await?;
        }
        Ok(offsets.into_iter().map(GroupOffset::from).collect())
    }

    async fn store_reset(&self, name: &str, offsets: &[CommittedOffset]) -> Result<()> {
        let mut tries = self.group_tries(name).await;
        loop {
            let read = tries.read().await?;
            read.check_without_members(name)?;
            if let Some(stored) = tries.outcome(self.store_offsets(name, &read, offsets).await) {
                return stored;
            }
        }
    }

    /// Forgets a group, and what it has committed.
    ///
    /// # Errors
    /// [`GroupError::HasMembers`]; [`GroupError::Unknown`].
    pub async fn delete_group(&self, name: &str) -> Result<()> {
        let mut tries = self.group_tries(name).await;
        loop {
            let read = tries.read().await?;
            let version = read.version.ok_or_else(|| unknown(name))?;
            read.check_without_members(name)?;
            let deleted = match self.shared().metadata.delete_group(name, version).await {
                Err(MetaError::NotFound { .. }) => Err(unknown(name)),
                done => done.map_err(BrokerError::from),
            };
            if let Some(deleted) = tries.outcome(deleted) {
                return deleted;
            }
        }
    }

    async fn partitions_to_reset(&self, reset: &GroupReset) -> Result<BTreeSet<TopicPartition>> {
        check_count("topics", reset.topics.len(), PARTITIONS_MAX)?;
        check_count("partitions", reset.partitions.len(), PARTITIONS_MAX)?;
        let mut partitions: BTreeSet<TopicPartition> = reset.partitions.iter().cloned().collect();
        for name in &reset.topics {
            let count = self.live(name).await?.topic().partitions;
            check_count("partitions", partitions.len() + count as usize, PARTITIONS_MAX)?;
            partitions.extend((0..count).map(|partition| (name.clone(), partition)));
        }
        if reset.partitions.is_empty() && reset.topics.is_empty() {
            let committed = self.shared().metadata.committed_offsets(&reset.group).await?;
            partitions.extend(committed.into_iter().map(|offset| (offset.topic, offset.partition)));
        }
        Ok(partitions)
    }

    async fn reset_offset(&self, topic: String, partition: u32, to: ResetTo) -> Result<CommittedOffset> {
        let live = self.live(&topic).await?;
        let (start, end, _) = self.partition(&live, partition).await?.offsets();
        let offset = match to {
            ResetTo::Earliest => start,
            ResetTo::Latest => end,
            ResetTo::Offset(offset) if (start..=end).contains(&offset) => offset,
            ResetTo::Offset(offset) => {
                return Err(BrokerError::OffsetOutOfRange {
                    topic,
                    partition,
                    offset,
                    start,
                    end,
                });
            }
            ResetTo::Time(ms) => self.offset_at(&topic, partition, ms).await?.unwrap_or(end),
        };
        Ok(CommittedOffset {
            topic_id: live.topic().id,
            topic,
            partition,
            offset,
            metadata: String::new(),
            committed_at_ms: self.shared().clock.now_ms(),
        })
    }
}

pub(super) fn unknown(name: &str) -> BrokerError {
    let group = name.to_owned();
    GroupError::Unknown { group }.into()
}
