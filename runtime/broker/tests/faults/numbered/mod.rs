//! Idempotent producers, and modules that drop every record, whole batches, some records, or make two of each: whatever
//! breaks, what was kept is there once, and every batch that comes again is answered as it was.

mod checkpoint;
mod producer;

use std::sync::Arc;

use bytes::Bytes;
use millstream_broker::{Broker, OnError, Side, TopicConfig, WalKind};
use producer::Producer;

use crate::control::{Fault, Point};
use crate::ledger::check_segments;
use crate::modules::{HALVES, bind, deploy, drops_where_it_says, module};
use crate::records::read_all;
use crate::sql::Refusal;
use crate::world::{Agent, TOPIC, World};

const KINDS: [WalKind; 2] = [WalKind::Disk, WalKind::Object];

/// What the topic's module does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Plain,
    DropsAll,
    DropsBatches,
    Halves,
    Doubles,
}

const SHAPES: [Shape; 5] = [
    Shape::Plain,
    Shape::DropsAll,
    Shape::DropsBatches,
    Shape::Halves,
    Shape::Doubles,
];

impl Shape {
    fn module(self) -> Option<Bytes> {
        match self {
            Shape::Plain => None,
            Shape::DropsAll => Some(drops_where_it_says("any-")),
            Shape::DropsBatches => Some(drops_where_it_says("drop")),
            Shape::Halves => Some(module(HALVES)),
            Shape::Doubles => Some(twice()),
        }
    }
}

/// Makes two of each record of less than 64 bytes, of a batch of up to a thousand.
fn twice() -> Bytes {
    module(
        r#"(local $p i32) (local $bytes i32) (local $n i32) (local $to i32)
    (local.set $p (local.get $ptr)) (local.set $to (i32.const 8192))
    (block $end (loop $records
      (br_if $end (i32.ge_u (local.get $n) (local.get $count)))
      (local.set $bytes (i32.add (i32.const 1) (i32.shr_u (i32.load8_u (local.get $p)) (i32.const 1))))
      (memory.copy (local.get $to) (local.get $p) (local.get $bytes))
      (local.set $to (i32.add (local.get $to) (local.get $bytes)))
      (memory.copy (local.get $to) (local.get $p) (local.get $bytes))
      (local.set $to (i32.add (local.get $to) (local.get $bytes)))
      (i32.store (i32.add (i32.const 4096) (i32.shl (local.get $n) (i32.const 2))) (i32.const 2))
      (local.set $p (i32.add (local.get $p) (local.get $bytes)))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br $records)))
    (call $rewrite (i32.const 4096) (local.get $count) (i32.const 8192) (i32.sub (local.get $to) (i32.const 8192)))"#,
    )
}

/// When the agent dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    AtFault,
    Later,
}

/// A world with a topic, and two producers of each of its partitions.
struct Case {
    world: World,
    producers: Vec<Producer>,
}

impl Case {
    /// Small segments, which are merged, and a log of which parts are not needed any more.
    fn new(kind: WalKind, shape: Shape) -> (Case, Agent) {
        let world = World::new();
        let config = TopicConfig {
            segment_bytes: 2_000,
            block_bytes: 500,
            retention_ms: None,
            ..TopicConfig::default()
        };
        let agent = world.open_with_topic(kind, config);
        if let Some(module) = shape.module() {
            agent.run(async {
                let broker = agent.broker();
                deploy(broker, "m", module).await;
                bind(broker, TOPIC, Side::Produce, "m", OnError::Reject).await.unwrap();
            });
        }
        let producers = [(1, 0), (2, 0), (3, 1), (4, 1)];
        let producers = producers
            .map(|(id, partition)| Producer::new(id, partition, shape))
            .to_vec();
        let case = Case { world, producers };
        for round in 0..4 {
            agent.run(send_all(agent.broker(), &case.producers, 2)).unwrap();
            if round != 2 {
                agent.flush(TOPIC);
            }
        }
        (case, agent)
    }

