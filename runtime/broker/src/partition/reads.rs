//! What bounds the readers of all partitions together: the memory of their answers, the chains of fetch pipelines, and what
//! is kept of their results.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use super::results::{ResultStats, Results};
use crate::{
    error::{BrokerError, Result},
    further::FurtherStages,
    pipeline::{Chain, Lane},
    settings::Settings,
};

/// The least room that an answer takes, so that one batch mostly fits whatever was asked for.
const ROOM_BYTES_LEAST: usize = 1 << 20;

/// How long a fetch waits for room.
const ROOM_PATIENCE: Duration = Duration::from_secs(10);

/// Chains that run at once, for each thread that runs modules.
const CHAINS_PER_THREAD: usize = 2;

/// Chains kept for the next fetch, of all partitions together.
const IDLE_CHAINS_MAX: usize = 32;

/// Shared by the readers of an agent.
#[derive(Clone)]
pub(crate) struct Reads {
    answers: Arc<Semaphore>,
    answer_bytes_max: usize,
    chains: Arc<Chains>,
    results: Results,
    further: FurtherStages,
}

/// What readers hold now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadStats {
    /// Bytes reserved for answers that are being put together, or not sent yet.
    pub answer_bytes: usize,
    /// Their bound.
    pub answer_bytes_max: usize,
    /// Fetches that go through modules now.
    pub chains_running: usize,
    /// What is kept of their results.
    pub results: ResultStats,
}

/// The memory of one answer, given back when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Room {
    permit: Arc<OwnedSemaphorePermit>,
    answer_bytes_max: usize,
}

impl Room {
    /// Waits for room for `bytes`, or for all there is, in place of this one: it is given back first, so that nobody who
    /// holds some waits for more.
    ///
    /// # Errors
    /// There was none for too long.
    pub async fn exchange(self, bytes: usize) -> Result<Room> {
        let Room {
            permit,
            answer_bytes_max,
        } = self;
        let answers = permit.semaphore().clone();
        drop(permit);
        let permit = acquire(&answers, bytes.min(answer_bytes_max), answer_bytes_max).await?;
        Ok(Room {
            permit: Arc::new(permit),
            answer_bytes_max,
        })
    }

    /// Gives back what is more than `bytes`, where there is no other clone.
    pub fn shrink(&mut self, bytes: usize) {
        if let Some(permit) = Arc::get_mut(&mut self.permit) {
            let unused = permit.num_permits().saturating_sub(bytes);
            drop(permit.split(unused));
        }
    }
}

async fn acquire(answers: &Arc<Semaphore>, bytes: usize, bytes_max: usize) -> Result<OwnedSemaphorePermit> {
    let permit = answers.clone().acquire_many_owned(bytes as u32);
    let permit = tokio::time::timeout(ROOM_PATIENCE, permit).await;
    let permit = permit.map_err(|_| BrokerError::AnswersFull { bytes_max })?;
    Ok(permit.expect("it is never closed"))
}

/// Memory that an answer may use.
pub(crate) struct Reserved {
    permit: OwnedSemaphorePermit,
    answer_bytes_max: usize,
}

impl Reserved {
    /// Whether an answer of so many bytes has room.
    pub(crate) fn holds(&self, bytes: usize) -> bool {
        self.permit.num_permits() == self.answer_bytes_max || bytes <= self.permit.num_permits()
    }

    /// Gives back what the answer does not take.
    pub(crate) fn shrink(self, bytes: usize) -> Room {
        let mut room = Room {
            permit: Arc::new(self.permit),
            answer_bytes_max: self.answer_bytes_max,
        };
        room.shrink(bytes);
        room
    }
}

impl Reads {
    pub(crate) fn new(settings: &Settings) -> Reads {
        // A permit is a byte.
        let answer_bytes_max = settings.fetch_bytes_max.clamp(1, u32::MAX as usize);
        Reads {
            answers: Arc::new(Semaphore::new(answer_bytes_max)),
            answer_bytes_max,
            chains: Arc::new(Chains::new(settings.module_threads)),
            results: Results::new(settings.fetch_cache_bytes),
            further: FurtherStages::default(),
        }
    }

