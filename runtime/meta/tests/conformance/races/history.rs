//! What the answers told, and whether it can be true.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use millstream_batch::{Epoch, Offset};
use millstream_meta::{NewSegment, SegmentRow};
use uuid::Uuid;

use crate::Fixture;

/// A partition of a topic by its id: a topic made again under one name has another.
pub(super) type Partition = (Uuid, u32);

/// One answer that says that something has happened.
#[derive(Debug)]
pub(super) enum Event {
    Acquired {
        partition: Partition,
        epoch: Epoch,
        committed_end: Offset,
    },
    Committed {
        partition: Partition,
        epoch: Epoch,
        segment: NewSegment,
    },
    Merged {
        partition: Partition,
        epoch: Epoch,
        segment: NewSegment,
    },
    /// Retention or truncation.
    Taken {
        partition: Partition,
        log_start: Offset,
    },
    Released {
        partition: Partition,
        epoch: Epoch,
    },
    /// A call that was refused, which is to have changed nothing.
    Refused,
}

#[derive(Debug, Default)]
struct OfPartition {
    /// By epoch, the committed end that its holder was told.
    acquired: BTreeMap<Epoch, Offset>,
    /// By base offset.
    committed: BTreeMap<Offset, (Epoch, NewSegment)>,
    merged: Vec<(Epoch, NewSegment)>,
    log_start: Offset,
    released: BTreeSet<Epoch>,
}

/// All that has happened, by partition.
#[derive(Debug, Default)]
pub(super) struct History {
    partitions: HashMap<Partition, OfPartition>,
    refused: usize,
}

impl History {
    /// Two winners of one epoch, or of one base offset, or two releases of one lease are noticed here.
    pub(super) fn of(events: Vec<Event>) -> History {
        let mut history = History::default();
        for event in events {
            history.add(event);
        }
        history
    }

    fn add(&mut self, event: Event) {
        match event {
            Event::Acquired {
                partition,
                epoch,
                committed_end,
            } => {
                let before = self.at(partition).acquired.insert(epoch, committed_end);
                assert_eq!(before, None, "{partition:?}: epoch {epoch} was given twice");
            }
            Event::Committed {
                partition,
                epoch,
                segment,
            } => {
                let base = segment.base_offset;
                let before = self.at(partition).committed.insert(base, (epoch, segment));
                assert_eq!(before, None, "{partition:?}: {base} was committed twice");
            }
            Event::Merged {
                partition,
                epoch,
                segment,
            } => self.at(partition).merged.push((epoch, segment)),
            Event::Taken { partition, log_start } => {
                let known = &mut self.at(partition).log_start;
                *known = (*known).max(log_start);
            }
            Event::Released { partition, epoch } => {
                assert!(
                    self.at(partition).released.insert(epoch),
                    "{partition:?}: {epoch} was released twice"
                );
            }
            Event::Refused => self.refused += 1,
        }
    }

    fn at(&mut self, partition: Partition) -> &mut OfPartition {
        self.partitions.entry(partition).or_default()
    }

    pub(super) fn summary(&self) -> String {
        let sum = |count: fn(&OfPartition) -> usize| self.partitions.values().map(count).sum::<usize>();
        format!(
            "{} partitions: {} leases, {} commits, {} merges, {} releases, {} calls refused",
            self.partitions.len(),
            sum(|of| of.acquired.len()),
            sum(|of| of.committed.len()),
            sum(|of| of.merged.len()),
            sum(|of| of.released.len()),
            self.refused
        )
    }