    fn check(&self, agent: &Agent) {
        agent.run(async {
            let broker = agent.broker();
            for producer in &self.producers {
                producer.send_again(broker).await;
            }
            for partition in 0..2 {
                let contents = read_all(broker, TOPIC, partition, 10_000).await;
                let found: Vec<_> = contents
                    .records
                    .iter()
                    .map(|found| (found.offset, found.value))
                    .collect();
                let own = self.producers.iter().filter(|producer| producer.partition == partition);
                let count: usize = own.map(|producer| producer.check(&found)).sum();
                assert_eq!(count, found.len(), "records that nobody has sent");
            }
        });
        check_segments(&self.world);
    }

    /// New agents, to which nothing happens, find everything and go on: after a crash, after a graceful stop, and again.
    fn check_after_crash(&self, kind: WalKind) {
        let agent = self.world.open(kind);
        // What was not answered comes again.
        agent.run(send_all(agent.broker(), &self.producers, 1)).unwrap();
        self.check(&agent);
        agent.run(send_all(agent.broker(), &self.producers, 2)).unwrap();
        self.check(&agent);
        agent.stop();
        let agent = self.world.open(kind);
        self.check(&agent);
        agent.run(send_all(agent.broker(), &self.producers, 1)).unwrap();
        agent.crash();
        let agent = self.world.open(kind);
        self.check(&agent);
        agent.crash();
    }
}

async fn send_all(broker: &Arc<Broker>, producers: &[Producer], times: usize) -> millstream_broker::Result<()> {
    for _ in 0..times {
        for producer in producers {
            producer.send(broker).await?;
        }
    }
    Ok(())
}

/// What an agent does all day; what fails is sent again.
async fn work(broker: Arc<Broker>, producers: Vec<Producer>) {
    for _ in 0..3 {
        for _ in 0..2 {
            let _ = send_all(&broker, &producers, 1).await;
        }
        let _ = broker.topic(TOPIC, true).await;
        let _ = broker.sweep().await;
    }
}

fn break_while_working(kind: WalKind, shape: Shape, point: Point, part: &str, fault: Fault, death: Death) {
    println!("{kind:?}, {shape:?}: {fault:?} at {point:?} of {part:?}, death {death:?}");
    let (case, agent) = Case::new(kind, shape);
    agent.control.ask(point, part, fault, 1);
    let mut working = agent.spawn(work(agent.broker().clone(), case.producers.clone()));
    let met = agent.run(async {
        tokio::select! {
            () = agent.control.wait_met(1) => true,
            _ = &mut working => false,
        }
    });
    // Of a topic that keeps nothing there are no segments.
    assert!(met || shape == Shape::DropsAll, "nothing came by {point:?}");
    if met && death == Death::Later {
        agent.control.heal();
        if fault != Fault::Late {
            agent.run(working).unwrap_or_default();
            // One that was not answered is there or not; sent again it is told which.
            let _ = agent.run(send_all(agent.broker(), &case.producers, 1));
            case.check(&agent);
        }
    }
    let control = agent.control.clone();
    agent.crash();
    case.world.look(async |_, _| control.deliver().await);
    case.check_after_crash(kind);
}

fn every_fault(kinds: &[WalKind], point: Point, part: &str, faults: &[Fault]) {
    for kind in kinds {
        for shape in SHAPES {
            for fault in faults {
                for death in [Death::AtFault, Death::Later] {
                    break_while_working(*kind, shape, point, part, *fault, death);
                }
            }
        }
    }
}

#[test]
fn faults_of_a_submit() {
    every_fault(
        &KINDS,
        Point::Submit,
        "",
        &[Fault::Fail, Fault::Hold, Fault::HoldAnswer],
    );
}

#[test]
fn faults_of_a_commit() {
    let faults = [Fault::Fail, Fault::LoseAnswer, Fault::Hold, Fault::HoldAnswer];
    every_fault(&KINDS, Point::Commit, "", &faults);
}

#[test]
fn faults_of_putting_a_part_of_the_log() {
    let faults = [Fault::Fail, Fault::LoseAnswer, Fault::HoldAnswer, Fault::Late];
    every_fault(&[WalKind::Object], Point::Put, "_wal/", &faults);
}

#[test]
fn faults_of_putting_a_segment() {
    let faults = [Fault::Fail, Fault::LoseAnswer, Fault::HoldAnswer];
    every_fault(&KINDS, Point::Put, "/seg_", &faults);
}