    /// Waits until there is room for an answer of `bytes`; of one larger than all, until all is free. Not for ever: others
    /// may never read theirs.
    pub(crate) async fn reserve(&self, bytes: usize) -> Result<Reserved> {
        let bytes = bytes.max(ROOM_BYTES_LEAST).min(self.answer_bytes_max);
        Ok(Reserved {
            permit: acquire(&self.answers, bytes, self.answer_bytes_max).await?,
            answer_bytes_max: self.answer_bytes_max,
        })
    }

    pub(super) fn chains(&self) -> &Arc<Chains> {
        &self.chains
    }

    /// The stages that readers ask for.
    pub(crate) fn further(&self) -> &FurtherStages {
        &self.further
    }

    pub(super) fn results(&self) -> &Results {
        &self.results
    }

    pub(crate) fn stats(&self) -> ReadStats {
        ReadStats {
            answer_bytes: self.answer_bytes_max - self.answers.available_permits(),
            answer_bytes_max: self.answer_bytes_max,
            chains_running: self.chains.running_max - self.chains.free.available_permits(),
            results: self.results.stats(),
        }
    }
}

/// The partition that a chain serves, the version of its pipeline, and its stages in their canonical form.
pub(super) type ChainKey = (Uuid, u32, u64, Arc<str>);

/// The chains of fetch pipelines: few run at once, and few wait for the next fetch.
pub(super) struct Chains {
    free: Semaphore,
    /// The slow lane is one thread.
    slow: Semaphore,
    running_max: usize,
    /// The one used last stands last.
    idle: Mutex<VecDeque<(ChainKey, Chain)>>,
}

impl Chains {
    fn new(module_threads: usize) -> Chains {
        let running_max = module_threads
            .max(1)
            .saturating_mul(CHAINS_PER_THREAD)
            .min(Semaphore::MAX_PERMITS);
        Chains {
            free: Semaphore::new(running_max),
            slow: Semaphore::new(1),
            running_max,
            idle: Mutex::default(),
        }
    }

    /// Runs `with` a chain that waited, or with a new one, once not too many run. `with` gives the chain back, or keeps
    /// it from being used again.
    pub(super) async fn run<T, F: Future<Output = (Option<Chain>, T)>>(
        &self,
        key: ChainKey,
        make: impl FnOnce() -> Chain,
        with: impl FnOnce(Chain) -> F,
    ) -> T {
        let free = self.free.acquire().await.expect("it is never closed");
        let chain = self.take(&key).unwrap_or_else(make);
        let _turn = match chain.lane() {
            Lane::Fast => free,
            // Who waits for the slow lane keeps no turn from those that are quick.
            Lane::Slow => {
                drop(free);
                self.slow.acquire().await.expect("it is never closed")
            }
        };
        let (chain, result) = with(chain).await;
        if let Some(chain) = chain {
            self.keep(key, chain);
        }
        result
    }

    /// Lets go of a partition's chains.
    pub(super) fn forget(&self, topic_id: Uuid, partition: u32) {
        self.idle()
            .retain(|((topic, of, ..), _)| (*topic, *of) != (topic_id, partition));
    }

    fn take(&self, key: &ChainKey) -> Option<Chain> {
        let mut idle = self.idle();
        let at = idle.iter().rposition(|(of, _)| of == key)?;
        idle.remove(at).map(|(_, chain)| chain)
    }

    fn keep(&self, key: ChainKey, chain: Chain) {
        let mut idle = self.idle();
        idle.push_back((key, chain));
        if idle.len() > IDLE_CHAINS_MAX {
            idle.pop_front();
        }
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<(ChainKey, Chain)>> {
        // Nothing panics while it holds this lock, and what it guards is whole between any two statements.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
