//! Builds what a batch becomes. Records that stay are copied as runs of encoded bytes, and only once something changed:
//!
//! ```text
//! input     | a b c | d | e f |     d is replaced by d'
//! records   | a b c | d' | e f |    two runs copied, one record encoded
//! ```

use crate::outcome::{Bitmap, Emitted, Verdict};

/// How much longer than its input an output is expected to be, at most: a share of it, and a few bytes.
const GROWTH_SHARE: usize = 4;
const GROWTH_BYTES: usize = 256;

pub(crate) struct Rewrite<'a> {
    input: &'a [u8],
    /// Records it is said to hold.
    count: u32,
    /// Where the run of unchanged input that is not copied yet begins.
    run_start: usize,
    /// Where the next input record begins.
    position: usize,
    /// Of the records so far without the last `kept`.
    counts: Vec<u32>,
    /// Records that stay since the last one that did not.
    kept: usize,
    records: Vec<u8>,
    replaced: bool,
}

impl<'a> Rewrite<'a> {
    pub(crate) fn new(input: &'a [u8], count: u32) -> Self {
        Self {
            input,
            count,
            run_start: 0,
            position: 0,
            counts: Vec::new(),
            kept: 0,
            records: Vec::new(),
            replaced: false,
        }
    }

    /// The next record, `len` bytes of input, stays.
    pub(crate) fn keep(&mut self, len: usize) {
        self.position += len;
        self.kept += 1;
    }

    /// The next record goes.
    pub(crate) fn drop(&mut self, len: usize) {
        self.copy_run();
        self.skip(len, 0);
    }

    /// Where to write what the next record becomes; `replaced` says afterwards how many records it was.
    pub(crate) fn replacement(&mut self) -> &mut Vec<u8> {
        self.copy_run();
        &mut self.records
    }

    pub(crate) fn replaced(&mut self, len: usize, count: u32) {
        self.replaced = true;
        self.skip(len, count);
    }

    fn skip(&mut self, len: usize, count: u32) {
        self.position += len;
        self.run_start = self.position;
        self.count_kept();
        self.counts.push(count);
    }

    fn count_kept(&mut self) {
        if self.counts.capacity() == 0 {
            // The input holds a byte a record at least, so a wrong count reserves no more than a few times its length.
            self.counts.reserve(self.input.len().min(self.count as usize));
        }
        if self.kept > 0 {
            let counted = self.counts.len() + std::mem::take(&mut self.kept);
            self.counts.resize(counted, 1);
        }
    }

    fn copy_run(&mut self) {
        if self.records.capacity() == 0 {
            self.records
                .reserve(self.input.len() + self.input.len() / GROWTH_SHARE + GROWTH_BYTES);
        }
        // Where none stays, not even the call that copies nothing is made.
        if self.run_start < self.position {
            self.records
                .extend_from_slice(&self.input[self.run_start..self.position]);
            self.run_start = self.position;
        }
    }

    /// The smallest verdict that says it: unchanged, a bitmap where records only went, other records else.
    pub(crate) fn into_verdict(mut self) -> Verdict {
        if self.counts.is_empty() {
            return Verdict::Unchanged;
        }
        self.count_kept();
        if !self.replaced {
            let mut kept = Bitmap::with_capacity(self.counts.len() as u32);
            self.counts.iter().for_each(|&count| kept.push(count == 1));
            return kept.into_verdict();
        }
        self.copy_run();
        Verdict::Rewrite(Emitted {
            counts: self.counts,
            records: self.records,
        })
    }
}
