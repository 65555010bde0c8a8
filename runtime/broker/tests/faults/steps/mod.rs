//! Every fault at every step of the write path, followed by a crash and a new start.
//!
//! The steps, and where a test gets between them:
//!
//! | step | met at |
//! |---|---|
//! | 1 a frame is handed to the log | `Submit` |
//! | 2 it becomes durable | `Put` of a part of the log, or what a disk was handed last |
//! | 3 its producer is answered, readers see it | `Commit` |
//! | 4 a range of the tail becomes an object | `Put` of a segment |
//! | 5 the segment is committed | `Refusal::Segment`, and a crash between 5 and 6 |
//! | 6 the tail and the log let go of it | a crash between 5 and 6 |
//! | 7 the log is trimmed | `Refusal::TrimFloor`, `Trim`, `Delete` of a part of the log |
//! | 8 segments are merged, expired, deleted | `Refusal::Deletion`, `Get` and `Delete` of a segment |
//! | 9 a stop flushes, closes and removes the log | `Close`, `Refusal::Retirement`, `Remove` |
//! | 10 a start seals, reads and copies a log, moves pointers, removes it | `Create`, `Seal`, `Replay`, `Refusal::Lease`, `Refusal::Pointer`, `Remove` |
//!
//! Between the answer to a producer and the batch's place among the readers' there is no crash: both happen at once.

mod disk;
mod recovery;
mod writing;

use std::sync::Arc;
use std::time::Duration;

use millstream_broker::{Acks, Broker, TopicConfig, WalKind};

use crate::control::{Fault, Point};
use crate::ledger::{Books, check_segments};
use crate::world::{Agent, TOPIC, World};

const KINDS: [WalKind; 2] = [WalKind::Disk, WalKind::Object];

const FAULTS: [Fault; 6] = [
    Fault::Fail,
    Fault::LoseAnswer,
    Fault::Twice,
    Fault::Hold,
    Fault::HoldAnswer,
    Fault::Late,
];

/// When the agent dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    /// Right when the fault happens.
    AtFault,
    /// Once it has done what it could in spite of the fault.
    Later,
}

/// A topic that makes small segments, merges them and lets them go after a minute.
fn config() -> TopicConfig {
    TopicConfig {
        segment_bytes: 4_000,
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

/// What an agent does all day; whatever fails is left at that.
async fn work(broker: Arc<Broker>, books: Arc<Books>) {
    for _ in 0..2 {
        for (partition, acks) in [(0, Acks::Durable), (1, Acks::Memory), (1, Acks::Durable)] {
            let _ = books.produce(&broker, TOPIC, partition, 5, acks).await;
        }
        let _ = broker.topic(TOPIC, true).await;
        let _ = broker.sweep().await;
    }
}

/// A topic with a few segments and a tail in both partitions, all acknowledged: the first two segments are due to expire,
/// those behind them are due to be merged, and there is a part of the log that nobody needs.
fn prepare(agent: &Agent, books: &Books, world: &World) {
    for round in 0..7 {
        for _ in 0..6 {
            for partition in 0..2 {
                agent
                    .run(books.produce(agent.broker(), TOPIC, partition, 2, Acks::Durable))
                    .unwrap();
            }
        }
        if round < 6 {
            agent.flush(TOPIC);
        }
        if round == 1 {
            world.clock.advance(Duration::from_secs(50));
        }
    }
    world.clock.advance(Duration::from_secs(15));
}

/// A new agent, to which nothing happens, finds everything, goes on, stops, and the next one finds it again.
fn check_after_crash(world: &World, books: &Books, kind: WalKind) {
    books.crashed();
    let agent = world.open(kind);
    books.check(&agent, TOPIC);
    for partition in 0..2 {
        agent
            .run(books.produce(agent.broker(), TOPIC, partition, 5, Acks::Durable))
            .unwrap();
    }
    agent.flush(TOPIC);
    agent.run(agent.broker().sweep()).unwrap();
    books.check(&agent, TOPIC);
    check_segments(world);
    agent.stop();
    check_segments(world);
    let agent = world.open(kind);
    books.check(&agent, TOPIC);
}

/// One fault while an agent works.
fn break_while_working(kind: WalKind, point: Point, part: &str, fault: Fault, death: Death) {
    println!("{kind:?}: {fault:?} at {point:?} of {part:?}, death {death:?}");
    let (world, books) = (world(), Arc::new(Books::default()));
    let agent = world.open_with_topic(kind, config());
    prepare(&agent, &books, &world);
    agent.control.ask(point, part, fault, 1);
    let mut working = agent.spawn(work(agent.broker().clone(), books.clone()));
    agent.run(async {
        tokio::select! {
            () = agent.control.wait_met(1) => {}
            _ = &mut working => panic!("nothing came by {point:?}"),
        }
    });
    if death == Death::Later {
        agent.control.heal();
        if fault != Fault::Late {
            agent.run(working).unwrap_or_default();
            books.check(&agent, TOPIC);
        }
    }
    let control = agent.control.clone();
    agent.crash();
    // What was on its way arrives before the next start, or when that has begun its work.
    if death == Death::AtFault {
        world.look(async |_, _| control.deliver().await);
    }
    check_after_crash(&world, &books, kind);
    world.look(async |_, _| control.deliver().await);
    check_after_crash(&world, &books, kind);
}
