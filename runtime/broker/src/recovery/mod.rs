//! Recovery: what other incarnations acknowledged and did not get into segments.
//!
//! For each partition the metadata names the one WAL that may hold frames beyond the committed end. Whoever takes over seals
//! that WAL, takes the lease, copies the frames beyond the committed end into its own WAL, and only then moves the pointer
//! there. A crash at any step leaves the pointer at a WAL that holds everything:
//!
//! 1. before the pointer moves it still names the old WAL, of which nothing was deleted;
//! 2. once it has moved our WAL has durable copies;
//! 3. the old WAL goes only after it was marked deleted, which the metadata refuses while a pointer names it.
//!
//! A start takes over the WALs of its own agent's earlier incarnations, all partitions of a WAL together: one transaction
//! takes their leases, one moves their pointers. The lease and the seal may come in either order: what counts is that both are
//! there before the WAL is read. What another agent left is taken over when somebody asks for it.
//!
//! A log is read one frame at a time, and only what counts beyond the committed end is kept: that was in memory before.

mod again;
mod live;
mod removal;

use std::{collections::HashMap, sync::Arc};

use futures::future::try_join_all;
use millstream_log::{Frame, Wal, segment::ProducerCheckpoint};
use millstream_meta::{Lease, Metadata, WalKind, WalStream};
use uuid::Uuid;

use crate::{
    error::{BrokerError, Result},
    partition::{Producers, Stamped, TailBatch, decode_producers},
    settings::Wals,
};
pub(crate) use again::again;
use live::LiveFrames;
pub(crate) use removal::{Whose, remove_dead_wals};

/// A topic's id and a partition of it.
type PartitionId = (Uuid, u32);

/// A partition whose lease is ours and whose unsegmented batches are in our WAL.
pub(crate) struct RecoveredPartition {
    pub(crate) lease: Lease,
    pub(crate) batches: Vec<TailBatch>,
    /// The idempotent producers up to the end of the batches; `None` where the metadata know all there is to know.
    pub(crate) producers: Option<Producers>,
}

/// What a start found in the WALs of earlier incarnations. All of it is in our WAL.
#[derive(Default)]
pub(crate) struct Recovered {
    pub(crate) held: Vec<RecoveredPartition>,
    /// Those whose lease somebody else took meanwhile. Whether our WAL is still the one that their pointers name is not known.
    pub(crate) lost: Vec<RecoveredPartition>,
}

/// Copies what other incarnations left into this one's WAL.
pub(crate) struct Recovery<'a> {
    pub(crate) metadata: &'a Metadata,
    pub(crate) wals: &'a Wals,
    pub(crate) wal: &'a Arc<dyn Wal>,
    pub(crate) incarnation: Uuid,
}

