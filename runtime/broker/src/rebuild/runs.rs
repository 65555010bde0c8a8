//! The frames of one partition in one log, put together.

use std::ops::Range;

use millstream_meta::WalKind;
use uuid::Uuid;

use super::judge::View;

/// The frames of one partition in one log that count, put together: as a recovery takes them, a greater epoch overrules
/// what lesser ones wrote at or beyond its offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Runs {
    runs: Vec<Range<u64>>,
    /// For each epoch the least base offset, in the order of the epochs.
    claims: Vec<(u64, u64)>,
}

impl Runs {
    pub(super) fn visit(&mut self, epoch: u64, base: u64, end: u64) {
        match self.claims.last_mut() {
            Some((last, least)) if *last >= epoch => *least = base.min(*least),
            _ => {
                self.claims.push((epoch, base));
                self.cut(base);
            }
        }
        match self.runs.last_mut() {
            // A frame of which no record was kept takes no offset.
            _ if base == end => {}
            Some(run) if run.end == base => run.end = end,
            _ => self.runs.push(base..end),
        }
    }

    fn cut(&mut self, base: u64) {
        self.runs.retain(|run| run.start < base);
        for run in &mut self.runs {
            run.end = base.min(run.end);
        }
    }

    /// The epochs, each with its least offset.
    pub(super) fn claims(&self) -> impl Iterator<Item = (u64, u64)> {
        self.claims.iter().copied()
    }

    pub(super) fn view(&self, wal: Uuid, kind: WalKind) -> View {
        View {
            wal,
            kind,
            epoch: self.claims.last().map_or(0, |(epoch, _)| *epoch),
            runs: self.runs.clone(),
        }
    }
}
