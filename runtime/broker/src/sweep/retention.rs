//! Retention goes by when segments were written, and by the bytes that are left: never by the timestamps of records.

use std::collections::BTreeSet;

use super::PARTITIONS_AT_ONCE;
use crate::{broker::Broker, error::Result, topic::LiveTopic};

pub(super) async fn run(broker: &Broker) -> Result<()> {
    for live in broker.live_topics() {
        expire(broker, &live).await?;
    }
    Ok(())
}

/// The metadata knows which partitions have something to let go of; only those are opened.
async fn expire(broker: &Broker, live: &LiveTopic) -> Result<()> {
    let topic = live.topic();
    let (retention_ms, bytes_max) = (topic.config.retention_ms, topic.config.retention_bytes);
    if retention_ms.is_none() && bytes_max.is_none() {
        return Ok(());
    }
    let now_ms = broker.shared().clock.now_ms();
    let before_ms = retention_ms.map(|ms| now_ms.saturating_sub_unsigned(ms));
    let mut after = None;
    loop {
        let metadata = &broker.shared().metadata;
        let due = metadata
            .partitions_to_expire(topic.id, before_ms, bytes_max, after, PARTITIONS_AT_ONCE)
            .await?;
        let due: BTreeSet<u32> = due.into_iter().collect();
        for number in &due {
            // One partition that cannot be opened must not keep the others from their turn.
            // That of another agent's is done there.
            if let Err(error) = expire_one(broker, live, *number).await
                && !error.is_elsewhere()
            {
                tracing::warn!(topic = topic.name, partition = number, %error, "retention of a partition failed");
            }
        }
        after = due.last().copied();
        if due.len() < PARTITIONS_AT_ONCE as usize {
            return Ok(());
        }
    }
}

async fn expire_one(broker: &Broker, live: &LiveTopic, number: u32) -> Result<()> {
    let partition = broker.partition(live, number).await?;
    while partition.expire().await? {}
    Ok(())
}