    /// Holds it against itself and against the database.
    pub(super) async fn check(&self, fixture: &Fixture) {
        let (mut committed_or_merged, mut in_rows) = (BTreeSet::new(), BTreeSet::new());
        for (partition, of) in &self.partitions {
            of.check_epochs(partition);
            of.check_commits(partition);
            let merged = of.merged.iter().map(|(_, segment)| segment);
            let segments = of.committed.values().map(|(_, segment)| segment).chain(merged);
            committed_or_merged.extend(segments.map(|segment| segment.key.clone()));
            let rows = fixture
                .metadata
                .segments(partition.0, partition.1, Offset(0), u32::MAX)
                .await
                .unwrap();
            match fixture.metadata.partition(partition.0, partition.1).await.unwrap() {
                Some(row) => of.check_rows(partition, &rows, row.committed_end, row.log_start),
                None => assert!(rows.is_empty(), "{partition:?} is gone, and {rows:?} are there"),
            }
            in_rows.extend(rows.into_iter().map(|row| row.key));
        }
        let to_delete = fixture.metadata.pending_deletions(i64::MAX, u32::MAX).await.unwrap();
        let to_delete: BTreeSet<String> = to_delete.into_iter().collect();
        assert!(in_rows.is_disjoint(&to_delete), "objects of segments are to be deleted");
        let known: BTreeSet<String> = in_rows.union(&to_delete).cloned().collect();
        assert_eq!(
            known, committed_or_merged,
            "each winner's object is known, and no loser's"
        );
    }
}

impl OfPartition {
    /// What a holder was told is what all holders before it had committed: none of them could do so afterwards.
    fn check_epochs(&self, partition: &Partition) {
        for (epoch, told) in &self.acquired {
            let before = self.committed.values().filter(|(of, _)| of < epoch);
            let end = before.map(|(_, segment)| segment.end_offset).max().unwrap_or(Offset(0));
            assert_eq!(end, *told, "{partition:?}: what epoch {epoch} was told");
        }
        assert!(self.released.iter().all(|epoch| self.acquired.contains_key(epoch)));
    }

    fn check_commits(&self, partition: &Partition) {
        let mut last = (Offset(0), Epoch(0));
        for (base, (epoch, segment)) in &self.committed {
            assert_eq!(*base, last.0, "{partition:?}: a gap or an overlap");
            assert!(*epoch >= last.1, "{partition:?}: {epoch} committed after {}", last.1);
            assert!(self.acquired.contains_key(epoch), "{partition:?}: nobody had {epoch}");
            last = (segment.end_offset, *epoch);
        }
    }

    fn check_rows(&self, partition: &Partition, rows: &[SegmentRow], committed_end: Offset, log_start: Offset) {
        let last_commit = self.committed.values().next_back();
        let end = last_commit.map_or(Offset(0), |(_, segment)| segment.end_offset);
        assert_eq!(committed_end, end, "{partition:?}: the committed end");
        assert_eq!(log_start, self.log_start, "{partition:?}: the log start");
        let first = rows.first().map_or(end, |row| row.base_offset);
        assert!(
            first <= log_start,
            "{partition:?}: {first} is the first, and the log starts at {log_start}"
        );
        assert_eq!(
            rows.last().map_or(end, |row| row.end_offset),
            end,
            "{partition:?}: the last end"
        );
        for pair in rows.windows(2) {
            assert_eq!(
                pair[0].end_offset, pair[1].base_offset,
                "{partition:?}: a gap or an overlap"
            );
        }
        let winners = self.committed.values().chain(&self.merged);
        let winners: HashMap<&str, _> = winners.map(|winner| (winner.1.key.as_str(), winner)).collect();
        for row in rows {
            let (epoch, segment) = winners[row.key.as_str()];
            assert_eq!((row.epoch, as_new(row)), (*epoch, segment.clone()), "{partition:?}");
        }
    }
}

fn as_new(row: &SegmentRow) -> NewSegment {
    NewSegment {
        key: row.key.clone(),
        base_offset: row.base_offset,
        end_offset: row.end_offset,
        record_count: row.record_count,
        raw_bytes: row.raw_bytes,
        stored_bytes: row.stored_bytes,
        min_timestamp_ms: row.min_timestamp_ms,
        max_timestamp_ms: row.max_timestamp_ms,
        created_at_ms: row.created_at_ms,
        etag: row.etag.clone(),
    }
}
