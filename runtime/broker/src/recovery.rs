//! Recovery: what earlier incarnations acknowledged and did not get into segments.
//!
//! For each partition the metadata names the one WAL that may hold frames beyond the committed end. A start seals that
//! WAL (a disk WAL is sealed by the lock on the data directory), takes the lease, copies the frames beyond the committed
//! end into its own WAL, and only then moves the pointer there. A crash at any step leaves the pointer at a WAL that
//! holds everything:
//!
//! 1. before the pointer moves it still names the old WAL, which is untouched;
//! 2. once it has moved our WAL has durable copies;
//! 3. the old WAL goes only after it was marked deleted, which the metadata refuses while a pointer names it.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use futures::future::try_join_all;
use millstream_batch::{Epoch, Offset};
use millstream_log::{DiskWal, Frame, replay};
use millstream_meta::{Lease, Metadata, PointedPartition};
use uuid::Uuid;

use crate::{
    error::{BrokerError, Result},
    partition::TailBatch,
};

/// A partition whose lease is ours and whose unsegmented batches are in our WAL.
pub(crate) struct RecoveredPartition {
    pub(crate) lease: Lease,
    pub(crate) batches: Vec<TailBatch>,
}

/// Takes over every partition that an earlier incarnation on this data directory left with a WAL pointer.
pub(crate) async fn recover(
    metadata: &Metadata,
    wal: &DiskWal,
    incarnation: Uuid,
    wal_dir: &Path,
) -> Result<Vec<RecoveredPartition>> {
    let mut recovered = Vec::new();
    for (old, partitions) in by_wal(metadata.pointed_partitions().await?) {
        let frames = read_wal(wal_dir, old, &partitions).await?;
        for (pointed, frames) in frames {
            recovered.push(take_over(metadata, wal, incarnation, &pointed, frames).await?);
        }
    }
    Ok(recovered)
}

/// Marks the WALs that no pointer names any more and removes their folders.
pub(crate) async fn remove_dead_wals(metadata: &Metadata, incarnation: Uuid, wal_dir: &Path) -> Result<()> {
    for dead in metadata.dead_wals(incarnation).await? {
        if metadata.retire_wal(dead).await? {
            remove_wal(&folder(wal_dir, dead)).await;
        }
    }
    Ok(())
}

