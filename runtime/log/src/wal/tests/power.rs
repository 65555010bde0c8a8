//! A crash at every write and every sync of a workload, over a disk that loses, tears and reorders what was not synced.

use std::time::Duration;

use super::*;
use crate::file::simulated::{Random, SimulatedDisk};

const SEED: u64 = 0x5eed_0003;
/// What may be left after one crash is tried out this often.
const SURVIVORS: usize = 6;

/// What was done to a log, and when, in steps of the disk.
#[derive(Default)]
struct History {
    /// In the order in which they were written.
    frames: Vec<Frame>,
    /// After this many steps so many frames had been acknowledged.
    acknowledged: Vec<(usize, usize)>,
    /// From this step on, no frame below the index was needed any more.
    needed: Vec<(usize, usize)>,
}

impl History {
    fn acknowledged_at(&self, step: usize) -> usize {
        let before = self.acknowledged.iter().take_while(|(at, _)| *at <= step);
        before.last().map_or(0, |(_, count)| *count)
    }

    fn needed_at(&self, step: usize) -> usize {
        let before = self.needed.iter().take_while(|(at, _)| *at <= step);
        before.last().map_or(0, |(_, index)| *index)
    }
}

/// Groups of one to three frames through several files, with trims in between, and a close.
async fn work(disk: &SimulatedDisk, settings: WalSettings, random: &mut Random) -> History {
    let wal = DiskWal::create_on(Arc::new(disk.clone()), settings, WAL_ID).unwrap();
    let mut history = History::default();
    let mut next = [0u64; 2];
    for round in 0..40 {
        let mut commits = Vec::new();
        for _ in 0..=random.below(3) {
            // The very first is larger than a file.
            let first = if history.frames.is_empty() { 300 } else { 0 };
            let (partition, count) = (random.below(2) as usize, first + random.below(30) as u32);
            let mut frame = frame_in(partition as u32, next[partition], count);
            frame.producer.first_sequence = history.frames.len() as i32;
            next[partition] += u64::from(count);
            commits.push(wal.submit(frame.clone()).await.unwrap());
            history.frames.push(frame);
        }
        futures::future::try_join_all(commits).await.unwrap();
        history.acknowledged.push((disk.steps(), history.frames.len()));
        if round % 9 == 8 {
            history.needed.push((disk.steps(), history.frames.len()));
            for (partition, end) in (0..).zip(next) {
                wal.committed(TOPIC, partition, Offset(end));
            }
        }
    }
    wal.close().await;
    history
}

async fn crash_everywhere(sync: SyncPolicy) {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimulatedDisk::new(dir.path());
    let mut random = Random(SEED);
    println!("seed {SEED:#x}");
    let settings = WalSettings {
        sync,
        ..settings(dir.path())
    };
    let history = work(&disk, settings, &mut random).await;
    assert!(disk.steps() > 80, "{} steps", disk.steps());
    for step in 0..=disk.steps() {
        for survivor in 0..SURVIVORS {
            let left = tempfile::tempdir().unwrap();
            disk.survivors(step, &mut random, left.path());
            let place = format!("seed {SEED:#x}, {sync:?}, step {step}, survivor {survivor}");
            let (found, _) = replayed(left.path()).unwrap_or_else(|e| panic!("{place}: {e}"));
            let durable = if sync == SyncPolicy::Always { step } else { 0 };
            check(&history, step, history.acknowledged_at(durable), &found, &place);
        }
    }
}

/// What was found is a run of what was written: from a frame that may be trimmed before it to one that was not
/// acknowledged behind it.
fn check(history: &History, step: usize, acknowledged: usize, found: &[Frame], place: &str) {
    let (needed, start) = (history.needed_at(step), found.first());
    let Some(start) = start.map(|first| history.frames.iter().position(|frame| frame == first).unwrap()) else {
        assert!(needed >= acknowledged, "{place}: nothing was found of {acknowledged}");
        return;
    };
    let end = start + found.len();
    assert!(start <= needed, "{place}: frames {needed} to {start} are missing");
    assert!(
        end >= acknowledged,
        "{place}: frames {end} to {acknowledged} are missing"
    );
    assert_eq!(found, &history.frames[start..end], "{place}");
}

#[tokio::test]
async fn a_crash_at_any_step_loses_nothing_that_was_acknowledged() {
    crash_everywhere(SyncPolicy::Always).await;
}

#[tokio::test]
async fn a_crash_at_any_step_of_a_log_that_is_not_synced_leaves_the_beginning_of_it() {
    crash_everywhere(SyncPolicy::Never).await;
}

#[tokio::test]
async fn a_crash_at_any_step_of_a_log_that_is_synced_now_and_then_leaves_the_beginning_of_it() {
    crash_everywhere(SyncPolicy::Interval(Duration::from_millis(1))).await;
}
