//! What a reader sees of stored batches: they go through the stages on fetch, whole blocks of segments once.
//!
//! ```text
//! tail     -> chain -> answer
//! segment  -> results --hit--> answer
//!                     --miss-> whole block -> chain -> results, answer
//! ```
//!
//! A result is kept only where the whole block went through; an error never is.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use millstream_batch::{Batch, Epoch, Offset, RecordIter};
use millstream_log::SegmentRef;

use super::{
    read::{Reader, Take},
    results::{Row, Seen},
};
use crate::{
    error::{BrokerError, Result},
    pipeline::{Chain, FetchStages, Side, Visible},
};

/// Bound on the uncompressed records of one batch.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// What a whole block may become, in bytes, where the reader wants no more of it: many small compressed batches may hold
/// gigabytes. One that becomes more goes through in parts, and is not kept. The last batch may pass it.
const WHOLE_BYTES_MAX: usize = 16 << 20;

/// What a reader gets of a run of stored batches.
#[derive(Default)]
pub(super) struct Part {
    pub(super) batches: Vec<Batch>,
    /// Bytes of `batches`.
    pub(super) bytes: usize,
    /// Stored bytes that were decided on.
    pub(super) scanned: usize,
    /// Everything below is decided; `None` where nothing is.
    pub(super) next: Option<Offset>,
    /// What keeps the reader from going on beyond `next`.
    pub(super) stop: Option<BrokerError>,
}

/// What a fetch may still use of the processor.
pub(super) struct CpuLeft(pub(super) Duration);

/// How much of what is stored is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    /// Until so many bytes have come out.
    Bytes(usize),
    /// A block, or what is missing of it; it ends at so many bytes too, and then it is not kept.
    All(usize),
}

impl Want {
    fn is_met(self, bytes: usize) -> bool {
        let (Want::Bytes(bytes_max) | Want::All(bytes_max)) = self;
        bytes >= bytes_max
    }
}

/// Where a reader goes on.
#[derive(Clone, Copy)]
struct Begin {
    offset: Offset,
    /// A former fetch ended there. Within a batch that is where the stages stopped: what is before it is of no use.
    reads_on: bool,
}

impl Begin {
    const START: Begin = Begin {
        offset: Offset(0),
        reads_on: false,
    };

    fn of(take: &Take) -> Begin {
        Begin {
            offset: take.offset,
            reads_on: take.reads_on,
        }
    }

    fn is_within(self, batch: &Batch) -> bool {
        self.offset > batch.base_offset()
    }
}

/// What came of stored batches in a chain.
#[derive(Default)]
struct Ran {
    seen: Seen,
    /// Bytes that came out.
    bytes: usize,
    /// The answer up to where it got, where it did not get to the end.
    last: Option<Row>,
    stop: Option<BrokerError>,
    /// Whether all of them went through, and would again.
    whole: bool,
    cpu: Duration,
}

impl Part {
    /// Stored batches as they are.
    pub(super) fn plain(batches: Vec<Batch>) -> Part {
        let bytes = batches.iter().map(Batch::encoded_len).sum();
        Part {
            next: batches.last().map(Batch::next_offset),
            scanned: bytes,
            bytes,
            batches,
            stop: None,
        }
    }

    /// As many rows as fit; where `one_at_least` says so the first batch whatever its size. Whether all did.
    fn take<'a>(&mut self, rows: impl IntoIterator<Item = &'a Row>, take: &Take) -> bool {
        for row in rows {
            if let Some(batch) = &row.batch {
                let bytes = self.bytes + batch.encoded_len();
                if bytes > take.bytes_max && !(take.one_at_least && self.batches.is_empty()) {
                    return false;
                }
                self.bytes = bytes;
                self.batches.push(batch.clone());
            }
            self.scanned += row.stored_bytes;
            self.next = Some(row.next);
        }
        true
    }
}

impl Reader {
    /// What the reader sees of the tail's batches.
    pub(super) async fn see_tail(
        &self,
        stages: &FetchStages,
        stored: Vec<Batch>,
        take: &Take,
        cpu: &mut CpuLeft,
    ) -> Result<Part> {
        let want = Want::Bytes(take.bytes_max);
        let ran = self.run(stages, stored, Begin::of(take), want, cpu).await?;
        Ok(part_of(ran, take))
    }

