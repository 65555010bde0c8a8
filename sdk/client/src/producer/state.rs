//! What a producer and its driver share.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
};

use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

use super::{NewRecord, ProducerSettings, delivery::Outcome, lane::Lane, ledger::Ledger};
use crate::{ClientError, partitioner::Partitioner};

/// Shared by a producer and its driver.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) topic: Arc<str>,
    pub(super) settings: ProducerSettings,
    pub(super) ledger: Ledger,
    /// The driver has something to do.
    pub(super) wake: Notify,
    /// The buffer: a permit is a byte.
    pub(super) room: Arc<Semaphore>,
    /// Partitions of the topic that are known.
    partitions: AtomicU32,
    /// Who waits for room.
    waiting: AtomicUsize,
    state: Mutex<State>,
}

/// What changes under one lock, held for a few instructions.
#[derive(Debug)]
pub(super) struct State {
    pub(super) partitioner: Partitioner,
    pub(super) lanes: BTreeMap<u32, Lane>,
    /// Lanes with something to do, each once.
    pub(super) due: VecDeque<u32>,
    /// Lanes that will have, and when.
    pub(super) timers: BTreeSet<(Instant, u32)>,
    pub(super) next_number: u64,
    /// Set once nothing more is sent.
    pub(super) ended: Option<ClientError>,
}

impl Shared {
    pub(super) fn new(topic: &str, settings: ProducerSettings, partitions: u32, partitioner: Partitioner) -> Shared {
        Shared {
            topic: topic.into(),
            ledger: Ledger::default(),
            wake: Notify::new(),
            room: Arc::new(Semaphore::new(settings.buffer())),
            partitions: AtomicU32::new(partitions),
            waiting: AtomicUsize::new(0),
            state: Mutex::new(State {
                partitioner,
                lanes: BTreeMap::new(),
                due: VecDeque::new(),
                timers: BTreeSet::new(),
                next_number: 0,
                ended: None,
            }),
            settings,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds this lock, and what it guards is whole between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The partitions of the topic that are known.
    pub(super) fn partitions(&self) -> u32 {
        self.partitions.load(Ordering::Acquire)
    }

    /// The topic has so many partitions now. There are never fewer than before.
    pub(super) fn grow(&self, partitions: u32) {
        self.partitions.fetch_max(partitions, Ordering::AcqRel);
        self.state().partitioner.grow(partitions);
    }

    /// Takes room in the buffer, once there is some; how much it took. More than all there is takes all.
    pub(super) async fn take_room(&self, bytes: usize) -> usize {
        let bytes = bytes.min(self.settings.buffer());
        if let Ok(permits) = self.room.try_acquire_many(bytes as u32) {
            permits.forget();
            return bytes;
        }
        let _waiting = Waits::new(self);
        // Batches that linger make room when they are sent.
        self.wake.notify_one();
        let permits = self.room.acquire_many(bytes as u32).await;
        permits.expect("it is never closed").forget();
        bytes
    }

    /// Whether somebody waits for room.
    pub(super) fn is_pressed(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }
}

struct Waits<'a>(&'a Shared);

impl<'a> Waits<'a> {
    fn new(shared: &'a Shared) -> Waits<'a> {
        shared.waiting.fetch_add(1, Ordering::AcqRel);
        Waits(shared)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl State {
    /// Adds a record to its partition's batch; where to hear of it, and whether the driver has to know.
    pub(super) fn push(
        &mut self,
        record: &NewRecord<'_>,
        bytes: usize,
        room: usize,
        settings: &ProducerSettings,
    ) -> (Arc<Outcome>, u32, bool) {
        let number = self.next_number;
        self.next_number += 1;
        let batch_bytes_max = settings.batch_bytes.min(super::BATCH_BYTES_MAX);
        let mut partition = self.choose(record);
        let lane = self.lanes.entry(partition).or_default();
        let mut is_due = false;
        if lane
            .open
            .as_ref()
            .is_some_and(|open| open.bytes() + bytes > batch_bytes_max)
        {
            lane.close_open();
            self.partitioner.batch_sealed(partition);
            self.mark_due(partition);
            is_due = true;
            partition = self.choose(record);
        }
        let lane = self.lanes.entry(partition).or_default();
        let open = lane.open.get_or_insert_with(|| super::lane::OpenBatch::new(partition));
        let is_first = open.bytes() == super::HEADER_BYTES;
        let index = open.push(record, number, room);
        let outcome = open.outcome().clone();
        let is_full = open.bytes() >= batch_bytes_max;
        if is_full {
            lane.close_open();
            self.partitioner.batch_sealed(partition);
        }
        if is_full || is_first {
            self.mark_due(partition);
            is_due = true;
        }
        (outcome, index, is_due)
    }

    fn choose(&self, record: &NewRecord<'_>) -> u32 {
        record.partition.unwrap_or_else(|| self.partitioner.choose(record.key))
    }

    /// Lets the driver look at a lane.
    pub(super) fn mark_due(&mut self, partition: u32) {
        if let Some(lane) = self.lanes.get_mut(&partition)
            && !std::mem::replace(&mut lane.is_due, true)
        {
            self.due.push_back(partition);
        }
    }

    /// Lets the driver look at every lane that has something.
    pub(super) fn mark_all_due(&mut self) {
        let with_something = self.lanes.iter().filter(|(_, lane)| !lane.is_empty());
        let partitions: Vec<u32> = with_something.map(|(partition, _)| *partition).collect();
        partitions.into_iter().for_each(|partition| self.mark_due(partition));
    }

    /// Lets every batch go, full or not; where to hear of all that is not answered.
    pub(super) fn dispatch(&mut self) -> Vec<Arc<Outcome>> {
        let mut outcomes = Vec::new();
        for (partition, lane) in &mut self.lanes {
            if lane.close_open() {
                self.partitioner.batch_sealed(*partition);
            }
            outcomes.extend(lane.full.iter().map(|full| full.outcome().clone()));
            let sealed = lane.again.iter().chain(&lane.under_way);
            outcomes.extend(sealed.map(|sealed| sealed.teller.outcome().clone()));
        }
        self.mark_all_due();
        outcomes
    }
}
