//! Three stages in a row against each of them alone, through a broker: everything that a stage adds to producing, the
//! processor time of all threads together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use millstream_batch::Batch;
use millstream_broker::{
    Acks, Broker, ChangeOptions, Clock, DeployOptions, NewTopic, Settings, Side, StageSpec, TopicConfig, WalKind, Wals,
};
use millstream_log::{DiskWals, DiskWalsSettings, ObjectWalSettings, ObjectWals, Store, SyncPolicy};
use millstream_meta::{Metadata, MetadataSettings};
use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::Times;
use crate::batches::LINES;

const MODULE: &str = "identity";
const STAGES: usize = 3;
const ROUNDS: u32 = 60;
/// Nothing becomes a segment meanwhile.
const SEGMENT_BYTES: u64 = 1 << 30;
const TAIL_BYTES_MAX: usize = 4 << 30;

/// The time of this machine; ids differ, which is enough for one broker in a folder of its own.
#[derive(Default)]
struct Now {
    ids: AtomicU64,
}

impl Clock for Now {
    fn now_ms(&self) -> i64 {
        let now = clock_gettime(ClockId::Realtime);
        now.tv_sec * 1_000 + now.tv_nsec / 1_000_000
    }

    fn random_id(&self) -> u128 {
        u128::from(self.ids.fetch_add(1, Ordering::Relaxed)) + 1
    }
}

/// Measures stages that leave every record as it is, and such that rewrite every one.
pub fn print(identity: &[u8], batches: &[Batch]) {
    let runtime = Runtime::new().expect("a runtime starts");
    let dir = TempDir::new().expect("the temporary folder can be written");
    let broker = runtime.block_on(open(&dir));
    let component = Bytes::copy_from_slice(identity);
    runtime
        .block_on(broker.deploy_module(MODULE, component, DeployOptions::default()))
        .expect("the module is deployed");
    let batches: Vec<Bytes> = batches.iter().map(Batch::to_bytes).collect();
    for (what, rewrite) in [("leave every record", "false"), ("rewrite every record", "true")] {
        let topics: Vec<String> = [0, 1, STAGES].map(|stages| format!("{rewrite}-{stages}")).into();
        for (topic, stages) in topics.iter().zip([0, 1, STAGES]) {
            runtime.block_on(make(&broker, topic, stages, rewrite));
        }
        let mut least = [f64::MAX; 3];
        for _ in 0..ROUNDS {
            for (topic, least) in topics.iter().zip(&mut least) {
                let before = cpu_time();
                runtime.block_on(produce(&broker, topic, &batches));
                *least = least.min((cpu_time() - before).as_secs_f64() * 1e9);
            }
        }
        let [none, one, three] = least.map(|ns| ns / (batches.len() as u64 * LINES) as f64);
        let times = Times {
            measured_ns: three - none,
            against_ns: (one - none) * STAGES as f64,
        };
        times.print(&format!("three stages that {what}"), "each alone", 0.9);
    }
    runtime.block_on(broker.stop());
}

async fn open(dir: &TempDir) -> Arc<Broker> {
    let database = format!("sqlite:{}", dir.path().join("metadata.db").display());
    let metadata = Metadata::open_with(&MetadataSettings::at(database)).await;
    let store = Store::memory();
    let disk = DiskWalsSettings {
        sync: SyncPolicy::Never,
        ..DiskWalsSettings::new(dir.path().join("wal"))
    };
    let wals = Wals {
        disk: Arc::new(DiskWals::new(disk)),
        object: Arc::new(ObjectWals::new(store.clone(), ObjectWalSettings::default())),
        kind: WalKind::Disk,
    };
    let settings = Settings {
        tail_bytes_max: TAIL_BYTES_MAX,
        wal_bytes_max: TAIL_BYTES_MAX as u64,
        sweep_interval: Duration::from_secs(3_600),
        ..Settings::default()
    };
    let metadata = metadata.expect("a new database opens");
    let broker = Broker::open(settings, Arc::new(Now::default()), metadata, store, wals).await;
    broker.expect("a broker opens in an empty folder")
}

async fn make(broker: &Arc<Broker>, topic: &str, stages: usize, rewrite: &str) {
    let new = NewTopic {
        name: topic.to_owned(),
        partitions: 1,
        config: TopicConfig {
            segment_bytes: SEGMENT_BYTES,
            ..TopicConfig::default()
        },
    };
    broker.create_topic(new).await.expect("the topic is made");
    for _ in 0..stages {
        let mut stage = StageSpec::new(MODULE, 1);
        stage.params.insert("rewrite".to_owned(), rewrite.to_owned());
        let added = broker.add_stage(topic, Side::Produce, stage, ChangeOptions::default());
        added.await.expect("the stage is added");
    }
}

async fn produce(broker: &Broker, topic: &str, batches: &[Bytes]) {
    for batch in batches {
        let produced = broker.produce(topic, 0, batch.clone(), Acks::Memory).await;
        produced.expect("the batch is acknowledged");
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
