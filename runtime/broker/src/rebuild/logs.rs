//! What the write-ahead logs hold of each partition.

use std::collections::BTreeMap;

use millstream_log::Frame;
use millstream_meta::{WalKind, WalStream};
use uuid::Uuid;

use super::{judge::View, line::Claim, report::WalReport, runs::Runs};
use crate::{error::Result, settings::Wals};

/// A topic's id and a partition of it.
pub(super) type PartitionId = (Uuid, u32);

/// What the logs that can be read hold.
#[derive(Default)]
pub(super) struct Logs {
    pub(super) streams: BTreeMap<Uuid, WalStream>,
    pub(super) reports: Vec<WalReport>,
    partitions: BTreeMap<PartitionId, Vec<(Uuid, WalKind, Runs)>>,
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
                logs.read_one(wals, stream).await;
            }
        }
        Ok(logs)
    }

    /// One that cannot be read is told of: where nothing else holds its frames, that is a gap, or the end of a partition.
    async fn read_one(&mut self, wals: &Wals, stream: WalStream) {
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
        self.reports.push(WalReport {
            id: stream.id.to_string(),
            kind: kind_name(stream.kind),
            frames: read.as_ref().map_or(0, |summary| summary.frames),
            partitions: 0,
            unreadable: read.err().map(|error| error.to_string()),
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
    }

    pub(super) fn of(&self, id: PartitionId) -> (Vec<View>, Vec<Claim>) {
        let found = self.partitions.get(&id).into_iter().flatten();
        let views = found.clone().map(|(wal, kind, runs)| runs.view(*wal, *kind));
        let claims = found.flat_map(|(.., runs)| runs.claims().map(|(epoch, base)| Claim { epoch, base }));
        (views.collect(), claims.collect())
    }

    /// The partitions of which there are frames.
    pub(super) fn partitions(&self) -> impl Iterator<Item = PartitionId> {
        self.partitions.keys().copied()
    }

    /// Whether the same frames are in the same logs.
    pub(super) fn same_as(&self, other: &Logs) -> bool {
        self.partitions == other.partitions
    }

    /// Ends the object logs, so that an agent that still writes one acknowledges nothing more.
    pub(super) async fn seal(&self, wals: &Wals, by: Uuid) -> Result<()> {
        for stream in self.streams.values() {
            wals.of(stream.kind).seal(stream.id, by, stream.trim_floor).await?;
        }
        Ok(())
    }
}

fn kind_name(kind: WalKind) -> &'static str {
    match kind {
        WalKind::Disk => "disk",
        WalKind::Object => "object",
    }
}
