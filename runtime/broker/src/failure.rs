//! The end of an agent for good: then the process has to end, and recovers at its next start.

use std::sync::Arc;

use millstream_log::Wal;
use tokio::sync::watch;

use crate::error::{BrokerError, Result};

/// Another start has registered under the agent's name.
pub(crate) const SUPERSEDED: &str = "another start of this agent has taken its place: no two agents may have one name";

/// Why the agent fails, once it does. The first reason is the one that counts. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failure(Arc<watch::Sender<Option<String>>>);

impl Failure {
    pub(crate) fn watch(&self) -> watch::Receiver<Option<String>> {
        self.0.subscribe()
    }

    pub(crate) fn fail(&self, reason: String) {
        self.0.send_if_modified(|failed| {
            let first = failed.is_none();
            if first {
                tracing::error!(reason, "the agent ends");
                *failed = Some(reason);
            }
            first
        });
    }

    /// Fails where the agent has.
    pub(crate) fn check(&self) -> Result<()> {
        let reason = self.0.borrow().clone();
        reason.map_or(Ok(()), |reason| Err(BrokerError::AgentFailed { reason }))
    }

    /// Fails with the log, once that does.
    pub(crate) fn follow(&self, wal: &Arc<dyn Wal>) {
        let (failure, mut of_wal) = (self.clone(), wal.failure());
        tokio::spawn(async move {
            // An error means that the log was closed.
            if let Ok(failed) = of_wal.wait_for(Option::is_some).await {
                failure.fail(wal_failed(failed.as_deref().unwrap_or_default()));
            }
        });
    }
}

pub(crate) fn wal_failed(reason: &str) -> String {
    format!("the write-ahead log failed: {reason}")
}
