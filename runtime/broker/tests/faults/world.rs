//! A world to break: one database, one object store and one disk, on which one agent after the other lives and dies.

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream_broker::{Broker, BrokerError, NewTopic, Settings, TopicConfig, WalKind, Wals};
use millstream_log::{DiskWals, DiskWalsSettings, ObjectWalSettings, ObjectWals, Store, SyncPolicy, Wal};
use millstream_meta::Metadata;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::clock::DrivenClock;
use crate::control::Control;
use crate::store::FaultyStore;
use crate::wal::FaultyWals;

/// Longer than anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The topic of most tests.
pub const TOPIC: &str = "t";

/// What outlives every agent.
pub struct World {
    dir: TempDir,
    pub objects: Arc<dyn ObjectStore>,
    pub clock: Arc<DrivenClock>,
    pub settings: Settings,
}

impl World {
    /// An empty world.
    pub fn new() -> World {
        // In memory where there is such a place: what is proven here is not proven by the disk.
        let shm = PathBuf::from("/dev/shm");
        let dir = if shm.is_dir() {
            TempDir::new_in(shm)
        } else {
            TempDir::new()
        };
        World {
            dir: dir.unwrap(),
            objects: Arc::new(InMemory::new()),
            clock: Arc::default(),
            settings: Settings {
                agent_name: "test".to_owned(),
                // Only the test says when it is over, and only the test sweeps.
                lease_duration: Duration::from_secs(3_600),
                sweep_interval: Duration::from_secs(24 * 3_600),
                stop_timeout: Duration::from_secs(30),
                ..Settings::default()
            },
        }
    }

    /// Starts an agent that nothing happens to unless it is asked for, whose log is of this kind.
    pub fn open(&self, kind: WalKind) -> Agent {
        self.opening(kind, |_| {}).opened().unwrap()
    }

    /// As [`World::open`], with the topic of most tests.
    pub fn open_with_topic(&self, kind: WalKind, config: TopicConfig) -> Agent {
        let agent = self.open(kind);
        agent.create_topic(TOPIC, config);
        agent
    }

    /// Begins to start an agent, to which `faults` happen meanwhile.
    pub fn opening(&self, kind: WalKind, faults: impl FnOnce(&Control)) -> Opening {
        let control = Arc::new(Control::default());
        faults(&control);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let objects = FaultyStore::new(self.objects.clone(), control.clone(), self.clock.clone());
        let store = Store::over(Arc::new(objects));
        let disk = DiskWals::new(DiskWalsSettings {
            file_bytes: 64 << 10,
            sync: SyncPolicy::Never,
            ..DiskWalsSettings::new(self.wal_dir())
        });
        let object = ObjectWals::new(
            store.clone(),
            ObjectWalSettings {
                flush_interval: Duration::ZERO,
                ..ObjectWalSettings::default()
            },
        );
        let disk = FaultyWals::new(Arc::new(disk), control.clone());
        let object = FaultyWals::new(Arc::new(object), control.clone());
        let on_disk = disk.made();
        let wals = Wals {
            disk: Arc::new(disk),
            object: Arc::new(object),
            kind,
        };
        let (settings, clock, url) = (self.settings.clone(), self.clock.clone(), self.metadata_url());
        let opening = runtime.spawn(async move {
            let metadata = Metadata::open(&url).await?;
            Broker::open(settings, clock, metadata, store, wals).await
        });
        Opening {
            agent: Agent {
                control,
                runtime: Some(runtime),
                broker: None,
                on_disk,
            },
            opening,
        }
    }

    pub fn wal_dir(&self) -> PathBuf {
        self.dir.path().join("wal")
    }

    pub fn metadata_path(&self) -> PathBuf {
        self.dir.path().join("metadata.db")
    }

    /// The database.
    pub fn metadata_url(&self) -> String {
        format!("sqlite:{}", self.metadata_path().display())
    }

    /// Looks into the database and the store, past every agent.
    pub fn look<T>(&self, look: impl AsyncFnOnce(Metadata, Store) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let metadata = Metadata::open(&self.metadata_url()).await.unwrap();
            let found = look(metadata.clone(), Store::over(self.objects.clone())).await;
            metadata.close().await;
            found
        })
    }
}

/// An agent on its way up.
pub struct Opening {
    agent: Agent,
    opening: JoinHandle<Result<Arc<Broker>, BrokerError>>,
}

impl Opening {
    /// What happens to it.
    pub fn control(&self) -> Arc<Control> {
        self.agent.control.clone()
    }

    /// Runs something while it is on its way; it must end.
    pub fn run<F: Future>(&self, work: F) -> F::Output {
        self.agent.run(work)
    }

    /// Waits until it is up, or has given up.
    pub fn opened(mut self) -> Result<Agent, BrokerError> {
        let opened = self.agent.run(&mut self.opening);
        match opened.expect("opening does not panic") {
            Ok(broker) => {
                self.agent.broker = Some(broker);
                Ok(self.agent)
            }
            Err(error) => {
                self.agent.crash();
                Err(error)
            }
        }
    }

    /// Dies once so many requests met a fault or a gate, or it has given up; or, up already, right then.
    pub fn crash_at(mut self, met: usize) {
        let control = self.agent.control.clone();
        let opening = &mut self.opening;
        self.agent.run(async {
            tokio::select! {
                () = control.wait_met(met) => {}
                _ = opening => {}
            }
        });
        self.agent.crash();
    }
}

/// One incarnation.
pub struct Agent {
    pub control: Arc<Control>,
    runtime: Option<Runtime>,
    broker: Option<Arc<Broker>>,
    on_disk: Arc<Mutex<Vec<Arc<dyn Wal>>>>,
}

impl Agent {
    pub fn broker(&self) -> &Arc<Broker> {
        self.broker.as_ref().expect("it is open")
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it was not stopped")
    }

    /// Runs something on the agent's threads; it must end.
    pub fn run<F: Future>(&self, work: F) -> F::Output {
        self.runtime()
            .block_on(async { tokio::time::timeout(PATIENCE, work).await })
            .expect("it ends in time")
    }

    /// Runs something beside the test.
    pub fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.runtime().spawn(work)
    }

    pub fn create_topic(&self, name: &str, config: TopicConfig) {
        let new = NewTopic {
            name: name.to_owned(),
            partitions: 2,
            config,
        };
        self.run(self.broker().create_topic(new)).unwrap();
    }

    /// Makes segments of everything.
    pub fn flush(&self, topic: &str) {
        self.run(self.broker().topic(topic, true)).unwrap();
    }

    /// Dies at once: nothing of it reaches the world any more, but for what its log on a disk was handed already.
    pub fn crash(mut self) {
        self.end();
    }

    /// Stops as it should.
    pub fn stop(mut self) {
        self.run(self.broker().stop());
        self.end();
    }

    fn end(&mut self) {
        self.control.kill();
        let Some(runtime) = self.runtime.take() else { return };
        self.broker = None;
        runtime.shutdown_timeout(PATIENCE);
        // The log's own thread lives on for a moment. On a real machine it dies with the process, before which it may
        // have come to write what it was handed, or not; the next agent must not come while it still writes.
        let logs = std::mem::take(&mut *self.on_disk.lock().expect("no holder of the lock panics"));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for log in logs {
                log.close().await;
            }
        });
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.end();
    }
}
