//! The one thread that writes: groups what is queued, writes it, syncs it, answers.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::Instant;

use millstream_batch::Offset;
use uuid::Uuid;

use super::{KeeperCall, Request, Shared, SyncPolicy, WalSettings};
use crate::error::{LogError, Result};
use crate::file::{BLOCK_BYTES, Disk, DiskFile};
use crate::wal::frame::Frame;
use crate::wal::group::{FILE_HEADER_BYTES, FileHeader, GROUP_HEADER_BYTES, GroupHeader};
use crate::wal::queue::Submission;

pub(super) struct Committer {
    disk: Arc<dyn Disk>,
    settings: WalSettings,
    wal_id: Uuid,
    shared: Arc<Shared>,
    current: CurrentFile,
    /// The number of the next group, and its log position.
    group: u64,
    position: u64,
    /// Every byte below this log position is synced.
    durable_end: u64,
    /// One group, encoded.
    encoded: Encoded,
    /// For each partition that had a frame fail and has not started again: the first offset that failed, and why.
    failed: HashMap<(Uuid, u32), (Offset, LogError)>,
}

/// A group's bytes. The memory is kept, so that it is taken once; what remains is one copy of each batch, in cache with the
/// checksum, and one write.
#[derive(Default)]
struct Encoded {
    memory: Vec<u8>,
    /// What stands before the group, so that it lies in memory as it is going to lie in the file: whole blocks of the one are
    /// then whole blocks of the other, and need not be copied once more to be written. Only the first group of a file is: it is
    /// encoded before the file begins.
    gap: usize,
}

impl Encoded {
    /// Begins a group of so many bytes that is going to be written at `position`.
    fn begin(&mut self, bytes: usize, position: u64) -> &mut Vec<u8> {
        self.memory.clear();
        self.memory.reserve(BLOCK_BYTES + bytes);
        let into_block = position as usize % BLOCK_BYTES;
        self.gap = (self.memory.as_ptr().align_offset(BLOCK_BYTES) + into_block) % BLOCK_BYTES;
        self.memory.resize(self.gap, 0);
        &mut self.memory
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.gap..]
    }
}

struct CurrentFile {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    bytes: u64,
    written: u64,
}

impl Committer {
    /// Creates the log's first file.
    pub(super) fn create(
        disk: Arc<dyn Disk>,
        settings: WalSettings,
        wal_id: Uuid,
        shared: Arc<Shared>,
    ) -> Result<Committer> {
        let header = FileHeader {
            wal_id,
            first_group: 0,
            position: 0,
        };
        let current = create_file(&*disk, &settings, &header, settings.file_bytes)?;
        let committer = Committer {
            disk,
            settings,
            wal_id,
            shared,
            current,
            group: 0,
            position: 0,
            durable_end: 0,
            encoded: Encoded::default(),
            failed: HashMap::new(),
        };
        committer.announce_file();
        Ok(committer)
    }

    /// Commits group after group until the log is closed or nobody holds it any more.
    pub(super) fn run(mut self, requests: Receiver<Request>, keeper: JoinHandle<()>) {
        let guard = self.shared.failure.unless_disarmed("committer");
        let mut next = None;
        let mut closing = None;
        while closing.is_none() {
            let Some(first) = next.take().or_else(|| requests.recv().ok()) else {
                break;
            };
            let group = match first {
                Request::Write(submission) => self.take_group(submission, &requests, &mut next),
                Request::Close(done) => {
                    closing = Some(done);
                    continue;
                }
            };
            self.commit(group);
        }
        // Whoever submits from here on is told that the log is closed.
        drop(requests);
        self.shared.call_keeper(KeeperCall::End);
        // An error is a panic, and the keeper's own guard has told of it.
        let _ = keeper.join();
        guard.disarm();
        if let Some(done) = closing {
            let _ = done.send(());
        }
    }

