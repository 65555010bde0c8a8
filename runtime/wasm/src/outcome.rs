//! What came of an input, checked.

use std::{ops::Range, sync::Arc};

/// What a module made of an [`Input`](crate::Input).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The input in pieces, in order and without gaps; empty for an empty input.
    pub pieces: Vec<Piece>,
    /// The rejected records, ascending by index, each once. The verdicts do not keep them any more.
    pub rejects: Vec<Reject>,
}

/// A run of the input's records and what becomes of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// How many records it is.
    pub count: u32,
    /// Where they stand in the input's records.
    pub records: Range<usize>,
    /// What becomes of them.
    pub verdict: Verdict,
}

/// What becomes of a piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All its records stay as they are.
    Unchanged,
    /// A bitmap, lowest bit first, of exactly `ceil(count / 8)` bytes: the records with a 1 stay as they are. Spare
    /// bits are 0, and at least one record is not kept.
    Keep(Vec<u8>),
    /// Other records take their place.
    Rewrite {
        /// How many came from each record of the piece, in order.
        counts: Vec<u32>,
        /// Well-formed version 2 records, the sum of `counts` of them, with timestamp deltas to the input's base;
        /// their offset deltas mean nothing.
        records: Vec<u8>,
    },
}

/// A record the module refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Which record of the whole input.
    pub index: u32,
    /// Why, in the module's words, at most 1 KiB of them. Records that were refused in the same words share them; of an
    /// input that is refused in very many ways only the first thousand are kept.
    pub reason: Arc<str>,
}
