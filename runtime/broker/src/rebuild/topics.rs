//! Which topics there are, and what becomes of everything in a folder.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use millstream_batch::{Epoch, Offset};
use millstream_log::Store;
use millstream_meta::{PARTITIONS_MAX, Restored, RestoredPartition, RestoredTopic, SegmentRow, Topic, TopicConfig};
use uuid::Uuid;

use super::{
    RebuildSettings,
    judge::{EPOCH_STEP, Retention, Verdict, judge},
    line::line,
    logs::Logs,
    objects::{Segments, TopicFolder},
    report::{PartitionGap, PartitionReport, RebuildReport, TopicReport, Why},
};
use crate::{
    error::Result,
    pipeline::PipelineSpec,
    sweep::{Manifest, kind_of},
};

/// Partitions that are read at once.
const PARTITIONS_AT_ONCE: usize = 4;
/// Batches carry the epoch as an i32.
const EPOCH_MAX: u64 = i32::MAX as u64;
/// How long objects that are not certain to be useless are kept for people to look at.
const HELD_MS: u64 = 30 * 24 * 3_600_000;

/// What was made of the bucket so far.
pub(super) struct Rebuilt<'a> {
    settings: &'a RebuildSettings,
    logs: &'a Logs,
    restored: Restored,
    pub(super) report: RebuildReport,
    pointed: BTreeMap<Uuid, u64>,
    ids: BTreeSet<Uuid>,
}

/// A topic before its partitions are judged.
struct Found {
    topic: Topic,
    config_version: u64,
    manifest: Option<(String, bool)>,
    pipeline_version: u64,
    described: bool,
    rows: BTreeMap<u32, Vec<SegmentRow>>,
}

