//! The bound on what all instances of an engine hold together, and the idle instances that are given up at it.
//!
//! An instance is either with the runner that calls it, or idle in here. What grows beyond the bound takes the place of
//! the instance that was idle longest; what runs is never waited for, and nothing in here waits for anything but its
//! own lock, under which no instance is made, called or dropped.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::instance::Instance;

/// What all instances of an engine hold, and may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestMemoryStats {
    /// Linear memory and tables of all instances, in bytes: as much as they can come to hold without growing, more than
    /// what is resident.
    pub bytes: usize,
    /// The bound on that.
    pub bytes_max: usize,
    /// Instances, idle or at work.
    pub instances: usize,
    /// The bound on those.
    pub instances_max: usize,
    /// Idle instances given up for others so far.
    pub evicted: u64,
}

pub struct GuestMemory {
    bytes: AtomicUsize,
    bytes_max: usize,
    instances: AtomicUsize,
    instances_max: usize,
    evicted: AtomicU64,
    idle: Mutex<Idle>,
}

/// Idle instances by when they were last used.
#[derive(Default)]
struct Idle {
    next: u64,
    instances: BTreeMap<u64, Instance>,
}

/// Where an idle instance is found again, if it is still there.
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket(u64);

impl GuestMemory {
    pub fn new(bytes_max: usize, instances_max: usize) -> GuestMemory {
        GuestMemory {
            bytes: AtomicUsize::new(0),
            bytes_max,
            instances: AtomicUsize::new(0),
            instances_max,
            evicted: AtomicU64::new(0),
            idle: Mutex::default(),
        }
    }

    pub fn stats(&self) -> GuestMemoryStats {
        GuestMemoryStats {
            bytes: self.bytes.load(Ordering::Relaxed),
            bytes_max: self.bytes_max,
            instances: self.instances.load(Ordering::Relaxed),
            instances_max: self.instances_max,
            evicted: self.evicted.load(Ordering::Relaxed),
        }
    }

    /// Room for one more instance, which has nothing yet; `None` where all there may be are at work.
    pub fn admit(self: &Arc<Self>) -> Option<Share> {
        self.take_room(&self.instances, 1, self.instances_max).then(|| Share {
            memory: self.clone(),
            bytes: 0,
        })
    }

    /// Keeps an instance until it is asked for, or given up for others.
    pub fn keep(&self, instance: Instance) -> Ticket {
        let mut idle = self.idle();
        let ticket = idle.next;
        idle.next += 1;
        idle.instances.insert(ticket, instance);
        Ticket(ticket)
    }

    /// The instance kept; `None` where it was given up.
    pub fn take(&self, Ticket(ticket): Ticket) -> Option<Instance> {
        self.idle().instances.remove(&ticket)
    }

    pub fn is_kept(&self, ticket: &Ticket) -> bool {
        self.idle().instances.contains_key(&ticket.0)
    }

    /// Adds to a total unless that passed its bound even without any idle instance.
    fn take_room(&self, total: &AtomicUsize, more: usize, max: usize) -> bool {
        loop {
            let fits = |total: usize| total.checked_add(more).filter(|&total| total <= max);
            if total.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok() {
                return true;
            }
            // More than may ever be held is refused without giving up anything for it.
            if more > max || !self.evict() {
                return false;
            }
        }
    }

    /// Gives up the instance that was idle longest; false where none is idle.
    fn evict(&self) -> bool {
        let Some((_, oldest)) = self.idle().instances.pop_first() else {
            return false;
        };
        self.evicted.fetch_add(1, Ordering::Relaxed);
        drop(oldest);
        true
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        // No step under the lock leaves the map half changed.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one instance holds of the whole; given back when it is dropped.
pub struct Share {
    memory: Arc<GuestMemory>,
    bytes: usize,
}

impl Share {
    /// Takes more; false where there is none even without any idle instance.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let grown = self.memory.take_room(&self.memory.bytes, bytes, self.memory.bytes_max);
        if grown {
            self.bytes += bytes;
        }
        grown
    }

    pub fn bytes_max(&self) -> usize {
        self.memory.bytes_max
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.memory.instances.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_bounded_together_and_given_back() {
        let memory = Arc::new(GuestMemory::new(100, 2));
        let mut first = memory.admit().unwrap();
        let mut second = memory.admit().unwrap();
        assert!(memory.admit().is_none());
        assert!(first.grow(60) && second.grow(40) && !second.grow(1));
        assert!(!second.grow(usize::MAX));
        drop(first);
        assert!(second.grow(60));
        assert_eq!((memory.stats().bytes, memory.stats().instances), (100, 1));
        drop(second);
        assert_eq!((memory.stats().bytes, memory.stats().instances), (0, 0));
    }
}
