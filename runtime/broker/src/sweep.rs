//! What happens now and then: retention, and deleting objects that the metadata let go of.

use std::{sync::Weak, time::Duration};

use crate::{broker::Broker, error::Result};

const INTERVAL: Duration = Duration::from_secs(30);
const DELETIONS_AT_ONCE: u32 = 1_000;

/// Runs until the broker is gone.
pub(crate) async fn run(broker: Weak<Broker>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        ticks.tick().await;
        let Some(broker) = broker.upgrade() else { return };
        if let Err(error) = sweep(&broker).await {
            tracing::warn!(%error, "a sweep failed and is tried again with the next");
        }
    }
}

async fn sweep(broker: &Broker) -> Result<()> {
    let shared = broker.shared();
    let now_ms = shared.clock.now_ms();
    for live in broker.live_topics() {
        let Some(retention_ms) = live.topic.config.retention_ms else {
            continue;
        };
        for partition in live.open_partitions() {
            // One partition that is closed must not keep the others, or the deletions, from their turn.
            if let Err(error) = partition.expire(now_ms.saturating_sub_unsigned(retention_ms)).await {
                tracing::warn!(topic = live.topic.name, %error, "retention of a partition failed");
            }
        }
    }
    let grace_ms = shared.settings.deletion_grace.as_millis() as u64;
    loop {
        let due_before_ms = now_ms.saturating_sub_unsigned(grace_ms);
        let keys = shared
            .metadata
            .pending_deletions(due_before_ms, DELETIONS_AT_ONCE)
            .await?;
        for key in &keys {
            shared.store.delete(key).await?;
        }
        // The list is shortened after the objects are gone: a crash between them deletes again, which does no harm.
        shared.metadata.deletions_done(&keys).await?;
        if keys.len() < DELETIONS_AT_ONCE as usize {
            return Ok(());
        }
    }
}