impl Recovery<'_> {
    /// Takes over every partition whose pointer names one of these WALs, of earlier incarnations of this agent.
    pub(crate) async fn own(&self, wals: &[WalStream]) -> Result<Recovered> {
        let mut recovered = Recovered::default();
        for stream in wals {
            let copied = self.copied(*stream).await?;
            // A crash from here on finds all pointers moved or none: what they name holds everything. Where the answer is
            // lost the second call finds nothing more to move.
            again(|| self.metadata.move_wal_pointers(stream.id, self.incarnation)).await?;
            self.sort_out(copied, &mut recovered).await?;
        }
        Ok(recovered)
    }

    /// Takes the lease of every partition whose pointer names the WAL, but for those that another living agent holds, and
    /// copies their frames. The pointers are left there.
    pub(crate) async fn copied(&self, stream: WalStream) -> Result<Vec<RecoveredPartition>> {
        let from = stream.id;
        if !self.is_here(stream).await? {
            let pointed = self.metadata.pointed_partitions().await?;
            let Some(first) = pointed.iter().find(|pointed| pointed.wal == from) else {
                return Ok(Vec::new());
            };
            // Told before an epoch is taken: the agent that has the log goes on under its own.
            return Err(elsewhere(first.topic_id, first.partition, from));
        }
        // Asked again after a lost answer it gives greater epochs: the earlier ones are ours too.
        let leases = again(|| self.metadata.take_over_wal(from, self.incarnation)).await?;
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let visited = leases
            .iter()
            .map(|lease| (id(lease), LiveFrames::new(lease.committed_end)));
        let mut partitions = visited.collect();
        // A crash here leaves greater epochs, and every pointer where it was.
        self.read(stream, &mut partitions).await?;
        let with_frames = |lease: Lease| {
            let live = partitions.remove(&id(&lease)).expect("each lease has its frames");
            (lease, live)
        };
        self.copy(from, leases.into_iter().map(with_frames).collect()).await
    }

    /// Tells those that somebody took from us, since their leases were taken, from the others: of these the pointer has moved.
    async fn sort_out(&self, copied: Vec<RecoveredPartition>, recovered: &mut Recovered) -> Result<()> {
        let leases: Vec<Lease> = copied.iter().map(|partition| partition.lease.clone()).collect();
        let held = again(|| self.metadata.holds_leases(&leases)).await?;
        for (partition, held) in copied.into_iter().zip(held) {
            match held {
                true => recovered.held.push(partition),
                false => recovered.lost.push(partition),
            }
        }
        Ok(())
    }

    /// Copies one partition, whose lease is held already, from the WAL that its pointer names. The pointer is left there.
    pub(crate) async fn one(&self, lease: Lease, from: Uuid) -> Result<RecoveredPartition> {
        let (topic_id, partition) = id(&lease);
        let stream = self.metadata.wal(from).await?;
        let stream = match stream {
            Some(stream) if self.is_here(stream).await? => stream,
            _ => return Err(elsewhere(topic_id, partition, from)),
        };
        let mut partitions = HashMap::from([(id(&lease), LiveFrames::new(lease.committed_end))]);
        self.read(stream, &mut partitions).await?;
        let live = partitions.remove(&id(&lease)).expect("it was put there");
        let mut recovered = self.copy(from, vec![(lease, live)]).await?;
        Ok(recovered.pop().expect("one partition was given"))
    }

    /// Whether the WAL can be read from here. A log of objects has none before its first flush; one on a disk has its folder
    /// from the beginning.
    async fn is_here(&self, stream: WalStream) -> Result<bool> {
        Ok(stream.kind == WalKind::Object || self.wals.of(stream.kind).exists(stream.id).await?)
    }

    /// Seals the WAL and gives its frames to the partitions they belong to.
    async fn read(&self, stream: WalStream, partitions: &mut HashMap<PartitionId, LiveFrames>) -> Result<()> {
        let store = self.wals.of(stream.kind);
        let stream = self.seal(stream).await?;
        let mut visit = |frame: Frame| {
            if let Some(live) = partitions.get_mut(&(frame.topic_id, frame.partition)) {
                live.visit(frame);
            }
            Ok(())
        };
        let summary = store.replay(stream.id, stream.trim_floor, &mut visit).await?;
        tracing::info!(wal = %stream.id, ?summary, "read a write-ahead log of another incarnation");
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
        let leases: Vec<Lease> = taken.iter().map(|(lease, _)| lease.clone()).collect();
        let known = self.metadata.partition_producers(&leases).await?;
        for ((lease, live), known) in taken.into_iter().zip(known) {
            let live = live.finish(lease.committed_end).map_err(|gap| BrokerError::WalGap {
                wal: from,
                topic_id: lease.topic_id,
                partition: lease.partition,
                expected: gap.expected,
                found: gap.found,
            })?;
            let mut batches = Vec::with_capacity(live.len());
            let stamped = live.iter().filter_map(Stamped::of).collect();
            let producers = Some(Producers::restored(checkpoint(&lease, known)?, stamped));
            for mut frame in live {
                frame.epoch = lease.epoch;
                let pipeline_version = frame.pipeline_version;
                batches.extend(frame.batch.clone().map(|batch| TailBatch {
                    batch,
                    pipeline_version,
                }));
                commits.push(self.wal.submit(frame).await?);
            }
            recovered.push(RecoveredPartition {
                lease,
                batches,
                producers,
            });
        }
        try_join_all(commits).await?;
        Ok(recovered)
    }
}

/// What the metadata know of a partition's producers.
pub(crate) fn checkpoint(lease: &Lease, known: Option<String>) -> Result<ProducerCheckpoint> {
    let checkpoint = known.as_deref().map(decode_producers).transpose();
    let checkpoint = checkpoint.map_err(|reason| BrokerError::StoredProducers {
        topic_id: lease.topic_id,
        partition: lease.partition,
        reason,
    })?;
    Ok(checkpoint.unwrap_or_default())
}

fn id(lease: &Lease) -> PartitionId {
    (lease.topic_id, lease.partition)
}

fn elsewhere(topic_id: Uuid, partition: u32, wal: Uuid) -> BrokerError {
    BrokerError::WalElsewhere {
        topic_id,
        partition,
        wal,
    }
}
