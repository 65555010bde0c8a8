//! The choice against a model of histories: whatever happened before the database was lost, what is chosen holds every
//! record that was acknowledged and can still be read, at its own offset, once.

use std::collections::{BTreeMap, BTreeSet};

use millstream_batch::{Epoch, Offset};
use millstream_meta::{SegmentRow, WalKind};
use proptest::prelude::*;
use uuid::Uuid;

use super::{
    OnGap,
    judge::{Retention, judge},
    line::{Claim, line},
    runs::Runs,
};

/// An object with these ends and this epoch, made at the time of its base, of one byte for each offset.
pub(super) fn row(base: u64, end: u64, epoch: u64) -> SegmentRow {
    SegmentRow {
        key: format!("{base}-{end}@{epoch}"),
        base_offset: Offset(base),
        end_offset: Offset(end),
        epoch: Epoch(epoch),
        record_count: end - base,
        raw_bytes: end - base,
        stored_bytes: end - base,
        min_timestamp_ms: 0,
        max_timestamp_ms: 0,
        created_at_ms: base as i64,
        etag: None,
    }
}

/// A record: every one that was ever produced is another.
type Record = u64;

#[derive(Clone, Debug)]
struct Frame {
    epoch: u64,
    base: u64,
    records: Vec<Record>,
}

impl Frame {
    fn end(&self) -> u64 {
        self.base + self.records.len() as u64
    }
}

/// What may happen to a partition.
#[derive(Clone, Debug)]
enum Step {
    /// Batches of these sizes are acknowledged.
    Produce(Vec<u64>),
    /// The oldest frames become a segment; where `committed` is false the commit is lost, and the leader with it.
    Upload { frames: usize, committed: bool },
    /// The put that succeeds is the second one: the first had no answer.
    UploadTwice { frames: usize },
    /// Another start takes over. Where it crashes it has copied so many frames, and the pointer stays.
    TakeOver { crashes_after: Option<usize> },
    /// The leader steps down and opens again: the tail is what it had in memory. An upload of so many frames was not
    /// committed.
    Reopen { uploaded: usize },
    /// The power goes under a log that is not synced: these last frames are gone.
    PowerLoss { frames: usize },
    /// So many rows from this one on are merged; uncommitted where the leader is lost or a source is gone.
    Merge {
        first: usize,
        count: usize,
        committed: bool,
    },
    /// A merge meets that retention takes this many rows.
    MergeMeetsRetention { first: usize, count: usize, taken: usize },
    /// Retention takes rows from the front.
    Expire { rows: usize },
    /// The log start moves into the rows.
    Truncate { by: u64 },
    /// The first objects on the list of deletions go.
    Delete { objects: usize },
    /// The log lets go of frames in segments.
    Trim { frames: usize },
    /// Nobody removed the logs that no pointer names; now somebody does.
    RemoveLogs,
}

/// A partition, its bucket and its logs.
#[derive(Default)]
struct Model {
    records: Record,
    epoch: u64,
    log_start: u64,
    committed_end: u64,
    /// What was written before is due for retention.
    expired_before_ms: i64,
    /// Above it nothing was truncated.
    truncated_to: u64,
    /// The batches beyond the committed end.
    tail: Vec<(u64, Vec<Record>)>,
    rows: Vec<SegmentRow>,
    deletions: Vec<String>,
    objects: BTreeMap<String, (SegmentRow, Vec<Record>)>,
    /// The frames of each log, and which one the pointer names.
    logs: Vec<Vec<Frame>>,
    pointer: usize,
    /// What each offset holds that was ever committed or is in the tail.
    truth: BTreeMap<u64, Record>,
    /// What was acknowledged by a log that is not synced, and lost with the power. An object may hold it still.
    lost: BTreeSet<(u64, Record)>,
}

impl Model {
    fn new() -> Model {
        Model {
            epoch: 1,
            logs: vec![Vec::new()],
            ..Model::default()
        }
    }

