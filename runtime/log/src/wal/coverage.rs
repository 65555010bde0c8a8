//! Which parts of a log still hold frames that are in no committed segment. A part is what is deleted as a whole.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use millstream_batch::Offset;
use uuid::Uuid;

use super::frame::Frame;

type PartitionId = (Uuid, u32);

/// The parts of the log, oldest first; the last one is being written. `Name` says which part it is: a file's path, or
/// the number of the first object.
#[derive(Debug)]
pub(super) struct Coverage<Name> {
    parts: VecDeque<Part<Name>>,
    /// Parts that were deleted.
    parts_gone: u64,
    /// How far each partition is in committed segments.
    committed: HashMap<PartitionId, Offset>,
    /// Deleted topics: a frame of theirs that was still queued must not hold a part for ever. 16 bytes each.
    forgotten: HashSet<Uuid>,
}

#[derive(Debug)]
struct Part<Name> {
    name: Name,
    bytes: u64,
    /// For each partition with frames that are not covered yet, the greatest offset behind one.
    uncovered: HashMap<PartitionId, Offset>,
}

impl<Name> Default for Coverage<Name> {
    fn default() -> Coverage<Name> {
        Coverage {
            parts: VecDeque::new(),
            parts_gone: 0,
            committed: HashMap::new(),
            forgotten: HashSet::new(),
        }
    }
}

impl<Name> Coverage<Name> {
    /// A new part is written from now on.
    pub(super) fn begin_part(&mut self, name: Name, bytes: u64) {
        self.parts.push_back(Part {
            name,
            bytes,
            uncovered: HashMap::new(),
        });
    }

    /// The part being written has this many bytes now.
    pub(super) fn set_bytes(&mut self, bytes: u64) {
        if let Some(part) = self.parts.back_mut() {
            part.bytes = bytes;
        }
    }

    /// The part being written has this frame.
    pub(super) fn record(&mut self, frame: &Frame) {
        let partition = (frame.topic_id, frame.partition);
        let end = frame.end_offset();
        let covered = self
            .committed
            .get(&partition)
            .is_some_and(|committed| end <= *committed);
        if covered || self.forgotten.contains(&frame.topic_id) {
            return;
        }
        if let Some(part) = self.parts.back_mut() {
            let greatest = part.uncovered.entry(partition).or_insert(end);
            *greatest = end.max(*greatest);
        }
    }

    /// Everything of the partition below `end` is in committed segments. Answers whether a part can go.
    pub(super) fn committed(&mut self, topic_id: Uuid, partition: u32, end: Offset) -> bool {
        let greatest = self.committed.entry((topic_id, partition)).or_insert(end);
        *greatest = end.max(*greatest);
        let end = *greatest;
        for part in &mut self.parts {
            if part
                .uncovered
                .get(&(topic_id, partition))
                .is_some_and(|needed| *needed <= end)
            {
                part.uncovered.remove(&(topic_id, partition));
            }
        }
        self.oldest_covered().is_some()
    }

    /// How many parts were begun so far.
    pub(super) fn parts_begun(&self) -> u64 {
        self.parts_gone + self.parts.len() as u64
    }

    /// What the parts before the last of the first `parts_begun` hold of the partition is in committed segments below `end`,
    /// or a frame without a batch there, which the metadata has in another form. Answers whether a part can go.
    pub(super) fn checkpointed(&mut self, topic_id: Uuid, partition: u32, end: Offset, parts_begun: u64) -> bool {
        let full = parts_begun.saturating_sub(1 + self.parts_gone) as usize;
        for part in self.parts.iter_mut().take(full) {
            let needed = part.uncovered.get(&(topic_id, partition));
            if needed.is_some_and(|needed| *needed <= end + 1) {
                part.uncovered.remove(&(topic_id, partition));
            }
        }
        self.oldest_covered().is_some()
    }

    /// What this log has of the partition so far is not needed: another log holds it. What is written of it later is, whatever
    /// offsets that has. Answers whether a part can go.
    pub(super) fn give_up(&mut self, topic_id: Uuid, partition: u32) -> bool {
        for part in &mut self.parts {
            part.uncovered.remove(&(topic_id, partition));
        }
        self.oldest_covered().is_some()
    }

    /// The topic is gone, and its frames are not needed. Answers whether a part can go.
    pub(super) fn forget_topic(&mut self, topic_id: Uuid) -> bool {
        self.forgotten.insert(topic_id);
        self.committed.retain(|(topic, _), _| *topic != topic_id);
        for part in &mut self.parts {
            part.uncovered.retain(|(topic, _), _| *topic != topic_id);
        }
        self.oldest_covered().is_some()
    }

