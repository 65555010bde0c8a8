//! Reading a partition: bounds, the wait at the end, tail or segment, and the fetch pipeline.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use millstream_batch::{Batch, Offset};
use millstream_log::SegmentCache;
use millstream_meta::{Metadata, SegmentRow};

use super::{Fetched, Shared, log::PartitionLog};
use crate::{
    error::{BrokerError, Result},
    pipeline::{Chain, ChainContext, Pipeline, Pool, Side},
};

/// Most stored bytes that one fetch looks at, so that a filter which drops everything still answers.
const SCANNED_BYTES_MAX: usize = 16 << 20;

/// Segments asked for at once when the index in memory does not know an offset.
const INDEX_PAGE: u32 = 100;

/// Answers fetches of one partition.
pub(crate) struct Reader {
    log: Arc<PartitionLog>,
    metadata: Metadata,
    segments: SegmentCache,
    pool: Pool,
    context: ChainContext,
    fetch: Mutex<FetchSide>,
}

/// The fetch pipeline and the chain that waits for the next fetch; concurrent fetches make one of their own.
struct FetchSide {
    pipeline: Arc<Pipeline>,
    idle: Option<Chain>,
}

/// What a fetch pipeline made of stored batches, and how far it came.
struct Transformed {
    chain: Chain,
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
            context,
            fetch: Mutex::new(FetchSide { pipeline, idle: None }),
        }
    }

    /// Every fetch that begins after this returns goes through `pipeline`.
    pub(crate) fn set_pipeline(&self, pipeline: Arc<Pipeline>) {
        *self.fetch_side() = FetchSide { pipeline, idle: None };
    }

    /// Reads from `offset` on, about `bytes_max` bytes; at the end waits up to `wait` for the first record.
    pub(crate) async fn fetch(&self, offset: Offset, bytes_max: usize, wait: Duration) -> Result<Fetched> {
        self.check_bounds(offset)?;
        self.wait_for(offset, wait).await;

        let mut chain = self.take_chain();
        let (mut batches, mut bytes, mut scanned, mut next) = (Vec::new(), 0, 0, offset);
        while next < self.log.high_watermark() && bytes < bytes_max && scanned < SCANNED_BYTES_MAX {
            let stored = self.stored(next, bytes_max - bytes, batches.is_empty()).await?;
            let Some(last) = stored.last() else { break };
            scanned += stored.iter().map(Batch::encoded_len).sum::<usize>();
            let visible = match chain.take() {
                None => {
                    next = last.next_offset();
                    stored
                }
                Some(own) => {
                    let transformed = self.transform(own, stored, bytes_max - bytes).await?;
                    chain = Some(transformed.chain);
                    next = transformed.next;
                    transformed.visible
                }
            };
            bytes += visible.iter().map(Batch::encoded_len).sum::<usize>();
            batches.extend(visible);
        }
        self.give_back(chain);
        let log_start = self.log.state().log_start;
        Ok(Fetched {
            batches,
            next_offset: next,
            high_watermark: self.log.high_watermark(),
            log_start,
        })
    }

    fn check_bounds(&self, offset: Offset) -> Result<()> {
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

    async fn wait_for(&self, offset: Offset, wait: Duration) {
        if wait.is_zero() {
            return;
        }
        let mut high_watermark = self.log.watch_high_watermark();
        // Out of time, or the partition closed: either way what there is gets answered.
        let _ = tokio::time::timeout(wait, high_watermark.wait_for(|end| *end > offset)).await;
    }

    /// Whole stored batches from the one that holds `offset` on, within `bytes_max`; where `one_at_least` says so the
    /// first one whatever its size.
    async fn stored(&self, offset: Offset, bytes_max: usize, one_at_least: bool) -> Result<Vec<Batch>> {
        let row = {
            let state = self.log.state();
            if state.tail.start().is_some_and(|start| start <= offset) {
                return Ok(state.tail.read(offset, bytes_max, one_at_least));
            }
            state.index.find(offset).cloned()
        };
        let row = match row {
            Some(row) => row,
            None => self.look_up(offset).await?,
        };
        let segment = self.segments.open(&row.key, row.stored_bytes).await?;
        let block = segment.find_block(offset).ok_or_else(|| self.not_found(offset))?;
        let mut block = self.segments.block(&segment, block).await?;

        let (mut batches, mut bytes, mut found) = (Vec::new(), 0, false);
        while !block.is_empty() {
            let batch = Batch::split_first(&mut block).map_err(BrokerError::StoredBatch)?;
            if batch.next_offset() <= offset {
                continue;
            }
            found = true;
            bytes += batch.encoded_len();
            if bytes > bytes_max && !(one_at_least && batches.is_empty()) {
                break;
            }
            batches.push(batch);
        }
        if found {
            Ok(batches)
        } else {
            Err(self.not_found(offset))
        }
    }

    async fn look_up(&self, offset: Offset) -> Result<SegmentRow> {
        let rows = self
            .metadata
            .segments(self.log.topic_id(), self.log.partition(), offset, INDEX_PAGE)
            .await?;
        let found = rows.first().filter(|row| row.base_offset <= offset).cloned();
        rows.into_iter().for_each(|row| self.log.remember(row));
        found.ok_or_else(|| self.not_found(offset))
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

    /// Runs stored batches through the chain, one after the other until about `bytes_max` bytes have come out.
    async fn transform(&self, mut chain: Chain, stored: Vec<Batch>, bytes_max: usize) -> Result<Transformed> {
        let run = move || {
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
            Ok(Transformed { chain, visible, next })
        };
        self.pool.run("a fetch pipeline", run).await?
    }

    /// The chain of the fetch pipeline; `None` where it has no stages.
    fn take_chain(&self) -> Option<Chain> {
        let mut side = self.fetch_side();
        if side.pipeline.fetch.is_empty() {
            return None;
        }
        let idle = side.idle.take();
        Some(idle.unwrap_or_else(|| Chain::new(&self.context, Side::Fetch, side.pipeline.clone())))
    }

    fn give_back(&self, chain: Option<Chain>) {
        let mut side = self.fetch_side();
        if chain
            .as_ref()
            .is_some_and(|chain| chain.version() == side.pipeline.version)
        {
            side.idle = chain;
        }
    }

    fn fetch_side(&self) -> std::sync::MutexGuard<'_, FetchSide> {
        // Nothing panics while it holds this lock, and what it guards is whole between any two statements.
        self.fetch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