    /// The first frame and whatever else is queued, up to the group's limit. What is beyond it becomes `next`.
    fn take_group(
        &self,
        first: Submission,
        requests: &Receiver<Request>,
        next: &mut Option<Request>,
    ) -> Vec<Submission> {
        let mut bytes = first.bytes;
        let mut group = vec![first];
        while let Ok(request) = requests.try_recv() {
            match request {
                Request::Write(submission) if bytes + submission.bytes <= self.settings.group_bytes_max => {
                    bytes += submission.bytes;
                    group.push(submission);
                }
                request => {
                    *next = Some(request);
                    break;
                }
            }
        }
        group
    }

    /// Writes one group and answers everyone in it.
    fn commit(&mut self, group: Vec<Submission>) {
        let group = self.refuse_behind_failed(group);
        if group.is_empty() {
            return;
        }
        let result = self.shared.failure.check().and_then(|()| self.write(&group));
        if let Err(error) = &result {
            self.remember_failed(&group, error);
        }
        for submission in group {
            submission.waiter.answer(result.clone());
        }
    }

    fn write(&mut self, group: &[Submission]) -> Result<()> {
        self.encode(group);
        if self.current.written + self.encoded.bytes().len() as u64 > self.current.bytes {
            self.roll()?;
        }
        let written = self.write_encoded();
        // What a failed write or sync has left on the disk is not known, so nothing may be written behind it.
        written.map_err(|error| {
            let reason = error.to_string();
            self.shared.failure.poison(reason.clone());
            LogError::WalPoisoned { reason }
        })?;
        let mut coverage = self.shared.coverage();
        for submission in group {
            coverage.record(&submission.frame);
        }
        self.shared.counts.add_group(group.len(), self.encoded.bytes().len());
        Ok(())
    }

    fn encode(&mut self, group: &[Submission]) {
        if self.settings.sync != SyncPolicy::Always {
            self.durable_end = self.shared.unsynced().durable_end;
        }
        let payload_len: usize = group.iter().map(|submission| submission.bytes).sum();
        let header = GroupHeader {
            wal_id: self.wal_id,
            number: self.group,
            position: self.position,
            durable_end: self.durable_end,
            payload_len: u32::try_from(payload_len).expect("a group is bounded by 128 MiB"),
            frame_count: u32::try_from(group.len()).expect("a frame takes more than one byte"),
        };
        let encoded = self
            .encoded
            .begin(GROUP_HEADER_BYTES + payload_len, self.current.written);
        encoded.extend_from_slice(&header.encode());
        for submission in group {
            submission.frame.encode_into(encoded);
        }
    }

    fn write_encoded(&mut self) -> Result<()> {
        let length = self.encoded.bytes().len() as u64;
        let failed = |action, error| LogError::io(&self.current.path, action, length, error);
        let begun = Instant::now();
        self.current
            .file
            .write_at(self.encoded.bytes(), self.current.written)
            .map_err(|e| failed("write", e))?;
        if self.settings.sync == SyncPolicy::Always {
            self.current.file.sync_data().map_err(|e| failed("sync", e))?;
            let sync_seconds = &self.shared.counts.measures.sync_seconds;
            sync_seconds.observe(begun.elapsed().as_secs_f64());
        }
        self.current.written += length;
        self.position += length;
        self.group += 1;
        match self.settings.sync {
            SyncPolicy::Always => self.durable_end = self.position,
            SyncPolicy::Interval(_) | SyncPolicy::Never => self.shared.unsynced().written(self.position),
        }
        Ok(())
    }

    /// Makes room for the group: in a new file, or, where this one holds no group yet, by making it longer. Where there
    /// is no room on the disk nothing has happened, and the next group tries again.
    fn roll(&mut self) -> Result<()> {
        let bytes = self
            .settings
            .file_bytes
            .max((FILE_HEADER_BYTES + self.encoded.bytes().len()) as u64);
        let rolled = if self.current.written == FILE_HEADER_BYTES as u64 {
            self.lengthen_file(bytes)
        } else {
            self.begin_file(bytes)
        };
        rolled.inspect_err(|error| {
            if !error.is_disk_full() {
                self.shared.failure.poison(error.to_string());
            }
        })
    }

