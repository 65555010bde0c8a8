//! Reading a partition: bounds, the wait at the end, tail or segment, and the fetch pipeline.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use millstream_batch::{Batch, Offset};
use millstream_log::{LogError, SegmentCache, SegmentReader, SegmentRef};
use millstream_meta::Metadata;
use tokio::time::{Instant, timeout_at};

use super::{
    Fetched, Shared,
    log::{PartitionLog, segment_ref},
    reads::Reads,
};
use crate::{
    error::{BrokerError, Result},
    pipeline::{Chain, ChainContext, Pipeline, Pool, Side},
};

/// Most stored bytes that one fetch looks at, so that a filter which drops everything still answers.
const SCANNED_BYTES_MAX: usize = 16 << 20;

/// Segments asked for at once when the directory in memory does not know an offset.
pub(super) const DIRECTORY_PAGE: u32 = 100;

/// Ends of former fetches remembered, to tell who reads on from who looks something up.
const ENDS_MAX: usize = 16;

/// What one fetch asks of a partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query {
    pub(crate) offset: Offset,
    pub(crate) bytes_max: usize,
    pub(crate) bytes_min: usize,
    pub(crate) wait: Duration,
}

/// Answers fetches of one partition.
pub(crate) struct Reader {
    pub(super) log: Arc<PartitionLog>,
    pub(super) metadata: Metadata,
    pub(super) segments: SegmentCache,
    pub(super) pool: Pool,
    reads: Reads,
    context: ChainContext,
    pipeline: Mutex<Arc<Pipeline>>,
    /// Where former fetches ended, the latest last.
    ends: Mutex<VecDeque<Offset>>,
    /// Whether the segment behind the one that is read is being opened.
    opening: Arc<AtomicBool>,
}

/// What a fetch found.
struct Found {
    batches: Vec<Batch>,
    bytes: usize,
    next: Offset,
}

/// What a fetch pipeline made of stored batches, and how far it came.
struct Transformed {
    visible: Vec<Batch>,
    next: Offset,
}

impl Reader {
    pub(crate) fn new(
        log: Arc<PartitionLog>,
        shared: &Shared,
        context: ChainContext,
        pipeline: Arc<Pipeline>,
    ) -> Reader {
        Reader {
            log,
            metadata: shared.metadata.clone(),
            segments: shared.segments.clone(),
            pool: shared.pool.clone(),
            reads: shared.reads.clone(),
            context,
            pipeline: Mutex::new(pipeline),
            ends: Mutex::default(),
            opening: Arc::default(),
        }
    }

    /// Every fetch that begins after this returns goes through `pipeline`.
    pub(crate) fn set_pipeline(&self, pipeline: Arc<Pipeline>) {
        *lock(&self.pipeline) = pipeline;
        self.reads.chains().forget(self.log.topic_id(), self.log.partition());
    }

    /// Reads from an offset on, about `bytes_max` bytes; at the end waits for `bytes_min`, or one record.
    pub(crate) async fn fetch(&self, query: Query) -> Result<Fetched> {
        self.check_bounds(query.offset)?;
        self.wait(query).await?;
        // After the wait: who only waits takes no memory.
        let mut reserved = self.reads.reserve(query.bytes_max).await?;
        loop {
            let found = self.read(query.offset, query.bytes_max).await?;
            if reserved.holds(found.bytes) {
                let log_start = self.log.state().log_start;
                return Ok(Fetched {
                    batches: found.batches,
                    next_offset: found.next,
                    high_watermark: self.log.high_watermark(),
                    log_start,
                    room: reserved.shrink(found.bytes),
                });
            }
            // A batch larger than what was asked for: it is read again once there is room for it.
            let needed = found.bytes;
            drop((found, reserved));
            reserved = self.reads.reserve(needed).await?;
        }
    }

    pub(super) fn check_bounds(&self, offset: Offset) -> Result<()> {
        let (start, end) = (self.log.state().log_start, self.log.high_watermark());
        if (start..=end).contains(&offset) {
            return Ok(());
        }
        let (topic, partition) = (self.log.topic().to_owned(), self.log.partition());
        Err(BrokerError::OffsetOutOfRange {
            topic,
            partition,
            offset,
            start,
            end,
        })
    }

