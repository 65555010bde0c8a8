//! Rebuilding the metadata from an object store, and from the write-ahead logs that can be reached.
//!
//! Segments say which offsets of which partition they hold, manifests which topics there are, and the logs what was
//! acknowledged beyond the segments. What is not chosen is not touched, only written down for deletion.
//!
//! | file | owns |
//! |---|---|
//! | `objects` | listing the bucket, reading manifests and the ends of segments |
//! | `logs` | what the write-ahead logs hold of each partition |
//! | `runs` | the frames of one partition in one log that count |
//! | `line` | which objects of a partition were committed |
//! | `judge` | from these and the logs to what the metadata is to say; gaps |
//! | `topics` | which topics there are, and what becomes of everything in a folder |
//! | `report` | what was found, and what nobody can know |
//!
//! Invariants:
//! 1. Nothing is written before everything was read and judged, and then all of it in one transaction.
//! 2. The logs are sealed before that, and read again: where anything changed somebody still writes, and nothing is
//!    written.
//! 3. Whatever does not answer is an error. Only an object that was read and is damaged counts as damaged.
//!
//! Memory: about 400 bytes for each segment, because of the one transaction.

mod judge;
mod line;
mod logs;
mod objects;
mod producers;
mod report;
mod runs;
#[cfg(test)]
mod tests;
mod topics;

use millstream_log::Store;
use millstream_meta::{Identity, Metadata, Restored};
use uuid::Uuid;

pub use report::{
    Damage, Gap, LeftOut, OBJECTS_LISTED_MAX, PartitionGap, PartitionReport, RebuildReport, TopicReport, WalReport,
};

use crate::{
    error::{BrokerError, Result},
    names::check_topic_name,
    owner,
    settings::Wals,
};
use logs::Logs;
use topics::Rebuilt;

/// The folders that are no topics.
const OWNER_FOLDER: &str = "_owner";
const WALS_FOLDER: &str = "_wal";
const MODULES_FOLDER: &str = "_modules";

/// What to do where offsets are missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnGap {
    /// Nothing is written.
    #[default]
    Refuse,
    /// What lies below the first gap of a partition is kept.
    KeepFront,
    /// What lies beyond the last gap of a partition is kept.
    KeepBack,
}

/// How to rebuild.
#[derive(Clone, Debug)]
pub struct RebuildSettings {
    /// Only looks: nothing is written, neither to the database nor to the store.
    pub dry_run: bool,
    /// What to do where offsets are missing.
    pub on_gap: OnGap,
    /// The time, ms since 1970.
    pub now_ms: i64,
    /// The name of the agent that is going to start with these logs, and replays them.
    pub agent_name: String,
    /// The new database's id, where the store belonged to another.
    pub database: Uuid,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebuildStep<'a> {
    /// The write-ahead logs are read.
    Logs,
    /// A topic's folder is read.
    Topic {
        /// The topic's name.
        name: &'a str,
        /// Segments that were chosen before.
        segments: u64,
    },
    /// Rows go into the database.
    Written {
        /// Segments that are there now.
        segments: u64,
    },
}

/// Fills an empty database with what the store and the logs hold. No agent may run.
///
/// 1. Every record that was acknowledged and can still be read is there after the next start, once and at its offset, as
///    far as segments and logs hold it; logs that were not synced are believed as they are.
/// 2. After an error the database is as empty as before. The object logs may be sealed by then.
/// 3. The database has an id of its own. The store is the lost one's until an agent starts with the new one.
///
/// # Errors
/// `RebuildGaps` where offsets are missing, `RebuildLogs` where a log is damaged, each where `on_gap` is to refuse, and no
/// dry run; `RebuildDisturbed` where somebody writes meanwhile; those of the database (`NotEmpty`), the store and the disk.
pub async fn rebuild(
    metadata: &Metadata,
    store: &Store,
    wals: &Wals,
    settings: &RebuildSettings,
    progress: &(dyn Fn(RebuildStep<'_>) + Send + Sync),
) -> Result<RebuildReport> {
    metadata.expect_empty().await?;
    let database = owner::owner_of(store).await?;
    progress(RebuildStep::Logs);
    let logs = Logs::read(wals).await?;
    let mut rebuilt = Rebuilt::new(settings, &logs);
    let root = store.list_folder("").await?;
    for object in &root.objects {
        rebuilt.report.leave_out(
            &object.key,
            object.bytes,
            &objects::foreign("it lies outside of every folder"),
        );
    }
    for name in &root.folders {
        match name.as_str() {
            OWNER_FOLDER | WALS_FOLDER => {}
            MODULES_FOLDER => rebuilt.report.modules = modules(store).await?,
            name if check_topic_name(name).is_err() => {
                rebuilt
                    .report
                    .leave_out(name, 0, &objects::foreign("a folder that no topic can have"));
            }
            name => {
                let segments = rebuilt.report.segments;
                progress(RebuildStep::Topic { name, segments });
                rebuilt.folder(store, name).await?;
            }
        }
    }
    rebuilt.topics_in_logs_alone();
    let (mut restored, mut report) = rebuilt.finish();
    report.database = database.map(|id| id.to_string());
    if settings.dry_run {
        return Ok(report);
    }
    if settings.on_gap == OnGap::Refuse && !report.gaps.is_empty() {
        return Err(BrokerError::RebuildGaps { gaps: report.gaps });
    }
    let damages = logs.damages();
    if settings.on_gap == OnGap::Refuse && !damages.is_empty() {
        return Err(BrokerError::RebuildLogs { damages });
    }
    // An agent that still runs on the lost database must not acknowledge what nobody will read.
    logs.seal(wals, database.unwrap_or(Uuid::nil())).await?;
    if !Logs::read(wals).await?.same_as(&logs) {
        return Err(BrokerError::RebuildDisturbed);
    }
    producers::read(store, &mut restored).await?;
    restored.identity = database.map(|former| Identity {
        id: settings.database,
        former: Some(former),
    });
    write(metadata, &restored, progress).await?;
    report.written = true;
    Ok(report)
}

async fn write(
    metadata: &Metadata,
    restored: &Restored,
    progress: &(dyn Fn(RebuildStep<'_>) + Send + Sync),
) -> Result<()> {
    let written = |segments| progress(RebuildStep::Written { segments });
    Ok(metadata.restore(restored, &written).await?)
}

/// The sha256 of each module that is stored.
async fn modules(store: &Store) -> Result<Vec<String>> {
    let keys = store.list(MODULES_FOLDER).await?.into_iter();
    let names = keys.filter_map(|key| Some(key.strip_prefix("_modules/")?.strip_suffix(".wasm")?.to_owned()));
    Ok(names.collect())
}
