//! Which of a partition's objects hold what was committed.
//!
//! Besides the committed segments a bucket may hold the sources of merges whose deletion is due, merged objects that were
//! never committed, second objects of one upload, and uploads of leaders that were fenced before they committed. What can
//! be told from offsets and epochs alone:
//!
//! 1. Of a greater epoch than an object another one, or a frame of a log, begins or ends *within* it: then the object was
//!    never committed. Segments are committed at exactly the committed end and are never split, so while an object was
//!    committed nothing had an end within it; and what was not committed when the greater epoch was taken is fenced.
//! 2. A frame of a greater epoch lies below the object's end: the same, for frames are beyond the committed end.
//! 3. What is left is disjoint or nested, and the outer one is of no lesser epoch: it was merged from the inner ones, or
//!    holds what its leader found beyond the committed end, and so the same records or, where a fenced upload had more
//!    than the log kept, the ones that count.
//! 4. Only two merges of one leader may overlap otherwise: the first was given up because retention took a source. The
//!    one goes without which more stays readable.
//!
//! So the outermost ones lie in a line, and where nothing was lost they lie end to end.

use std::collections::BTreeMap;

use millstream_meta::SegmentRow;

use super::report::Why;

/// Overlaps of the fourth kind that are weighed against each other; of more the lower one goes unseen.
const OVERLAPS_WEIGHED_MAX: usize = 100;

/// What one log holds of a partition, of one epoch: its least base offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) epoch: u64,
    pub(super) base: u64,
}

/// The objects of a partition, sorted out.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Disjoint, in order.
    pub(super) chosen: Vec<SegmentRow>,
    /// The others, each with the reason.
    pub(super) left: Vec<(SegmentRow, Why)>,
}

/// Sorts out the objects of one partition.
pub(super) fn line(mut rows: Vec<SegmentRow>, claims: &[Claim]) -> Line {
    rows.sort_by(|one, other| {
        let by_offset = one
            .base_offset
            .cmp(&other.base_offset)
            .then(other.end_offset.cmp(&one.end_offset));
        let by_offset = by_offset.then(other.epoch.cmp(&one.epoch));
        by_offset.then_with(|| one.key.cmp(&other.key))
    });
    let ends = Ends::of(&rows);
    let fenced = |row: &SegmentRow| {
        let claimed = |claim: &Claim| claim.epoch > row.epoch.0 && claim.base < row.end_offset.0;
        claims.iter().any(claimed) || ends.greatest_within(row) > row.epoch.0
    };
    let (fenced, mut rows): (Vec<_>, Vec<_>) = rows.into_iter().partition(fenced);
    let mut line = Line::default();
    line.left.extend(fenced.into_iter().map(|row| (row, Why::Fenced)));
    let mut weighed = 0;
    while let Some((lower, upper)) = outermost(&rows).overlap {
        weighed += 1;
        let missing = |without| missing(&rows, (lower, upper), without);
        let goes = match weighed <= OVERLAPS_WEIGHED_MAX && missing(upper) < missing(lower) {
            true => upper,
            false => lower,
        };
        line.left.push((rows.remove(goes), Why::Fenced));
    }
    let mut outer = outermost(&rows).outer.into_iter().peekable();
    for (at, row) in rows.into_iter().enumerate() {
        if outer.next_if_eq(&at).is_some() {
            line.chosen.push(row);
        } else {
            let into = line.chosen.last().map(|outer| outer.key.clone()).unwrap_or_default();
            line.left.push((row, Why::Merged { into }));
        }
    }
    line
}

/// Where objects begin and end, and the greatest epoch of those that do, for questions about ranges.
struct Ends {
    offsets: Vec<u64>,
    /// The greatest epochs: the first row for one end each, every further one for twice as many as the one before.
    greatest: Vec<Vec<u64>>,
}

impl Ends {
    fn of(rows: &[SegmentRow]) -> Ends {
        let mut ends: BTreeMap<u64, u64> = BTreeMap::new();
        for row in rows {
            for offset in [row.base_offset.0, row.end_offset.0] {
                let epoch = ends.entry(offset).or_default();
                *epoch = row.epoch.0.max(*epoch);
            }
        }
        let (offsets, epochs): (Vec<u64>, Vec<u64>) = ends.into_iter().unzip();
        let mut greatest = vec![epochs];
        let mut width = 1;
        while 2 * width <= offsets.len() {
            let below = &greatest[greatest.len() - 1];
            let wider = (0..=offsets.len() - 2 * width).map(|at| below[at].max(below[at + width]));
            greatest.push(wider.collect());
            width *= 2;
        }
        Ends { offsets, greatest }
    }

    /// The greatest epoch that has an end within the row, its own ends not counted; 0 where none has.
    fn greatest_within(&self, row: &SegmentRow) -> u64 {
        let from = self.offsets.partition_point(|offset| *offset <= row.base_offset.0);
        let to = self.offsets.partition_point(|offset| *offset < row.end_offset.0);
        if from >= to {
            return 0;
        }
        let level = (to - from).ilog2() as usize;
        let row = &self.greatest[level];
        row[from].max(row[to - (1 << level)])
    }
}

