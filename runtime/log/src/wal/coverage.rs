//! Which files still hold frames that are in no committed segment.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;

use millstream_batch::Offset;
use uuid::Uuid;

use super::frame::Frame;

type Partition = (Uuid, u32);

/// The files of the log, oldest first; the last one is being written.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    files: VecDeque<CoveredFile>,
    /// How far each partition is in committed segments.
    committed: HashMap<Partition, Offset>,
    /// Deleted topics: a frame of theirs that was still queued must not hold a file for ever. 16 bytes each.
    forgotten: HashSet<Uuid>,
}

#[derive(Debug)]
struct CoveredFile {
    path: PathBuf,
    bytes: u64,
    /// For each partition with frames that are not covered yet, the greatest offset behind one.
    uncovered: HashMap<Partition, Offset>,
}

impl Coverage {
    /// A new file is written from now on.
    pub(super) fn begin_file(&mut self, path: PathBuf, bytes: u64) {
        self.files.push_back(CoveredFile {
            path,
            bytes,
            uncovered: HashMap::new(),
        });
    }

    /// The file being written has this many bytes now.
    pub(super) fn lengthen_file(&mut self, bytes: u64) {
        if let Some(file) = self.files.back_mut() {
            file.bytes = bytes;
        }
    }

    /// The file being written has this frame.
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
        if let Some(file) = self.files.back_mut() {
            let greatest = file.uncovered.entry(partition).or_insert(end);
            *greatest = end.max(*greatest);
        }
    }

    /// Everything of the partition below `end` is in committed segments. Answers whether a file can go.
    pub(super) fn committed(&mut self, topic_id: Uuid, partition: u32, end: Offset) -> bool {
        let greatest = self.committed.entry((topic_id, partition)).or_insert(end);
        *greatest = end.max(*greatest);
        let end = *greatest;
        for file in &mut self.files {
            if file
                .uncovered
                .get(&(topic_id, partition))
                .is_some_and(|needed| *needed <= end)
            {
                file.uncovered.remove(&(topic_id, partition));
            }
        }
        self.oldest_covered().is_some()
    }

    /// The topic is gone, and its frames are not needed. Answers whether a file can go.
    pub(super) fn forget_topic(&mut self, topic_id: Uuid) -> bool {
        self.forgotten.insert(topic_id);
        self.committed.retain(|(topic, _), _| *topic != topic_id);
        for file in &mut self.files {
            file.uncovered.retain(|(topic, _), _| *topic != topic_id);
        }
        self.oldest_covered().is_some()
    }

    /// The oldest file, when nothing in it is needed; never the one being written.
    pub(super) fn oldest_covered(&self) -> Option<PathBuf> {
        let oldest = self
            .files
            .front()
            .filter(|file| self.files.len() > 1 && file.uncovered.is_empty());
        oldest.map(|file| file.path.clone())
    }

    /// The oldest file was deleted.
    pub(super) fn forget_oldest(&mut self) {
        self.files.pop_front();
    }

    pub(super) fn bytes_on_disk(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}
