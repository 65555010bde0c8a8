//! From the line of a partition's objects, and what the logs hold of it, to what the metadata is to say.
//!
//! The objects that lie end to end are a *piece*. The log goes on where a piece ends: the next start replays one WAL from
//! there, and it must hold frames from exactly there on, without a gap. So an answer is a piece and a WAL, and it is right
//! where the two reach as far as anything that was found:
//!
//! - what lies beyond the piece is then in the WAL too: uploads that were not committed;
//! - what lies below it is harmless where retention would take it at the first sweep: its deletion was under way.
//!
//! Anything else is a gap: an object is lost.
//!
//! A WAL may go on from a piece although its frames are of a lesser epoch than the objects: a partition that is opened
//! again takes its tail from memory, so the frames stay as they are while objects carry the new epoch. Where a WAL was
//! taken over, all that it held was copied into another, which goes on from there as well and as far at least.

use std::ops::Range;

use millstream_meta::{SegmentRow, TopicConfig, WalKind};
use uuid::Uuid;

use super::{
    OnGap,
    line::Line,
    report::{Gap, Why},
};

/// Above every epoch that was seen: as often a holder may have come and gone without leaving anything.
pub(super) const EPOCH_STEP: u64 = 1 << 20;

/// What one WAL holds of a partition, as a replay goes through it.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) wal: Uuid,
    pub(super) kind: WalKind,
    /// The greatest epoch of a frame.
    pub(super) epoch: u64,
    /// The ranges of its frames that count, each without a gap, in the order in which they were written.
    pub(super) runs: Vec<Range<u64>>,
}

impl View {
    /// How far a replay from `end` on comes; `None` where it would stop at a gap. Where it comes no further than `end` the
    /// WAL is not needed.
    fn reach(&self, end: u64) -> Option<u64> {
        let mut beyond = self.runs.iter().filter(|run| run.end > end);
        match (beyond.next(), beyond.next()) {
            (None, _) => Some(end),
            (Some(run), None) if run.start <= end => Some(run.end),
            _ => None,
        }
    }
}

/// What the metadata is to say about a partition.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Its segments, end to end.
    pub(super) rows: Vec<SegmentRow>,
    pub(super) log_start: u64,
    pub(super) committed_end: u64,
    /// The WAL that goes on from the committed end, where there is one.
    pub(super) pointer: Option<(Uuid, WalKind)>,
    /// The end of everything, that WAL included.
    pub(super) reach: u64,
    /// What is missing, from the front to the end.
    pub(super) gaps: Vec<Gap>,
    pub(super) left: Vec<(SegmentRow, Why)>,
}

/// Which settings of a topic and what time decide about retention.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retention {
    pub(super) before_ms: Option<i64>,
    pub(super) bytes_max: Option<u64>,
}

impl Retention {
    pub(super) fn of(config: &TopicConfig, now_ms: i64) -> Retention {
        Retention {
            before_ms: config.retention_ms.map(|ms| now_ms.saturating_sub_unsigned(ms)),
            bytes_max: config.retention_bytes,
        }
    }

    /// Whether the first sweep would take the front, with the rest behind it.
    fn takes(self, front: &[SegmentRow], rest: &[SegmentRow]) -> bool {
        let old = |row: &SegmentRow| self.before_ms.is_some_and(|before_ms| row.created_at_ms < before_ms);
        let left: u64 = rest.iter().map(|row| row.stored_bytes).sum();
        front.iter().all(old) || self.bytes_max.is_some_and(|bytes_max| left >= bytes_max)
    }
}

/// A piece and the WAL that goes on from its end; or only a WAL, where no object goes before it.
struct Layout<'a> {
    /// Which of the pieces, their number for none.
    piece: usize,
    end: u64,
    view: Option<&'a View>,
    reach: u64,
}