    /// The oldest part, when nothing in it is needed; never the one being written.
    pub(super) fn oldest_covered(&self) -> Option<&Name> {
        let oldest = self
            .parts
            .front()
            .filter(|part| self.parts.len() > 1 && part.uncovered.is_empty());
        oldest.map(|part| &part.name)
    }

    /// The oldest part that is needed.
    pub(super) fn oldest_needed(&self) -> Option<&Name> {
        let (last, older) = (self.parts.back()?, self.parts.iter().take(self.parts.len() - 1));
        let needed = older.into_iter().find(|part| !part.uncovered.is_empty());
        Some(&needed.unwrap_or(last).name)
    }

    /// The oldest part was deleted.
    pub(super) fn forget_oldest(&mut self) {
        self.parts_gone += u64::from(self.parts.pop_front().is_some());
    }

    /// Everything below the part of this name was deleted.
    pub(super) fn forget_below(&mut self, name: Name)
    where
        Name: Ord,
    {
        while self.parts.len() > 1 && self.parts[1].name <= name {
            self.forget_oldest();
        }
    }

    pub(super) fn bytes_stored(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// The partitions that keep the oldest parts, down to where the parts behind those take no more than `bytes_max`.
    /// The part being written stays in any case.
    pub(super) fn pinned_by(&self, bytes_max: u64) -> Vec<PartitionId> {
        let mut left = self.bytes_stored();
        let mut pinning = BTreeSet::new();
        for part in self.parts.iter().take(self.parts.len().saturating_sub(1)) {
            if left <= bytes_max {
                break;
            }
            pinning.extend(part.uncovered.keys().copied());
            left -= part.bytes;
        }
        pinning.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use millstream_batch::{BatchBuilder, Compression, Epoch};

    use super::*;
    use crate::{Outcome, ProducerStamp};

    const TOPIC: Uuid = Uuid::nil();

    /// Of one record.
    fn frame(partition: u32, base: u64) -> Frame {
        let mut builder = BatchBuilder::new();
        builder.push(0, None, Some(b"v"), [].into_iter());
        let mut batch = builder.build(Compression::None);
        batch.stamp(Offset(base), Epoch(1));
        Frame {
            topic_id: TOPIC,
            partition,
            epoch: Epoch(1),
            pipeline_version: 0,
            base_offset: Offset(base),
            producer: ProducerStamp::NONE,
            outcome: Outcome::all_kept(1),
            batch: Some(batch),
        }
    }

    #[test]
    fn a_frame_without_a_batch_is_needed_until_a_segment_goes_beyond_it_or_it_is_checkpointed() {
        let dropped = |base| Frame {
            outcome: Outcome::default(),
            batch: None,
            ..frame(0, base)
        };
        let mut coverage = Coverage::default();
        coverage.begin_part(0, 1);
        coverage.record(&frame(0, 0));
        coverage.record(&dropped(1));
        coverage.begin_part(1, 1);
        let begun = coverage.parts_begun();
        coverage.record(&dropped(1));
        coverage.begin_part(2, 1);
        assert!(
            !coverage.committed(TOPIC, 0, Offset(1)),
            "the dropped one lies at the end"
        );
        assert!(coverage.checkpointed(TOPIC, 0, Offset(1), begun), "the first part");
        coverage.forget_oldest();
        assert_eq!(
            coverage.oldest_covered(),
            None,
            "what was written after the checkpoint began is needed"
        );
        assert!(!coverage.checkpointed(TOPIC, 0, Offset(1), begun));
        assert!(coverage.committed(TOPIC, 0, Offset(2)));
    }

    #[test]
    fn what_was_given_up_keeps_nothing_and_what_comes_again_is_kept() {
        let mut coverage = Coverage::default();
        for part in 0..3 {
            coverage.begin_part(part, 1);
            coverage.record(&frame(0, part));
        }
        coverage.record(&frame(1, 0));
        assert_eq!(coverage.oldest_needed(), Some(&0));
        assert!(coverage.give_up(TOPIC, 0));
        assert_eq!(coverage.oldest_needed(), Some(&2), "that of partition 1");
        // The same offsets once more, from the log of whoever led the partition meanwhile.
        coverage.record(&frame(0, 0));
        coverage.begin_part(3, 1);
        coverage.committed(TOPIC, 1, Offset(1));
        coverage.forget_below(2);
        assert_eq!(coverage.oldest_covered(), None, "partition 0 needs it");
        assert!(coverage.committed(TOPIC, 0, Offset(1)));
    }
}
