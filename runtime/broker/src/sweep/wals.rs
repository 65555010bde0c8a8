//! The write-ahead logs: ours is trimmed, those of incarnations that are over go once no pointer names them.
//!
//! The trim floor is that of our own log, whatever became of our leases: what lies below it is in segments, which no other
//! holder takes back. Who replays the log meanwhile reads the floor again after sealing it.

use crate::{
    broker::Broker,
    error::Result,
    recovery::{self, Whose},
};

pub(super) async fn run(broker: &Broker) -> Result<()> {
    let shared = broker.shared();
    // What lies in the store may be pointed at by a database that followed ours.
    shared.owner.confirm_again().await?;
    let floor = shared.wal.trimmable();
    if floor > 0 {
        // The floor moves before anything is deleted: who replays the log begins where something is.
        shared.metadata.move_trim_floor(shared.incarnation, floor).await?;
        shared.wal.trim(floor).await?;
    }
    if shared.lease_time.is_settling() {
        // Who looks dead may be on its way back, and could use its log never again.
        return Ok(());
    }
    let (wals, everybodys) = (&shared.wals, Whose::Everybodys);
    recovery::remove_dead_wals(&shared.metadata, wals, shared.incarnation, everybodys).await
}
