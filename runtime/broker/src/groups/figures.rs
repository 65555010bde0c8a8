//! What is counted about groups.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::members::Group;

/// Groups that are kept in mind at most.
const GROUPS_SEEN_MAX: usize = 10_000;

/// How groups have fared at this agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupFigures {
    /// Groups with members, of those that sent heartbeats to this agent lately.
    pub groups: usize,
    /// Their members.
    pub members: usize,
    /// Offsets that were committed through this agent.
    pub commits: u64,
    /// How often partitions were shared out anew through this agent.
    pub rebalances: u64,
}

#[derive(Default)]
pub(crate) struct Figures {
    commits: AtomicU64,
    rebalances: AtomicU64,
    seen: Mutex<HashMap<String, Seen>>,
}

/// A group as it was seen last.
struct Seen {
    members: usize,
    /// When all sessions are over, where nothing more is heard.
    until: Instant,
}

impl Figures {
    pub(super) fn committed(&self, offsets: usize) {
        self.commits.fetch_add(offsets as u64, Ordering::Relaxed);
    }

    /// Takes note of what was written about a group.
    pub(super) fn changed(&self, name: &str, before: &Group, now: &Group) {
        let is_new = !before.members().keys().eq(now.members().keys()) || before.topics() != now.topics();
        if is_new {
            self.rebalances.fetch_add(1, Ordering::Relaxed);
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let members = now.members().len();
        let longest_ms = now.members().values().map(|member| member.session_ms).max();
        let Some(longest_ms) = longest_ms else {
            seen.remove(name);
            return;
        };
        if seen.len() >= GROUPS_SEEN_MAX {
            let now = Instant::now();
            seen.retain(|_, seen| seen.until > now);
        }
        if seen.len() < GROUPS_SEEN_MAX || seen.contains_key(name) {
            let until = Instant::now() + Duration::from_millis(longest_ms.into());
            seen.insert(name.to_owned(), Seen { members, until });
        }
    }

    pub(crate) fn now(&self) -> GroupFigures {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let live = || seen.values().filter(|seen| seen.until > now);
        GroupFigures {
            groups: live().count(),
            members: live().map(|seen| seen.members).sum(),
            commits: self.commits.load(Ordering::Relaxed),
            rebalances: self.rebalances.load(Ordering::Relaxed),
        }
    }
}
