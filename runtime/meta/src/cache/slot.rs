//! One remembered answer: what was read, when, and the one load that may run for it.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Duration, Instant};

use crate::{MetaError, Result};

/// After a load that failed the next one in the background waits so long.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// For how long answers are young.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ages {
    /// Of something that is there.
    pub(super) present: Duration,
    /// Of "it is not there".
    pub(super) absent: Duration,
}

/// Where a lookup's answer comes from.
pub(super) enum Look<V> {
    /// From memory.
    Fresh(Option<Arc<V>>),
    /// From memory, and it is time to read it again.
    Aging(Option<Arc<V>>),
    /// From the database. So many loads had an outcome before.
    Wait { ended: u64 },
}

/// The right to load, one for each slot.
pub(super) struct Turn(#[expect(dead_code, reason = "it is held, not looked at")] OwnedMutexGuard<()>);

/// The place of one key. Who is told to forget the key takes the slot out of the map: a load that is running then fills
/// a slot that nobody finds any more.
pub(super) struct Slot<V> {
    /// Which of the kind's generations it belongs to.
    pub(super) generation: u64,
    state: RwLock<State<V>>,
    turn: Arc<Mutex<()>>,
}

struct State<V> {
    seen: Option<Seen<V>>,
    /// Counts the loads whose outcome may be shared: those that read something, and those that found no database.
    ended: u64,
    failure: Option<Failure>,
}

struct Seen<V> {
    value: Option<Arc<V>>,
    /// When the load began: what it read is at least as new.
    read_at: Instant,
}

/// Why the last load read nothing.
struct Failure {
    at: Instant,
    /// Place and reason where the database was not available.
    unavailable: Option<(String, String)>,
}

impl<V> Slot<V> {
    pub(super) fn new(generation: u64) -> Slot<V> {
        Slot {
            generation,
            state: RwLock::new(State {
                seen: None,
                ended: 0,
                failure: None,
            }),
            turn: Arc::default(),
        }
    }

    /// Where the answer comes from now.
    pub(super) fn look(&self, ages: Ages) -> Look<V> {
        let now = Instant::now();
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let Some(seen) = &state.seen else {
            return Look::Wait { ended: state.ended };
        };
        let young = if seen.value.is_some() {
            ages.present
        } else {
            ages.absent
        };
        let age = now.saturating_duration_since(seen.read_at);
        if age < young {
            return Look::Fresh(seen.value.clone());
        }
        match &state.failure {
            Some(failure) if age < young * 2 || failure.unavailable.is_some() => {
                // Every lookup of a hot loop would ask a database that cannot answer.
                if now.saturating_duration_since(failure.at) < RETRY_AFTER {
                    Look::Fresh(seen.value.clone())
                } else {
                    Look::Aging(seen.value.clone())
                }
            }
            None if age < young * 2 => Look::Aging(seen.value.clone()),
            _ => Look::Wait { ended: state.ended },
        }
    }

    /// Waits for the right to load.
    pub(super) async fn turn(&self) -> Turn {
        Turn(self.turn.clone().lock_owned().await)
    }

    /// The right to load, where nobody has it.
    pub(super) fn free_turn(&self) -> Option<Turn> {
        self.turn.clone().try_lock_owned().ok().map(Turn)
    }

    /// What a load found that ended after the `ended`th, while the caller waited for its turn.
    pub(super) fn outcome_since(&self, ended: u64) -> Option<Result<Option<Arc<V>>>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        (state.ended != ended).then(|| state.outcome()).flatten()
    }

    /// Loads.
    ///
    /// Where the database is not available, what was read before is given on.
    pub(super) async fn load<F>(self: Arc<Slot<V>>, _turn: Turn, load: F) -> Result<Option<Arc<V>>>
    where
        F: Future<Output = Result<Option<V>>>,
    {
        let read_at = Instant::now();
        let loaded = load.await;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match loaded {
            Ok(value) => {
                let value = value.map(Arc::new);
                state.seen = Some(Seen {
                    value: value.clone(),
                    read_at,
                });
                state.failure = None;
                state.ended += 1;
                Ok(value)
            }
            Err(error) => {
                let unavailable = match &error {
                    MetaError::Unavailable { database, reason } => Some((database.clone(), reason.clone())),
                    _ => None,
                };
                let shared = unavailable.is_some();
                state.failure = Some(Failure {
                    at: Instant::now(),
                    unavailable,
                });
                if !shared {
                    return Err(error);
                }
                state.ended += 1;
                state.outcome().unwrap_or(Err(error))
            }
        }
    }
}

impl<V> State<V> {
    /// What the last load found, as often as it is asked for.
    fn outcome(&self) -> Option<Result<Option<Arc<V>>>> {
        match (&self.seen, &self.failure) {
            (Some(seen), None) => Some(Ok(seen.value.clone())),
            (Some(seen), Some(failure)) if failure.unavailable.is_some() => Some(Ok(seen.value.clone())),
            (None, Some(failure)) => failure.unavailable.as_ref().map(|(database, reason)| {
                Err(MetaError::Unavailable {
                    database: database.clone(),
                    reason: reason.clone(),
                })
            }),
            _ => None,
        }
    }
}
