//! The broker: topics by name, their partitions as they are opened, modules, and the way in and out of the process.

use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock},
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use millstream_batch::{Batch, Limits, Offset};
use millstream_log::{CacheSettings, DiskWal, SegmentCache, Store, WalSettings};
use millstream_meta::{Metadata, ModuleVersion, Topic, TopicConfig, WalKind};
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    clock::Clock,
    error::{BrokerError, Result},
    modules::Modules,
    names::{check_partitions, check_topic_name},
    partition::{Acks, Fetched, Partition, PartitionStatus, Receipt, Shared, TailBudget},
    pipeline::{Pipeline, Pool},
    recovery::{self, RecoveredPartition},
    settings::Settings,
    sweep,
    topic::LiveTopic,
};

/// Greatest record size that a topic may allow.
const RECORD_BYTES_MAX: u32 = 16 << 20;

/// A topic to be made.
#[derive(Clone, Debug)]
pub struct NewTopic {
    /// 1 to 249 characters of `[a-zA-Z0-9._-]`.
    pub name: String,
    /// 1 to 100,000.
    pub partitions: u32,
    /// Its settings.
    pub config: TopicConfig,
}

/// What to read.
#[derive(Clone, Debug)]
pub struct FetchQuery {
    /// Name of the topic.
    pub topic: String,
    /// Its partition.
    pub partition: u32,
    /// First offset wanted.
    pub offset: Offset,
    /// About how many encoded bytes; one whole batch is always returned.
    pub bytes_max: usize,
    /// How long to wait at the end for the first record.
    pub wait: Duration,
}

/// One agent's broker, shared by everything that serves it.
pub struct Broker {
    shared: Shared,
    modules: Modules,
    topics: RwLock<BTreeMap<String, Arc<LiveTopic>>>,
    /// Held while a topic is made or deleted, so that metadata and memory agree on which one has a name.
    topic_changes: tokio::sync::Mutex<()>,
}

impl Broker {
    /// Starts a new incarnation and takes over what earlier ones on this data directory left.
    ///
    /// The caller holds the lock on the data directory: it is what keeps two incarnations off one WAL.
    pub async fn open(
        settings: Settings,
        clock: Arc<dyn Clock>,
        metadata: Metadata,
        store: Store,
    ) -> Result<Arc<Broker>> {
        let incarnation = uuid::Builder::from_random_bytes(clock.random_id().to_be_bytes()).into_uuid();
        metadata
            .register_incarnation(&settings.agent_name, incarnation, WalKind::Disk, clock.now_ms())
            .await?;
        // Before there is another WAL: starts that fail again and again must not fill the disk.
        recovery::remove_dead_wals(&metadata, incarnation, &settings.wal_dir).await?;
        let wal = DiskWal::create(
            WalSettings {
                dir: recovery::folder(&settings.wal_dir, incarnation),
                file_bytes: settings.wal_file_bytes,
                group_bytes_max: GROUP_BYTES_MAX,
                sync: settings.wal_sync,
            },
            incarnation,
        )?;
        let recovered = recovery::recover(&metadata, &wal, incarnation, &settings.wal_dir).await?;
        recovery::remove_dead_wals(&metadata, incarnation, &settings.wal_dir).await?;

        let pool = Pool::new(settings.module_threads);
        let caches = CacheSettings {
            index_bytes: settings.index_cache_bytes,
            block_bytes: settings.block_cache_bytes,
        };
        let modules = Modules::new(metadata.clone(), store.clone(), clock.clone())?;
        let topics = metadata
            .topics()
            .await?
            .into_iter()
            .map(|topic| (topic.name.clone(), Arc::new(LiveTopic::new(topic))));
        let broker = Arc::new(Broker {
            topics: RwLock::new(topics.collect()),
            topic_changes: tokio::sync::Mutex::default(),
            modules,
            shared: Shared {
                budget: TailBudget::new(settings.tail_bytes_max),
                segments: SegmentCache::new(store.clone(), caches),
                settings: Arc::new(settings),
                clock,
                metadata,
                store,
                wal,
                incarnation,
                pool,
            },
        });
        broker.start_recovered(recovered).await?;
        tokio::spawn(sweep::run(Arc::downgrade(&broker)));
        Ok(broker)
    }

    async fn start_recovered(&self, recovered: Vec<RecoveredPartition>) -> Result<()> {
        let by_id: BTreeMap<Uuid, Arc<LiveTopic>> = self
            .live_topics()
            .into_iter()
            .map(|live| (live.topic.id, live))
            .collect();
        for RecoveredPartition { lease, batches } in recovered {
            let live = by_id
                .get(&lease.topic_id)
                .expect("deleting a topic deletes its partitions and their pointers");
            let pipeline = self.pipeline_of(live).await?;
            let cell = live.cell(lease.partition)?;
            tracing::info!(
                topic = live.topic.name,
                partition = lease.partition,
                epoch = lease.epoch.0,
                batches = batches.len(),
                "recovered a partition"
            );
            let start = || Partition::start(self.shared.clone(), live.topic.clone(), lease, batches, pipeline);
            cell.get_or_init(|| async { start() }).await;
        }
        Ok(())
    }

