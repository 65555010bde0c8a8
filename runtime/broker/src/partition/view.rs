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
    /// A block, or what is missing of it.
    All,
}

impl Want {
    fn is_met(self, bytes: usize) -> bool {
        matches!(self, Want::Bytes(bytes_max) if bytes >= bytes_max)
    }
}

/// What came of stored batches in a chain.
#[derive(Default)]
struct Ran {
    seen: Seen,
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
        let ran = self.run(stages, stored, take.offset, want, cpu).await?;
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
                self.run_block(stages, stored, take.offset, cpu).await
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

    /// Runs the batches of a block from the one on that holds `offset`, then those before it; the latter are `None` where
    /// they did not go through.
    async fn run_block(
        &self,
        stages: &FetchStages,
        mut stored: Vec<Batch>,
        offset: Offset,
        cpu: &mut CpuLeft,
    ) -> Result<(Ran, Option<Seen>)> {
        let wanted = stored.split_off(stored.partition_point(|batch| batch.next_offset() <= offset));
        if wanted.is_empty() {
            return Err(self.not_found(offset));
        }
        let ran = self.run(stages, wanted, offset, Want::All, cpu).await?;
        if !ran.whole || stored.is_empty() {
            let front = ran.whole.then(Seen::default);
            return Ok((ran, front));
        }
        // What is wrong with these is told to whoever asks for them.
        let front = match self.run(stages, stored, Offset(0), Want::All, cpu).await {
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
        from: Offset,
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

fn run(chain: &mut Chain, stored: Vec<Batch>, from: Offset, want: Want, cpu_max: Duration) -> Result<Ran> {
    let mut ran = Ran {
        whole: true,
        ..Ran::default()
    };
    let (before, mut bytes) = (chain.cpu_used(), 0);
    for batch in stored {
        if !ran.seen.is_empty() && (ran.cpu >= cpu_max || want.is_met(bytes)) {
            ran.whole = false;
            break;
        }
        let (next, stored_bytes) = (batch.next_offset(), batch.encoded_len());
        let visible = visible(chain, batch, from)?;
        ran.cpu = chain.cpu_used().saturating_sub(before);
        ran.whole &= visible.repeatable;
        bytes += visible.batch.as_ref().map_or(0, Batch::encoded_len);
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
    if ran.whole && want == Want::All {
        // It is kept, as long as others want it.
        ran.seen = ran.seen.compact()?;
    }
    Ok(ran)
}

/// What a reader who wants records from `from` on sees of a batch: what stops the stages before that is none of its business.
fn visible(chain: &mut Chain, batch: Batch, from: Offset) -> Result<Visible> {
    let visible = chain.fetch(batch.clone())?;
    if visible.stop.as_ref().is_none_or(|stop| stop.at >= from) {
        return Ok(visible);
    }
    let rest = chain.fetch(rest_of(&batch, from)?)?;
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

/// The batches of a block.
fn batches(mut block: Bytes) -> Result<Vec<Batch>> {
    let mut batches = Vec::new();
    while !block.is_empty() {
        batches.push(Batch::split_first(&mut block).map_err(BrokerError::StoredBatch)?);
    }
    Ok(batches)
}
