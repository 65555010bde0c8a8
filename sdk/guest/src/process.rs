//! From a function over one record to one over a batch. What the attributes generate calls these.

use millstream_batch::{RecordIter, RecordView};

use crate::decision::{Decision, IntoDecision, IntoEmitted, IntoKeep, IntoReplaced};
use crate::outcome::{Bitmap, Outcome, Reject};
use crate::output::{Output, Outputs};
use crate::record::{Batch, Context, Record};
use crate::rewrite::Rewrite;

pub use crate::batch::batch;

/// Runs a `#[filter]` function over a batch.
///
/// # Errors
/// The batch is malformed.
pub fn filter<K: IntoKeep>(
    context: &Context,
    batch: &Batch<'_>,
    mut keep: impl FnMut(&Record<'_>) -> K,
) -> Result<Outcome, String> {
    let mut kept = Bitmap::with_capacity(batch.count);
    let mut rejects = Vec::new();
    for_each(batch, |index, view| {
        let verdict = keep(&Record::new(view, batch, context)).into_keep();
        kept.push(verdict.unwrap_or_else(|reason| {
            rejects.push(Reject { index, reason });
            false
        }));
    })?;
    Ok(Outcome {
        verdict: kept.into_verdict(),
        rejects,
    })
}

/// Runs a `#[map]` function over a batch.
///
/// # Errors
/// The batch is malformed.
pub fn map<D: IntoDecision>(
    context: &Context,
    batch: &Batch<'_>,
    mut decide: impl FnMut(&Record<'_>, &mut Output) -> D,
) -> Result<Outcome, String> {
    let mut rewrite = Rewrite::new(batch.records, batch.count);
    let mut rejects = Vec::new();
    let mut output = Output::default();
    for_each(batch, |index, view| {
        output.reset();
        let len = view.encoded().len();
        match decide(&Record::new(view, batch, context), &mut output).into_decision() {
            Decision::Keep => rewrite.keep(len),
            Decision::Replace if output.is_untouched() => rewrite.keep(len),
            Decision::Replace => {
                output.encode(&view, batch.base_timestamp_ms, rewrite.replacement());
                rewrite.replaced(len, 1);
            }
            Decision::Drop => rewrite.drop(len),
            Decision::Reject(reason) => {
                rejects.push(Reject { index, reason });
                rewrite.drop(len);
            }
        }
    })?;
    Ok(Outcome {
        verdict: rewrite.into_verdict(),
        rejects,
    })
}

/// Runs a `#[filter_map]` function over a batch.
///
/// # Errors
/// The batch is malformed.
pub fn filter_map<D: IntoReplaced>(
    context: &Context,
    batch: &Batch<'_>,
    mut decide: impl FnMut(&Record<'_>, &mut Output) -> D,
) -> Result<Outcome, String> {
    map(context, batch, |record, output| decide(record, output).into_replaced())
}

/// Runs a `#[flat_map]` function over a batch.
///
/// # Errors
/// The batch is malformed.
pub fn flat_map<R: IntoEmitted>(
    context: &Context,
    batch: &Batch<'_>,
    mut emit: impl FnMut(&Record<'_>, &mut Outputs<'_>) -> R,
) -> Result<Outcome, String> {
    let mut rewrite = Rewrite::new(batch.records, batch.count);
    let mut rejects = Vec::new();
    let mut output = Output::default();
    for_each(batch, |index, view| {
        let len = view.encoded().len();
        let record = Record::new(view, batch, context);
        let records = rewrite.replacement();
        let start = records.len();
        let mut outputs = Outputs::new(&record, batch.base_timestamp_ms, &mut output, records);
        match emit(&record, &mut outputs).into_emitted() {
            Ok(()) => match outputs.finish() {
                Some(count) => rewrite.replaced(len, count),
                None => rewrite.keep(len),
            },
            Err(reason) => {
                records.truncate(start);
                rejects.push(Reject { index, reason });
                rewrite.drop(len);
            }
        }
    })?;
    Ok(Outcome {
        verdict: rewrite.into_verdict(),
        rejects,
    })
}

/// Walks the records; the batch must hold exactly as many as it says.
pub(crate) fn for_each<'a>(batch: &Batch<'a>, mut visit: impl FnMut(u32, RecordView<'a>)) -> Result<(), String> {
    let mut found = 0u32;
    for view in RecordIter::new(batch.records) {
        let view = view.map_err(|error| format!("record {found} of the batch: {error}"))?;
        if found == batch.count {
            return Err(format!("the batch holds more than the {} records it says", batch.count));
        }
        visit(found, view);
        found += 1;
    }
    if found == batch.count {
        Ok(())
    } else {
        Err(format!("the batch holds {found} records and says {}", batch.count))
    }
}