    /// Returns once there is enough to read, or time is up; an error where the partition closes.
    async fn wait(&self, query: Query) -> Result<()> {
        let until = Instant::now() + query.wait;
        let wanted = query.bytes_min.min(query.bytes_max).max(1);
        let mut ends = self.log.watch_high_watermark();
        let (mut counted_to, mut bytes) = (query.offset, 0);
        loop {
            // Seen before it is looked at: whatever comes after this line wakes.
            let end = *ends.borrow_and_update();
            if let Some(closed) = self.log.closed_error() {
                return Err(closed);
            }
            if query.wait.is_zero() {
                return Ok(());
            }
            {
                let state = self.log.state();
                if counted_to < end && state.tail.start().is_none_or(|start| start > counted_to) {
                    // What is in segments is there at once, and seldom little.
                    return Ok(());
                }
                let (more, to) = state.tail.bytes_between(counted_to, end);
                bytes += more;
                counted_to = to;
            }
            if bytes >= wanted || timeout_at(until, ends.changed()).await.is_err() {
                return Ok(());
            }
        }
    }

    async fn read(&self, offset: Offset, bytes_max: usize) -> Result<Found> {
        let pipeline = lock(&self.pipeline).clone();
        let mut reads_on = self.ended_before(offset);
        let (mut batches, mut bytes, mut scanned, mut next) = (Vec::new(), 0, 0, offset);
        while next < self.log.high_watermark() && bytes < bytes_max && scanned < SCANNED_BYTES_MAX {
            let stored = self
                .stored(next, bytes_max - bytes, batches.is_empty(), reads_on)
                .await?;
            let Some(last) = stored.last() else { break };
            scanned += stored.iter().map(Batch::encoded_len).sum::<usize>();
            let (visible, to) = if pipeline.fetch.is_empty() {
                let to = last.next_offset();
                (stored, to)
            } else {
                let Transformed { visible, next } = self.transform(&pipeline, stored, bytes_max - bytes).await?;
                (visible, next)
            };
            next = to;
            bytes += visible.iter().map(Batch::encoded_len).sum::<usize>();
            batches.extend(visible);
            reads_on = true;
        }
        self.ends_at(next);
        Ok(Found { batches, bytes, next })
    }

    /// Whole stored batches from the one that holds `offset` on, within `bytes_max`; where `one_at_least` says so the
    /// first one whatever its size. Who `reads_on` gets the next block fetched ahead.
    async fn stored(&self, offset: Offset, bytes_max: usize, one_at_least: bool, reads_on: bool) -> Result<Vec<Batch>> {
        let known = {
            let state = self.log.state();
            if state.tail.start().is_some_and(|start| start <= offset) {
                return Ok(state.tail.read(offset, bytes_max, one_at_least));
            }
            state.index.find(offset).cloned()
        };
        let segment = match known {
            Some(segment) => segment,
            None => self.look_up(offset).await?,
        };
        let take = Take {
            offset,
            bytes_max,
            one_at_least,
            reads_on,
        };
        match self.read_segment(&segment, take).await {
            // Merged into another one, or deleted: the metadata knows what holds the offset now.
            Err(BrokerError::Log(gone @ (LogError::NotFound { .. } | LogError::Changed { .. }))) => {
                let now = self.look_up(offset).await?;
                if now.key == segment.key {
                    return Err(gone.into());
                }
                self.read_segment(&now, take).await
            }
            result => result,
        }
    }

    async fn read_segment(&self, segment: &SegmentRef, take: Take) -> Result<Vec<Batch>> {
        let reader = self.open(segment).await?;
        let block = reader
            .find_block(take.offset)
            .ok_or_else(|| self.not_found(take.offset))?;
        if take.reads_on {
            self.read_ahead(&reader, block, segment.end_offset);
        }
        let mut bytes_of_block = self.segments.block(&reader, block).await?;

        let (mut batches, mut bytes, mut found) = (Vec::new(), 0, false);
        while !bytes_of_block.is_empty() {
            let batch = Batch::split_first(&mut bytes_of_block).map_err(BrokerError::StoredBatch)?;
            if batch.next_offset() <= take.offset {
                continue;
            }
            found = true;
            bytes += batch.encoded_len();
            if bytes > take.bytes_max && !(take.one_at_least && batches.is_empty()) {
                break;
            }
            batches.push(batch);
        }
        if found {
            Ok(batches)
        } else {
            Err(self.not_found(take.offset))
        }
    }

