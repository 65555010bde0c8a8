//! What needs not to happen between two groups: background syncs, and deleting files that nobody needs.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::{KeeperCall, Shared, SyncPolicy, WalSettings};
use crate::error::LogError;
use crate::file::{Disk, DiskFile};

/// The least time between two background syncs.
const INTERVAL_MIN: Duration = Duration::from_millis(1);

/// What was written and not synced yet, oldest file first; the last one is being written. Kept only by the policies that
/// sync in the background.
#[derive(Default)]
pub(super) struct Unsynced {
    files: VecDeque<WrittenFile>,
    /// Every byte below this log position is synced.
    pub(super) durable_end: u64,
}

#[derive(Clone)]
struct WrittenFile {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    /// The log position behind what was written to it.
    end: u64,
}

impl Unsynced {
    pub(super) fn begin_file(&mut self, path: PathBuf, file: Arc<dyn DiskFile>, position: u64) {
        self.files.push_back(WrittenFile {
            path,
            file,
            end: position,
        });
    }

    pub(super) fn written(&mut self, end: u64) {
        if let Some(file) = self.files.back_mut() {
            file.end = end;
        }
    }

    fn synced(&mut self, end: u64) {
        self.durable_end = self.durable_end.max(end);
        while self.files.len() > 1 && self.files.front().is_some_and(|file| file.end <= self.durable_end) {
            self.files.pop_front();
        }
    }
}

/// Runs on a thread of its own, so that neither a deletion nor a background sync holds up a group.
pub(super) struct Keeper {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    policy: SyncPolicy,
    shared: Arc<Shared>,
}

/// Which of the unsynced files.
#[derive(PartialEq)]
enum Which {
    Full,
    All,
}

impl Keeper {
    pub(super) fn new(disk: Arc<dyn Disk>, settings: &WalSettings, shared: Arc<Shared>) -> Keeper {
        Keeper {
            disk,
            dir: settings.dir.clone(),
            policy: settings.sync,
            shared,
        }
    }

    pub(super) fn run(self, calls: &Receiver<KeeperCall>) {
        let guard = self.shared.failure.unless_disarmed("keeper");
        loop {
            match self.next_call(calls) {
                Ok(KeeperCall::Look) => {
                    self.sync(Which::Full);
                    self.delete_covered();
                }
                Err(RecvTimeoutError::Timeout) => self.sync(Which::All),
                Ok(KeeperCall::End) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.sync(Which::All);
        guard.disarm();
    }

    fn next_call(&self, calls: &Receiver<KeeperCall>) -> Result<KeeperCall, RecvTimeoutError> {
        match self.policy {
            SyncPolicy::Interval(interval) => calls.recv_timeout(interval.max(INTERVAL_MIN)),
            SyncPolicy::Always | SyncPolicy::Never => calls.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// Syncs the unsynced files in order and moves the durable end behind them.
    fn sync(&self, which: Which) {
        let files: Vec<WrittenFile> = {
            let unsynced = self.shared.unsynced();
            let full = unsynced.files.len().saturating_sub(1);
            let count = if which == Which::All {
                unsynced.files.len()
            } else {
                full
            };
            unsynced
                .files
                .iter()
                .take(count)
                .filter(|file| file.end > unsynced.durable_end)
                .cloned()
                .collect()
        };
        for written in files {
            // A failed sync is never retried: the kernel may have dropped the pages it could not write.
            if self.shared.failure.check().is_err() {
                return;
            }
            match written.file.sync_data() {
                Ok(()) => self.shared.unsynced().synced(written.end),
                Err(e) => {
                    let error = LogError::io(&written.path, "sync", 0, e);
                    return self.shared.failure.poison(error.to_string());
                }
            }
        }
    }

    /// Deletes from the oldest file on, up to the first one that is needed. Each deletion is made durable before the
    /// next: after a crash the files that are left are without a gap.
    fn delete_covered(&self) {
        loop {
            let Some(path) = self.shared.coverage().oldest_covered().cloned() else {
                return;
            };
            if let Err(error) = self.disk.remove(&path) {
                tracing::warn!(path = %path.display(), %error, "a file of the write-ahead log could not be deleted");
                return;
            }
            self.shared.coverage().forget_oldest();
            if let Err(error) = self.disk.sync_dir(&self.dir) {
                tracing::warn!(dir = %self.dir.display(), %error, "a deletion could not be made durable");
                return;
            }
        }
    }
}