    fn end(&self) -> u64 {
        self.tail
            .last()
            .map_or(self.committed_end, |(base, records)| base + records.len() as u64)
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Produce(sizes) => sizes.iter().for_each(|size| self.produce(*size)),
            Step::Upload { frames, committed } => self.upload(*frames, *committed),
            Step::UploadTwice { frames } => {
                if let Some((row, records)) = self.next_segment(*frames) {
                    self.put(row, records);
                    self.upload(*frames, true);
                }
            }
            Step::TakeOver { crashes_after } => self.take_over(*crashes_after),
            Step::Reopen { uploaded } => {
                if let Some((row, records)) = self.next_segment(*uploaded) {
                    self.put(row, records);
                }
                self.epoch += 1;
            }
            Step::PowerLoss { frames } => self.lose_power(*frames),
            Step::Merge {
                first,
                count,
                committed,
            } => self.merge(*first, *count, 0, *committed),
            Step::MergeMeetsRetention { first, count, taken } => self.merge(*first, *count, *taken, true),
            Step::Expire { rows } => self.expire(*rows),
            Step::Truncate { by } => {
                let to = (self.log_start + by).min(self.committed_end);
                let rows = self.rows.iter().take_while(|row| row.end_offset.0 <= to).count();
                self.take_front(rows);
                (self.log_start, self.truncated_to) = (to, to);
            }
            Step::Delete { objects } => {
                for key in self.deletions.drain(..(*objects).min(self.deletions.len())) {
                    self.objects.remove(&key);
                }
            }
            Step::Trim { frames } => {
                let committed_end = self.committed_end;
                let log = &mut self.logs[self.pointer];
                let covered = log.iter().take_while(|frame| frame.end() <= committed_end).count();
                log.drain(..covered.min(*frames));
            }
            Step::RemoveLogs => {
                let pointer = self.pointer;
                let others = self.logs.iter_mut().enumerate().filter(|(at, _)| *at != pointer);
                others.for_each(|(_, log)| log.clear());
            }
        }
    }

    fn produce(&mut self, size: u64) {
        let (base, epoch) = (self.end(), self.epoch);
        let records: Vec<Record> = (self.records..self.records + size).collect();
        self.records += size;
        self.truth.extend((base..).zip(records.iter().copied()));
        self.tail.push((base, records.clone()));
        self.logs[self.pointer].push(Frame { epoch, base, records });
    }

    fn next_segment(&self, frames: usize) -> Option<(SegmentRow, Vec<Record>)> {
        let range = &self.tail[..frames.min(self.tail.len())];
        let records: Vec<Record> = range.iter().flat_map(|(_, records)| records).copied().collect();
        let base = self.committed_end;
        (!records.is_empty()).then(|| (row(base, base + records.len() as u64, self.epoch), records))
    }

    fn put(&mut self, mut row: SegmentRow, records: Vec<Record>) -> SegmentRow {
        row.key = format!("{}#{}", row.key, self.objects.len() + self.records as usize * 1_000);
        while self.objects.contains_key(&row.key) {
            row.key.push('+');
        }
        self.objects.insert(row.key.clone(), (row.clone(), records));
        row
    }

    fn upload(&mut self, frames: usize, committed: bool) {
        let Some((row, records)) = self.next_segment(frames) else {
            return;
        };
        let row = self.put(row, records);
        if committed {
            self.committed_end = row.end_offset.0;
            self.tail.drain(..frames.min(self.tail.len()));
            self.rows.push(row);
        } else {
            self.take_over(None);
        }
    }

    /// The tail is what a replay of the log that the pointer names gives, in a log of its own.
    fn take_over(&mut self, crashes_after: Option<usize>) {
        self.epoch += 1;
        let epoch = self.epoch;
        let tail = self.tail.iter().take(crashes_after.unwrap_or(usize::MAX));
        let copied = tail.map(|(base, records)| Frame {
            epoch,
            base: *base,
            records: records.clone(),
        });
        self.logs.push(copied.collect());
        if crashes_after.is_none() {
            self.pointer = self.logs.len() - 1;
        } else {
            self.take_over(None);
        }
    }

    fn lose_power(&mut self, frames: usize) {
        // A former log that is still there would hold what was lost, and nothing tells it from one half copied.
        self.run(&Step::RemoveLogs);
        let lost = frames.min(self.tail.len());
        let log = &mut self.logs[self.pointer];
        log.truncate(log.len() - lost);
        self.tail.truncate(self.tail.len() - lost);
        let lost = self.truth.split_off(&self.end());
        self.lost.extend(lost);
        self.take_over(None);
    }

    fn merge(&mut self, first: usize, count: usize, taken: usize, committed: bool) {
        let first = first.min(self.rows.len());
        let sources = &self.rows[first..(first + count).min(self.rows.len())];
        if sources.len() < 2 {
            return;
        }
        let (base, end) = (sources[0].base_offset.0, sources[sources.len() - 1].end_offset.0);
        let records = sources
            .iter()
            .flat_map(|source| self.objects[&source.key].1.clone())
            .collect();
        let newest = sources.iter().map(|source| source.created_at_ms).max().unwrap_or(0);
        let merged = SegmentRow {
            created_at_ms: newest,
            ..row(base, end, self.epoch)
        };
        let merged = self.put(merged, records);
        self.expire(taken);
        if !committed {
            return self.take_over(None);
        }
        // Where retention took a source the rows are not those any more, and the merged one stays behind.
        let Some(first) = self.rows.iter().position(|row| row.base_offset.0 == base) else {
            return;
        };
        let count = self.rows[first..]
            .iter()
            .take_while(|row| row.end_offset.0 <= end)
            .count();
        let sources = self.rows.splice(first..first + count, [merged]);
        self.deletions.extend(sources.map(|source| source.key));
    }

    fn expire(&mut self, rows: usize) {
        let oldest = self.rows[..rows.min(self.rows.len())]
            .iter()
            .map(|row| row.created_at_ms)
            .max();
        self.expired_before_ms = self.expired_before_ms.max(oldest.map_or(0, |oldest| oldest + 1));
        self.take_front(rows);
    }

    fn take_front(&mut self, rows: usize) {
        for row in self.rows.drain(..rows.min(self.rows.len())) {
            self.log_start = self.log_start.max(row.end_offset.0);
            self.deletions.push(row.key);
        }
    }

    /// What a rebuild and the replay at the next start make of what is left, against what is true.
    fn check(&self) -> Result<(), TestCaseError> {
        let rows = self.objects.values().map(|(row, _)| row.clone()).collect();
        let mut claims = Vec::new();
        let mut views = Vec::new();
        for (number, log) in self.logs.iter().enumerate().filter(|(_, log)| !log.is_empty()) {
            let mut runs = Runs::default();
            log.iter()
                .for_each(|frame| runs.visit(frame.epoch, frame.base, frame.end()));
            claims.extend(runs.claims().map(|(epoch, base)| Claim { epoch, base }));
            views.push(runs.view(Uuid::from_u128(number as u128), WalKind::Object));
        }
        let retention = Retention {
            before_ms: Some(self.expired_before_ms),
            bytes_max: None,
        };
        let verdict = judge(line(rows, &claims), &views, retention, OnGap::KeepBack);
        // An object that was never committed may be left below what a truncation took: nothing tells it from a loss.
        let gap = verdict.gaps.iter().find(|gap| gap.to > self.truncated_to);
        prop_assert_eq!(gap, None);
        let mut found: BTreeMap<u64, Record> = BTreeMap::new();
        let mut next = verdict.log_start;
        for row in &verdict.rows {
            prop_assert_eq!(row.base_offset.0, next, "end to end");
            found.extend((next..).zip(self.objects[&row.key].1.iter().copied()));
            next = row.end_offset.0;
        }
        prop_assert_eq!(next, verdict.committed_end);
        if let Some((wal, _)) = verdict.pointer {
            let replayed = replay(&self.logs[wal.as_u128() as usize], next)?;
            found.extend((next..).zip(replayed));
        }
        for (offset, record) in self.truth.range(self.log_start..) {
            prop_assert_eq!(found.get(offset), Some(record), "offset {}", offset);
        }
        for (offset, record) in &found {
            // Below the log start nobody could read any more what took the place of a record that was lost.
            let there = match self.truth.get(offset) {
                Some(there) if there == record => true,
                Some(_) if *offset >= self.log_start => false,
                _ => self.lost.contains(&(*offset, *record)),
            };
            prop_assert!(
                there,
                "offset {} holds record {}, which never was there",
                offset,
                record
            );
        }
        Ok(())
    }
}