    pub(super) async fn open(&self, segment: &SegmentRef) -> Result<Arc<SegmentReader>> {
        let etag = segment.etag.as_deref();
        Ok(self.segments.open(&segment.key, segment.stored_bytes, etag).await?)
    }

    /// Begins to fetch the block behind `block`, or the first one of the segment that begins at `end`.
    fn read_ahead(&self, reader: &Arc<SegmentReader>, block: usize, end: Offset) {
        if block + 1 < reader.block_count() {
            self.segments.read_ahead(reader, block + 1);
            return;
        }
        let Some(next) = self.log.state().index.find(end).cloned() else {
            return;
        };
        if self.opening.swap(true, Ordering::AcqRel) {
            return;
        }
        let (segments, opening) = (self.segments.clone(), self.opening.clone());
        tokio::spawn(async move {
            // A failure is not kept: who comes there tries again, and is told.
            if let Ok(reader) = segments.open(&next.key, next.stored_bytes, next.etag.as_deref()).await {
                segments.read_ahead(&reader, 0);
            }
            opening.store(false, Ordering::Release);
        });
    }

    async fn look_up(&self, offset: Offset) -> Result<Arc<SegmentRef>> {
        let rows = self
            .metadata
            .segments(self.log.topic_id(), self.log.partition(), offset, DIRECTORY_PAGE)
            .await?;
        let found = rows.first().filter(|row| row.base_offset <= offset);
        let found = found.map(|row| Arc::new(segment_ref(row)));
        rows.iter().for_each(|row| self.log.remember(row));
        if found.is_none() && self.check_bounds(offset).is_ok() {
            self.look_where_it_starts().await?;
        }
        found.ok_or_else(|| self.not_found(offset))
    }

    /// The metadata is ahead of us while segments are taken from the front, and stays so where its answer got lost.
    async fn look_where_it_starts(&self) -> Result<()> {
        let row = self
            .metadata
            .partition(self.log.topic_id(), self.log.partition())
            .await?;
        if let Some(row) = row {
            self.log.start_at(row.log_start);
        }
        Ok(())
    }

    /// Retention may have passed a reader by, or the partition closed; else the log has a hole.
    fn not_found(&self, offset: Offset) -> BrokerError {
        if let Some(closed) = self.log.closed_error() {
            return closed;
        }
        self.check_bounds(offset)
            .err()
            .unwrap_or_else(|| BrokerError::MissingSegment {
                topic: self.log.topic().to_owned(),
                partition: self.log.partition(),
                offset,
            })
    }

    /// Runs stored batches through the pipeline, one after the other until about `bytes_max` bytes have come out.
    async fn transform(&self, pipeline: &Arc<Pipeline>, stored: Vec<Batch>, bytes_max: usize) -> Result<Transformed> {
        let key = (self.log.topic_id(), self.log.partition(), pipeline.version);
        let make = || Chain::new(&self.context, Side::Fetch, pipeline.clone());
        let run = |mut chain: Chain| async {
            let work = move || {
                let transformed = transform(&mut chain, stored, bytes_max)?;
                Ok((chain, transformed))
            };
            // A chain that failed is not used again.
            match self.pool.run("a fetch pipeline", work).await.flatten() {
                Ok((chain, transformed)) => (Some(chain), Ok(transformed)),
                Err(error) => (None, Err(error)),
            }
        };
        self.reads.chains().run(key, make, run).await
    }

    /// Whether a former fetch ended at `offset`.
    fn ended_before(&self, offset: Offset) -> bool {
        lock(&self.ends).contains(&offset)
    }

    fn ends_at(&self, offset: Offset) {
        let mut ends = lock(&self.ends);
        if ends.len() == ENDS_MAX {
            ends.pop_front();
        }
        ends.push_back(offset);
    }
}

/// What is wanted of a segment; see [`Reader::stored`].
#[derive(Clone, Copy)]
struct Take {
    offset: Offset,
    bytes_max: usize,
    one_at_least: bool,
    reads_on: bool,
}

fn transform(chain: &mut Chain, stored: Vec<Batch>, bytes_max: usize) -> Result<Transformed> {
    let (mut visible, mut bytes, mut next) = (Vec::new(), 0, Offset(0));
    for batch in stored {
        next = batch.next_offset();
        if let Some(batch) = chain.fetch(batch)? {
            bytes += batch.encoded_len();
            visible.push(batch);
        }
        if bytes >= bytes_max {
            break;
        }
    }
    Ok(Transformed { visible, next })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these locks, and what they guard is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