impl<'a> Rebuilt<'a> {
    pub(super) fn new(settings: &'a RebuildSettings, logs: &'a Logs) -> Rebuilt<'a> {
        let restored = Restored {
            agent: settings.agent_name.clone(),
            now_ms: settings.now_ms,
            ..Restored::default()
        };
        Rebuilt {
            settings,
            logs,
            restored,
            report: RebuildReport::default(),
            pointed: BTreeMap::new(),
            ids: BTreeSet::new(),
        }
    }

    /// Takes up everything under a topic's name.
    pub(super) async fn folder(&mut self, store: &Store, name: &str) -> Result<()> {
        let folder = TopicFolder::read(store, name).await?;
        let newest = folder
            .manifests
            .iter()
            .map(|(.., manifest)| manifest)
            .max_by_key(|manifest| manifest.created_at_ms);
        let current = newest.map(Manifest::id);
        let ids: BTreeSet<Uuid> = folder.manifests.iter().map(|(.., manifest)| manifest.id()).collect();
        let config = newest.map(|manifest| &manifest.config);
        let block_bytes = u64::from(config.map_or(TopicConfig::default().block_bytes, |config| config.block_bytes));
        let made_at_ms = newest.map_or(i64::MIN, |manifest| manifest.created_at_ms);
        let numbers = folder
            .partitions
            .iter()
            .copied()
            .filter(|number| *number < PARTITIONS_MAX);
        let read = |number| async move {
            Segments::read(store, name, number, block_bytes)
                .await
                .map(|segments| (number, segments))
        };
        let mut reads = stream::iter(numbers).map(read).buffered(PARTITIONS_AT_ONCE);
        let mut by_topic: BTreeMap<Uuid, BTreeMap<u32, Vec<SegmentRow>>> = BTreeMap::new();
        let mut pipelines: BTreeMap<Uuid, u64> = BTreeMap::new();
        while let Some((number, segments)) = reads.try_next().await? {
            for (object, why) in segments.left {
                self.leave_out(name, &object.key, object.bytes, &why);
            }
            for (id, version) in segments.pipelines {
                let greatest = pipelines.entry(id).or_insert(0);
                *greatest = version.max(*greatest);
            }
            for (id, rows) in segments.by_topic {
                by_topic.entry(id).or_default().insert(number, rows);
            }
        }
        for (object, why) in &folder.left {
            self.leave_out(name, &object.key, object.bytes, why);
        }
        if let Some(taken) = current.filter(|_| ids.len() > 1) {
            self.report.warnings.push(format!(
                "{} topics had the name {name:?} one after the other: the one that was made last by the clock of whoever made \
                 it is taken ({taken}), what is of the others is left out",
                ids.len()
            ));
        }
        let mut described = None;
        for (key, bytes, manifest) in folder.manifests {
            if Some(manifest.id()) != current {
                self.leave_out(name, &key, bytes, &Why::FormerTopic);
            } else if let Some((older, bytes, _)) = described.replace((key, bytes, manifest)) {
                self.leave_out(name, &older, bytes, &Why::OldManifest);
            }
        }
        if let Some((key, _, manifest)) = described {
            let id = manifest.id();
            let rows = by_topic.remove(&id).unwrap_or_default();
            let pipeline_version = pipelines.get(&id).copied().unwrap_or(0);
            self.add(described_topic(key, manifest, pipeline_version, rows));
        }
        for (id, rows) in by_topic {
            let youngest = rows.values().flatten().map(|row| row.created_at_ms).max();
            if youngest.is_some_and(|youngest| youngest < made_at_ms) || self.ids.contains(&id) {
                for row in rows.values().flatten() {
                    self.leave_out(name, &row.key, row.stored_bytes, &Why::FormerTopic);
                }
                continue;
            }
            self.add_undescribed(id, name, pipelines.get(&id).copied().unwrap_or(0), rows);
        }
        Ok(())
    }

    /// Topics that never got an object: what the logs hold of them was acknowledged.
    pub(super) fn topics_in_logs_alone(&mut self) {
        let ids: BTreeSet<Uuid> = self.logs.partitions().map(|(id, _)| id).collect();
        for id in ids.difference(&self.ids.clone()) {
            self.add_undescribed(*id, &format!("recovered-{id}"), 0, BTreeMap::new());
        }
    }

    fn add_undescribed(&mut self, id: Uuid, name: &str, pipeline_version: u64, rows: BTreeMap<u32, Vec<SegmentRow>>) {
        let taken = |name: &str| self.restored.topics.iter().any(|other| other.topic.name == name);
        let name = match taken(name) {
            true => format!("recovered-{id}"),
            false => name.to_owned(),
        };
        let oldest = rows.values().flatten().map(|row| row.created_at_ms).min();
        let topic = Topic {
            id,
            name: name.clone(),
            partitions: 0,
            config: TopicConfig::default(),
            created_at_ms: oldest.unwrap_or(self.settings.now_ms),
        };
        self.report.warnings.push(format!(
            "topic {name:?} ({id}) has no manifest: its settings are the defaults, and name and partitions what its objects \
             or frames tell; it may be one that was deleted. Alter it, or delete it"
        ));
        self.add(Found {
            topic,
            config_version: 1,
            manifest: None,
            pipeline_version,
            described: false,
            rows,
        });
    }

    /// Judges each partition of a topic.
    fn add(&mut self, mut found: Found) {
        let id = found.topic.id;
        self.ids.insert(id);
        let logged = self
            .logs
            .partitions()
            .filter(|(topic_id, _)| *topic_id == id)
            .map(|(_, number)| number);
        let greatest = logged
            .chain(found.rows.keys().copied())
            .filter(|number| *number < PARTITIONS_MAX)
            .max();
        let needed = greatest.map_or(1, |greatest| greatest + 1);
        if found.described && needed > found.topic.partitions {
            let (name, described) = (&found.topic.name, found.topic.partitions);
            let warning =
                format!("topic {name:?} has {described} partitions by its manifest, but {needed} by what it holds");
            self.report.warnings.push(warning);
        }
        found.topic.partitions = found.topic.partitions.clamp(1, PARTITIONS_MAX).max(needed);
        let logged = self.logs.pipelines.get(&id).copied().unwrap_or(0);
        found.pipeline_version = found.pipeline_version.max(logged);
        let retention = Retention::of(&found.topic.config, self.settings.now_ms);
        let mut report = TopicReport {
            name: found.topic.name.clone(),
            id: id.to_string(),
            partitions: Vec::with_capacity(found.topic.partitions as usize),
            pipeline_version: found.pipeline_version,
            described: found.described,
        };
        let mut partitions = Vec::with_capacity(found.topic.partitions as usize);
        for number in 0..found.topic.partitions {
            let rows = found.rows.remove(&number).unwrap_or_default();
            let (partition, entry) = self.partition(&found.topic, number, rows, retention);
            report.partitions.push(entry);
            partitions.push(partition);
        }
        self.report.topics.push(report);
        self.restored.topics.push(RestoredTopic {
            topic: found.topic,
            config_version: found.config_version,
            manifest: found.manifest,
            pipeline_version: found.pipeline_version,
            pipeline_stages: serde_json::to_string(&PipelineSpec::default()).expect("two lists always become JSON"),
            partitions,
        });
    }

    fn partition(
        &mut self,
        topic: &Topic,
        number: u32,
        rows: Vec<SegmentRow>,
        retention: Retention,
    ) -> (RestoredPartition, PartitionReport) {
        let (views, claims) = self.logs.of((topic.id, number));
        let seen = rows
            .iter()
            .map(|row| row.epoch.0)
            .chain(claims.iter().map(|claim| claim.epoch))
            .max();
        let epoch = epoch_above(seen.unwrap_or(0));
        let Verdict {
            rows,
            log_start,
            committed_end,
            pointer,
            reach,
            gaps,
            left,
        } = judge(line(rows, &claims), &views, retention, self.settings.on_gap);
        for (row, why) in &left {
            self.leave_out_segment(&row.key, row.stored_bytes, why);
        }
        let name = &topic.name;
        self.report.gaps.extend(gaps.into_iter().map(|gap| PartitionGap {
            topic: name.clone(),
            partition: number,
            gap,
        }));
        let wal = pointer.map(|(wal, _)| wal);
        if let Some(wal) = wal {
            *self.pointed.entry(wal).or_insert(0) += 1;
        }
        self.report.segments += rows.len() as u64;
        let entry = PartitionReport {
            number,
            log_start,
            committed_end,
            end: reach,
            segments: rows.len() as u64,
            epoch,
            wal: wal.map(|wal| wal.to_string()),
        };
        let partition = RestoredPartition {
            epoch: Epoch(epoch),
            log_start: Offset(log_start),
            committed_end: Offset(committed_end),
            wal,
            segments: rows,
            producers: None,
        };
        (partition, entry)
    }

    /// Names an object of the broker's making for deletion, so that no search for orphans takes it any earlier.
    fn leave_out(&mut self, topic: &str, key: &str, bytes: u64, why: &Why) {
        match kind_of(topic, key) {
            Some(_) => self.leave_out_segment(key, bytes, why),
            None => self.report.leave_out(key, bytes, why),
        }
    }

    fn leave_out_segment(&mut self, key: &str, bytes: u64, why: &Why) {
        self.report.leave_out(key, bytes, why);
        let held_ms = if why.is_certain() { 0 } else { HELD_MS };
        let from_ms = self.settings.now_ms.saturating_add_unsigned(held_ms);
        self.restored.deletions.push((key.to_owned(), from_ms));
    }

    pub(super) fn finish(mut self) -> (Restored, RebuildReport) {
        self.restored.wals = self
            .pointed
            .keys()
            .filter_map(|wal| self.logs.streams.get(wal).copied())
            .collect();
        self.report.wals = self.logs.reports.clone();
        for wal in &mut self.report.wals {
            let pointed = self.pointed.iter().find(|(id, _)| id.to_string() == wal.id);
            wal.partitions = pointed.map_or(0, |(_, partitions)| *partitions);
        }
        self.warn();
        self.report.topics.sort_by(|one, other| one.name.cmp(&other.name));
        (self.restored, self.report)
    }

    /// What nobody can know, the most urgent first.
    fn warn(&mut self) {
        let mut warnings = Vec::new();
        for topic in self.report.topics.iter().filter(|topic| topic.pipeline_version > 0) {
            warnings.push(format!(
                "topic {:?} had a pipeline (version {} at least), which is lost: until it is added again, records are \
                 stored as they come, and read as they are stored. Start the agent where nobody else reaches it (--listen), \
                 add the pipeline, and then let others in",
                topic.name, topic.pipeline_version
            ));
        }
        for wal in self.report.wals.iter() {
            if let Some(reason) = &wal.unreadable {
                warnings.push(format!(
                    "{} write-ahead log {} could not be read, what only it holds is missing: {reason}",
                    wal.kind, wal.id
                ));
            }
        }
        warnings.append(&mut self.report.warnings);
        let empty = self.report.topics.iter().flat_map(|topic| &topic.partitions);
        let empty = empty.filter(|partition| partition.end == 0).count();
        if empty > 0 {
            warnings.push(format!(
                "{empty} partitions have no object and begin at offset 0 again, also where all they had was deleted before"
            ));
        }
        warnings.extend(UNKNOWN.map(str::to_owned));
        self.report.warnings = warnings;
    }
}

