//! The numbers that order a partition: offsets of records, epochs of leases.

use std::fmt;
use std::ops::{Add, Sub};

/// The position of a record in its partition. At most `i64::MAX`, as it travels in a signed field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

impl Offset {
    /// The number of records from `earlier` to `self`, or `None` when `earlier` is the later one.
    pub fn checked_sub(self, earlier: Offset) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Never panics: offsets fit in 63 bits, so that adding a length cannot reach the wrap.
impl Add<u64> for Offset {
    type Output = Offset;

    fn add(self, records: u64) -> Offset {
        Offset(self.0.wrapping_add(records))
    }
}

/// The distance between two offsets of which the caller knows that the right one is not the later. Never panics, wraps
/// otherwise: where the order is not known use [`Offset::checked_sub`].
impl Sub<Offset> for Offset {
    type Output = u64;

    fn sub(self, earlier: Offset) -> u64 {
        self.0.wrapping_sub(earlier.0)
    }
}

/// The number of a partition's lease: every new holder gets a greater one. Fits `i32` where it is stamped on a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
