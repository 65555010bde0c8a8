//! The database is lost: what a rebuild from the bucket and the logs gives back.

#[path = "../broker/gate.rs"]
#[allow(dead_code, reason = "the tests of the broker use the rest")]
mod gate;
mod lost;
mod refused;
#[path = "../broker/support.rs"]
#[allow(dead_code, reason = "the tests of the broker use the rest")]
mod support;

use std::sync::Arc;

use millstream_broker::{
    Broker, BrokerError,
    rebuild::{OnGap, RebuildReport, RebuildSettings, rebuild},
};
use millstream_meta::Metadata;
use support::World;

/// An empty database in the place of the lost one.
async fn another_database(world: &World) -> Metadata {
    let file = world.dir.path().join("another.db");
    Metadata::open(&format!("sqlite:{}", file.display())).await.unwrap()
}

fn settings(world: &World) -> RebuildSettings {
    use millstream_broker::Clock as _;
    RebuildSettings {
        dry_run: false,
        on_gap: OnGap::Refuse,
        now_ms: world.clock.now_ms(),
        agent_name: "test".to_owned(),
        database: uuid::Uuid::from_u128(0xda7a),
    }
}

async fn rebuilt(world: &World, settings: &RebuildSettings) -> Result<(Metadata, RebuildReport), BrokerError> {
    let metadata = another_database(world).await;
    let report = rebuild(&metadata, &world.store(), &world.wals(), settings, &|_| {}).await?;
    Ok((metadata, report))
}

/// The agent starts again, over the new database.
async fn reopened(world: &World, metadata: Metadata) -> Arc<Broker> {
    world.open_over(metadata, "test", "wal", |_| {}).await.unwrap()
}
