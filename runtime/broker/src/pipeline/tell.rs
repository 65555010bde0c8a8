//! What is counted and said of records at fault that a stage's policy lets go on, or leaves out.

use std::sync::atomic::Ordering::Relaxed;

use millstream_wasm::Level;

use super::{
    OnError, Side, Work,
    monitor::short,
    policy::Settled,
    running::{Ran, RunningStage},
};

/// Counts them, and says of a batch with any what became of them and what the first one's fault is. `work` is the stage's
/// input still.
pub(super) fn tell(stage: &RunningStage, settled: &Settled, ran: &Ran, work: &Work) {
    let dropped = settled.dropped.iter().map(|(of, _)| u64::from(of.end - of.start)).sum();
    let passed = settled.passed.len() as u64;
    let (counter, became) = match stage.on_error {
        OnError::DeadLetter => (&stage.monitor.dead_lettered, "dead-lettered"),
        OnError::Pass => (&stage.monitor.skipped, "passed"),
        _ => (&stage.monitor.skipped, "skipped"),
    };
    counter.fetch_add(dropped, Relaxed);
    stage.monitor.passed.fetch_add(passed, Relaxed);
    // Faults are settled in order, so the first of any is the first of all.
    let Some(first) = ran.faults.first().filter(|_| dropped + passed > 0) else {
        return;
    };
    let index = work.source(first.records.start);
    let place = match stage.side {
        Side::Produce => format!("record {index}"),
        Side::Fetch => format!("offset {}", ran.first_offset() + u64::from(index)),
    };
    let (at_fault, count, cause) = (dropped + passed, work.count(), first.told());
    let text = format!("{at_fault} of {count} records {became}, the first one, {place}: {cause}");
    stage.monitor.tell(Level::Warn, stage.partition, &short(&text));
}
