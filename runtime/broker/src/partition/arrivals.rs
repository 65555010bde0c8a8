//! Waiting for records at the end of partitions.

use std::sync::Arc;

use futures::{StreamExt, stream::FuturesUnordered};
use millstream_batch::Offset;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::PartitionLog;
use crate::error::Result;

/// What arrives in one partition from an offset on.
pub(crate) struct Arrivals {
    log: Arc<PartitionLog>,
    ends: watch::Receiver<Offset>,
    counted_to: Offset,
    bytes: usize,
}

impl Arrivals {
    pub(super) fn new(log: Arc<PartitionLog>, from: Offset) -> Arrivals {
        Arrivals {
            ends: log.watch_high_watermark(),
            log,
            counted_to: from,
            bytes: 0,
        }
    }

    /// How many bytes there are by now, as they are stored; an error where the partition has closed.
    fn count(&mut self) -> Result<usize> {
        // Seen before it is looked at: whatever comes after this line wakes.
        let end = *self.ends.borrow_and_update();
        if let Some(closed) = self.log.closed_error() {
            return Err(closed);
        }
        let state = self.log.state();
        if self.counted_to < end && state.tail.start().is_none_or(|start| start > self.counted_to) {
            // What is in segments is there at once, and seldom little.
            self.bytes = usize::MAX;
        } else {
            let (more, to) = state.tail.bytes_between(self.counted_to, end);
            self.bytes = self.bytes.saturating_add(more);
            self.counted_to = to;
        }
        Ok(self.bytes)
    }

    /// Resolves once there is something new, or the partition closes.
    async fn changed(mut self) -> Arrivals {
        // The log that is held here keeps the sender.
        let _ = self.ends.changed().await;
        self
    }
}

/// Returns once so many bytes have arrived in all of them together, or time is up, where there is an end to it; an error where
/// one of them closes.
pub(crate) async fn wait(arrivals: Vec<Arrivals>, bytes: usize, until: Option<Instant>) -> Result<()> {
    let (mut total, mut waiting) = (0_usize, FuturesUnordered::new());
    for mut arriving in arrivals {
        total = total.saturating_add(arriving.count()?);
        waiting.push(arriving.changed());
    }
    while total < bytes {
        let next = match until {
            Some(until) => timeout_at(until, waiting.next()).await.ok().flatten(),
            None => waiting.next().await,
        };
        let Some(mut arriving) = next else {
            return Ok(());
        };
        let before = arriving.bytes;
        total = (total - before).saturating_add(arriving.count()?);
        waiting.push(arriving.changed());
    }
    Ok(())
}
