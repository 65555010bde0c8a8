//! What the write-ahead logs hold of each partition.

use std::collections::BTreeMap;

use millstream_log::{Frame, LogError};
use millstream_meta::{WalKind, WalStream};
use uuid::Uuid;

use super::{
    judge::View,
    line::Claim,
    report::{Damage, WalReport},
    runs::Runs,
};
use crate::{error::Result, settings::Wals};

/// A topic's id and a partition of it.
pub(super) type PartitionId = (Uuid, u32);

/// What the logs that can be read hold.
#[derive(Default)]
pub(super) struct Logs {
    pub(super) streams: BTreeMap<Uuid, WalStream>,
    pub(super) reports: Vec<WalReport>,
    partitions: BTreeMap<PartitionId, Vec<(Uuid, WalKind, Runs)>>,
    damaged: BTreeMap<Uuid, Damage>,
    /// The greatest pipeline version of a frame of each topic.
    pub(super) pipelines: BTreeMap<Uuid, u64>,
}

impl Logs {
    /// Reads every log that is here. Nothing is written.
    pub(super) async fn read(wals: &Wals) -> Result<Logs> {
        let mut logs = Logs::default();
        for kind in [WalKind::Disk, WalKind::Object] {
            let store = wals.of(kind);
            for id in store.list().await? {
                let trim_floor = store.first_kept(id).await?;
                let stream = WalStream { id, kind, trim_floor };
                logs.read_one(wals, stream).await?;
            }
        }
        Ok(logs)
    }

    /// One that is damaged is told of, and no partition can go on in it: a start would fail at it. What was read before the
    /// damage still tells which objects were not committed.
    async fn read_one(&mut self, wals: &Wals, stream: WalStream) -> Result<()> {
        let mut partitions: BTreeMap<PartitionId, Runs> = BTreeMap::new();
        let mut pipelines = BTreeMap::new();
        let mut visit = |frame: Frame| {
            let end = frame
                .batch
                .as_ref()
                .map_or(frame.base_offset, |batch| batch.next_offset());
            let runs = partitions.entry((frame.topic_id, frame.partition)).or_default();
            runs.visit(frame.epoch.0, frame.base_offset.0, end.0);
            let version = pipelines.entry(frame.topic_id).or_insert(0);
            *version = frame.pipeline_version.max(*version);
            Ok(())
        };
        let read = wals
            .of(stream.kind)
            .replay(stream.id, stream.trim_floor, &mut visit)
            .await;
        let (frames, unreadable) = match read {
            Ok(summary) => (summary.frames, None),
            Err(error) if is_damage(&error) => (0, Some(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        if let Some(reason) = unreadable.clone() {
            let (kind, id) = (kind_name(stream.kind), stream.id);
            self.damaged.insert(id, Damage { kind, id, reason });
        }
        self.reports.push(WalReport {
            id: stream.id.to_string(),
            kind: kind_name(stream.kind),
            frames,
            partitions: 0,
            unreadable,
        });
        self.streams.insert(stream.id, stream);
        for (id, runs) in partitions {
            self.partitions
                .entry(id)
                .or_default()
                .push((stream.id, stream.kind, runs));
        }
        for (topic_id, version) in pipelines {
            let greatest = self.pipelines.entry(topic_id).or_insert(0);
            *greatest = version.max(*greatest);
        }
        Ok(())
    }

    pub(super) fn of(&self, id: PartitionId) -> (Vec<View>, Vec<Claim>) {
        let found = self.partitions.get(&id).into_iter().flatten();
        let readable = found.clone().filter(|(wal, ..)| !self.damaged.contains_key(wal));
        let views = readable.map(|(wal, kind, runs)| runs.view(*wal, *kind));
        let claims = found.flat_map(|(.., runs)| runs.claims().map(|(epoch, base)| Claim { epoch, base }));
        (views.collect(), claims.collect())
    }

    /// The partitions of which there are frames.
    pub(super) fn partitions(&self) -> impl Iterator<Item = PartitionId> {
        self.partitions.keys().copied()
    }

    /// The logs that are damaged.
    pub(super) fn damages(&self) -> Vec<Damage> {
        self.damaged.values().cloned().collect()
    }

    /// Whether the same frames are in the same logs, and the same logs are damaged.
    pub(super) fn same_as(&self, other: &Logs) -> bool {
        self.partitions == other.partitions && self.damaged.keys().eq(other.damaged.keys())
    }

    /// Ends the object logs, so that an agent that still writes one acknowledges nothing more.
    pub(super) async fn seal(&self, wals: &Wals, by: Uuid) -> Result<()> {
        for stream in self.streams.values() {
            wals.of(stream.kind).seal(stream.id, by, stream.trim_floor).await?;
        }
        Ok(())
    }
}

/// Whether the log itself is at fault; anything else is whoever was asked for it.
fn is_damage(error: &LogError) -> bool {
    matches!(
        error,
        LogError::WalDamaged { .. } | LogError::WalNotUnderstood { .. } | LogError::WalOther { .. }
    )
}

fn kind_name(kind: WalKind) -> &'static str {
    match kind {
        WalKind::Disk => "disk",
        WalKind::Object => "object",
    }
}
