//! The known faults of systems of this kind, each by its name.

mod dead_letters;
mod objects;
mod takeover;
mod writes;

use std::time::Duration;

use millstream_broker::{TopicConfig, WalKind};

use crate::ledger::{Books, check_segments};
use crate::world::{TOPIC, World};

const KINDS: [WalKind; 2] = [WalKind::Disk, WalKind::Object];

/// A topic that makes no segment unless it is told to.
fn config() -> TopicConfig {
    TopicConfig {
        block_bytes: 500,
        retention_ms: Some(60_000),
        ..TopicConfig::default()
    }
}

fn world() -> World {
    let mut world = World::new();
    world.settings.deletion_grace = Duration::ZERO;
    world
}

/// The next agent finds everything.
fn check_after_crash(world: &World, books: &Books, kind: WalKind) {
    books.crashed();
    let agent = world.open(kind);
    books.check(&agent, TOPIC);
    check_segments(world);
}
