//! What a module hands back for a batch, in the shapes of the contract.

/// The result of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What becomes of the batch.
    pub verdict: Verdict,
    /// Records that were refused; they are not kept, whatever the verdict says of them.
    pub rejects: Vec<Reject>,
}

/// What becomes of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays as it came.
    Unchanged,
    /// Some records go, the others stay as they came: one bit a record.
    Keep(Vec<u8>),
    /// Other records take its place.
    Rewrite(Emitted),
}

/// The records that take the place of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Emitted {
    /// How many of `records` came from each input record, in order.
    pub counts: Vec<u32>,
    /// Encoded records back to back, with timestamp deltas to the batch's base; offset deltas mean nothing.
    pub records: Vec<u8>,
}

/// One refused record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Its position in the batch.
    pub index: u32,
    /// Why, for whoever sent it.
    pub reason: String,
}

/// One bit a record, lowest bit first, in the fewest bytes.
#[derive(Debug)]
pub struct Bitmap {
    bytes: Vec<u8>,
    current: u8,
    count: u32,
    ones: u32,
}

impl Bitmap {
    /// An empty bitmap that is likely to hold `count` bits.
    pub fn with_capacity(count: u32) -> Self {
        Self {
            bytes: Vec::with_capacity(count.div_ceil(8) as usize),
            current: 0,
            count: 0,
            ones: 0,
        }
    }

    /// Adds a bit.
    #[inline]
    pub fn push(&mut self, bit: bool) {
        self.current |= u8::from(bit) << (self.count % 8);
        self.ones += u32::from(bit);
        self.count += 1;
        if self.count.is_multiple_of(8) {
            self.bytes.push(self.current);
            self.current = 0;
        }
    }

    /// The verdict that keeps the records whose bit is set.
    pub fn into_verdict(mut self) -> Verdict {
        if self.ones == self.count {
            return Verdict::Unchanged;
        }
        if !self.count.is_multiple_of(8) {
            self.bytes.push(self.current);
        }
        Verdict::Keep(self.bytes)
    }
}
