//! One kind of thing that is remembered: a bounded map of slots, and what is counted about it.

use std::borrow::Borrow;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use moka::policy::EvictionPolicy;
use moka::sync;

use super::slot::{Ages, Look, Slot};
use crate::Result;

/// What was counted about one kind since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheStats {
    /// `topic`, `partition` or `pipeline`.
    pub kind: &'static str,
    /// Lookups answered from memory.
    pub hits: u64,
    /// Lookups that waited for the database.
    pub misses: u64,
    /// Loads in the background, beside lookups that were answered from memory.
    pub refreshes: u64,
    /// Answers in memory, also those that something is not there.
    pub entries: u64,
}

pub(super) struct Kind<K, V> {
    name: &'static str,
    ages: Ages,
    slots: sync::Cache<K, Arc<Slot<V>>>,
    /// Slots of an earlier generation are forgotten.
    generation: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    refreshes: AtomicU64,
}

impl<K, V> Kind<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    pub(super) fn new(name: &'static str, entries_max: u64, ages: Ages) -> Kind<K, V> {
        Kind {
            name,
            ages,
            // What is used goes on being found while somebody asks for thousands of names that do not exist.
            slots: sync::Cache::builder()
                .max_capacity(entries_max)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            generation: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            refreshes: AtomicU64::new(0),
        }
    }

    /// The thing behind a key; `load` asks the database for it.
    pub(super) async fn get<Q, F>(&self, key: &Q, load: impl FnOnce() -> F) -> Result<Option<Arc<V>>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        F: Future<Output = Result<Option<V>>> + Send + 'static,
    {
        let slot = self.slot(key);
        match slot.look(self.ages) {
            Look::Fresh(value) => {
                self.hits.fetch_add(1, Ordering::Relaxed);
                Ok(value)
            }
            Look::Aging(value) => {
                self.hits.fetch_add(1, Ordering::Relaxed);
                self.refresh(slot, load);
                Ok(value)
            }
            Look::Wait { ended } => {
                self.misses.fetch_add(1, Ordering::Relaxed);
                let turn = slot.turn().await;
                match slot.outcome_since(ended) {
                    Some(outcome) => outcome,
                    // A task of its own: whoever gives up waiting leaves it running, or a slow database would never
                    // get to answer callers who are in a hurry.
                    None => tokio::spawn(slot.load(turn, load()))
                        .await
                        .expect("a load does not panic, and who waits for it ends with the runtime"),
                }
            }
        }
    }

    /// Loads in the background, unless somebody is loading already.
    fn refresh<F>(&self, slot: Arc<Slot<V>>, load: impl FnOnce() -> F)
    where
        F: Future<Output = Result<Option<V>>> + Send + 'static,
    {
        let Some(turn) = slot.free_turn() else { return };
        // A refresh may have ended since this lookup saw the age.
        if !matches!(slot.look(self.ages), Look::Aging(_)) {
            return;
        }
        self.refreshes.fetch_add(1, Ordering::Relaxed);
        let (name, loaded) = (self.name, slot.load(turn, load()));
        tokio::spawn(async move {
            if let Err(error) = loaded.await {
                tracing::debug!(kind = name, %error, "what is cached could not be read again");
            }
        });
    }

    /// The key's slot: from now on every lookup finds it, until the key is forgotten.
    fn slot<Q>(&self, key: &Q) -> Arc<Slot<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let generation = self.generation.load(Ordering::Acquire);
        match self.slots.get(key) {
            Some(slot) if slot.generation >= generation => slot,
            _ => self
                .slots
                .entry_by_ref(key)
                .or_insert_with_if(|| Arc::new(Slot::new(generation)), |slot| slot.generation < generation)
                .into_value(),
        }
    }

    /// What was read before now is not given to lookups from now on.
    pub(super) fn forget<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.slots.invalidate(key);
    }

    /// [`Kind::forget`] for every key.
    pub(super) fn forget_all(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        // Only for the memory: what is read of an earlier generation is not given on anyway.
        self.slots.invalidate_all();
    }

    pub(super) fn stats(&self) -> CacheStats {
        self.slots.run_pending_tasks();
        CacheStats {
            kind: self.name,
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            refreshes: self.refreshes.load(Ordering::Relaxed),
            entries: self.slots.entry_count(),
        }
    }
}

impl<K, V> fmt::Debug for Kind<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(self.name).finish_non_exhaustive()
    }
}
