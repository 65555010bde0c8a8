//! Groups as they are shown.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU32;

use millstream_batch::Offset;
use uuid::Uuid;

use super::{
    GroupOffset, TopicPartition,
    document::{Read, group},
    members::Group,
    reset::unknown,
};
use crate::{broker::Broker, error::Result};

/// Groups that are read at once. What is kept about one takes a MiB at most.
const PAGE: NonZeroU32 = NonZeroU32::new(50).expect("it is not 0");

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSummary {
    /// Its name.
    pub name: String,
    /// The generation.
    pub generation: u64,
    /// How many members it has.
    pub members: usize,
    /// The topics that its members read or that it has committed offsets of.
    pub topics: BTreeSet<String>,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupView {
    /// Its name.
    pub name: String,
    /// The generation.
    pub generation: u64,
    /// Its members, in order of their ids.
    pub members: Vec<GroupMemberView>,
    /// The partitions of the topics that its members read, and those that it has committed offsets of.
    pub partitions: Vec<GroupPartition>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMemberView {
    /// Its id.
    pub id: String,
    /// What it calls itself.
    pub client_id: String,
    /// The topics that it reads.
    pub topics: Vec<String>,
    /// The generation that it was last told.
    pub generation: u64,
    /// How long its session lasts without a heartbeat, in milliseconds.
    pub session_timeout_ms: u32,
    /// How long it still lasts now.
    pub session_left_ms: u64,
    /// What it reads, and what it is still to give up.
    pub owned: Vec<TopicPartition>,
}

/// One partition of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupPartition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Who reads it.
    pub member_id: Option<String>,
    /// How far it was read.
    pub committed: Option<GroupOffset>,
    /// First offset that can be read.
    pub log_start: Offset,
    /// End of what can be read. Of a partition that another agent leads it is the end of its segments.
    pub high_watermark: Offset,
}

impl GroupPartition {
    /// How many offsets there are from the committed one, or from the log start where there is none, to the high watermark.
    pub fn lag(&self) -> u64 {
        let from = self
            .committed
            .as_ref()
            .map_or(self.log_start, |committed| committed.offset);
        self.high_watermark.0.saturating_sub(from.max(self.log_start).0)
    }
}

impl Broker {
    /// All groups, in order of name.
    pub async fn groups_list(&self) -> Result<Vec<GroupSummary>> {
        let metadata = &self.shared().metadata;
        let (mut groups, mut after) = (Vec::<GroupSummary>::new(), String::new());
        loop {
            let (now_ms, rows) = metadata.groups_after(&after, PAGE).await?;
            let Some((first, last)) = rows.first().zip(rows.last()) else {
                return Ok(groups);
            };
            let mut topics: HashMap<String, BTreeSet<String>> = HashMap::new();
            for (group, topic) in metadata.committed_topics(&first.name, &last.name).await? {
                topics.entry(group).or_default().insert(topic);
            }
            after.clone_from(&last.name);
            for row in rows {
                let mut stored = group(&row)?;
                stored.end_sessions(now_ms);
                let mut topics = topics.remove(&row.name).unwrap_or_default();
                topics.extend(stored.wanted().into_iter().map(str::to_owned));
                groups.push(GroupSummary {
                    name: row.name,
                    generation: stored.generation,
                    members: stored.members().len(),
                    topics,
                });
            }
        }
    }

    /// One group: its members, what they read, and how far it is behind.
    ///
    /// # Errors
    /// [`GroupError::Unknown`](super::GroupError::Unknown).
    pub async fn group(&self, name: &str) -> Result<GroupView> {
        let read = self.read_group(name).await?;
        read.version.ok_or_else(|| unknown(name))?;
        let group = read.now();
        Ok(GroupView {
            name: name.to_owned(),
            generation: group.generation,
            members: members(&group, &read),
            partitions: self.group_partitions(name, &group).await?,
        })
    }

    async fn group_partitions(&self, name: &str, group: &Group) -> Result<Vec<GroupPartition>> {
        let metadata = &self.shared().metadata;
        let mut partitions: BTreeMap<TopicPartition, (Uuid, GroupPartition)> = BTreeMap::new();
        for topic in group.topics().values().filter(|topic| topic.current) {
            // The id was written by this very code; one that cannot be read is that of no topic.
            let id = topic.id.parse().unwrap_or_default();
            for number in 0..topic.partitions {
                partitions.insert((topic.name.clone(), number), (id, GroupPartition::default()));
            }
        }
        for offset in metadata.committed_offsets(name).await? {
            let place = partitions.entry((offset.topic.clone(), offset.partition)).or_default();
            place.0 = offset.topic_id;
            place.1.committed = Some(offset.into());
        }
        for (member_id, part) in group.holdings() {
            let (topic, number) = group.place(part);
            if let Some((_, partition)) = partitions.get_mut(&(topic.to_owned(), number)) {
                partition.member_id = Some(member_id.to_owned());
            }
        }
        let ids: Vec<(Uuid, u32)> = partitions.iter().map(|((_, number), (id, _))| (*id, *number)).collect();
        let ends = metadata.partition_ends(&ids).await?.into_iter();
        let ends: HashMap<(Uuid, u32), (Offset, Offset)> = ends
            .map(|ends| ((ends.topic_id, ends.partition), (ends.log_start, ends.committed_end)))
            .collect();
        let shown = partitions.into_iter().map(|((topic, number), (id, partition))| {
            let stored = ends.get(&(id, number)).copied().unwrap_or_default();
            let (log_start, high_watermark) = self.ends(&topic, id, number, stored);
            GroupPartition {
                topic,
                partition: number,
                log_start,
                high_watermark,
                ..partition
            }
        });
        Ok(shown.collect())
    }

    /// Where a partition begins and ends, as far as this agent knows more than is stored.
    fn ends(&self, topic: &str, id: Uuid, number: u32, stored: (Offset, Offset)) -> (Offset, Offset) {
        let live = self.known(topic).filter(|live| live.topic().id == id);
        let Some(place) = live.and_then(|live| live.used_place(number)) else {
            return stored;
        };
        let (stored_start, stored_end) = stored;
        match place.seen() {
            Some(partition) => {
                let (start, end, _) = partition.offsets();
                (start.max(stored_start), end.max(stored_end))
            }
            None => (stored_start, place.left_end().max(stored_end)),
        }
    }
}

fn members(group: &Group, read: &Read) -> Vec<GroupMemberView> {
    let members = group.members().iter().map(|(id, member)| {
        let owned = member.held().map(|part| group.place(part));
        GroupMemberView {
            id: id.clone(),
            client_id: member.client_id.clone(),
            topics: member.topics.iter().cloned().collect(),
            generation: member.generation,
            session_timeout_ms: member.session_ms,
            session_left_ms: member.session_left_ms(read.now_ms),
            owned: owned.map(|(topic, partition)| (topic.to_owned(), partition)).collect(),
        }
    });
    members.collect()
}
