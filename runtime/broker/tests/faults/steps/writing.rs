//! Steps 1 to 9: an agent at work.

use std::sync::Arc;

use millstream_broker::{Acks, WalKind};

use super::{Death, FAULTS, KINDS, break_while_working, check_after_crash, config, prepare, work, world};
use crate::control::{Fault, Point};
use crate::ledger::{Books, check_segments};
use crate::sql::Refusal;
use crate::world::TOPIC;

fn every_fault(kinds: &[WalKind], point: Point, part: &str, faults: &[Fault]) {
    for kind in kinds {
        for fault in faults {
            for death in [Death::AtFault, Death::Later] {
                break_while_working(*kind, point, part, *fault, death);
            }
        }
    }
}

#[test]
fn faults_of_a_submit() {
    // A log that takes a frame says so: there is no answer that could be lost, and none comes twice.
    let faults = [Fault::Fail, Fault::Hold, Fault::HoldAnswer];
    every_fault(&KINDS, Point::Submit, "", &faults);
}

#[test]
fn faults_of_a_commit() {
    let faults = [Fault::Fail, Fault::LoseAnswer, Fault::Hold, Fault::HoldAnswer];
    every_fault(&KINDS, Point::Commit, "", &faults);
}

#[test]
fn faults_of_putting_a_part_of_the_log() {
    every_fault(&[WalKind::Object], Point::Put, "_wal/", &FAULTS);
}

#[test]
fn faults_of_putting_a_segment() {
    every_fault(&KINDS, Point::Put, "/seg_", &FAULTS);
}

#[test]
fn faults_of_reading_a_segment_to_merge_it() {
    let faults = [Fault::Fail, Fault::LoseAnswer, Fault::Hold, Fault::HoldAnswer];
    every_fault(&[WalKind::Disk], Point::Get, "/seg_", &faults);
}

#[test]
fn faults_of_deleting_a_segment() {
    every_fault(&[WalKind::Disk], Point::Delete, "/seg_", &FAULTS);
}

#[test]
fn faults_of_trimming_the_log() {
    every_fault(&[WalKind::Object], Point::Trim, "", &FAULTS);
    every_fault(&[WalKind::Object], Point::Delete, "_wal/", &FAULTS);
}

#[test]
fn a_database_that_refuses() {
    for kind in KINDS {
        for refusal in [Refusal::Segment, Refusal::Deletion, Refusal::TrimFloor, Refusal::Lease] {
            println!("{kind:?}: {refusal:?}");
            let (world, books) = (world(), Arc::new(Books::default()));
            let agent = world.open_with_topic(kind, config());
            prepare(&agent, &books, &world);
            world.refuse(refusal);
            let working = agent.spawn(work(agent.broker().clone(), books.clone()));
            // A refused commit is tried again, so the work does not end; what is acknowledged does not wait for it.
            let acknowledged = async {
                for _ in 0..10 {
                    let produced = books.produce(agent.broker(), TOPIC, 0, 5, Acks::Durable).await;
                    produced.unwrap();
                }
            };
            agent.run(acknowledged);
            books.check(&agent, TOPIC);
            drop(working);
            agent.crash();
            world.relent();
            check_after_crash(&world, &books, kind);
        }
    }
}

#[test]
fn a_database_that_refuses_for_a_while_costs_nothing() {
    for kind in KINDS {
        let (world, books) = (world(), Arc::new(Books::default()));
        let agent = world.open_with_topic(kind, config());
        prepare(&agent, &books, &world);
        world.refuse(Refusal::Segment);
        let working = agent.spawn(work(agent.broker().clone(), books.clone()));
        // The object is there before its commit is tried.
        let segments = || {
            agent
                .control
                .seen(Point::Put)
                .into_iter()
                .filter(|key| key.contains("/seg_"))
                .count()
        };
        let before = segments();
        while segments() < before + 2 {
            std::thread::yield_now();
        }
        world.relent();
        agent.run(working).unwrap();
        books.check(&agent, TOPIC);
        check_segments(&world);
        agent.crash();
        check_after_crash(&world, &books, kind);
    }
}

#[test]
fn a_crash_right_after_a_segment_was_committed() {
    for kind in KINDS {
        let (world, books) = (world(), Arc::new(Books::default()));
        let agent = world.open_with_topic(kind, config());
        prepare(&agent, &books, &world);
        let working = agent.spawn(work(agent.broker().clone(), books.clone()));
        let before = agent.broker().stats().uploads_done;
        while agent.broker().stats().uploads_done == before {
            std::thread::yield_now();
        }
        drop(working);
        agent.crash();
        check_after_crash(&world, &books, kind);
    }
}

#[test]
fn a_crash_right_after_an_acknowledgement() {
    for kind in KINDS {
        for count in 1..=10 {
            let (world, books) = (world(), Books::default());
            let agent = world.open_with_topic(kind, config());
            for _ in 0..count {
                agent
                    .run(books.produce(agent.broker(), TOPIC, 0, 3, Acks::Durable))
                    .unwrap();
            }
            agent.crash();
            check_after_crash(&world, &books, kind);
        }
    }
}

#[test]
fn faults_of_a_stop() {
    for kind in KINDS {
        let points = [
            (Point::Close, ""),
            (Point::Remove, ""),
            (Point::Put, "/seg_"),
            (Point::Delete, "_wal/"),
        ];
        for (point, part) in points {
            for fault in FAULTS {
                println!("{kind:?}: {fault:?} at {point:?} of {part:?}");
                let (world, books) = (world(), Books::default());
                let agent = world.open_with_topic(kind, config());
                prepare(&agent, &books, &world);
                agent.control.ask(point, part, fault, 1);
                agent.run(async {
                    tokio::select! {
                        () = agent.control.wait_met(1) => {}
                        () = agent.broker().stop() => {}
                    }
                });
                let control = agent.control.clone();
                agent.crash();
                check_after_crash(&world, &books, kind);
                world.look(async |_, _| control.deliver().await);
                check_after_crash(&world, &books, kind);
            }
        }
        println!("{kind:?}: the log cannot be retired");
        let (world, books) = (world(), Books::default());
        let agent = world.open_with_topic(kind, config());
        prepare(&agent, &books, &world);
        world.refuse(Refusal::Retirement);
        agent.stop();
        world.relent();
        check_after_crash(&world, &books, kind);
    }
}
