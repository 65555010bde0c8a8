//! What a `#[batch]` function works on: all records of a call to look at, and a decision on each to make.

use std::fmt::Display;
use std::ops::Range;

use millstream_batch::RecordView;

use crate::decision::IntoEmitted;
use crate::outcome::{Outcome, Reject};
use crate::output::Output;
use crate::process::for_each;
use crate::record::{Batch, Context, Record};
use crate::rewrite::Rewrite;

/// The records of one call. They are views: nothing of them is copied.
///
/// A batch that a producer sent may come in several calls, each with a run of its records, in order.
#[derive(Debug)]
pub struct Records<'a> {
    views: &'a [RecordView<'a>],
    batch: &'a Batch<'a>,
    context: &'a Context,
}

impl<'a> Records<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.views.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.views.is_empty()
    }

    /// The topic, and whether the module runs for a reader.
    pub fn context(&self) -> &'a Context {
        self.context
    }

    /// The record at an index, `None` beyond the last.
    pub fn get(&self, index: usize) -> Option<Record<'a>> {
        let view = self.views.get(index)?;
        Some(Record::new(*view, self.batch, self.context))
    }

    /// The records in order; `enumerate` gives the indexes that [`Decisions`] takes.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Record<'a>> + use<'a> {
        let (batch, context) = (self.batch, self.context);
        self.views.iter().map(move |view| Record::new(*view, batch, context))
    }
}

/// What becomes of one record of the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Slot {
    Keep,
    Drop,
    /// The records that were written for it.
    Emit,
    Reject(String),
}

/// The decisions on the records of a batch, by index and in any order. A record that nothing is decided on is kept, and a
/// later decision on a record takes the place of an earlier one.
#[derive(Debug)]
pub struct Decisions<'a> {
    views: &'a [RecordView<'a>],
    base_timestamp_ms: i64,
    slots: Vec<Slot>,
    output: Output,
    /// The record that `output` is being written for.
    pending: Option<usize>,
    written: Vec<(usize, Range<usize>)>,
    records: Vec<u8>,
}

impl<'a> Decisions<'a> {
    fn new(views: &'a [RecordView<'a>], base_timestamp_ms: i64) -> Self {
        Self {
            views,
            base_timestamp_ms,
            slots: vec![Slot::Keep; views.len()],
            output: Output::default(),
            pending: None,
            written: Vec::new(),
            records: Vec::new(),
        }
    }

    /// The record stays as it came.
    ///
    /// # Panics
    /// As every decision: there is no record of that index.
    #[track_caller]
    pub fn keep(&mut self, index: usize) {
        self.set(index, Slot::Keep);
    }

    /// The record goes, silently.
    #[track_caller]
    pub fn drop(&mut self, index: usize) {
        self.set(index, Slot::Drop);
    }

    /// The record is refused, and whoever sent it learns the reason.
    #[track_caller]
    pub fn reject(&mut self, index: usize, reason: impl Display) {
        self.set(index, Slot::Reject(reason.to_string()));
    }

    /// The record takes on what is then written to the output, and keeps everything else.
    #[track_caller]
    pub fn replace(&mut self, index: usize) -> &mut Output {
        self.set(index, Slot::Drop);
        self.push(index)
    }

    /// One more record comes of this one: it as it came, with what is then written to the output.
    #[track_caller]
    pub fn push(&mut self, index: usize) -> &mut Output {
        self.flush();
        *self.slot(index) = Slot::Emit;
        self.output.reset();
        self.pending = Some(index);
        &mut self.output
    }

    #[track_caller]
    fn set(&mut self, index: usize, decision: Slot) {
        self.flush();
        let before = std::mem::replace(self.slot(index), decision);
        if before == Slot::Emit {
            self.written.retain(|(written, _)| *written != index);
        }
    }

    #[track_caller]
    fn slot(&mut self, index: usize) -> &mut Slot {
        let count = self.slots.len();
        let slot = self.slots.get_mut(index);
        slot.unwrap_or_else(|| panic!("there is no record {index} in a batch of {count}"))
    }

    fn flush(&mut self) {
        if let Some(index) = self.pending.take() {
            let start = self.records.len();
            let (view, records) = (&self.views[index], &mut self.records);
            self.output.encode(view, self.base_timestamp_ms, records);
            self.written.push((index, start..self.records.len()));
        }
    }

    fn into_outcome(mut self, batch: &Batch<'_>) -> Outcome {
        self.flush();
        // Stable: the records that come of one stay in the order in which they were written.
        self.written.sort_by_key(|(index, _)| *index);
        let mut written = self.written.into_iter().peekable();
        let mut rewrite = Rewrite::new(batch.records, batch.count);
        let mut rejects = Vec::new();
        for (index, (slot, view)) in self.slots.into_iter().zip(self.views).enumerate() {
            let len = view.encoded().len();
            match slot {
                Slot::Keep => rewrite.keep(len),
                Slot::Drop => rewrite.drop(len),
                Slot::Reject(reason) => {
                    // A batch counts its records in 32 bits.
                    rejects.push(Reject {
                        index: index as u32,
                        reason,
                    });
                    rewrite.drop(len);
                }
                Slot::Emit => {
                    let into = rewrite.replacement();
                    let mut count = 0;
                    while let Some((_, range)) = written.next_if(|(written, _)| *written == index) {
                        into.extend_from_slice(&self.records[range]);
                        count += 1;
                    }
                    rewrite.replaced(len, count);
                }
            }
        }
        Outcome {
            verdict: rewrite.into_verdict(),
            rejects,
        }
    }
}

/// Runs a `#[batch]` function over a batch.
///
/// # Errors
/// The batch is malformed, or the function's own error: then the batch has failed as a whole.
pub fn batch<R: IntoEmitted>(
    context: &Context,
    batch: &Batch<'_>,
    mut decide: impl FnMut(&Records<'_>, &mut Decisions<'_>) -> R,
) -> Result<Outcome, String> {
    // A count that is wrong is found while the records are read, so it reserves no more than they are bytes.
    let mut views = Vec::with_capacity(batch.records.len().min(batch.count as usize));
    for_each(batch, |_, view| views.push(view))?;
    let records = Records {
        views: &views,
        batch,
        context,
    };
    let mut decisions = Decisions::new(&views, batch.base_timestamp_ms);
    decide(&records, &mut decisions).into_emitted()?;
    Ok(decisions.into_outcome(batch))
}
