//! Recovery: what earlier incarnations acknowledged and did not get into segments.
//!
//! For each partition the metadata names the one WAL that may hold frames beyond the committed end. A start seals that
//! WAL, takes the lease, copies the frames beyond the committed end into its own WAL, and only then moves the pointer
//! there. A crash at any step leaves the pointer at a WAL that holds everything:
//!
//! 1. before the pointer moves it still names the old WAL, of which nothing was deleted;
//! 2. once it has moved our WAL has durable copies;
//! 3. the old WAL goes only after it was marked deleted, which the metadata refuses while a pointer names it.
//!
//! A log is read one frame at a time, and only what counts beyond the committed end is kept: that was in memory before.

mod live;
mod removal;

use std::{collections::HashMap, sync::Arc};

use futures::future::try_join_all;
use millstream_log::{Frame, Wal};
use millstream_meta::{Lease, Metadata, WalKind, WalStream};
use uuid::Uuid;

use crate::{
    error::{BrokerError, Result},
    partition::TailBatch,
    settings::Wals,
};
use live::LiveFrames;
pub(crate) use removal::remove_dead_wals;

/// A topic's id and a partition of it.
type PartitionId = (Uuid, u32);

/// A partition whose lease is ours and whose unsegmented batches are in our WAL.
pub(crate) struct RecoveredPartition {
    pub(crate) lease: Lease,
    pub(crate) batches: Vec<TailBatch>,
}

/// Copies what earlier incarnations left into this one's WAL.
pub(crate) struct Recovery<'a> {
    pub(crate) metadata: &'a Metadata,
    pub(crate) wals: &'a Wals,
    pub(crate) wal: &'a Arc<dyn Wal>,
    pub(crate) incarnation: Uuid,
}

impl Recovery<'_> {
    /// Takes over every partition that has a WAL pointer.
    pub(crate) async fn all(&self) -> Result<Vec<RecoveredPartition>> {
        let mut by_wal: HashMap<Uuid, (WalStream, HashMap<PartitionId, LiveFrames>)> = HashMap::new();
        for pointed in self.metadata.pointed_partitions().await? {
            let stream = WalStream {
                id: pointed.wal,
                kind: pointed.kind,
                trim_floor: pointed.trim_floor,
            };
            let (_, partitions) = by_wal.entry(pointed.wal).or_insert_with(|| (stream, HashMap::new()));
            partitions.insert(
                (pointed.topic_id, pointed.partition),
                LiveFrames::new(pointed.committed_end),
            );
        }
        let mut recovered = Vec::new();
        for (stream, mut partitions) in by_wal.into_values() {
            self.read(stream, &mut partitions).await?;
            let mut taken = Vec::with_capacity(partitions.len());
            for ((topic_id, partition), live) in partitions {
                let lease = self
                    .metadata
                    .acquire_lease(topic_id, partition, self.incarnation)
                    .await?;
                taken.push((lease, live));
            }
            let copied = self.copy(stream.id, taken).await?;
            // A crash from here on finds some pointers moved and some not: what each names holds everything.
            for RecoveredPartition { lease, .. } in &copied {
                self.metadata.move_wal_pointer(lease, self.incarnation).await?;
            }
            recovered.extend(copied);
        }
        Ok(recovered)
    }

    /// Copies one partition, whose lease is held already, from the WAL that its pointer names. The pointer is left there.
    pub(crate) async fn one(&self, lease: Lease, from: Uuid) -> Result<RecoveredPartition> {
        let stream = self
            .metadata
            .wal(from)
            .await?
            .ok_or_else(|| self.elsewhere(&lease, from))?;
        let id = (lease.topic_id, lease.partition);
        let mut partitions = HashMap::from([(id, LiveFrames::new(lease.committed_end))]);
        self.read(stream, &mut partitions).await?;
        let live = partitions.remove(&id).expect("it was put there");
        let mut recovered = self.copy(from, vec![(lease, live)]).await?;
        Ok(recovered.pop().expect("one partition was given"))
    }

    /// Seals the WAL and gives its frames to the partitions they belong to.
    async fn read(&self, stream: WalStream, partitions: &mut HashMap<PartitionId, LiveFrames>) -> Result<()> {
        let store = self.wals.of(stream.kind);
        // A log of objects has none before its first flush; one on a disk has its folder from the beginning.
        if stream.kind == WalKind::Disk && !store.exists(stream.id).await? {
            let (topic_id, partition) = *partitions.keys().next().expect("a WAL is read for its partitions");
            return Err(BrokerError::WalElsewhere {
                topic_id,
                partition,
                wal: stream.id,
            });
        }
        let stream = self.seal(stream).await?;
        let mut visit = |frame: Frame| {
            if let Some(live) = partitions.get_mut(&(frame.topic_id, frame.partition)) {
                live.visit(frame);
            }
            Ok(())
        };
        let summary = store.replay(stream.id, stream.trim_floor, &mut visit).await?;
        tracing::info!(wal = %stream.id, ?summary, "read a write-ahead log of an earlier incarnation");
        Ok(())
    }

    /// Seals the WAL at or above its trim floor. A living writer may move that meanwhile, and a seal below it stops nobody:
    /// then it is sealed again.
    async fn seal(&self, mut stream: WalStream) -> Result<WalStream> {
        let store = self.wals.of(stream.kind);
        loop {
            store.seal(stream.id, self.incarnation, stream.trim_floor).await?;
            match self.metadata.wal(stream.id).await? {
                Some(now) if now.trim_floor > stream.trim_floor => stream = now,
                _ => return Ok(stream),
            }
        }
    }

    /// Copies the frames that count into our WAL, all partitions together; returns once all are durable.
    async fn copy(&self, from: Uuid, taken: Vec<(Lease, LiveFrames)>) -> Result<Vec<RecoveredPartition>> {
        let mut recovered = Vec::with_capacity(taken.len());
        let mut commits = Vec::new();
        for (lease, live) in taken {
            let live = live.finish(lease.committed_end).map_err(|gap| BrokerError::WalGap {
                wal: from,
                topic_id: lease.topic_id,
                partition: lease.partition,
                expected: gap.expected,
                found: gap.found,
            })?;
            let mut batches = Vec::with_capacity(live.len());
            for mut frame in live {
                frame.epoch = lease.epoch;
                let pipeline_version = frame.pipeline_version;
                batches.extend(frame.batch.clone().map(|batch| TailBatch {
                    batch,
                    pipeline_version,
                }));
                commits.push(self.wal.submit(frame).await?);
            }
            recovered.push(RecoveredPartition { lease, batches });
        }
        try_join_all(commits).await?;
        Ok(recovered)
    }

    fn elsewhere(&self, lease: &Lease, wal: Uuid) -> BrokerError {
        BrokerError::WalElsewhere {
            topic_id: lease.topic_id,
            partition: lease.partition,
            wal,
        }
    }
}