    fn lengthen_file(&mut self, bytes: u64) -> Result<()> {
        let CurrentFile { path, file, .. } = &self.current;
        file.reserve(bytes)
            .map_err(|e| LogError::io(path, "lengthen", bytes, e))?;
        self.current.bytes = bytes;
        self.shared.coverage().set_bytes(bytes);
        Ok(())
    }

    fn begin_file(&mut self, bytes: u64) -> Result<()> {
        let header = FileHeader {
            wal_id: self.wal_id,
            first_group: self.group,
            position: self.position,
        };
        self.current = create_file(&*self.disk, &self.settings, &header, bytes)?;
        self.announce_file();
        self.shared.call_keeper(KeeperCall::Look);
        Ok(())
    }

    fn announce_file(&self) {
        let CurrentFile { path, file, bytes, .. } = &self.current;
        self.shared.coverage().begin_part(path.clone(), *bytes);
        if self.settings.sync != SyncPolicy::Always {
            self.shared
                .unsynced()
                .begin_file(path.clone(), file.clone(), self.position);
        }
    }

    fn remember_failed(&mut self, group: &[Submission], error: &LogError) {
        for Submission { frame, .. } in group {
            let first = self.failed.entry((frame.topic_id, frame.partition));
            first.or_insert_with(|| (frame.base_offset, error.clone()));
        }
    }

    /// Answers the frames that follow on a failed one, and gives back the others.
    fn refuse_behind_failed(&mut self, group: Vec<Submission>) -> Vec<Submission> {
        if self.failed.is_empty() {
            return group;
        }
        let mut rest = Vec::with_capacity(group.len());
        for submission in group {
            match self.failure_before(&submission.frame) {
                Some(error) => submission.waiter.answer(Err(error)),
                None => rest.push(submission),
            }
        }
        rest
    }

    fn failure_before(&mut self, frame: &Frame) -> Option<LogError> {
        let partition = (frame.topic_id, frame.partition);
        let (offset, error) = self.failed.get(&partition)?;
        if frame.base_offset > *offset {
            return Some(error.clone());
        }
        self.failed.remove(&partition);
        None
    }
}

/// However it ends, by a panic or before it has begun, the keeper ends with it.
impl Drop for Committer {
    fn drop(&mut self) {
        self.shared.call_keeper(KeeperCall::End);
    }
}

/// Creates a file of `bytes` with its header, durably.
// The header is synced under every policy: a file whose header is damaged was either never used, or is damaged for real.
fn create_file(disk: &dyn Disk, settings: &WalSettings, header: &FileHeader, bytes: u64) -> Result<CurrentFile> {
    let path = settings.dir.join(format!("{:020}.wal", header.first_group));
    let failed = |action, error| LogError::io(&path, action, bytes, error);
    let file = match settings.sync {
        SyncPolicy::Always => disk.create_uncached(&path, bytes),
        // Nobody waits for the disk: what the system's memory takes in is as good.
        SyncPolicy::Interval(_) | SyncPolicy::Never => disk.create(&path, bytes),
    };
    let file = file.map_err(|e| failed("create", e))?;
    let prepared = file
        .write_at(&header.encode(), 0)
        .and_then(|()| file.sync_data())
        .and_then(|()| disk.sync_dir(&settings.dir));
    if let Err(error) = prepared {
        // The file may not stay in the way of the next attempt; where it cannot go, that attempt will say so.
        let _ = disk.remove(&path);
        return Err(failed("prepare", error));
    }
    Ok(CurrentFile {
        path,
        file,
        bytes,
        written: FILE_HEADER_BYTES as u64,
    })
}