    /// What the reader sees of one block of a segment, from the batch on that holds the wanted offset.
    pub(super) async fn see_block(
        &self,
        stages: &FetchStages,
        segment: &SegmentRef,
        take: &Take,
        cpu: &mut CpuLeft,
    ) -> Result<Part> {
        let (reader, block) = self.find_block(segment, take).await?;
        let results = self.reads.results();
        if !results.is_on() {
            let stored = self.wanted_of_block(&reader, block, take).await?;
            return self.see_tail(stages, stored, take, cpu).await;
        }
        let key = (Arc::from(&*segment.key), block, stages.form.clone());
        // Of a block that does not go through as a whole the one who tried has at least what came out of it.
        let mut tried = None;
        let make = async {
            let ran = async {
                let stored = batches(self.segments.block(&reader, block).await?)?;
                self.run_block(stages, stored, take, cpu).await
            };
            match ran.await {
                Ok((ran, front)) if ran.whole => {
                    let Some(mut all) = front else {
                        tried = Some(Ok(ran));
                        return None;
                    };
                    all.append(ran.seen);
                    Some(Arc::new(all))
                }
                Ok((ran, _)) => {
                    tried = Some(Ok(ran));
                    None
                }
                Err(error) => {
                    tried = Some(Err(error));
                    None
                }
            }
        };
        if let Some(seen) = results.get_or_make(key, make).await {
            let mut part = Part::default();
            part.take(seen.from(take.offset), take);
            return match part.next {
                None if part.batches.is_empty() && seen.from(take.offset).is_empty() => {
                    Err(self.not_found(take.offset))
                }
                _ => Ok(part),
            };
        }
        match tried {
            Some(ran) => Ok(part_of(ran?, take)),
            // Another one tried, and told its own reader why it could not be made whole.
            None => {
                let stored = self.wanted_of_block(&reader, block, take).await?;
                self.see_tail(stages, stored, take, cpu).await
            }
        }
    }

    /// Runs the batches of a block from the one on that holds the wanted offset, then those before it; the latter are `None` where
    /// they did not go through.
    async fn run_block(
        &self,
        stages: &FetchStages,
        mut stored: Vec<Batch>,
        take: &Take,
        cpu: &mut CpuLeft,
    ) -> Result<(Ran, Option<Seen>)> {
        let wanted = stored.split_off(stored.partition_point(|batch| batch.next_offset() <= take.offset));
        if wanted.is_empty() {
            return Err(self.not_found(take.offset));
        }
        let bytes_max = take.bytes_max.max(WHOLE_BYTES_MAX);
        let ran = self
            .run(stages, wanted, Begin::of(take), Want::All(bytes_max), cpu)
            .await?;
        if !ran.whole || stored.is_empty() {
            let front = ran.whole.then(Seen::default);
            return Ok((ran, front));
        }
        // What is wrong with these is told to whoever asks for them.
        let left = Want::All(bytes_max.saturating_sub(ran.bytes));
        let front = match self.run(stages, stored, Begin::START, left, cpu).await {
            Ok(front) if front.whole => Some(front.seen),
            _ => None,
        };
        Ok((ran, front))
    }

    /// Runs stored batches through the stages, one after the other while there is CPU time left; the first one always.
    async fn run(
        &self,
        stages: &FetchStages,
        stored: Vec<Batch>,
        from: Begin,
        want: Want,
        cpu: &mut CpuLeft,
    ) -> Result<Ran> {
        let (topic_id, partition) = (self.log.topic_id(), self.log.partition());
        let key = (topic_id, partition, stages.pipeline.version, stages.form.clone());
        let make = || Chain::new(&self.context, Side::Fetch, stages.pipeline.clone());
        let cpu_max = cpu.0;
        let with = |mut chain: Chain| async {
            let lane = chain.lane();
            let work = move || {
                let ran = run(&mut chain, stored, from, want, cpu_max);
                (chain, ran)
            };
            match self.pool.run_in(lane, "a fetch pipeline", work).await {
                Ok((chain, ran)) => (Some(chain), ran),
                Err(error) => (None, Err(error)),
            }
        };
        let ran = self.reads.chains().run(key, make, with).await?;
        cpu.0 = cpu.0.saturating_sub(ran.cpu);
        Ok(ran)
    }
}

/// What a reader gets of a run that may have stopped.
fn part_of(ran: Ran, take: &Take) -> Part {
    let mut part = Part::default();
    if part.take(ran.seen.from(Offset(0)).iter().chain(&ran.last), take) {
        part.stop = ran.stop;
    }
    part
}

