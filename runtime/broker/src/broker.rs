//! The broker: what it is made of, how it starts and stops, and the way in for producers and for modules.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Mutex, RwLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, stream};
use millstream_batch::Offset;
use millstream_log::Store;
use millstream_meta::{Lease, Metadata, ModuleVersion, NewIncarnation, Topic};
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

use crate::{
    activations::Activations,
    clock::Clock,
    error::{BrokerError, Result},
    groups::Groups,
    health::Health,
    keeper::Keeper,
    lease_time::LeaseTime,
    modules::Modules,
    owner::Owner,
    partition::{Partition, Shared},
    recovery::again,
    settings::{Settings, Wals},
    starting::{Parts, check_name},
    topic::LiveTopic,
    versions::Guard,
};

/// Partitions that stop at once, and leases that are given back together.
const STOPS_AT_ONCE: usize = 1_000;
/// Between two times that leases are given back, so that many of them gather.
const RELEASE_PAUSE: Duration = Duration::from_millis(10);
/// How long a start that failed, or a stop, waits for its leases to be given up: others may take over at once then.
const LEAVE_PATIENCE: Duration = Duration::from_secs(5);
/// Partitions that wait for the metadata at once: a database gives a bounded number of connections.
pub(crate) const PARTITIONS_AT_ONCE: usize = 64;
/// Partitions that take their lease or move their pointer at once: fewer than the connections for what writes, so that what
/// commits segments does not wait behind a thousand of them.
const OPENINGS_AT_ONCE: usize = 4;

/// One agent's broker, shared by everything that serves it.
pub struct Broker {
    pub(crate) me: Weak<Broker>,
    shared: Shared,
    keeper: Keeper,
    modules: Modules,
    guard: Guard,
    activations: Activations,
    groups: Groups,
    pub(crate) topics: RwLock<BTreeMap<String, Arc<LiveTopic>>>,
    /// Held while a topic is made, altered or deleted, here or as it is seen in the metadata, so that metadata and memory
    /// agree on which one has a name.
    pub(crate) topic_changes: tokio::sync::Mutex<()>,
    /// A topic was made or altered: its manifest is to be written.
    pub(crate) manifest_due: Arc<Notify>,
    /// Logs of other agents that are being taken over.
    pub(crate) takeovers: Mutex<HashSet<Uuid>>,
    /// Turns to ask the database for what opens a partition.
    pub(crate) openings: Semaphore,
    stopping: AtomicBool,
    health: Health,
}

impl Broker {
    /// Starts a new incarnation and takes over what earlier ones of this agent left.
    ///
    /// The caller holds the lock on the data directory: it is what keeps two incarnations off one disk WAL.
    pub async fn open(
        settings: Settings,
        clock: Arc<dyn Clock>,
        metadata: Metadata,
        store: Store,
        wals: Wals,
    ) -> Result<Arc<Broker>> {
        let incarnation = uuid::Builder::from_random_bytes(clock.random_id().to_be_bytes()).into_uuid();
        let candidate = uuid::Builder::from_random_bytes(clock.random_id().to_be_bytes()).into_uuid();
        let owner = Owner::new(store.clone(), metadata.clone(), candidate);
        match owner.confirm().await {
            Err(error @ BrokerError::StoreOwned { .. }) => return Err(error),
            // Nothing is written there before it is known whose it is.
            Err(error) => {
                tracing::warn!(%error, "the object store cannot be asked whose it is, and is asked again later")
            }
            Ok(()) => {}
        }
        check_name(&metadata, &wals, &settings).await?;
        // The lease time counts from before it was asked for.
        let asked = Instant::now();
        let now_ms = clock.now_ms();
        let new = NewIncarnation {
            agent_name: &settings.agent_name,
            address: &settings.address,
            incarnation,
            wal_kind: wals.kind,
            lease: settings.lease_duration,
        };
        let registered = again(|| metadata.register_incarnation(&new, now_ms)).await?;
        let parts = Parts {
            lease_time: Arc::new(LeaseTime::new(settings.lease_duration, asked)),
            settings,
            clock,
            metadata: metadata.clone(),
            owner,
            store,
            wals,
            incarnation,
            registered,
        };
        let started = parts.start().await;
        if started.is_err() {
            leave(&metadata, incarnation).await;
        }
        started
    }

    /// Every version of every module, by name and version.
    pub async fn modules(&self) -> Result<Vec<ModuleVersion>> {
        Ok(self.shared.metadata.modules().await?)
    }

