//! Faults between an agent that is still there, or whose requests are, and the one that took over.

use std::sync::Arc;
use std::time::Duration;

use millstream_broker::{Acks, Kind, WalKind};

use super::{KINDS, check_after_crash, config, world};
use crate::control::{Fault, Point};
use crate::ledger::{Books, check_segments};
use crate::world::TOPIC;

#[test]
fn a_stale_writer_does_not_overwrite_the_winners_object() {
    for part in ["_wal/", "/seg_"] {
        let (world, books) = (world(), Arc::new(Books::default()));
        let stale = world.open_with_topic(WalKind::Object, config());
        stale
            .run(books.produce(stale.broker(), TOPIC, 0, 10, Acks::Durable))
            .unwrap();
        // Its last put is still on its way when it dies.
        stale.control.ask(Point::Put, part, Fault::Late, 1);
        let (broker, book) = (stale.broker().clone(), books.clone());
        stale.spawn(async move {
            let _ = book.produce(&broker, TOPIC, 0, 10, Acks::Durable).await;
            let _ = broker.topic(TOPIC, true).await;
        });
        stale.run(stale.control.wait_met(1));
        let control = stale.control.clone();
        stale.crash();
        books.crashed();

        let winner = world.open(WalKind::Object);
        books.check(&winner, TOPIC);
        winner
            .run(books.produce(winner.broker(), TOPIC, 0, 10, Acks::Durable))
            .unwrap();
        winner.flush(TOPIC);
        assert_eq!(world.look(async |_, _| control.deliver().await), 1);
        winner
            .run(books.produce(winner.broker(), TOPIC, 0, 10, Acks::Durable))
            .unwrap();
        books.check(&winner, TOPIC);
        check_segments(&world);
        winner.crash();
        check_after_crash(&world, &books, WalKind::Object);
    }
}

#[test]
fn an_agent_whose_log_was_sealed_acknowledges_nothing_and_takes_nothing_back() {
    let (world, books) = (world(), Books::default());
    let old = world.open_with_topic(WalKind::Object, config());
    old.run(books.produce(old.broker(), TOPIC, 0, 10, Acks::Durable))
        .unwrap();
    let new = world.open(WalKind::Object);
    new.run(books.produce(new.broker(), TOPIC, 0, 10, Acks::Durable))
        .unwrap();
    for _ in 0..3 {
        for acks in [Acks::Durable, Acks::Memory] {
            let refused = old.run(Books::default().produce(old.broker(), TOPIC, 0, 10, acks));
            // What is acknowledged from memory may be lost with the agent; here it is.
            if acks == Acks::Durable {
                assert_ne!(refused.unwrap_err().kind(), Kind::Internal);
            }
        }
        new.run(books.produce(new.broker(), TOPIC, 0, 10, Acks::Durable))
            .unwrap();
    }
    assert!(old.broker().failure().borrow().is_some(), "the process is told to end");
    new.flush(TOPIC);
    books.check(&new, TOPIC);
    check_segments(&world);
    old.crash();
    new.run(books.produce(new.broker(), TOPIC, 0, 10, Acks::Durable))
        .unwrap();
    new.crash();
    check_after_crash(&world, &books, WalKind::Object);
}

#[test]
fn a_log_is_not_deleted_while_it_is_being_copied_from() {
    for left in KINDS {
        let (world, books) = (world(), Books::default());
        let agent = world.open_with_topic(left, config());
        for partition in 0..2 {
            agent
                .run(books.produce(agent.broker(), TOPIC, partition, 10, Acks::Durable))
                .unwrap();
        }
        agent.crash();
        for point in [Point::Replay, Point::Submit, Point::Commit] {
            let copying = world.opening(WalKind::Object, |control| control.ask(point, "", Fault::HoldAnswer, 1));
            let control = copying.control();
            copying.run(control.wait_met(1));
            // Another one comes meanwhile, takes over, and deletes the logs that nothing needs any more.
            let winner = world.open(WalKind::Object);
            winner
                .run(books.produce(winner.broker(), TOPIC, 0, 10, Acks::Durable))
                .unwrap();
            winner.run(winner.broker().sweep()).unwrap();
            control.heal();
            // The one that is too slow may take over in its turn, or give up; it never serves half of a log.
            match copying.opened() {
                Ok(late) => {
                    books.check(&late, TOPIC);
                    late.run(books.produce(late.broker(), TOPIC, 0, 10, Acks::Durable))
                        .unwrap();
                    late.crash();
                }
                Err(error) => println!("{error}"),
            }
            winner.crash();
            books.crashed();
            let next = world.open(left);
            books.check(&next, TOPIC);
            next.run(books.produce(next.broker(), TOPIC, 1, 10, Acks::Durable))
                .unwrap();
            next.crash();
        }
        check_after_crash(&world, &books, left);
    }
}

#[test]
fn a_stop_ends_in_time_though_the_store_is_down() {
    for kind in KINDS {
        let (mut world, books) = (world(), Books::default());
        world.settings.stop_timeout = Duration::from_millis(500);
        let agent = world.open_with_topic(kind, config());
        agent
            .run(books.produce(agent.broker(), TOPIC, 0, 10, Acks::Durable))
            .unwrap();
        agent.control.ask(Point::Put, "", Fault::Fail, usize::MAX);
        agent
            .run(books.produce(agent.broker(), TOPIC, 0, 10, Acks::Memory))
            .unwrap();
        agent.stop();
        check_after_crash(&world, &books, kind);
    }
}
