//! Partitions that are added to the topic while the producer is open.

use std::{sync::Arc, time::Duration};

use super::state::Shared;
use crate::{Admin, ClientError, Connection};

/// However often somebody wants to know.
const AGE_MIN: Duration = Duration::from_millis(20);

/// Looks for more of them now and then, for ever.
pub(super) async fn renew(connection: Connection, shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(shared.settings.partitions_max_age.max(AGE_MIN)).await;
        // What is not known now is found the next time.
        let _ = look(&connection, &shared).await;
    }
}

/// Looks for more of them.
pub(super) async fn look(connection: &Connection, shared: &Shared) -> Result<(), ClientError> {
    let topic = Admin::new(connection).topic(&shared.topic).await?;
    shared.grow(topic.partitions);
    Ok(())
}