/// As recovery does it.
fn replay(log: &[Frame], committed_end: u64) -> Result<Vec<Record>, TestCaseError> {
    let (mut epoch, mut live) = (0, Vec::<&Frame>::new());
    for frame in log {
        if frame.epoch > epoch {
            epoch = frame.epoch;
            live.retain(|earlier| earlier.base < frame.base);
        }
        if frame.end() > committed_end {
            live.push(frame);
        }
    }
    let mut next = committed_end;
    for frame in &live {
        prop_assert_eq!(frame.base, next, "a replay would stop");
        next = frame.end();
    }
    Ok(live.into_iter().flat_map(|frame| frame.records.clone()).collect())
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => prop::collection::vec(1..5_u64, 1..4).prop_map(Step::Produce),
        6 => (1..4_usize, prop::bool::weighted(0.8)).prop_map(|(frames, committed)| Step::Upload { frames, committed }),
        1 => (1..4_usize).prop_map(|frames| Step::UploadTwice { frames }),
        2 => prop::option::weighted(0.3, 0..3_usize).prop_map(|crashes_after| Step::TakeOver { crashes_after }),
        2 => (0..3_usize).prop_map(|uploaded| Step::Reopen { uploaded }),
        1 => (1..4_usize).prop_map(|frames| Step::PowerLoss { frames }),
        3 => (0..4_usize, 2..6_usize, prop::bool::weighted(0.7))
            .prop_map(|(first, count, committed)| Step::Merge { first, count, committed }),
        1 => (0..3_usize, 2..6_usize, 1..4_usize)
            .prop_map(|(first, count, taken)| Step::MergeMeetsRetention { first, count, taken }),
        2 => (1..3_usize).prop_map(|rows| Step::Expire { rows }),
        1 => (1..8_u64).prop_map(|by| Step::Truncate { by }),
        3 => (1..6_usize).prop_map(|objects| Step::Delete { objects }),
        2 => (1..6_usize).prop_map(|frames| Step::Trim { frames }),
        1 => Just(Step::RemoveLogs),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_acknowledged_and_readable_is_lost_doubled_or_moved(steps in prop::collection::vec(step(), 1..40)) {
        let mut model = Model::new();
        for step in &steps {
            model.run(step);
            model.check()?;
        }
    }
}
