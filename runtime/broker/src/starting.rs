//! The start of a broker, from the registration of its incarnation to its first request.

use std::sync::{Arc, OnceLock};

use millstream_log::{CacheSettings, SegmentCache, Store};
use millstream_meta::{Metadata, Registered, WalKind};
use millstream_wasm::{Engine, EngineSettings};
use uuid::Uuid;

use crate::{
    activations::{self, Activations},
    broker::Broker,
    clock::Clock,
    error::{BrokerError, Result},
    failure::Failure,
    keeper::{Keep, Keeper},
    lease_time::LeaseTime,
    measures::Measures,
    modules::Modules,
    owner::Owner,
    partition::{Reads, Shared, TailBudget, Uploads},
    pipeline::{Monitors, Pool},
    recovery::{self, Whose, again},
    relief, reopening,
    settings::{Settings, Wals},
    sweep, versions,
};

/// Fails where a living agent has our name and keeps records in a log on another disk: to register would end it.
pub(crate) async fn check_name(metadata: &Metadata, wals: &Wals, settings: &Settings) -> Result<()> {
    let agents = again(|| metadata.agents()).await?;
    let named = agents
        .into_iter()
        .find(|agent| agent.live && agent.name == settings.agent_name);
    let Some(living) = named else { return Ok(()) };
    match again(|| metadata.wal(living.incarnation)).await? {
        Some(wal) if wal.kind == WalKind::Disk && !wals.disk.exists(wal.id).await? => {}
        _ => return Ok(()),
    }
    // One of ours that was killed before it made its log, or after it removed it, holds nothing.
    let pointed = again(|| metadata.pointed_partitions()).await?;
    if pointed.iter().all(|partition| partition.wal != living.incarnation) {
        return Ok(());
    }
    Err(BrokerError::NameTaken {
        agent: living.name,
        address: living.address,
    })
}

/// What a registered incarnation is made of.
pub(crate) struct Parts {
    pub(crate) settings: Settings,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metadata: Metadata,
    pub(crate) owner: Owner,
    pub(crate) store: Store,
    pub(crate) wals: Wals,
    pub(crate) incarnation: Uuid,
    pub(crate) registered: Registered,
    pub(crate) lease_time: Arc<LeaseTime>,
}

impl Parts {
    pub(crate) async fn start(self) -> Result<Arc<Broker>> {
        let failure = Failure::default();
        // From the beginning: what is to be recovered may take longer than the lease time.
        let keeper = Keeper::start(Keep {
            metadata: self.metadata.clone(),
            incarnation: self.incarnation,
            time: self.lease_time.clone(),
            failure: failure.clone(),
        });
        let (metadata, incarnation) = (self.metadata.clone(), self.incarnation);
        let activations = Activations::new(self.registered.activation, self.registered.others);
        let own = again(|| metadata.own_wals(incarnation)).await?;
        // Before there is another WAL: starts that fail again and again must not fill the disk.
        recovery::remove_dead_wals(&metadata, &self.wals, incarnation, Whose::Ours(&own)).await?;
        let shared = self.shared(failure).await?;
        let recovered = shared.recovery().own(&own).await?;
        recovery::remove_dead_wals(&metadata, &shared.wals, incarnation, Whose::Ours(&own)).await?;

        let topics = metadata.topics().await?;
        let modules = Modules::new(
            shared.engine.clone(),
            metadata,
            shared.store.clone(),
            shared.clock.clone(),
        );
        let broker = Broker::of(shared, keeper, modules, activations, topics);
        broker.start_recovered(recovered).await?;
        broker.keeper().serve(Arc::downgrade(&broker));
        tokio::spawn(relief::run(Arc::downgrade(&broker), broker.shared().budget.clone()));
        tokio::spawn(reopening::run(Arc::downgrade(&broker)));
        let others = broker.activations().listen();
        tokio::spawn(activations::run(Arc::downgrade(&broker), others));
        tokio::spawn(versions::guard(Arc::downgrade(&broker)));
        sweep::start(&broker);
        Ok(broker)
    }

    /// With a WAL of its own.
    async fn shared(self, failure: Failure) -> Result<Shared> {
        let wal = self.wals.of(self.wals.kind).create(self.incarnation).await?;
        failure.follow(&wal);
        let settings = Arc::new(self.settings);
        let caches = CacheSettings {
            index_bytes: settings.index_cache_bytes,
            block_bytes: settings.block_cache_bytes,
        };
        Ok(Shared {
            budget: TailBudget::new(settings.tail_bytes_max),
            owner: self.owner,
            uploads: Uploads::new(settings.uploads_max),
            reads: Reads::new(&settings),
            segments: SegmentCache::new(self.store.clone(), caches),
            pool: Pool::with_slow_lane(settings.module_threads),
            engine: engine(&settings)?,
            monitors: Arc::new(Monitors::new(self.clock.clone())),
            measures: Measures::default(),
            broker: Arc::new(OnceLock::new()),
            settings,
            clock: self.clock,
            metadata: self.metadata,
            store: self.store,
            wals: self.wals,
            wal,
            incarnation: self.incarnation,
            lease_time: self.lease_time,
            failure,
        })
    }
}

fn engine(settings: &Settings) -> Result<Engine> {
    let engine = Engine::with(EngineSettings {
        cache_dir: settings.module_cache_dir.clone(),
        guest_memory_bytes_max: settings.module_guest_memory_bytes,
        instances_max: settings.module_instances_max,
    });
    engine.map_err(|source| BrokerError::BadModule {
        module: "the module engine".to_owned(),
        source,
    })
}