    /// Turns to the reason once the write-ahead log failed, or another start of this agent took its place: then the process
    /// has to end, and recovers at its next start.
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.shared.failure.watch()
    }

    /// Makes segments of everything, gives the leases back and closes the WAL. What does not get through in time stays
    /// in the WAL for the next incarnation.
    pub async fn stop(&self) {
        // From here on no partition opens for a request. The topics stay known: a request that comes now is told that the agent stops,
        // not that its topic is gone.
        self.stopping.store(true, Ordering::Release);
        let stop_open = self.stop_all(self.open_partitions());
        // What a closed one holds becomes segments only where it can be opened once more.
        let stop_closed = async { self.stop_all(self.reopen_closed(true).await).await };
        let stops = futures::future::join(stop_open, stop_closed);
        if timeout(self.shared.settings.stop_timeout, stops).await.is_err() {
            tracing::warn!("not everything became segments in time; it stays in the write-ahead log");
        }
        // A log in an object store that is down would be written for ever.
        match timeout(self.shared.settings.stop_timeout, self.close_wal()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the write-ahead log stays for the next start"),
            Err(_) => tracing::warn!("the write-ahead log was not closed in time; it stays for the next start"),
        }
        // Nothing is acknowledged any more: others need not wait until the lease time is over.
        self.keeper.end();
        leave(&self.shared.metadata, self.shared.incarnation).await;
    }

    /// Stops partitions and gives their leases back; one that does not stop keeps its records in the WAL.
    async fn stop_all(&self, mut partitions: Vec<Partition>) {
        // Those with little to store first: where the store is down their leases are given back all the same.
        partitions.sort_by_cached_key(|partition| partition.tail_bytes().0);
        let stops = stream::iter(partitions).map(|partition| async move {
            let stopped = partition.stop().await.inspect_err(|error| {
                tracing::warn!(%error, "a partition did not stop cleanly; its records stay in the write-ahead log");
            });
            stopped.ok()
        });
        let stopped = stops.buffer_unordered(STOPS_AT_ONCE);
        // One that is stuck holds up none of the others: given back is whatever has stopped by then.
        let stopped = stopped.filter_map(std::future::ready).ready_chunks(STOPS_AT_ONCE);
        let released = stopped.for_each(|leases| async {
            self.release(leases).await;
            sleep(RELEASE_PAUSE).await;
        });
        released.await;
    }

    async fn release(&self, leases: Vec<(Lease, Offset)>) {
        match self.shared.metadata.release_leases(&leases).await {
            Ok(released) => {
                let kept = released.iter().filter(|released| !**released).count();
                if kept > 0 {
                    tracing::warn!(kept, "leases were not given back: another agent has them");
                }
            }
            Err(error) => tracing::warn!(%error, count = leases.len(), "leases were not given back; they run out"),
        }
    }

    async fn close_wal(&self) -> Result<()> {
        let Shared {
            metadata,
            wals,
            wal,
            incarnation,
            owner,
            ..
        } = &self.shared;
        wal.close().await;
        // A database that followed ours may point at it still.
        owner.confirm_again().await?;
        if again(|| metadata.retire_wal(*incarnation)).await? {
            wals.of(wals.kind).remove(*incarnation).await?;
        }
        Ok(())
    }

    /// A broker of these parts that serves nothing yet.
    pub(crate) fn of(
        shared: Shared,
        keeper: Keeper,
        modules: Modules,
        activations: Activations,
        topics: Vec<Topic>,
    ) -> Arc<Broker> {
        let topics = topics.into_iter();
        let topics = topics.map(|topic| (topic.name.clone(), Arc::new(LiveTopic::new(topic))));
        let topics = RwLock::new(topics.collect());
        let handle = shared.broker.clone();
        let broker = Arc::new_cyclic(|me| Broker {
            me: me.clone(),
            shared,
            keeper,
            modules,
            guard: Guard::default(),
            activations,
            groups: Groups::default(),
            topics,
            topic_changes: tokio::sync::Mutex::default(),
            manifest_due: Arc::new(Notify::new()),
            takeovers: Mutex::default(),
            openings: Semaphore::new(OPENINGS_AT_ONCE),
            stopping: AtomicBool::new(false),
            health: Health::default(),
        });
        handle.get_or_init(|| Arc::downgrade(&broker));
        broker
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn module_store(&self) -> &Modules {
        &self.modules
    }

    pub(crate) fn guard(&self) -> &Guard {
        &self.guard
    }

    pub(crate) fn activations(&self) -> &Activations {
        &self.activations
    }

    pub(crate) fn groups(&self) -> &Groups {
        &self.groups
    }

    pub(crate) fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    pub(crate) fn live_topics(&self) -> Vec<Arc<LiveTopic>> {
        self.topics.read().expect(NOT_POISONED).values().cloned().collect()
    }

    /// The partitions that are open, of all topics.
    pub(crate) fn open_partitions(&self) -> Vec<Partition> {
        let topics = self.live_topics();
        topics.iter().flat_map(|live| live.open_partitions()).collect()
    }
}

/// Says that the incarnation is over.
async fn leave(metadata: &Metadata, incarnation: Uuid) {
    match timeout(LEAVE_PATIENCE, metadata.leave(incarnation)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "others take over once the lease time is over"),
        Err(_) => tracing::warn!("the database does not answer; others take over once the lease time is over"),
    }
}

/// Runs a change of metadata and memory as a task of its own: a caller that goes away must not leave the one without the
/// other.
pub(crate) async fn to_the_end<T: Send + 'static>(
    what: &'static str,
    change: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(change)
        .await
        .unwrap_or(Err(BrokerError::Panicked { what }))
}

pub(crate) const NOT_POISONED: &str = "no code panics while it holds this lock";