    /// Makes a topic.
    pub async fn create_topic(self: &Arc<Self>, new: NewTopic) -> Result<Topic> {
        let broker = self.clone();
        to_the_end("creating a topic", async move { broker.make_topic(new).await }).await
    }

    async fn make_topic(&self, new: NewTopic) -> Result<Topic> {
        check_topic_name(&new.name)?;
        check_partitions(new.partitions)?;
        check_config(&new.config)?;
        let id = uuid::Builder::from_random_bytes(self.shared.clock.random_id().to_be_bytes()).into_uuid();
        let now_ms = self.shared.clock.now_ms();
        let _alone = self.topic_changes.lock().await;
        let created = self
            .shared
            .metadata
            .create_topic(id, &new.name, new.partitions, &new.config, now_ms)
            .await;
        let topic = created.map_err(|error| match error {
            millstream_meta::MetaError::AlreadyExists { .. } => BrokerError::TopicExists { name: new.name.clone() },
            other => other.into(),
        })?;
        let live = Arc::new(LiveTopic::new(topic.clone()));
        self.topics.write().expect(NOT_POISONED).insert(new.name, live);
        Ok(topic)
    }

    /// What holds for a new topic that says nothing else.
    pub fn topic_defaults(&self) -> &TopicConfig {
        &self.shared.settings.topic_defaults
    }

    /// All topics in order of name.
    pub fn topics(&self) -> Vec<Topic> {
        self.live_topics().iter().map(|live| (*live.topic).clone()).collect()
    }

    /// One topic and its partitions. With `flush` everything durable becomes segments first.
    pub async fn topic(&self, name: &str, flush: bool) -> Result<(Topic, Vec<PartitionStatus>)> {
        let live = self.live(name)?;
        if flush {
            for flushed in join_all(live.open_partitions().iter().map(Partition::flush)).await {
                flushed?;
            }
        }
        let totals = self.shared.metadata.partition_totals(live.topic.id).await?;
        let mut statuses = Vec::with_capacity(totals.len());
        for total in totals {
            let cell = live.cell(total.partition)?;
            let (log_start, high_watermark, committed_end) = match cell.get() {
                Some(partition) => partition.offsets(),
                // A partition that nobody opened since the start has nothing beyond its segments.
                None => (total.log_start, total.committed_end, total.committed_end),
            };
            statuses.push(PartitionStatus {
                partition: total.partition,
                log_start,
                high_watermark,
                committed_end,
                segment_count: total.segment_count,
                raw_bytes: total.raw_bytes,
                stored_bytes: total.stored_bytes,
            });
        }
        Ok(((*live.topic).clone(), statuses))
    }

    /// Deletes a topic. Its objects go after the grace period.
    pub async fn delete_topic(self: &Arc<Self>, name: &str) -> Result<()> {
        let (broker, live) = (self.clone(), self.live(name)?);
        to_the_end("deleting a topic", async move { broker.drop_topic(&live).await }).await
    }

    async fn drop_topic(&self, live: &LiveTopic) -> Result<()> {
        let name = &live.topic.name;
        let _alone = self.topic_changes.lock().await;
        if self.live(name)?.topic.id != live.topic.id {
            // It was deleted meanwhile, and what has its name now is another one.
            return Err(BrokerError::UnknownTopic { name: name.clone() });
        }
        self.shared
            .metadata
            .delete_topic(name, self.shared.clock.now_ms())
            .await?;
        self.topics.write().expect(NOT_POISONED).remove(name);
        live.open_partitions()
            .iter()
            .for_each(|partition| partition.abandon("the topic was deleted"));
        self.shared.wal.forget_topic(live.topic.id);
        Ok(())
    }

    /// Appends one encoded batch. This is the door: everything about it is checked here, once.
    pub async fn produce(&self, topic: &str, partition: u32, encoded: Bytes, acks: Acks) -> Result<Receipt> {
        let live = self.live(topic)?;
        let record_bytes_max = live.topic.config.record_bytes_max as usize;
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

    /// Reads from one partition.
    pub async fn fetch(&self, query: FetchQuery) -> Result<Fetched> {
        let live = self.live(&query.topic)?;
        self.partition(&live, query.partition)
            .await?
            .fetch(query.offset, query.bytes_max, query.wait)
            .await
    }

    /// First offset that can be read, and the end of what can be read.
    pub async fn offsets(&self, topic: &str, partition: u32) -> Result<(Offset, Offset)> {
        let live = self.live(topic)?;
        let (log_start, high_watermark, _) = self.partition(&live, partition).await?.offsets();
        Ok((log_start, high_watermark))
    }

    /// Stores a component as the next version of a module; false where these bytes had a version already.
    pub async fn deploy_module(&self, name: &str, component: Bytes) -> Result<(ModuleVersion, bool)> {
        self.modules.deploy(name, component).await
    }

    /// Every version of every module.
    pub async fn modules(&self) -> Result<Vec<ModuleVersion>> {
        Ok(self.shared.metadata.modules().await?)
    }

    /// Bytes that are acknowledged and not yet in segments, of all partitions, with those on their way into the WAL.
    pub fn tail_bytes(&self) -> usize {
        self.shared.budget.used()
    }

    /// Turns to the reason once the write-ahead log failed: then the process has to end, and recovers at its next start.
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.shared.wal.failure()
    }