pub(super) fn judge(line: Line, views: &[View], retention: Retention, on_gap: OnGap) -> Verdict {
    let Line { chosen: rows, left } = line;
    let pieces = pieces(&rows);
    let layouts = layouts(&rows, &pieces, views);
    let reach = layouts.iter().map(|layout| layout.reach).max();
    let Some(full) = layouts.iter().find(|layout| Some(layout.reach) == reach) else {
        return Verdict {
            left,
            ..Verdict::default()
        };
    };
    let start_of = |piece: usize| pieces.get(piece).map_or(rows.len(), |piece| piece.start);
    // Below it are the pieces whose deletion was under way.
    let is_front = |piece: &usize| retention.takes(&rows[..start_of(*piece)], &rows[start_of(*piece)..]);
    let kept = (0..=full.piece).rev().find(is_front).unwrap_or(0);
    let gaps = (kept..full.piece)
        .map(|below| gap(&rows, &pieces, below, full))
        .collect::<Vec<Gap>>();
    let taken = match on_gap {
        OnGap::KeepFront if !gaps.is_empty() => {
            let front = layouts.iter().find(|layout| layout.piece == kept);
            front.expect("each piece has a layout")
        }
        OnGap::Refuse | OnGap::KeepFront | OnGap::KeepBack => full,
    };
    settle(rows, &pieces, left, taken, kept, gaps)
}

fn settle(
    rows: Vec<SegmentRow>,
    pieces: &[Range<usize>],
    mut left: Vec<(SegmentRow, Why)>,
    taken: &Layout<'_>,
    kept: usize,
    gaps: Vec<Gap>,
) -> Verdict {
    let piece = pieces.get(taken.piece).cloned().unwrap_or(rows.len()..rows.len());
    let kept = pieces.get(kept).map_or(rows.len(), |piece| piece.start);
    let mut verdict = Verdict {
        log_start: rows.get(piece.start).map_or(taken.end, |row| row.base_offset.0),
        committed_end: taken.end,
        pointer: taken.view.map(|view| (view.wal, view.kind)),
        reach: taken.reach,
        gaps,
        ..Verdict::default()
    };
    for (at, row) in rows.into_iter().enumerate() {
        if piece.contains(&at) {
            verdict.rows.push(row);
            continue;
        }
        let why = match () {
            () if at < kept => Why::Expired,
            () if row.end_offset.0 <= taken.reach && at >= piece.end => Why::InWal,
            () => Why::BehindGap,
        };
        left.push((row, why));
    }
    verdict.left = left;
    verdict
}

/// The runs of rows that lie end to end.
fn pieces(rows: &[SegmentRow]) -> Vec<Range<usize>> {
    let mut pieces: Vec<Range<usize>> = Vec::new();
    for at in 0..rows.len() {
        match pieces.last_mut() {
            Some(piece) if rows[at - 1].end_offset == rows[at].base_offset => piece.end = at + 1,
            _ => pieces.push(at..at + 1),
        }
    }
    pieces
}

/// For each piece the WAL that comes furthest from its end, of several the one of the greatest epoch; behind them the
/// WALs that begin beyond all pieces.
fn layouts<'a>(rows: &[SegmentRow], pieces: &[Range<usize>], views: &'a [View]) -> Vec<Layout<'a>> {
    // A rebuild lifts epochs by so much: a log that far below an object is from before an earlier rebuild, which decided
    // about it.
    let newest = rows.iter().map(|row| row.epoch.0).max().unwrap_or(0);
    let views: Vec<&View> = views
        .iter()
        .filter(|view| view.epoch.saturating_add(EPOCH_STEP) > newest)
        .collect();
    let views = views.as_slice();
    let mut layouts = Vec::with_capacity(pieces.len() + 1);
    for (number, piece) in pieces.iter().enumerate() {
        layouts.push(longest(number, rows[piece.end - 1].end_offset.0, views));
    }
    let end = layouts.last().map_or(0, |last| last.end);
    let beyond = views
        .iter()
        .filter_map(|view| view.runs.last())
        .filter(|run| run.start > end || rows.is_empty());
    let starts: std::collections::BTreeSet<u64> = beyond.map(|run| run.start).collect();
    layouts.extend(starts.into_iter().map(|start| longest(pieces.len(), start, views)));
    layouts
}

