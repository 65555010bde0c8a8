//! Merging small segments of the partitions that are open: those that nobody uses make no new ones.

use super::PARTITIONS_AT_ONCE;
use crate::{broker::Broker, error::Result, partition::MERGE_SOURCES_MIN};

pub(super) async fn run(broker: &Broker) -> Result<()> {
    for live in broker.live_topics() {
        let topic = live.topic();
        let raw_bytes_max = topic.config.segment_bytes / 2;
        let mut after = None;
        loop {
            let metadata = &broker.shared().metadata;
            let count_min = MERGE_SOURCES_MIN as u32;
            let found = metadata
                .partitions_with_small_segments(topic.id, raw_bytes_max, count_min, after, PARTITIONS_AT_ONCE)
                .await?;
            for number in &found {
                let Some(partition) = live.seen(*number) else { continue };
                if let Err(error) = partition.merge().await {
                    tracing::debug!(topic = topic.name, partition = number, %error, "a partition was not merged");
                }
            }
            after = found.last().copied();
            if found.len() < PARTITIONS_AT_ONCE as usize {
                break;
            }
        }
    }
    Ok(())
}
