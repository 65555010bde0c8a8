//! The write-ahead logs: ours is trimmed, those of earlier incarnations go once no pointer names them.

use millstream_meta::WalKind;

use crate::{broker::Broker, error::Result, recovery};

pub(super) async fn run(broker: &Broker) -> Result<()> {
    let shared = broker.shared();
    let floor = shared.wal.trimmable();
    if floor > 0 {
        // The floor moves before anything is deleted: who replays the log begins where something is.
        shared.metadata.move_trim_floor(shared.incarnation, floor).await?;
        shared.wal.trim(floor).await?;
    }
    let places = [WalKind::Disk, WalKind::Object];
    recovery::remove_dead_wals(&shared.metadata, &shared.wals, shared.incarnation, &places).await
}