/// What no object tells of.
const UNKNOWN: [&str; 6] = [
    "the logs on the disks of other machines are not known: rebuild where the data folder is; what only those hold is missing",
    "the store is left to this database once an agent starts with it: the lost one is refused there from then on",
    "consumer groups and their offsets are lost",
    "names and versions of modules are lost: deploy them again",
    "pipelines that were in force without a single record that went through them leave no trace",
    "what was truncated within a segment, and what was deleted within the last minutes, may be readable again",
];

fn described_topic(
    key: String,
    manifest: Manifest,
    pipeline_version: u64,
    rows: BTreeMap<u32, Vec<SegmentRow>>,
) -> Found {
    let numbered = manifest.config_version > 0;
    let topic = Topic {
        id: manifest.id(),
        name: manifest.name,
        partitions: manifest.partitions,
        config: manifest.config,
        created_at_ms: manifest.created_at_ms,
    };
    Found {
        topic,
        config_version: manifest.config_version.max(1),
        // One of an older broker is written again, with the number.
        manifest: Some((key, numbered)),
        pipeline_version,
        described: true,
        rows,
    }
}

/// Far above what was seen; near the greatest of all halfway there.
fn epoch_above(seen: u64) -> u64 {
    match seen.checked_add(EPOCH_STEP) {
        Some(epoch) if epoch < EPOCH_MAX => epoch,
        _ => seen + EPOCH_MAX.saturating_sub(seen).div_ceil(2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_above_all_that_were_and_leaves_room_above_it() {
        assert_eq!(epoch_above(0), EPOCH_STEP);
        assert!(epoch_above(EPOCH_MAX - 10) > EPOCH_MAX - 10);
        assert!(epoch_above(EPOCH_MAX - 10) < EPOCH_MAX);
    }
}