fn run(chain: &mut Chain, stored: Vec<Batch>, from: Begin, want: Want, cpu_max: Duration) -> Result<Ran> {
    let mut ran = Ran {
        whole: true,
        ..Ran::default()
    };
    let before = chain.cpu_used();
    for batch in stored {
        if !ran.seen.is_empty() && (ran.cpu >= cpu_max || want.is_met(ran.bytes)) {
            ran.whole = false;
            break;
        }
        let (next, stored_bytes) = (batch.next_offset(), batch.encoded_len());
        let visible = visible(chain, with_own_times(batch)?, from)?;
        ran.cpu = chain.cpu_used().saturating_sub(before);
        ran.whole &= visible.repeatable;
        ran.bytes += visible.batch.as_ref().map_or(0, Batch::encoded_len);
        let row = |next| Row {
            next,
            stored_bytes,
            batch: visible.batch,
        };
        if let Some(stop) = visible.stop {
            ran.last = Some(row(stop.at));
            ran.stop = Some(stop.error);
            return Ok(ran);
        }
        ran.seen.push(row(next));
    }
    if ran.whole && matches!(want, Want::All(_)) {
        // It is kept, as long as others want it.
        ran.seen = ran.seen.compact()?;
    }
    Ok(ran)
}

/// What a reader sees of a batch. Where the stages stop before the wanted offset, or right there, only the rest of the batch
/// goes through: what stops them before is none of the reader's business, and the search for records at fault, which ends
/// when its budget is used up, begins again behind what is decided.
fn visible(chain: &mut Chain, batch: Batch, from: Begin) -> Result<Visible> {
    if !from.is_within(&batch) {
        return chain.fetch(batch);
    }
    // Who goes on where the stages stopped would stop there again. A breaker lets one batch through: it is not wasted.
    if !from.reads_on {
        let visible = chain.fetch(batch.clone())?;
        if visible.stop.as_ref().is_none_or(|stop| stop.at > from.offset) {
            return Ok(visible);
        }
    }
    let rest = chain.fetch(rest_of(&batch, from.offset)?)?;
    Ok(Visible {
        repeatable: false,
        ..rest
    })
}

/// A stored batch, whose offsets have no gaps, without the records below `from`, which is one of its offsets.
fn rest_of(batch: &Batch, from: Offset) -> Result<Batch> {
    let left_out = (from.0 - batch.base_offset().0) as usize;
    let records = batch
        .decompressed(DECOMPRESSED_BYTES_MAX)
        .map_err(BrokerError::StoredBatch)?;
    let mut rest = Vec::with_capacity(records.len());
    for (i, record) in RecordIter::new(&records).skip(left_out).enumerate() {
        let record = record?;
        record.encode_with(record.timestamp_delta, i as i32, &mut rest);
    }
    let (header, count) = (batch.header(), batch.record_count() - left_out as u32);
    let (base_ms, max_ms) = (header.base_timestamp_ms, header.max_timestamp_ms);
    let mut rest = Batch::from_records(base_ms, max_ms, count, count - 1, rest.into());
    rest.stamp(from, Epoch(u64::try_from(header.leader_epoch).unwrap_or_default()));
    Ok(rest)
}

/// Stages look at the timestamp of each record: where that of the append counts for all of them, it is written into each.
fn with_own_times(batch: Batch) -> Result<Batch> {
    let Some(append_time_ms) = batch.append_time_ms() else {
        return Ok(batch);
    };
    let records = batch
        .decompressed(DECOMPRESSED_BYTES_MAX)
        .map_err(BrokerError::StoredBatch)?;
    let mut timed = Vec::with_capacity(records.len());
    for record in RecordIter::new(&records) {
        let record = record?;
        record.encode_with(0, record.offset_delta, &mut timed);
    }
    let (header, count) = (batch.header(), batch.record_count());
    let last_offset_delta = header.last_offset_delta as u32;
    let mut timed = Batch::from_records(append_time_ms, append_time_ms, count, last_offset_delta, timed.into());
    timed.stamp(
        batch.base_offset(),
        Epoch(u64::try_from(header.leader_epoch).unwrap_or_default()),
    );
    Ok(timed)
}

/// The batches of a block.
fn batches(mut block: Bytes) -> Result<Vec<Batch>> {
    let mut batches = Vec::new();
    while !block.is_empty() {
        batches.push(Batch::split_first(&mut block).map_err(BrokerError::StoredBatch)?);
    }
    Ok(batches)
}
