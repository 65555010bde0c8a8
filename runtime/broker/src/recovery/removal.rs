//! Removing the WALs of earlier incarnations. First the metadata marks one, which it refuses while a pointer names it;
//! then what is stored of it goes. What a crash leaves between the two is found by listing what is stored.

use millstream_meta::{Metadata, WalKind};
use uuid::Uuid;

use crate::{error::Result, settings::Wals};

/// Marks the WALs that no pointer names any more and removes what is stored of them, and of those marked before that are
/// found in these places.
pub(crate) async fn remove_dead_wals(
    metadata: &Metadata,
    wals: &Wals,
    incarnation: Uuid,
    places: &[WalKind],
) -> Result<()> {
    for dead in metadata.dead_wals(incarnation).await? {
        if metadata.retire_wal(dead.id).await? {
            remove(wals, dead.kind, dead.id).await;
        }
    }
    for kind in places.iter().copied() {
        let stored = match wals.of(kind).list().await {
            Ok(stored) => stored,
            // A store that is down keeps nobody from starting.
            Err(error) => {
                tracing::warn!(%error, "finished write-ahead logs could not be listed");
                continue;
            }
        };
        // What the metadata does not know belongs to somebody else, and stays.
        for wal in metadata.retired_wals(&stored).await? {
            remove(wals, kind, wal).await;
        }
    }
    Ok(())
}

/// Removes a WAL that the metadata has marked deleted. What is left of it after a crash does no harm.
async fn remove(wals: &Wals, kind: WalKind, wal: Uuid) {
    match wals.of(kind).remove(wal).await {
        Ok(()) => tracing::info!(%wal, "removed a write-ahead log that nothing needs"),
        Err(error) => tracing::warn!(%wal, %error, "a finished write-ahead log stays for now"),
    }
}
