//! What a rebuild found, what it made of it, and what nobody can know.

use std::collections::BTreeMap;

use serde::Serialize;
use uuid::Uuid;

/// Of objects that are left out this many of each class are listed; all are counted.
pub const OBJECTS_LISTED_MAX: usize = 1_000;

/// What came of a rebuild.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RebuildReport {
    /// Whether the metadata holds it now: false for a dry run.
    pub written: bool,
    /// The id of the database that the store belongs to, which the new one follows; none where no database ever used it.
    pub database: Option<String>,
    /// The topics, by name.
    pub topics: Vec<TopicReport>,
    /// Segments of all of them.
    pub segments: u64,
    /// What is missing.
    pub gaps: Vec<PartitionGap>,
    /// The objects that are left out, by class.
    pub left_out: BTreeMap<&'static str, LeftOut>,
    /// The write-ahead logs that were found.
    pub wals: Vec<WalReport>,
    /// The sha256 of the modules that were found, without their names and versions.
    pub modules: Vec<String>,
    /// What is to be known or done before anybody is let in, most urgent first.
    pub warnings: Vec<String>,
}

/// One topic.
#[derive(Clone, Debug, Serialize)]
pub struct TopicReport {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub id: String,
    /// Its partitions.
    pub partitions: Vec<PartitionReport>,
    /// The greatest pipeline version that a record went through; 0 for none.
    pub pipeline_version: u64,
    /// Whether name and settings are from a manifest, and not made up.
    pub described: bool,
}

/// One partition.
#[derive(Clone, Debug, Serialize)]
pub struct PartitionReport {
    /// Its number.
    pub number: u32,
    /// The first offset that can be read.
    pub log_start: u64,
    /// The end of its segments.
    pub committed_end: u64,
    /// The end of what its write-ahead log holds: the next start goes on here.
    pub end: u64,
    /// Its segments.
    pub segments: u64,
    /// Above every epoch that was ever given for it.
    pub epoch: u64,
    /// The write-ahead log that the next start replays.
    pub wal: Option<String>,
}

/// Offsets that nothing holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The first of them.
    pub from: u64,
    /// The first one behind them.
    pub to: u64,
    /// The object below.
    pub below: String,
    /// What begins behind them.
    pub above: String,
}

/// A gap, and where.
#[derive(Clone, Debug, Serialize)]
pub struct PartitionGap {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: u32,
    /// The gap.
    pub gap: Gap,
}

impl std::fmt::Display for PartitionGap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let PartitionGap { topic, partition, gap } = self;
        let Gap { from, to, below, above } = gap;
        write!(
            f,
            "partition {partition} of {topic:?} lacks offsets {from} to {to}, between {below} and {above}"
        )
    }
}

/// A write-ahead log that was read and is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// `disk` or `object`.
    pub kind: &'static str,
    /// Its id.
    pub id: Uuid,
    /// What is wrong with it.
    pub reason: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Damage { kind, id, reason } = self;
        write!(f, "{kind} log {id}: {reason}")
    }
}

/// Objects of one class.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LeftOut {
    /// What it means, and what becomes of them.
    pub meaning: &'static str,
    /// How many there are.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The first of them, at most [`OBJECTS_LISTED_MAX`], each with what there is to say.
    pub objects: Vec<String>,
}

/// One write-ahead log.
#[derive(Clone, Debug, Serialize)]
pub struct WalReport {
    /// Its id.
    pub id: String,
    /// `disk` or `object`.
    pub kind: &'static str,
    /// Frames in it.
    pub frames: u64,
    /// Partitions that go on in it.
    pub partitions: u64,
    /// Why it could not be read.
    pub unreadable: Option<String>,
}

/// Why an object is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Its records are in another one.
    Merged { into: String },
    /// It was never committed.
    Fenced,
    /// Its records are in the write-ahead log too.
    InWal,
    /// Retention would take it at once.
    Expired,
    /// A gap is between it and what is kept.
    BehindGap,
    /// It cannot be read.
    Damaged { reason: String },
    /// It belongs to a topic that had the name before.
    FormerTopic,
    /// A newer manifest describes the topic.
    OldManifest,
    /// It is none of the broker's, or not where it belongs.
    Foreign { reason: String },
}

impl Why {
    pub(super) fn class(&self) -> (&'static str, &'static str) {
        match self {
            Why::Merged { .. } => (
                "merged",
                "their records are in segments that are kept; deleted after the usual grace",
            ),
            Why::OldManifest => (
                "old-manifest",
                "a newer one describes the topic; deleted after the usual grace",
            ),
            Why::Fenced => (
                "fenced",
                "stored by a leader that could not commit them any more; kept for 30 days, then deleted",
            ),
            Why::InWal => (
                "in-wal",
                "stored and not committed, their records are in the write-ahead log; kept for 30 days, then deleted",
            ),
            Why::Expired => (
                "expired",
                "retention had begun to delete them; kept for 30 days, then deleted",
            ),
            Why::BehindGap => (
                "behind-gap",
                "offsets are missing between them and what is kept; kept for 30 days, then deleted: copy them before if you need them",
            ),
            Why::Damaged { .. } => ("damaged", "they cannot be read; kept for 30 days, then deleted"),
            Why::FormerTopic => (
                "former-topic",
                "of a topic that had this name before; kept for 30 days, then deleted",
            ),
            Why::Foreign { .. } => (
                "foreign",
                "not of the broker's making, or not where they belong; kept for 30 days where they look like a segment or a manifest",
            ),
        }
    }

    /// Whether nothing can be lost with it.
    pub(super) fn is_certain(&self) -> bool {
        matches!(self, Why::Merged { .. } | Why::OldManifest)
    }

    fn detail(&self) -> Option<&str> {
        match self {
            Why::Merged { into } => Some(into),
            Why::Damaged { reason } | Why::Foreign { reason } => Some(reason),
            _ => None,
        }
    }
}

impl RebuildReport {
    pub(super) fn leave_out(&mut self, key: &str, bytes: u64, why: &Why) {
        let (class, meaning) = why.class();
        let left = self.left_out.entry(class).or_default();
        left.meaning = meaning;
        left.count += 1;
        left.bytes += bytes;
        if left.objects.len() < OBJECTS_LISTED_MAX {
            left.objects.push(match why.detail() {
                Some(detail) => format!("{key} ({detail})"),
                None => key.to_owned(),
            });
        }
    }
}
