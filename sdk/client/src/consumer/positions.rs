//! How far each partition is read.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use millstream_proto::v1;
use tokio::time::Instant;

use super::Start;

/// A partition that an agent has kept for so long is settled, even where nothing came of it.
const CALM: Duration = Duration::from_secs(10);

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

/// The partitions that are read from one agent, or were.
#[derive(Debug, Default)]
pub(super) struct Positions {
    topics: BTreeMap<Arc<str>, BTreeMap<u32, Entry>>,
}

/// A partition as it is read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entry {
    /// `None` where nothing is known of it: it is read from its beginning.
    pub(super) position: Option<Position>,
    pub(super) reading: Reading,
    /// How it went from one agent to another since something came of it.
    pub(super) hops: Option<Hops>,
}

/// How a partition goes from one agent to another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hops {
    pub(super) count: u32,
    pub(super) since: Instant,
    last: Instant,
}

/// Whether a partition is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reading {
    /// It is.
    #[default]
    On,
    /// Not for now.
    Paused,
    /// Not before some time: who leads it is not settled.
    Held,
    /// Another agent is asked for it, or nobody any more.
    Gone,
}

impl Entry {
    /// Reads on from here.
    pub(super) fn at(position: Position) -> Entry {
        Entry {
            position: Some(position),
            ..Entry::default()
        }
    }

    /// Goes on from here after a pause.
    pub(super) fn paused(position: Position) -> Entry {
        Entry {
            reading: Reading::Paused,
            ..Entry::at(position)
        }
    }

    /// Notes that it goes to another agent.
    pub(super) fn hop(&mut self) -> Hops {
        let now = Instant::now();
        let before = self.hops.filter(|hops| now - hops.last <= CALM);
        let (count, since) = before.map_or((0, now), |hops| (hops.count, hops.since));
        *self.hops.insert(Hops {
            count: count + 1,
            since,
            last: now,
        })
    }
}

impl Positions {
    /// How far a partition is read from this agent.
    pub(super) fn get(&self, topic: &str, partition: u32) -> Option<Position> {
        let entry = self.entry(topic, partition)?;
        Some(entry.position.unwrap_or_default())
    }

    /// A partition that this agent is asked for, now or later.
    pub(super) fn entry(&self, topic: &str, partition: u32) -> Option<&Entry> {
        let entry = self.topics.get(topic)?.get(&partition);
        entry.filter(|entry| entry.reading != Reading::Gone)
    }

    /// Sets a position; the partition is read.
    pub(super) fn put(&mut self, topic: &str, partition: u32, position: Position) {
        self.set(topic, partition, Entry::at(position));
    }

    pub(super) fn set(&mut self, topic: &str, partition: u32, entry: Entry) {
        match self.topics.get_mut(topic) {
            Some(of_topic) => of_topic.insert(partition, entry),
            None => self.topics.entry(topic.into()).or_default().insert(partition, entry),
        };
    }

    /// Lets a partition be read in another way than before; false where that changes nothing.
    pub(super) fn turn(&mut self, topic: &str, partition: u32, from: Reading, to: Reading) -> bool {
        let entry = self.topics.get_mut(topic).and_then(|of| of.get_mut(&partition));
        let Some(entry) = entry.filter(|entry| entry.reading == from) else {
            return false;
        };
        entry.reading = to;
        true
    }

    pub(super) fn is_paused(&self, topic: &str, partition: u32) -> bool {
        let entry = self.entry(topic, partition);
        entry.is_some_and(|entry| entry.reading == Reading::Paused)
    }

    /// Whether nothing of it is wanted.
    pub(super) fn is_left_out(&self, topic: &str, partition: u32) -> bool {
        let entry = self.topics.get(topic).and_then(|of| of.get(&partition));
        entry.is_some_and(|entry| entry.reading != Reading::On)
    }

    pub(super) fn remove(&mut self, topic: &str, partition: u32) {
        if let Some(of_topic) = self.topics.get_mut(topic) {
            of_topic.remove(&partition);
            if of_topic.is_empty() {
                self.topics.remove(topic);
            }
        }
    }

    /// The topic's name, shared with all that is read of it.
    pub(super) fn name(&self, topic: &str) -> Arc<str> {
        let known = self.topics.get_key_value(topic);
        known.map_or_else(|| topic.into(), |(name, _)| name.clone())
    }

    /// Those that this agent is asked for, now or later.
    pub(super) fn all(&self) -> impl Iterator<Item = (String, u32)> {
        let all = self.iter().filter(|(_, _, entry)| entry.reading != Reading::Gone);
        all.map(|(topic, partition, _)| (topic.to_string(), partition))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    fn iter(&self) -> impl Iterator<Item = (&Arc<str>, u32, &Entry)> {
        let of = self.topics.iter();
        of.flat_map(|(topic, of)| of.iter().map(move |(partition, entry)| (topic, *partition, entry)))
    }

    /// Those that are read, from where on.
    pub(super) fn message(&self) -> Vec<v1::PartitionPosition> {
        let read = self.iter().filter(|(_, _, entry)| entry.reading == Reading::On);
        read.map(|(topic, partition, entry)| at(topic, partition, entry))
            .collect()
    }

    pub(super) fn message_of(&self, topic: &str, partition: u32) -> Option<v1::PartitionPosition> {
        let entry = self.entry(topic, partition)?;
        Some(at(topic, partition, entry))
    }

    /// Those that are not read for now.
    pub(super) fn left_out(&self) -> Vec<v1::TopicPartition> {
        let left_out = self.iter().filter(|(_, _, entry)| entry.reading != Reading::On);
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
    let start = entry
        .position
        .map_or(Start::Earliest, |position| Start::Offset(position.next_offset));
    v1::PartitionPosition {
        topic: topic.to_owned(),
        partition,
        start: Some(start.message()),
    }
}