/// Removes a WAL's folder once the metadata has it marked deleted. What is left of it after a crash does no harm.
pub(crate) async fn remove_wal(folder: &Path) {
    match tokio::fs::remove_dir_all(folder).await {
        Ok(()) => tracing::info!(folder = %folder.display(), "removed a write-ahead log that nothing needs"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(folder = %folder.display(), %error, "a finished write-ahead log stays on disk"),
    }
}

/// Where a WAL's files are.
pub(crate) fn folder(wal_dir: &Path, wal: Uuid) -> PathBuf {
    wal_dir.join(wal.to_string())
}

fn by_wal(pointed: Vec<PointedPartition>) -> HashMap<Uuid, Vec<PointedPartition>> {
    let mut by_wal: HashMap<Uuid, Vec<PointedPartition>> = HashMap::new();
    for partition in pointed {
        by_wal.entry(partition.wal).or_default().push(partition);
    }
    by_wal
}

/// The frames of the given partitions, in the order in which they were written.
async fn read_wal(
    wal_dir: &Path,
    wal: Uuid,
    partitions: &[PointedPartition],
) -> Result<Vec<(PointedPartition, Vec<Frame>)>> {
    let folder = folder(wal_dir, wal);
    let first = partitions
        .first()
        .expect("a WAL is grouped with the partitions that point to it");
    if !folder.is_dir() {
        let (topic_id, partition, wal_dir) = (first.topic_id, first.partition, wal_dir.display().to_string());
        return Err(BrokerError::WalElsewhere {
            topic_id,
            partition,
            wal,
            wal_dir,
        });
    }
    let wanted = partitions.to_vec();
    tokio::task::spawn_blocking(move || {
        let mut frames: HashMap<(Uuid, u32), Vec<Frame>> = HashMap::new();
        for pointed in &wanted {
            frames.insert((pointed.topic_id, pointed.partition), Vec::new());
        }
        let summary = replay(&folder, wal, |frame| {
            if let Some(frames) = frames.get_mut(&(frame.topic_id, frame.partition)) {
                frames.push(frame);
            }
            Ok(())
        })?;
        tracing::info!(%wal, ?summary, "read a write-ahead log of an earlier incarnation");
        let with_frames = wanted.into_iter().map(|pointed| {
            let found = frames.remove(&(pointed.topic_id, pointed.partition));
            (pointed, found.unwrap_or_default())
        });
        Ok(with_frames.collect())
    })
    .await
    .map_err(|_| BrokerError::Panicked {
        what: "reading a write-ahead log",
    })?
}

async fn take_over(
    metadata: &Metadata,
    wal: &DiskWal,
    incarnation: Uuid,
    pointed: &PointedPartition,
    frames: Vec<Frame>,
) -> Result<RecoveredPartition> {
    let lease = metadata
        .acquire_lease(pointed.topic_id, pointed.partition, incarnation)
        .await?;
    let live = live_frames(frames, lease.committed_end).map_err(|gap| BrokerError::WalGap {
        wal: pointed.wal,
        topic_id: pointed.topic_id,
        partition: pointed.partition,
        expected: gap.expected,
        found: gap.found,
    })?;

    let mut commits = Vec::with_capacity(live.len());
    let mut batches = Vec::with_capacity(live.len());
    for mut frame in live {
        frame.epoch = lease.epoch;
        let pipeline_version = frame.pipeline_version;
        batches.extend(frame.batch.clone().map(|batch| TailBatch {
            batch,
            pipeline_version,
        }));
        commits.push(wal.submit(frame).await?);
    }
    try_join_all(commits).await?;
    metadata.move_wal_pointer(&lease, incarnation).await?;
    Ok(RecoveredPartition { lease, batches })
}

/// Two frames that do not meet.
#[derive(Debug, PartialEq, Eq)]
struct Gap {
    expected: Offset,
    found: Offset,
}

/// Of all frames of a partition those that count, beyond the committed end and without a gap: a frame of a greater epoch
/// overrules every frame of a lesser one at or beyond its offset.
fn live_frames(frames: Vec<Frame>, committed_end: Offset) -> Result<Vec<Frame>, Gap> {
    let mut live: Vec<Frame> = Vec::new();
    let mut epoch = Epoch(0);
    for frame in frames {
        if frame.epoch > epoch {
            epoch = frame.epoch;
            live.retain(|earlier| earlier.base_offset < frame.base_offset);
        }
        if end(&frame) > committed_end {
            live.push(frame);
        }
    }
    let mut expected = committed_end;
    for frame in &live {
        if frame.base_offset != expected {
            return Err(Gap {
                expected,
                found: frame.base_offset,
            });
        }
        expected = end(frame);
    }
    Ok(live)
}

fn end(frame: &Frame) -> Offset {
    frame
        .batch
        .as_ref()
        .map_or(frame.base_offset, |batch| batch.next_offset())
}

#[cfg(test)]
mod tests {
    use millstream_batch::{BatchBuilder, Compression};
    use millstream_log::{Outcome, ProducerStamp};

    use super::*;

    fn frame(epoch: u64, base: u64, records: u32) -> Frame {
        let mut builder = BatchBuilder::new();
        for _ in 0..records {
            builder.push(0, None, Some(b"v"), [].into_iter());
        }
        let mut batch = builder.build(Compression::None);
        batch.stamp(Offset(base), Epoch(epoch));
        Frame {
            topic_id: Uuid::nil(),
            partition: 0,
            epoch: Epoch(epoch),
            pipeline_version: 0,
            base_offset: Offset(base),
            producer: ProducerStamp::NONE,
            outcome: Outcome::all_kept(records),
            batch: Some(batch),
        }
    }

    fn live(frames: Vec<Frame>, committed_end: u64) -> Result<Vec<(u64, u64)>, Gap> {
        let live = live_frames(frames, Offset(committed_end))?;
        Ok(live.iter().map(|frame| (frame.epoch.0, frame.base_offset.0)).collect())
    }

    #[test]
    fn frames_in_committed_segments_are_left_out() {
        assert_eq!(
            live(vec![frame(1, 0, 2), frame(1, 2, 3), frame(1, 5, 1)], 2),
            Ok(vec![(1, 2), (1, 5)])
        );
        assert_eq!(live(vec![frame(1, 0, 2)], 2), Ok(vec![]));
    }

    #[test]
    fn a_greater_epoch_overrules_what_a_lesser_one_wrote_at_its_offset() {
        let frames = vec![
            frame(1, 0, 2),
            frame(1, 2, 2),
            frame(1, 4, 2),
            frame(2, 2, 1),
            frame(2, 3, 5),
        ];
        assert_eq!(live(frames, 0), Ok(vec![(1, 0), (2, 2), (2, 3)]));
    }

    #[test]
    fn a_gap_stops() {
        let gap = Gap {
            expected: Offset(2),
            found: Offset(4),
        };
        assert_eq!(live(vec![frame(1, 0, 2), frame(1, 4, 2)], 0), Err(gap));
        let gap = Gap {
            expected: Offset(1),
            found: Offset(2),
        };
        assert_eq!(live(vec![frame(1, 2, 2)], 1), Err(gap));
    }
}
