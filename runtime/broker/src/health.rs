//! Whether the agent does all of its work: what is looked at, and what was found.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::broker::Broker;

/// How long the database has to answer whoever looks.
const METADATA_PATIENCE: Duration = Duration::from_secs(1);
/// How long an answer holds: the database is asked no more often, however many look.
const METADATA_HOLDS: Duration = Duration::from_secs(1);

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What: `agent`, `wal`, `metadata` or `leases`.
    pub name: &'static str,
    /// Why it is not as it should be, for people; nothing where it is.
    pub trouble: Option<String>,
}

/// What was found of the database, and when.
#[derive(Debug, Default)]
pub(crate) struct Health {
    metadata: tokio::sync::Mutex<Option<(Instant, Option<String>)>>,
}

impl Broker {
    /// Looks at everything that the agent needs in order to take records: that it has not failed and is not stopping, that its
    /// write-ahead log takes appends, that the metadata can be reached, and that its leases can be counted on. Readers may be
    /// served though one of them is in trouble: see [`Broker::ready`].
    pub async fn checks(&self) -> [Check; 4] {
        let shared = self.shared();
        let wal = shared.wal.failure().borrow().clone();
        let leases = shared.lease_time.check().err().map(|error| error.to_string());
        let check = |name, trouble| Check { name, trouble };
        [
            check("agent", self.ready().err()),
            check("wal", wal.map(|reason| format!("it takes no appends: {reason}"))),
            check("metadata", self.metadata_trouble().await),
            check("leases", leases),
        ]
    }

    async fn metadata_trouble(&self) -> Option<String> {
        // Held while it is asked: whoever comes meanwhile gets the same answer.
        let mut known = self.health().metadata.lock().await;
        if let Some((at, trouble)) = &*known
            && at.elapsed() < METADATA_HOLDS
        {
            return trouble.clone();
        }
        let shared = self.shared();
        let asked = timeout(METADATA_PATIENCE, shared.metadata.has_others(shared.incarnation));
        let trouble = match asked.await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => {
                let (place, seconds) = (shared.metadata.place(), METADATA_PATIENCE.as_secs());
                Some(format!("{place} does not answer within {seconds} s"))
            }
        };
        *known = Some((Instant::now(), trouble.clone()));
        trouble
    }
}