fn longest<'a>(piece: usize, end: u64, views: &[&'a View]) -> Layout<'a> {
    let reaching = views
        .iter()
        .filter_map(|view| Some((view.reach(end)?, view.epoch, *view)));
    let longest = reaching
        .max_by_key(|(reach, epoch, _)| (*reach, *epoch))
        .filter(|(reach, ..)| *reach > end);
    Layout {
        piece,
        end,
        view: longest.map(|(.., view)| view),
        reach: longest.map_or(end, |(reach, ..)| reach),
    }
}

/// What is missing behind a piece.
fn gap(rows: &[SegmentRow], pieces: &[Range<usize>], below: usize, full: &Layout<'_>) -> Gap {
    let last = &rows[pieces[below].end - 1];
    let (to, above) = match pieces.get(below + 1) {
        Some(piece) => (rows[piece.start].base_offset.0, rows[piece.start].key.clone()),
        None => {
            let wal = full.view.map(|view| format!("write-ahead log {}", view.wal));
            (full.end, wal.unwrap_or_default())
        }
    };
    Gap {
        from: last.end_offset.0,
        to,
        below: last.key.clone(),
        above,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::row;
    use super::*;

    const FOR_EVER: Retention = Retention {
        before_ms: None,
        bytes_max: None,
    };

    fn view(epoch: u64, runs: &[(u64, u64)]) -> View {
        View {
            wal: Uuid::from_u128(u128::from(epoch)),
            kind: WalKind::Disk,
            epoch,
            runs: runs.iter().map(|(from, to)| *from..*to).collect(),
        }
    }

    fn judged(rows: &[(u64, u64)], views: &[View], retention: Retention, on_gap: OnGap) -> Verdict {
        let chosen = rows.iter().map(|(base, end)| row(*base, *end, 1)).collect();
        judge(
            Line {
                chosen,
                left: Vec::new(),
            },
            views,
            retention,
            on_gap,
        )
    }

    fn ends(verdict: &Verdict) -> (u64, u64, u64) {
        (verdict.log_start, verdict.committed_end, verdict.reach)
    }

    #[test]
    fn an_empty_partition_starts_at_0() {
        let verdict = judged(&[], &[], FOR_EVER, OnGap::Refuse);
        assert_eq!((ends(&verdict), verdict.gaps.len()), ((0, 0, 0), 0));
    }

    #[test]
    fn the_wal_goes_on_where_the_objects_end() {
        let views = [view(0, &[(5, 25), (26, 28)]), view(2, &[(0, 30)]), view(3, &[(0, 20)])];
        let verdict = judged(&[(0, 10), (10, 20)], &views, FOR_EVER, OnGap::Refuse);
        // The first would stop: it has two runs that end beyond.
        assert_eq!(ends(&verdict), (0, 20, 30));
        assert_eq!(verdict.pointer.unwrap().0, views[1].wal);
        let verdict = judged(&[(0, 10), (10, 20)], &views[2..], FOR_EVER, OnGap::Refuse);
        assert_eq!((ends(&verdict), verdict.pointer), ((0, 20, 20), None));
    }

    #[test]
    fn an_upload_beyond_a_hole_is_left_to_the_wal_that_holds_both() {
        let verdict = judged(&[(0, 10), (20, 30)], &[view(1, &[(8, 35)])], FOR_EVER, OnGap::Refuse);
        assert_eq!((ends(&verdict), verdict.gaps.len()), ((0, 10, 35), 0));
        assert!(matches!(verdict.left[..], [(_, Why::InWal)]));
    }

    #[test]
    fn a_lost_object_is_a_gap_and_either_side_can_be_kept() {
        let views = [view(1, &[(30, 35)])];
        let rows = [(0, 10), (20, 30)];
        let refused = judged(&rows, &views, FOR_EVER, OnGap::Refuse);
        assert_eq!((refused.gaps[0].from, refused.gaps[0].to), (10, 20));
        let front = judged(&rows, &views, FOR_EVER, OnGap::KeepFront);
        assert_eq!((ends(&front), front.pointer), ((0, 10, 10), None));
        let back = judged(&rows, &views, FOR_EVER, OnGap::KeepBack);
        assert_eq!((ends(&back), back.pointer.is_some()), ((20, 30, 35), true));
    }

    #[test]
    fn a_wal_that_begins_beyond_the_objects_is_a_gap_too() {
        let verdict = judged(&[(0, 10)], &[view(1, &[(15, 20)])], FOR_EVER, OnGap::KeepBack);
        assert_eq!((verdict.gaps[0].from, verdict.gaps[0].to), (10, 15));
        assert_eq!((ends(&verdict), verdict.rows.len()), ((15, 15, 20), 0));
        // Without any object everything below was taken by retention, or is lost: nothing tells.
        let verdict = judged(&[], &[view(1, &[(15, 20)])], FOR_EVER, OnGap::Refuse);
        assert_eq!((ends(&verdict), verdict.gaps.len()), ((15, 15, 20), 0));
    }

    #[test]
    fn what_retention_takes_at_once_is_no_gap() {
        let old = Retention {
            before_ms: Some(5),
            bytes_max: None,
        };
        // `row` makes objects at the time of their base.
        let verdict = judged(&[(0, 3), (4, 6), (8, 10)], &[], old, OnGap::Refuse);
        assert_eq!((ends(&verdict), verdict.gaps.len()), ((8, 10, 10), 0));
        let verdict = judged(&[(0, 3), (6, 7), (8, 10)], &[], old, OnGap::Refuse);
        assert_eq!((verdict.gaps.len(), verdict.gaps[0].from), (1, 7));
        let bytes = Retention {
            before_ms: None,
            bytes_max: Some(2),
        };
        let verdict = judged(&[(0, 1), (2, 3), (3, 4)], &[], bytes, OnGap::Refuse);
        assert_eq!((ends(&verdict), verdict.gaps.len()), ((2, 4, 4), 0));
    }

    #[test]
    fn a_tail_that_was_taken_from_memory_is_in_the_log_under_a_lesser_epoch() {
        let line = Line {
            chosen: vec![row(0, 20, 6)],
            left: Vec::new(),
        };
        let views = [view(5, &[(20, 30)])];
        let verdict = judge(line, &views, FOR_EVER, OnGap::Refuse);
        assert_eq!((ends(&verdict), verdict.gaps.len()), ((0, 20, 30), 0));
        assert_eq!(verdict.pointer.unwrap().0, views[0].wal);
    }

    #[test]
    fn a_wal_of_a_lesser_epoch_beyond_the_objects_is_not_passed_over() {
        // The tail of a partition that was opened again, whose object before it was lost, looks the same.
        let line = |created_at_ms| {
            let row = SegmentRow {
                created_at_ms,
                ..row(0, 50, 9)
            };
            Line {
                chosen: vec![row],
                left: Vec::new(),
            }
        };
        let views = [view(5, &[(60, 70)])];
        let verdict = judge(line(7), &views, FOR_EVER, OnGap::Refuse);
        assert_eq!((verdict.gaps[0].from, verdict.gaps[0].to), (50, 60));
        let old = Retention {
            before_ms: Some(8),
            bytes_max: None,
        };
        let verdict = judge(line(7), &views, old, OnGap::Refuse);
        assert_eq!((ends(&verdict), verdict.gaps.len()), ((60, 60, 70), 0));
    }

    #[test]
    fn a_log_from_before_an_earlier_rebuild_counts_for_nothing_however_far_it_reaches() {
        let line = Line {
            chosen: vec![row(0, 32, EPOCH_STEP + 2)],
            left: Vec::new(),
        };
        let views = [view(1, &[(30, 35)]), view(EPOCH_STEP + 2, &[(28, 34)])];
        let verdict = judge(line, &views, FOR_EVER, OnGap::Refuse);
        let pointer = verdict.pointer.map(|(wal, _)| wal);
        assert_eq!((pointer, verdict.reach), (Some(views[1].wal), 34));
    }
}
