//! Tests of the log in the object store, over a store that fails on demand. Time is tokio's, and stands still while
//! anything can happen.

mod faults;
mod faulty;
mod floor;
mod reading;
mod trimming;
mod writing;

use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use uuid::Uuid;

use self::faulty::{DONE, Fault, FaultyStore};
use super::*;
use crate::error::LogError;
use crate::wal::seam::WalStore;
use crate::wal::tests::{TOPIC, WAL_ID, frame, frame_in};
use crate::wal::{Frame, ReplaySummary};

const SEALER: Uuid = Uuid::from_u128(0x5ea1);
const INTERVAL: Duration = Duration::from_millis(100);

fn wals(store: Store) -> ObjectWals {
    ObjectWals::new(store, ObjectWalSettings::default())
}

/// Logs whose objects take one frame each.
fn wals_of_single_frames(store: Store) -> ObjectWals {
    let flush_bytes = 1;
    ObjectWals::new(
        store,
        ObjectWalSettings {
            flush_bytes,
            ..ObjectWalSettings::default()
        },
    )
}

fn over(objects: &Arc<InMemory>, plan: impl FnMut(usize) -> Fault + Send + 'static) -> (Store, Arc<FaultyStore>) {
    let faulty = FaultyStore::new(objects.clone(), plan);
    (Store::over(faulty.clone()), faulty)
}

async fn write(wal: &dyn Wal, frames: &[Frame]) {
    let mut commits = Vec::new();
    for frame in frames {
        commits.push(wal.submit(frame.clone()).await.unwrap());
    }
    futures::future::try_join_all(commits).await.unwrap();
}

async fn replayed(wals: &ObjectWals, floor: u64) -> Result<(Vec<Frame>, ReplaySummary)> {
    let mut frames = Vec::new();
    let mut visit = |frame| {
        frames.push(frame);
        Ok(())
    };
    let summary = wals.replay(WAL_ID, floor, &mut visit).await?;
    Ok((frames, summary))
}

fn frames(count: u64) -> Vec<Frame> {
    (0..count).map(|base| frame(base, 1)).collect()
}

fn key(number: u64) -> String {
    Keys::new("_wal", WAL_ID).of(number)
}
