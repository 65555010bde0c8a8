//! Removing the WALs of earlier incarnations. First the metadata marks one, which it refuses while a pointer names it;
//! then what is stored of it goes. What a crash leaves between the two is found by listing what is stored.

use millstream_meta::{Metadata, WalKind, WalStream};
use uuid::Uuid;

use super::again;
use crate::{error::Result, settings::Wals};

/// Which WALs a removal is about.
#[derive(Clone, Copy)]
pub(crate) enum Whose<'a> {
    /// Those on our disk, which are no living agent's, and these, which are of earlier incarnations of ours. All a start
    /// cares for: right after the database was away agents look dead that are on their way back.
    Ours(&'a [WalStream]),
    /// Those of all agents that are gone, in both places.
    Everybodys,
}

/// Marks the WALs that no pointer names any more and removes what is stored of them, and of those marked before that are
/// found where they are kept.
pub(crate) async fn remove_dead_wals(
    metadata: &Metadata,
    wals: &Wals,
    incarnation: Uuid,
    whose: Whose<'_>,
) -> Result<()> {
    for dead in metadata.dead_wals(incarnation).await? {
        let wanted = match whose {
            Whose::Ours(own) if own.iter().any(|own| own.id == dead.id) => true,
            Whose::Ours(_) => dead.kind == WalKind::Disk && wals.of(dead.kind).exists(dead.id).await?,
            Whose::Everybodys => true,
        };
        if wanted && again(|| metadata.retire_wal(dead.id)).await? {
            remove(wals, dead.kind, dead.id).await;
        }
    }
    let places: &[WalKind] = match whose {
        // What is in the object store can wait for a sweep: a start does not wait for that.
        Whose::Ours(_) => &[WalKind::Disk],
        Whose::Everybodys => &[WalKind::Disk, WalKind::Object],
    };
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
