//! What is stored of a partition besides what readers get: its newest records as they are stored, and which pipeline
//! versions wrote its tail.

use millstream_batch::{Batch, Offset};

use super::{Partition, Shared, log::segment_ref};
use crate::{
    error::{BrokerError, Result},
    versions::{Written, push_written},
};

impl Partition {
    /// Where the log starts, which pipeline versions wrote the tail, of which neighbours differ, and where the log ends: all
    /// of one moment.
    pub(crate) fn written(&self) -> (Offset, Vec<Written>, Offset) {
        let state = self.log.state();
        let mut ranges = Vec::new();
        for (batch, pipeline_version) in state.tail.versions() {
            let (base_offset, end_offset) = (batch.base_offset(), batch.next_offset());
            push_written(
                &mut ranges,
                Written {
                    base_offset,
                    end_offset,
                    pipeline_version,
                },
            );
        }
        // Moves under the same lock: a batch beyond the ranges is beyond the end too.
        (state.log_start, ranges, self.log.high_watermark())
    }

    /// The newest batch, of the tail or of the last segment; `None` where nothing is stored.
    pub(crate) async fn newest(&self, shared: &Shared) -> Result<Option<Batch>> {
        if let Some(batch) = self.log.state().tail.newest() {
            return Ok(Some(batch.clone()));
        }
        let committed_end = self.log.state().committed_end;
        let Some(last) = committed_end.0.checked_sub(1).map(Offset) else {
            return Ok(None);
        };
        let (topic_id, partition) = (self.log.topic_id(), self.log.partition());
        let rows = shared.metadata.segments(topic_id, partition, last, 1).await?;
        let Some(segment) = rows.first().map(segment_ref) else {
            return Ok(None);
        };
        let segments = &shared.segments;
        let reader = segments
            .open(&segment.key, segment.stored_bytes, segment.etag.as_deref())
            .await?;
        let Some(block) = reader.block_count().checked_sub(1) else {
            return Ok(None);
        };
        let mut bytes = segments.block(&reader, block).await?;
        let mut newest = None;
        while !bytes.is_empty() {
            newest = Some(Batch::split_first(&mut bytes).map_err(BrokerError::StoredBatch)?);
        }
        Ok(newest)
    }
}
