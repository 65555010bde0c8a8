//! Reading a partition: bounds, the wait at the end, and tail or segment. What comes of them on the way to the reader is in
//! [`super::view`].

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

use super::{
    Read, Shared,
    log::{PartitionLog, segment_ref},
    reads::Reads,
    view::{CpuLeft, Part},
};
use crate::{
    error::{BrokerError, Result},
    pipeline::{ChainContext, FetchStages, Pipeline, Pool, Side, Stage},
};

/// Most stored bytes that one fetch looks at, so that a filter which drops everything still answers.
const SCANNED_BYTES_MAX: usize = 16 << 20;

/// Segments asked for at once when the directory in memory does not know an offset.
pub(super) const DIRECTORY_PAGE: u32 = 100;

/// Ends of former fetches remembered, to tell who reads on from who looks something up.
const ENDS_MAX: usize = 16;

/// What one fetch asks of a partition.
#[derive(Clone)]
pub(crate) struct Query {
    pub(crate) offset: Offset,
    pub(crate) bytes_max: usize,
    /// The first batch is wanted whatever its size.
    pub(crate) one_at_least: bool,
    /// Comes behind the topic's fetch pipeline.
    pub(crate) further: Option<Arc<Stage>>,
}

/// Answers fetches of one partition.
pub(crate) struct Reader {
    pub(super) log: Arc<PartitionLog>,
    pub(super) metadata: Metadata,
    pub(super) segments: SegmentCache,
    pub(super) pool: Pool,
    pub(super) reads: Reads,
    pub(super) context: ChainContext,
    stages: Mutex<FetchStages>,
    /// What one fetch may use of the processor in modules.
    cpu_max: Duration,
    /// Where former fetches ended, the latest last.
    ends: Mutex<VecDeque<Offset>>,
    /// Whether the segment behind the one that is read is being opened.
    opening: Arc<AtomicBool>,
}

/// What a fetch found.
struct Found {
    batches: Vec<Batch>,
    bytes: usize,
    /// Stored bytes that were looked at.
    scanned: usize,
    next: Offset,
}

impl Found {
    fn may_grow(&self, query: &Query) -> bool {
        self.bytes < query.bytes_max && self.scanned < SCANNED_BYTES_MAX
    }
}

impl Reader {
    pub(crate) fn new(
        log: Arc<PartitionLog>,
        shared: &Shared,
        context: ChainContext,
        pipeline: Arc<Pipeline>,
    ) -> Reader {
        let stages = FetchStages::new(pipeline, log.partition());
        Reader {
            log,
            metadata: shared.metadata.clone(),
            segments: shared.segments.clone(),
            pool: shared.pool.clone(),
            reads: shared.reads.clone(),
            context,
            stages: Mutex::new(stages),
            cpu_max: shared.settings.fetch_cpu,
            ends: Mutex::default(),
            opening: Arc::default(),
        }
    }

    /// Every fetch that begins after this returns goes through `pipeline`.
    pub(crate) fn set_pipeline(&self, pipeline: Arc<Pipeline>) {
        *lock(&self.stages) = FetchStages::new(pipeline, self.log.partition());
        self.reads.chains().forget(self.log.topic_id(), self.log.partition());
    }

    /// Reads from an offset on, about `bytes_max` bytes, without a wait at the end.
    pub(crate) async fn read(&self, query: &Query) -> Result<Read> {
        self.check(query.offset)?;
        let found = self.find(query).await?;
        Ok(Read {
            batches: found.batches,
            bytes: found.bytes,
            next_offset: found.next,
            high_watermark: self.log.high_watermark(),
            log_start: self.log.state().log_start,
        })
    }

