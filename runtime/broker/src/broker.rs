//! The broker: what it is made of, how it starts and stops, and the way in for producers and for modules.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use futures::future::join_all;
use millstream_batch::{Batch, Limits};
use millstream_log::{CacheSettings, SegmentCache, Store};
use millstream_meta::{Metadata, ModuleVersion, WalKind};
use tokio::sync::{Notify, watch};

use crate::{
    clock::Clock,
    error::{BrokerError, Result},
    modules::Modules,
    owner::Owner,
    partition::{Acks, Partition, Reads, Receipt, Shared, TailBudget, Uploads},
    pipeline::Pool,
    recovery, relief, reopening,
    settings::{Settings, Wals},
    sweep,
    topic::LiveTopic,
};

/// One agent's broker, shared by everything that serves it.
pub struct Broker {
    shared: Shared,
    modules: Modules,
    pub(crate) topics: RwLock<BTreeMap<String, Arc<LiveTopic>>>,
    /// Held while a topic is made, altered or deleted, so that metadata and memory agree on which one has a name.
    pub(crate) topic_changes: tokio::sync::Mutex<()>,
    /// A topic was made or altered: its manifest is to be written.
    pub(crate) manifest_due: Arc<Notify>,
    stopping: AtomicBool,
}

impl Broker {
    /// Starts a new incarnation and takes over what earlier ones of this agent left.
    ///
    /// The caller holds the lock on the data directory: it is what keeps two incarnations off one WAL.
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
        let now_ms = clock.now_ms();
        metadata
            .register_incarnation(&settings.agent_name, incarnation, wals.kind, now_ms)
            .await?;
        // Before there is another WAL: starts that fail again and again must not fill the disk.
        // Those in the object store can wait for a sweep: a start does not.
        recovery::remove_dead_wals(&metadata, &wals, incarnation, &[WalKind::Disk]).await?;
        let wal = wals.of(wals.kind).create(incarnation).await?;
        let caches = CacheSettings {
            index_bytes: settings.index_cache_bytes,
            block_bytes: settings.block_cache_bytes,
        };
        let shared = Shared {
            budget: TailBudget::new(settings.tail_bytes_max),
            owner,
            uploads: Uploads::new(settings.uploads_max),
            reads: Reads::new(&settings),
            segments: SegmentCache::new(store.clone(), caches),
            pool: Pool::new(settings.module_threads),
            settings: Arc::new(settings),
            clock,
            metadata,
            store,
            wals,
            wal,
            incarnation,
        };
        let recovered = shared.recovery().all().await?;
        recovery::remove_dead_wals(&shared.metadata, &shared.wals, incarnation, &[WalKind::Disk]).await?;

        let topics = shared.metadata.topics().await?.into_iter();
        let topics = topics.map(|topic| (topic.name.clone(), Arc::new(LiveTopic::new(topic))));
        let broker = Arc::new(Broker {
            topics: RwLock::new(topics.collect()),
            topic_changes: tokio::sync::Mutex::default(),
            manifest_due: Arc::new(Notify::new()),
            stopping: AtomicBool::new(false),
            modules: Modules::new(shared.metadata.clone(), shared.store.clone(), shared.clock.clone())?,
            shared,
        });
        broker.start_recovered(recovered).await?;
        tokio::spawn(relief::run(Arc::downgrade(&broker), broker.shared.budget.clone()));
        tokio::spawn(reopening::run(Arc::downgrade(&broker)));
        sweep::start(&broker);
        Ok(broker)
    }

    /// Appends one encoded batch. This is the door: everything about it is checked here, once. The buffer behind `encoded`
    /// stays in memory as long as the tail holds the batch, so it should hold little else.
    pub async fn produce(&self, topic: &str, partition: u32, encoded: Bytes, acks: Acks) -> Result<Receipt> {
        let live = self.live(topic)?;
        let (bytes, bytes_max) = (encoded.len(), self.shared.budget.bytes_max());
        if bytes > bytes_max {
            return Err(BrokerError::BatchAboveTail { bytes, bytes_max });
        }
        let record_bytes_max = live.topic().config.record_bytes_max as usize;
        let batch = Batch::validate(
            encoded,
            &Limits {
                record_bytes_max,
                ..Limits::default()
            },
        )?;
        if batch.header().producer_id >= 0 {
            return Err(BrokerError::IdempotentProducer {
                id: batch.header().producer_id,
            });
        }
        self.partition(&live, partition).await?.produce(batch, acks).await
    }

    /// Stores a component as the next version of a module; false where these bytes had a version already.
    pub async fn deploy_module(&self, name: &str, component: Bytes) -> Result<(ModuleVersion, bool)> {
        self.modules.deploy(name, component).await
    }

    /// Every version of every module, by name and version.
    pub async fn modules(&self) -> Result<Vec<ModuleVersion>> {
        Ok(self.shared.metadata.modules().await?)
    }

    /// Turns to the reason once the write-ahead log failed: then the process has to end, and recovers at its next start.
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.shared.wal.failure()
    }

    /// Makes segments of everything, gives the leases back and closes the WAL. What does not get through in time stays
    /// in the WAL for the next incarnation.
    pub async fn stop(&self) {
        // From here on no partition opens for a request. The topics stay known: a request that comes now is told that the agent stops,
        // not that its topic is gone.
        self.stopping.store(true, Ordering::Release);
        let topics = self.live_topics();
        let open: Vec<Partition> = topics.iter().flat_map(|live| live.open_partitions()).collect();
        let stop_open = join_all(open.iter().map(Partition::stop));
        // What a closed one holds becomes segments only where it can be opened once more.
        let stop_closed = async { join_all(self.reopen_closed(true).await.iter().map(Partition::stop)).await };
        let stops = futures::future::join(stop_open, stop_closed);
        match tokio::time::timeout(self.shared.settings.stop_timeout, stops).await {
            Ok((open, closed)) => open
                .into_iter()
                .chain(closed)
                .filter_map(Result::err)
                .for_each(|error| {
                    tracing::warn!(%error, "a partition did not stop cleanly; its records stay in the write-ahead log");
                }),
            Err(_) => tracing::warn!("not everything became segments in time; it stays in the write-ahead log"),
        }
        // A log in an object store that is down would be written for ever.
        match tokio::time::timeout(self.shared.settings.stop_timeout, self.close_wal()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the write-ahead log stays for the next start"),
            Err(_) => tracing::warn!("the write-ahead log was not closed in time; it stays for the next start"),
        }
    }

    async fn close_wal(&self) -> Result<()> {
        let Shared {
            metadata,
            wals,
            wal,
            incarnation,
            ..
        } = &self.shared;
        wal.close().await;
        if metadata.retire_wal(*incarnation).await? {
            wals.of(wals.kind).remove(*incarnation).await?;
        }
        Ok(())
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn module_store(&self) -> &Modules {
        &self.modules
    }

    pub(crate) fn live_topics(&self) -> Vec<Arc<LiveTopic>> {
        self.topics.read().expect(NOT_POISONED).values().cloned().collect()
    }

    pub(crate) fn live(&self, name: &str) -> Result<Arc<LiveTopic>> {
        let topics = self.topics.read().expect(NOT_POISONED);
        topics.get(name).cloned().ok_or_else(|| BrokerError::UnknownTopic {
            name: name.chars().take(300).collect(),
        })
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
