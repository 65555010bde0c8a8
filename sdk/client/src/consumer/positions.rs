//! How far each partition is read.

use std::{collections::BTreeMap, sync::Arc};

use millstream_proto::v1;

use super::Start;

/// How far a partition is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Where to go on reading.
    pub next_offset: u64,
    /// First offset that could be read at the last answer.
    pub log_start_offset: u64,
    /// One past the last offset that could be read at the last answer.
    pub high_watermark: u64,
}

impl Position {
    /// How many offsets there were from here to the high watermark.
    pub fn lag(&self) -> u64 {
        self.high_watermark.saturating_sub(self.next_offset)
    }
}

/// The partitions of a consumer.
#[derive(Debug, Default)]
pub(super) struct Positions {
    topics: BTreeMap<Arc<str>, BTreeMap<u32, Entry>>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    position: Position,
    /// It is not read for now.
    left_out: bool,
}

impl Positions {
    pub(super) fn get(&self, topic: &str, partition: u32) -> Option<&Position> {
        self.entry(topic, partition).map(|entry| &entry.position)
    }

    fn entry(&self, topic: &str, partition: u32) -> Option<&Entry> {
        self.topics.get(topic)?.get(&partition)
    }

    /// Sets a position; the partition is read.
    pub(super) fn put(&mut self, topic: &str, partition: u32, position: Position) {
        self.set(topic, partition, position, false);
    }

    /// Keeps a position of a partition that is not read for now.
    pub(super) fn leave_out(&mut self, topic: &str, partition: u32, position: Position) {
        self.set(topic, partition, position, true);
    }

    fn set(&mut self, topic: &str, partition: u32, position: Position, left_out: bool) {
        let entry = Entry { position, left_out };
        match self.topics.get_mut(topic) {
            Some(of_topic) => of_topic.insert(partition, entry),
            None => self.topics.entry(topic.into()).or_default().insert(partition, entry),
        };
    }

    /// Reads a partition again; false where it was read, or is not known.
    pub(super) fn take_in(&mut self, topic: &str, partition: u32) -> bool {
        let entry = self.topics.get_mut(topic).and_then(|of| of.get_mut(&partition));
        entry.is_some_and(|entry| std::mem::take(&mut entry.left_out))
    }

    pub(super) fn is_left_out(&self, topic: &str, partition: u32) -> bool {
        self.entry(topic, partition).is_some_and(|entry| entry.left_out)
    }

    pub(super) fn remove(&mut self, topic: &str, partition: u32) {
        if let Some(of_topic) = self.topics.get_mut(topic) {
            of_topic.remove(&partition);
        }
    }

    /// The topic's name, shared with all that is read of it.
    pub(super) fn name(&self, topic: &str) -> Arc<str> {
        let known = self.topics.get_key_value(topic);
        known.map_or_else(|| topic.into(), |(name, _)| name.clone())
    }

    /// Those that are read or left out.
    pub(super) fn all(&self) -> Vec<(String, u32)> {
        let all = self.iter().map(|(topic, partition, _)| (topic.to_string(), partition));
        all.collect()
    }

    fn iter(&self) -> impl Iterator<Item = (&Arc<str>, u32, &Entry)> {
        let of = self.topics.iter();
        of.flat_map(|(topic, of)| of.iter().map(move |(partition, entry)| (topic, *partition, entry)))
    }

    /// Those that are read, from where on.
    pub(super) fn message(&self) -> Vec<v1::PartitionPosition> {
        let read = self.iter().filter(|(_, _, entry)| !entry.left_out);
        read.map(|(topic, partition, entry)| at(topic, partition, entry))
            .collect()
    }

    pub(super) fn message_of(&self, topic: &str, partition: u32) -> Option<v1::PartitionPosition> {
        let entry = self.entry(topic, partition)?;
        Some(at(topic, partition, entry))
    }

    /// Those that are not read for now.
    pub(super) fn left_out(&self) -> Vec<v1::TopicPartition> {
        let left_out = self.iter().filter(|(_, _, entry)| entry.left_out);
        left_out.map(|(topic, partition, _)| named(topic, partition)).collect()
    }
}

pub(super) fn named(topic: &str, partition: u32) -> v1::TopicPartition {
    v1::TopicPartition {
        topic: topic.to_owned(),
        partition,
    }
}

fn at(topic: &str, partition: u32, entry: &Entry) -> v1::PartitionPosition {
    v1::PartitionPosition {
        topic: topic.to_owned(),
        partition,
        start: Some(Start::Offset(entry.position.next_offset).message()),
    }
}