/// The outermost rows, by place.
struct Outermost {
    outer: Vec<usize>,
    /// The first two that overlap and are not nested; nothing is looked at behind them.
    overlap: Option<(usize, usize)>,
}

fn outermost(rows: &[SegmentRow]) -> Outermost {
    let mut found = Outermost {
        outer: Vec::new(),
        overlap: None,
    };
    for (at, row) in rows.iter().enumerate() {
        match found.outer.last() {
            Some(last) if row.end_offset <= rows[*last].end_offset => {}
            Some(last) if row.base_offset < rows[*last].end_offset => {
                found.overlap = Some((*last, at));
                break;
            }
            _ => found.outer.push(at),
        }
    }
    found
}

/// The end of the last offsets among those of two rows that no row holds where the one at `without` goes; 0 for none. What is
/// missing further up is worse: retention takes from the front.
fn missing(rows: &[SegmentRow], (lower, upper): (usize, usize), without: usize) -> u64 {
    let (mut covered, end) = (rows[lower].base_offset.0, rows[upper].end_offset.0);
    let mut missing = 0;
    for (_, row) in rows.iter().enumerate().filter(|(at, _)| *at != without) {
        let next = row.base_offset.0.min(end);
        if next > covered {
            missing = next;
        }
        covered = row.end_offset.0.max(covered);
    }
    if covered < end { end } else { missing }
}

#[cfg(test)]
mod tests {
    use super::super::tests::row;
    use super::*;

    fn chosen(rows: &[(u64, u64, u64)], claims: &[(u64, u64)]) -> Vec<(u64, u64, u64)> {
        let rows = rows.iter().map(|(base, end, epoch)| row(*base, *end, *epoch));
        let claims: Vec<Claim> = claims
            .iter()
            .map(|(epoch, base)| Claim {
                epoch: *epoch,
                base: *base,
            })
            .collect();
        let line = line(rows.collect(), &claims);
        let of = |row: &SegmentRow| (row.base_offset.0, row.end_offset.0, row.epoch.0);
        line.chosen.iter().map(of).collect()
    }

    #[test]
    fn a_merged_segment_stands_for_its_sources() {
        let rows = [(0, 10, 1), (10, 20, 1), (20, 30, 2), (0, 30, 2), (30, 40, 1)];
        assert_eq!(chosen(&rows, &[]), [(0, 30, 2), (30, 40, 1)]);
    }

    #[test]
    fn at_one_range_the_greater_epoch_counts() {
        assert_eq!(chosen(&[(0, 10, 1), (0, 10, 2)], &[]), [(0, 10, 2)]);
    }

    #[test]
    fn an_upload_in_which_a_later_leader_ended_a_segment_was_never_committed() {
        assert_eq!(
            chosen(&[(0, 20, 1), (20, 30, 1), (20, 22, 2)], &[]),
            [(0, 20, 1), (20, 22, 2)]
        );
        // Also where the later one was merged with what lay below.
        assert_eq!(chosen(&[(0, 20, 1), (20, 30, 1), (0, 22, 2)], &[]), [(0, 22, 2)]);
    }

    #[test]
    fn an_upload_below_whose_end_a_later_leader_logged_was_never_committed() {
        assert_eq!(chosen(&[(0, 20, 1), (20, 30, 1)], &[(2, 20)]), [(0, 20, 1)]);
        assert_eq!(
            chosen(&[(0, 20, 1), (20, 30, 1)], &[(2, 30)]),
            [(0, 20, 1), (20, 30, 1)]
        );
        assert_eq!(
            chosen(&[(0, 20, 1), (20, 30, 1)], &[(1, 20)]),
            [(0, 20, 1), (20, 30, 1)]
        );
    }

    #[test]
    fn a_merge_that_was_never_committed_does_not_stand_in_the_way() {
        // The sources at its end were merged with others since, those at its front are alone.
        let rows = [(0, 10, 4), (10, 20, 4), (20, 30, 4), (30, 70, 7), (0, 40, 6)];
        assert_eq!(chosen(&rows, &[]), [(0, 10, 4), (10, 20, 4), (20, 30, 4), (30, 70, 7)]);
    }

    #[test]
    fn of_two_merges_of_one_leader_that_overlap_the_one_that_is_needed_stays() {
        // Retention took the first source, so the first merge was given up.
        assert_eq!(
            chosen(&[(10, 20, 4), (20, 60, 5), (0, 40, 5)], &[]),
            [(10, 20, 4), (20, 60, 5)]
        );
        assert_eq!(
            chosen(&[(0, 40, 5), (10, 50, 5), (50, 60, 5)], &[]),
            [(10, 50, 5), (50, 60, 5)]
        );
    }

    #[test]
    fn what_ends_within_an_object_is_found_among_many() {
        let mut rows: Vec<SegmentRow> = (0..1_000).map(|n| row(n * 10, n * 10 + 10, 1 + n % 7)).collect();
        rows.push(row(500, 900, 7));
        let ends = Ends::of(&rows);
        assert_eq!(ends.greatest_within(&row(500, 900, 7)), 7);
        assert_eq!(ends.greatest_within(&row(0, 20, 1)), 2);
        assert_eq!(ends.greatest_within(&row(0, 10, 1)), 0);
    }
}
