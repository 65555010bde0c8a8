//! Deleting objects that the metadata has let go of, once no reader's index can name them any more.

use crate::{broker::Broker, error::Result};

const DELETIONS_AT_ONCE: u32 = 1_000;

pub(super) async fn run(broker: &Broker) -> Result<()> {
    let shared = broker.shared();
    let grace_ms = shared.settings.deletion_grace.as_millis() as u64;
    let due_before_ms = shared.clock.now_ms().saturating_sub_unsigned(grace_ms);
    loop {
        let keys = shared
            .metadata
            .pending_deletions(due_before_ms, DELETIONS_AT_ONCE)
            .await?;
        if !keys.is_empty() {
            // Another database that followed ours may name them still.
            shared.owner.confirm_again().await?;
            shared.store.delete_all(keys.clone()).await?;
            // The list is shortened after the objects are gone: a crash between them deletes again, which does no harm.
            shared.metadata.deletions_done(&keys).await?;
        }
        if keys.len() < DELETIONS_AT_ONCE as usize {
            return Ok(());
        }
    }
}
