//! Step 10: an agent that is just taking over what another one left.

use std::sync::Arc;

use millstream_broker::WalKind;

use super::{FAULTS, KINDS, check_after_crash, config, prepare, world};
use crate::control::{Fault, Point};
use crate::ledger::Books;
use crate::sql::Refusal;

/// One fault while an agent starts. It dies right then, and the next one to start dies too.
fn break_while_starting(left: WalKind, kind: WalKind, point: Point, part: &str, fault: Fault) {
    println!("{left:?} to {kind:?}: {fault:?} at {point:?} of {part:?}");
    let (world, books) = (world(), Arc::new(Books::default()));
    let agent = world.open_with_topic(left, config());
    prepare(&agent, &books, &world);
    agent.crash();
    let mut late = Vec::new();
    for _ in 0..2 {
        let opening = world.opening(kind, |control| control.ask(point, part, fault, 1));
        late.push(opening.control());
        opening.crash_at(1);
    }
    check_after_crash(&world, &books, left);
    for control in late {
        world.look(async |_, _| control.deliver().await);
    }
    check_after_crash(&world, &books, kind);
}

fn every_fault(point: Point, part: &str, faults: &[Fault]) {
    for left in KINDS {
        for kind in KINDS {
            for fault in faults {
                break_while_starting(left, kind, point, part, *fault);
            }
        }
    }
}

#[test]
fn faults_of_making_a_log() {
    every_fault(
        Point::Create,
        "",
        &[Fault::Fail, Fault::LoseAnswer, Fault::Hold, Fault::HoldAnswer],
    );
}

#[test]
fn faults_of_sealing() {
    // A seal that arrives late is a put that does, see below.
    let faults = [
        Fault::Fail,
        Fault::LoseAnswer,
        Fault::Twice,
        Fault::Hold,
        Fault::HoldAnswer,
    ];
    every_fault(Point::Seal, "", &faults);
}

#[test]
fn faults_of_reading_a_log() {
    every_fault(Point::Replay, "", &[Fault::Fail, Fault::Hold, Fault::HoldAnswer]);
}

#[test]
fn faults_of_copying() {
    every_fault(Point::Submit, "", &[Fault::Fail, Fault::Hold, Fault::HoldAnswer]);
    every_fault(
        Point::Commit,
        "",
        &[Fault::Fail, Fault::LoseAnswer, Fault::Hold, Fault::HoldAnswer],
    );
}

#[test]
fn faults_of_the_store_while_a_log_is_taken_over() {
    for (left, kind) in [(WalKind::Object, WalKind::Object), (WalKind::Object, WalKind::Disk)] {
        for point in [Point::Put, Point::Get, Point::List] {
            for fault in FAULTS {
                break_while_starting(left, kind, point, "_wal", fault);
            }
        }
    }
}

#[test]
fn faults_of_removing_a_log() {
    every_fault(Point::Remove, "", &FAULTS);
    for fault in FAULTS {
        break_while_starting(WalKind::Object, WalKind::Disk, Point::Delete, "_wal/", fault);
    }
}

#[test]
fn a_database_that_refuses_a_start() {
    for left in KINDS {
        for kind in KINDS {
            for refusal in [Refusal::Lease, Refusal::Pointer, Refusal::Retirement] {
                println!("{left:?} to {kind:?}: {refusal:?}");
                let (world, books) = (world(), Arc::new(Books::default()));
                let agent = world.open_with_topic(left, config());
                prepare(&agent, &books, &world);
                agent.crash();
                for _ in 0..2 {
                    world.refuse(refusal);
                    assert!(
                        world.opening(kind, |_| {}).opened().is_err(),
                        "it starts in spite of {refusal:?}"
                    );
                    world.relent();
                }
                check_after_crash(&world, &books, kind);
            }
        }
    }
}

#[test]
fn crash_after_crash_in_the_middle_of_a_start() {
    for kind in KINDS {
        let (world, books) = (world(), Arc::new(Books::default()));
        let agent = world.open_with_topic(kind, config());
        prepare(&agent, &books, &world);
        agent.crash();
        // Each start dies one commit later, until one has them all.
        for count in 1..=4 {
            let opening = world.opening(kind, |control| {
                control.ask(Point::Commit, "", Fault::Twice, count - 1);
                control.ask(Point::Commit, "", Fault::HoldAnswer, 1);
            });
            opening.crash_at(count);
        }
        check_after_crash(&world, &books, kind);
    }
}