    /// Fails where nothing can be read at an offset, now or later.
    pub(crate) fn check(&self, offset: Offset) -> Result<()> {
        self.check_bounds(offset)?;
        self.check_open()
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

    async fn find(&self, query: &Query) -> Result<Found> {
        let stages = self.stages(query.further.as_deref())?;
        let mut reads_on = self.ended_before(query.offset);
        let mut cpu = CpuLeft(self.cpu_max);
        let mut found = Found {
            batches: Vec::new(),
            bytes: 0,
            scanned: 0,
            next: query.offset,
        };
        while found.next < self.log.high_watermark() && found.may_grow(query) && !cpu.0.is_zero() {
            let take = Take {
                offset: found.next,
                bytes_max: query.bytes_max - found.bytes,
                one_at_least: query.one_at_least && found.batches.is_empty(),
                reads_on,
            };
            let part = if stages.is_empty() {
                Part::plain(self.stored(&take).await?)
            } else {
                self.see(&stages, &take, &mut cpu).await?
            };
            if let Some(next) = part.next {
                found.next = found.next.max(next);
            }
            found.scanned += part.scanned;
            found.bytes += part.bytes;
            found.batches.extend(part.batches);
            match part.stop {
                // What is before it is answered first; it is told to whoever goes on there.
                Some(stop) if found.next == query.offset => {
                    self.ends_at(found.next);
                    return Err(stop);
                }
                Some(_) => break,
                None if part.next.is_none() => break,
                None => reads_on = true,
            }
        }
        self.ends_at(found.next);
        Ok(found)
    }

    /// The stages of a fetch that begins now.
    fn stages(&self, further: Option<&Stage>) -> Result<FetchStages> {
        let stages = lock(&self.stages).clone();
        stages.pipeline.check_open(self.log.topic(), Side::Fetch)?;
        Ok(match further {
            None => stages,
            Some(further) => stages.and(further, self.log.partition()),
        })
    }

    /// Fails where the topic gives nothing to readers now.
    fn check_open(&self) -> Result<()> {
        lock(&self.stages).pipeline.check_open(self.log.topic(), Side::Fetch)
    }

    /// Whole stored batches from the one that holds the offset on, within the bytes; where `take` says so the first one
    /// whatever its size.
    async fn stored(&self, take: &Take) -> Result<Vec<Batch>> {
        let segment = match self.look(take).await? {
            Looked::Tail(stored) => return Ok(stored),
            Looked::Segment(segment) => segment,
        };
        match self.read_segment(&segment, take).await {
            Err(gone) => {
                let now = self.moved_to(&segment, take.offset, gone).await?;
                self.read_segment(&now, take).await
            }
            stored => stored,
        }
    }

    /// The same as the reader sees it through the stages.
    async fn see(&self, stages: &FetchStages, take: &Take, cpu: &mut CpuLeft) -> Result<Part> {
        let segment = match self.look(take).await? {
            Looked::Tail(stored) => return self.see_tail(stages, stored, take, cpu).await,
            Looked::Segment(segment) => segment,
        };
        match self.see_block(stages, &segment, take, cpu).await {
            Err(gone) => {
                let now = self.moved_to(&segment, take.offset, gone).await?;
                self.see_block(stages, &now, take, cpu).await
            }
            seen => seen,
        }
    }

    /// What the tail holds, or the segment.
    async fn look(&self, take: &Take) -> Result<Looked> {
        let known = {
            let state = self.log.state();
            if state.tail.start().is_some_and(|start| start <= take.offset) {
                let stored = state.tail.read(take.offset, take.bytes_max, take.one_at_least);
                return Ok(Looked::Tail(stored));
            }
            state.index.find(take.offset).cloned()
        };
        Ok(Looked::Segment(match known {
            Some(segment) => segment,
            None => self.look_up(take.offset).await?,
        }))
    }

    /// The segment that holds what a gone one held: it was merged into another one, or deleted, and the metadata knows
    /// what holds the offset now. Any other error stays one.
    async fn moved_to(&self, segment: &SegmentRef, offset: Offset, error: BrokerError) -> Result<Arc<SegmentRef>> {
        if !matches!(
            error,
            BrokerError::Log(LogError::NotFound { .. } | LogError::Changed { .. })
        ) {
            return Err(error);
        }
        let now = self.look_up(offset).await?;
        if now.key == segment.key { Err(error) } else { Ok(now) }
    }

    async fn read_segment(&self, segment: &SegmentRef, take: &Take) -> Result<Vec<Batch>> {
        let (reader, block) = self.find_block(segment, take).await?;
        self.wanted_of_block(&reader, block, take).await
    }

    /// The block that holds the wanted offset.
    pub(super) async fn find_block(&self, segment: &SegmentRef, take: &Take) -> Result<(Arc<SegmentReader>, usize)> {
        let reader = self.open(segment).await?;
        let block = reader
            .find_block(take.offset)
            .ok_or_else(|| self.not_found(take.offset))?;
        if take.reads_on {
            self.read_ahead(&reader, block, segment.end_offset);
        }
        Ok((reader, block))
    }

    /// What is wanted of a block's batches.
    pub(super) async fn wanted_of_block(
        &self,
        reader: &SegmentReader,
        block: usize,
        take: &Take,
    ) -> Result<Vec<Batch>> {
        let mut left = self.segments.block(reader, block).await?;
        let (mut wanted, mut bytes, mut found) = (Vec::new(), 0, false);
        while !left.is_empty() {
            let batch = Batch::split_first(&mut left).map_err(BrokerError::StoredBatch)?;
            if batch.next_offset() <= take.offset {
                continue;
            }
            found = true;
            bytes += batch.encoded_len();
            if bytes > take.bytes_max && !(take.one_at_least && wanted.is_empty()) {
                break;
            }
            wanted.push(batch);
        }
        if found {
            Ok(wanted)
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
    pub(super) fn not_found(&self, offset: Offset) -> BrokerError {
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

    /// Whether a former fetch ended at `offset`.
    fn ended_before(&self, offset: Offset) -> bool {
        lock(&self.ends).contains(&offset)
    }

    fn ends_at(&self, offset: Offset) {
        let mut ends = lock(&self.ends);
        // Who comes again and again takes no more than one place.
        ends.retain(|end| *end != offset);
        if ends.len() == ENDS_MAX {
            ends.pop_front();
        }
        ends.push_back(offset);
    }
}

/// What is wanted next of the log.
pub(super) struct Take {
    /// From the batch on that holds it.
    pub(super) offset: Offset,
    pub(super) bytes_max: usize,
    /// The first batch is wanted whatever its size.
    pub(super) one_at_least: bool,
    /// The next block is fetched ahead.
    pub(super) reads_on: bool,
}

/// Where what is wanted was found.
enum Looked {
    Tail(Vec<Batch>),
    Segment(Arc<SegmentRef>),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these locks, and what they guard is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
