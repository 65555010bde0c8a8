//! The records that a module refused or failed on, as a refused request names them.

use std::sync::Arc;

use crate::error::BrokerError;

/// One record that a module refused or failed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedRecord {
    /// Its position in the produced batch.
    pub index: u32,
    /// The module's words, or what happened.
    pub reason: Arc<str>,
    /// Whether the module failed on it, rather than refused it.
    pub failed: bool,
}

impl BrokerError {
    /// Of a request with rejected records what happened, without their reasons.
    pub fn without_reasons(&self) -> Option<String> {
        match self {
            BrokerError::Rejected {
                module,
                version,
                count,
                rejects,
            } => Some(summary(module, *version, *count, rejects)),
            _ => None,
        }
    }
}

/// Whether the module refused none of them, but failed on all.
pub(crate) fn all_failed(rejects: &[RejectedRecord]) -> bool {
    rejects.iter().all(|reject| reject.failed)
}

/// What happened, without the reasons.
pub(crate) fn summary(module: &str, version: u32, count: u32, rejects: &[RejectedRecord]) -> String {
    let did = if all_failed(rejects) { "failed on" } else { "rejected" };
    let at_fault = rejects.len();
    format!("module {module}@{version} {did} {at_fault} of {count} records, nothing was stored")
}

/// The first few reasons; a status message must stay short.
pub(crate) fn first_reasons(rejects: &[RejectedRecord]) -> String {
    const SHOWN: usize = 3;
    let mut text: Vec<String> = rejects
        .iter()
        .take(SHOWN)
        .map(|reject| format!("record {}: {}", reject.index, reject.reason))
        .collect();
    if rejects.len() > SHOWN {
        text.push("...".to_owned());
    }
    text.join("; ")
}
