//! The time of an append, where the topic's records have that as their timestamp: within a partition it never goes back,
//! whatever the clock does and whoever leads it.

use millstream_batch::{Batch, Offset};
use millstream_meta::TimestampType;

use super::Actor;
use crate::{error::Result, partition::PartitionLog};

/// The greatest time of an append that is known of a partition.
pub(super) struct AppendTime {
    last_ms: i64,
    /// Whether what is in segments is known too.
    knows_segments: bool,
}

impl AppendTime {
    /// What the tail tells.
    pub(super) fn of(log: &PartitionLog) -> AppendTime {
        let state = log.state();
        let in_tail = state.tail.versions().filter_map(|(batch, _)| batch.append_time_ms());
        AppendTime {
            last_ms: in_tail.max().unwrap_or(i64::MIN),
            knows_segments: false,
        }
    }
}

impl Actor {
    /// The time of an append that happens now.
    ///
    /// # Errors
    /// The database does not tell what is in segments, which it is asked for once.
    pub(super) async fn append_time(&mut self) -> Result<i64> {
        let now_ms = self.shared.clock.now_ms();
        if self.topic.config.timestamp_type == TimestampType::Create {
            return Ok(now_ms);
        }
        if !self.append_time.knows_segments {
            let in_segments = self.newest_segment_ms().await?;
            self.append_time.last_ms = self.append_time.last_ms.max(in_segments);
            self.append_time.knows_segments = true;
        }
        self.append_time.last_ms = self.append_time.last_ms.max(now_ms);
        Ok(self.append_time.last_ms)
    }

    /// When the newest segment was made, which is not before the last append that it holds.
    async fn newest_segment_ms(&mut self) -> Result<i64> {
        let committed_end = self.log.state().committed_end;
        let Some(last) = committed_end.0.checked_sub(1).map(Offset) else {
            return Ok(i64::MIN);
        };
        let (topic_id, partition) = (self.topic.id, self.lease.partition);
        let rows = self.shared.metadata.segments(topic_id, partition, last, 1).await?;
        Ok(rows.first().map_or(i64::MIN, |row| row.created_at_ms))
    }

    /// The batch as the topic stores it: with the timestamps of its producer, or with that of the append.
    pub(super) fn with_time(&self, batch: Batch, append_time_ms: i64) -> Batch {
        match self.topic.config.timestamp_type {
            TimestampType::Create => batch,
            TimestampType::Append => batch.with_append_time(append_time_ms),
        }
    }
}
