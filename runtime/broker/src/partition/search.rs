//! Finding the first record of a time.

use millstream_batch::{Batch, Offset, RecordIter};
use millstream_meta::SegmentRow;

use super::{
    log::segment_ref,
    read::{DIRECTORY_PAGE, Reader},
};
use crate::error::{BrokerError, Result};

/// Bound on the uncompressed records of one batch.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

impl Reader {
    /// The first record, in the order of offsets, whose timestamp is `timestamp_ms` or later. Timestamps need not go up.
    pub(crate) async fn offset_at(&self, timestamp_ms: i64) -> Result<Option<Offset>> {
        // The tail first: what leaves it meanwhile is found again in a segment, never in neither.
        let (in_tail, log_start) = {
            let state = self.log.state();
            let first = state
                .tail
                .first_at(timestamp_ms)
                .filter(|batch| batch.base_offset() < self.log.high_watermark());
            (first, state.log_start)
        };
        let in_segments = self.in_segments(timestamp_ms, log_start).await?;
        let in_tail = match in_tail {
            Some(batch) => self.in_batch(batch, timestamp_ms, log_start).await?,
            None => None,
        };
        Ok(in_segments.into_iter().chain(in_tail).min())
    }

    async fn in_segments(&self, timestamp_ms: i64, log_start: Offset) -> Result<Option<Offset>> {
        let (topic_id, partition) = (self.log.topic_id(), self.log.partition());
        let first = self
            .metadata
            .first_segment_at(topic_id, partition, timestamp_ms)
            .await?;
        let Some(first) = first else { return Ok(None) };
        let mut rows = vec![first];
        loop {
            for row in rows.iter().filter(|row| row.max_timestamp_ms >= timestamp_ms) {
                if let Some(found) = self.in_segment(row, timestamp_ms, log_start).await? {
                    return Ok(Some(found));
                }
            }
            // What the first one has of that time lies below the log start.
            let Some(last) = rows.last() else { return Ok(None) };
            let next = last.end_offset;
            rows = self
                .metadata
                .segments(topic_id, partition, next, DIRECTORY_PAGE)
                .await?;
        }
    }

    async fn in_segment(&self, row: &SegmentRow, timestamp_ms: i64, log_start: Offset) -> Result<Option<Offset>> {
        let reader = self.open(&segment_ref(row)).await?;
        let Some(first) = reader.find_block_at(timestamp_ms) else {
            return Ok(None);
        };
        for block in first..reader.block_count() {
            let mut bytes = self.segments.block(&reader, block).await?;
            while !bytes.is_empty() {
                let batch = Batch::split_first(&mut bytes).map_err(BrokerError::StoredBatch)?;
                if let Some(found) = self.in_batch(batch, timestamp_ms, log_start).await? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    async fn in_batch(&self, batch: Batch, timestamp_ms: i64, log_start: Offset) -> Result<Option<Offset>> {
        if batch.header().max_timestamp_ms < timestamp_ms || batch.next_offset() <= log_start {
            return Ok(None);
        }
        let search = move || first_record(&batch, timestamp_ms, log_start);
        self.pool.run("a search by time", search).await?
    }
}

fn first_record(batch: &Batch, timestamp_ms: i64, log_start: Offset) -> Result<Option<Offset>> {
    let records = batch
        .decompressed(DECOMPRESSED_BYTES_MAX)
        .map_err(BrokerError::StoredBatch)?;
    for record in RecordIter::new(&records) {
        let record = record.map_err(BrokerError::StoredRecords)?;
        let offset = batch
            .base_offset()
            .0
            .saturating_add_signed(i64::from(record.offset_delta));
        let at = batch.header().timestamp_ms(record.timestamp_delta);
        if at >= timestamp_ms && offset >= log_start.0 {
            return Ok(Some(Offset(offset)));
        }
    }
    Ok(None)
}