#[test]
fn faults_of_a_take_over() {
    let points = [Point::Seal, Point::Replay, Point::Submit, Point::Commit, Point::Remove];
    for (left, kind) in [
        (WalKind::Disk, WalKind::Object),
        (WalKind::Object, WalKind::Disk),
        (WalKind::Disk, WalKind::Disk),
    ] {
        for shape in SHAPES {
            for point in points {
                for fault in [Fault::Fail, Fault::HoldAnswer] {
                    println!("{left:?} to {kind:?}, {shape:?}: {fault:?} at {point:?}");
                    let (case, agent) = Case::new(left, shape);
                    agent.crash();
                    for _ in 0..2 {
                        case.world
                            .opening(kind, |control| control.ask(point, "", fault, 1))
                            .crash_at(1);
                    }
                    case.check_after_crash(kind);
                }
            }
        }
    }
}

#[test]
fn a_database_that_refuses() {
    for kind in KINDS {
        for shape in SHAPES {
            for refusal in [Refusal::Segment, Refusal::Lease, Refusal::Producers] {
                println!("{kind:?}, {shape:?}: {refusal:?}");
                let (case, agent) = Case::new(kind, shape);
                case.world.refuse(refusal);
                let broker = agent.broker().clone();
                // It is tried for ever, and what is acknowledged does not wait for it.
                let flushing = agent.spawn(async move { broker.topic(TOPIC, true).await.map(drop) });
                agent.run(send_all(agent.broker(), &case.producers, 4)).unwrap();
                case.check(&agent);
                drop(flushing);
                agent.crash();
                case.world.relent();
                case.check_after_crash(kind);
            }
        }
    }
}

/// Of batches of which no record was kept there is no segment: the log is let go of once the metadata have a checkpoint.
#[test]
fn a_log_of_which_nothing_was_kept_is_let_go_of() {
    let (mut case, agent) = Case::new(WalKind::Disk, Shape::DropsAll);
    agent.stop();
    case.world.settings.wal_bytes_max = 1;
    let agent = case.world.open(WalKind::Disk);
    let stored = |agent: &Agent| agent.broker().stats().wal.bytes_stored;
    // Files of the log have 64 KiB, and a frame a hundred bytes.
    agent.run(send_all(agent.broker(), &case.producers, 500)).unwrap();
    agent.run(async {
        while stored(&agent) > 2 * (64 << 10) {
            tokio::task::yield_now().await;
        }
    });
    case.check(&agent);
    agent.crash();
    case.check_after_crash(WalKind::Disk);
}

/// A frame of a greater epoch overrules those of a lesser one at its offset: what these told of dropped batches is written again.
#[test]
fn what_was_dropped_before_a_failed_append_is_known_after_a_crash() {
    for kind in KINDS {
        let (case, mut agent) = Case::new(kind, Shape::DropsBatches);
        for _ in 0..7 {
            for producer in &case.producers[..2] {
                agent.run(producer.send(agent.broker())).unwrap();
                agent.control.ask(Point::Commit, "", Fault::Fail, 1);
                let other = &case.producers[1];
                let failed = agent.run(other.send(agent.broker())).unwrap_err();
                assert!(failed.to_string().contains("not acknowledged"), "{failed}");
                agent.run(other.send(agent.broker())).unwrap();
                agent.crash();
                agent = case.world.open(kind);
                case.check(&agent);
            }
        }
    }
}

#[test]
fn a_batch_that_was_in_the_pipeline_while_the_one_before_it_failed_is_refused() {
    for kind in KINDS {
        let (case, agent) = Case::new(kind, Shape::Halves);
        let producer = &case.producers[0];
        let mut behind_refused = 0;
        for _ in 0..50 {
            agent.control.ask(Point::Commit, "", Fault::LoseAnswer, 1);
            let (first, second) = agent.run(producer.send_two(agent.broker()));
            assert!(first.is_err() && second.is_err(), "{first:?}, {second:?}");
            behind_refused += u32::from(second.unwrap_err().to_string().contains("sequence"));
            agent.run(async {
                producer.send(agent.broker()).await.unwrap();
                producer.send(agent.broker()).await.unwrap();
            });
        }
        println!("{kind:?}: {behind_refused} of 50 were refused for their sequence");
        case.check(&agent);
        agent.crash();
        case.check_after_crash(kind);
    }
}