    /// Makes segments of everything, gives the leases back and closes the WAL. What does not get through in time stays
    /// in the WAL for the next incarnation.
    pub async fn stop(&self) {
        // The topics stay known: a request that comes now is told that the agent stops, not that its topic is gone.
        let topics = self.live_topics();
        let open: Vec<Partition> = topics.iter().flat_map(|live| live.open_partitions()).collect();
        let stops = join_all(open.iter().map(Partition::stop));
        match tokio::time::timeout(self.shared.settings.stop_timeout, stops).await {
            Ok(results) => results.into_iter().filter_map(Result::err).for_each(|error| {
                tracing::warn!(%error, "a partition did not stop cleanly; its records stay in the write-ahead log");
            }),
            Err(_) => tracing::warn!("not everything became segments in time; it stays in the write-ahead log"),
        }
        if let Err(error) = self.close_wal().await {
            tracing::warn!(%error, "the write-ahead log stays for the next start");
        }
    }

    async fn close_wal(&self) -> Result<()> {
        self.shared.wal.clone().close().await;
        if self.shared.metadata.retire_wal(self.shared.incarnation).await? {
            recovery::remove_wal(&recovery::folder(
                &self.shared.settings.wal_dir,
                self.shared.incarnation,
            ))
            .await;
        }
        Ok(())
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

    /// The partition, opened where it is not yet: its lease taken and its WAL pointer set to our WAL.
    async fn partition(&self, live: &LiveTopic, partition: u32) -> Result<Partition> {
        let cell = live.cell(partition)?;
        if let Some(open) = cell.get() {
            return Ok(open.clone());
        }
        self.pipeline_of(live).await?;
        // Held while the partition opens, so that a change of the pipeline comes before or after, never between.
        let pipeline = live.pipeline.read().await;
        let pipeline = pipeline.as_ref().expect("a pipeline once loaded stays loaded");
        cell.get_or_try_init(|| self.open_partition(live, partition, pipeline.clone()))
            .await
            .cloned()
    }

    async fn open_partition(&self, live: &LiveTopic, partition: u32, pipeline: Arc<Pipeline>) -> Result<Partition> {
        let (metadata, incarnation) = (&self.shared.metadata, self.shared.incarnation);
        let lease = metadata.acquire_lease(live.topic.id, partition, incarnation).await?;
        if let Some(wal) = lease.wal.filter(|wal| *wal != incarnation) {
            let wal_dir = self.shared.settings.wal_dir.display().to_string();
            return Err(BrokerError::WalElsewhere {
                topic_id: live.topic.id,
                partition,
                wal,
                wal_dir,
            });
        }
        // The pointer is set before the first frame is written: whoever comes next looks into our WAL.
        metadata.move_wal_pointer(&lease, incarnation).await?;
        Ok(Partition::start(
            self.shared.clone(),
            live.topic.clone(),
            lease,
            Vec::new(),
            pipeline,
        ))
    }

    /// The topic's pipeline, loaded where it is not yet.
    pub(crate) async fn pipeline_of(&self, live: &LiveTopic) -> Result<Arc<Pipeline>> {
        if let Some(pipeline) = live.pipeline.read().await.as_ref() {
            return Ok(pipeline.clone());
        }
        let mut slot = live.pipeline.write().await;
        if let Some(pipeline) = slot.as_ref() {
            return Ok(pipeline.clone());
        }
        let pipeline = match self.shared.metadata.pipeline(live.topic.id).await? {
            None => Pipeline::default(),
            Some(row) => {
                let spec = serde_json::from_str(&row.stages_json);
                let spec = spec.map_err(|source| BrokerError::StoredForm {
                    what: "pipeline",
                    source,
                })?;
                self.modules.load(row.version, spec).await?
            }
        };
        Ok(slot.insert(Arc::new(pipeline)).clone())
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

/// Bytes of one WAL group; also how much a group commit takes at once.
const GROUP_BYTES_MAX: usize = 32 << 20;

const NOT_POISONED: &str = "no code panics while it holds this lock";

fn check_config(config: &TopicConfig) -> Result<()> {
    if !(1..=RECORD_BYTES_MAX).contains(&config.record_bytes_max) {
        return Err(BrokerError::InvalidSetting {
            name: "record_bytes_max",
            value: u64::from(config.record_bytes_max),
            allowed: "1 to 16,777,216",
        });
    }
    Ok(())
}
