//! Tests of the log as a whole: written through the handle, damaged on the disk, replayed.

mod crashes;
mod failures;
mod power;
mod stores;
mod trimming;
mod writing;

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use millstream_batch::{Batch, BatchBuilder, Compression, Epoch, Offset};
use uuid::Uuid;

use super::*;
use crate::error::Result;
use crate::file::{Disk, DiskFile, LocalDisk};
use crate::outcome::{Fate, Outcome};

pub(super) const WAL_ID: Uuid = Uuid::from_u128(0xa11);
pub(super) const TOPIC: Uuid = Uuid::from_u128(0x70);

fn batch(base: u64, count: u32) -> Batch {
    let mut builder = BatchBuilder::new();
    for index in 0..count {
        let value = format!("value {}", base + u64::from(index));
        builder.push(
            1_000 + i64::from(index),
            Some(b"key"),
            Some(value.as_bytes()),
            std::iter::empty(),
        );
    }
    let mut batch = builder.build(Compression::None);
    batch.stamp(Offset(base), Epoch(3));
    batch
}

/// A frame of `count` records; one that was dropped whole where that is 0.
pub(super) fn frame_in(partition: u32, base: u64, count: u32) -> Frame {
    let dropped = Outcome::from_iter([(0, Fate::Pipeline), (0, Fate::Skipped)]);
    Frame {
        topic_id: TOPIC,
        partition,
        epoch: Epoch(3),
        pipeline_version: 7,
        base_offset: Offset(base),
        producer: ProducerStamp {
            id: 11,
            epoch: 2,
            first_sequence: base as i32,
            last_sequence: base as i32,
        },
        outcome: if count == 0 { dropped } else { Outcome::all_kept(count) },
        batch: (count > 0).then(|| batch(base, count)),
    }
}

pub(super) fn frame(base: u64, count: u32) -> Frame {
    frame_in(0, base, count)
}

fn settings(dir: &Path) -> WalSettings {
    WalSettings {
        file_bytes: 4 << 10,
        ..WalSettings::new(dir)
    }
}

/// Writes each frame as a group of its own.
async fn write_one_by_one(wal: &DiskWal, frames: &[Frame]) {
    for frame in frames {
        wal.submit(frame.clone()).await.unwrap().await.unwrap();
    }
}

fn replayed(dir: &Path) -> Result<(Vec<Frame>, ReplaySummary)> {
    let mut frames = Vec::new();
    let summary = replay(dir, WAL_ID, |frame| {
        frames.push(frame);
        Ok(())
    })?;
    Ok((frames, summary))
}

fn file_names(dir: &Path) -> Vec<String> {
    let files = super::disk::wal_files(dir).unwrap();
    files
        .iter()
        .map(|(_, path)| path.file_name().unwrap().to_str().unwrap().to_string())
        .collect()
}

/// The local disk, with operations that fail or wait on demand.
#[derive(Debug)]
struct FaultyDisk {
    faults: Arc<Mutex<Faults>>,
}

#[derive(Debug, Default)]
struct Faults {
    create: Option<io::ErrorKind>,
    write: Option<io::ErrorKind>,
    sync: Option<io::ErrorKind>,
    /// The next write, or the next sync of data, panics.
    panics: bool,
    /// Told of each sync of data, before it happens; the sync then waits for its turn.
    gate: Option<(Sender<()>, Receiver<()>)>,
}

#[derive(Debug)]
struct FaultyFile {
    file: Arc<dyn DiskFile>,
    faults: Arc<Mutex<Faults>>,
}

impl FaultyDisk {
    fn new() -> (Arc<FaultyDisk>, Arc<Mutex<Faults>>) {
        let faults = Arc::new(Mutex::new(Faults::default()));
        (Arc::new(FaultyDisk { faults: faults.clone() }), faults)
    }
}

impl Faults {
    /// From now on each sync says that it is about to happen, and waits until it may.
    fn close_gate(&mut self) -> (Receiver<()>, Sender<()>) {
        let (said, heard) = channel();
        let (allow, allowed) = channel();
        self.gate = Some((said, allowed));
        (heard, allow)
    }
}

fn fail(kind: Option<io::ErrorKind>) -> io::Result<()> {
    kind.map_or(Ok(()), |kind| Err(kind.into()))
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        fail(self.faults.lock().unwrap().create)?;
        let file = LocalDisk.create(path, bytes)?;
        Ok(Arc::new(FaultyFile {
            file,
            faults: self.faults.clone(),
        }))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        LocalDisk.link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        LocalDisk.remove(path)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        LocalDisk.create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        LocalDisk.sync_dir(dir)
    }
}

impl FaultyFile {
    fn panic_where_told(&self) {
        let panics = std::mem::take(&mut self.faults.lock().unwrap().panics);
        assert!(!panics, "the disk panics");
    }
}

impl DiskFile for FaultyFile {
    fn reserve(&self, bytes: u64) -> io::Result<()> {
        fail(self.faults.lock().unwrap().create)?;
        self.file.reserve(bytes)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.panic_where_told();
        fail(self.faults.lock().unwrap().write)?;
        self.file.write_at(bytes, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.panic_where_told();
        let gate = self.faults.lock().unwrap().gate.take();
        if let Some((said, allowed)) = gate {
            // A test that has let go of its end wants no more to be said or waited for.
            if said.send(()).is_ok() && allowed.recv().is_ok() {
                self.faults.lock().unwrap().gate = Some((said, allowed));
            }
        }
        fail(self.faults.lock().unwrap().sync)?;
        self.file.sync_data()
    }
}
