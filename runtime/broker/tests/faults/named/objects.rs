//! Faults of what is stored: retention, deletion, names.

use std::time::Duration;

use millstream_batch::Offset;
use millstream_broker::Acks;

use super::{KINDS, config, world};
use crate::control::{Fault, Point};
use crate::ledger::{Books, check_segments, orphans};
use crate::world::TOPIC;

#[test]
fn a_log_line_of_2015_is_not_deleted_by_retention_on_arrival() {
    let (world, books) = (world(), Books::default());
    let agent = world.open_with_topic(KINDS[0], config());
    // Every record of these tests is of 2015.
    agent
        .run(books.produce(agent.broker(), TOPIC, 0, 50, Acks::Durable))
        .unwrap();
    agent.flush(TOPIC);
    world.clock.advance(Duration::from_secs(59));
    agent.run(agent.broker().sweep()).unwrap();
    assert_eq!(
        agent.run(agent.broker().offsets(TOPIC, 0)).unwrap(),
        (Offset(0), Offset(50))
    );
    books.check(&agent, TOPIC);
    // It is as old as its segment.
    world.clock.advance(Duration::from_secs(2));
    agent.run(agent.broker().sweep()).unwrap();
    assert_eq!(
        agent.run(agent.broker().offsets(TOPIC, 0)).unwrap(),
        (Offset(50), Offset(50))
    );
}

#[test]
fn a_topic_made_again_under_its_name_keeps_its_new_objects() {
    for kind in KINDS {
        let mut world = world();
        world.settings.deletion_grace = Duration::from_secs(30);
        let agent = world.open_with_topic(kind, config());
        let old = Books::default();
        agent
            .run(old.produce(agent.broker(), TOPIC, 0, 50, Acks::Durable))
            .unwrap();
        agent.flush(TOPIC);
        // One that nothing names lies under the old name too.
        agent.control.ask(Point::Put, "/seg_", Fault::LoseAnswer, 1);
        agent
            .run(old.produce(agent.broker(), TOPIC, 0, 50, Acks::Durable))
            .unwrap();
        agent.flush(TOPIC);
        agent.run(agent.broker().delete_topic(TOPIC)).unwrap();

        let books = Books::default();
        agent.create_topic(
            TOPIC,
            millstream_broker::TopicConfig {
                retention_ms: None,
                ..config()
            },
        );
        agent
            .run(books.produce(agent.broker(), TOPIC, 0, 50, Acks::Durable))
            .unwrap();
        agent.flush(TOPIC);
        for _ in 0..4 {
            world.clock.advance(Duration::from_secs(3_000));
            agent
                .run(books.produce(agent.broker(), TOPIC, 1, 5, Acks::Durable))
                .unwrap();
            agent.flush(TOPIC);
            agent.run(agent.broker().sweep()).unwrap();
            books.check(&agent, TOPIC);
            check_segments(&world);
        }
        let orphans = world.look(async |metadata, store| orphans(&metadata, &store).await);
        assert!(orphans.is_empty(), "{orphans:?} of the old topic");
        agent.crash();
        super::check_after_crash(&world, &books, kind);
    }
}

#[test]
fn records_are_not_replayed_into_a_topic_whose_name_begins_alike() {
    for kind in KINDS {
        let world = world();
        let agent = world.open(kind);
        let names = ["log", "log-2", "log.old", "lo", "log2"];
        let books = names.map(|_| Books::default());
        for (n, name) in names.iter().enumerate() {
            agent.create_topic(name, config());
            for partition in 0..2 {
                // So that none holds what another one does.
                books[n].take_values(1_000 * (n as u64 + 1));
                agent
                    .run(books[n].produce(agent.broker(), name, partition, 7, Acks::Durable))
                    .unwrap();
            }
            if n % 2 == 0 {
                agent.flush(name);
                agent
                    .run(books[n].produce(agent.broker(), name, 0, 7, Acks::Durable))
                    .unwrap();
            }
        }
        agent.crash();
        let agent = world.open(kind);
        for (n, name) in names.iter().enumerate() {
            books[n].check(&agent, name);
        }
        check_segments(&world);
    }
}

#[test]
fn no_object_that_an_upload_may_still_commit_is_collected() {
    let (world, books) = (world(), Books::default());
    let agent = world.open_with_topic(KINDS[0], config());
    agent
        .run(books.produce(agent.broker(), TOPIC, 0, 50, Acks::Durable))
        .unwrap();
    // The object is there, and its upload does not know yet.
    agent.control.ask(Point::Put, "/seg_", Fault::HoldAnswer, 1);
    let broker = agent.broker().clone();
    let flushing = agent.spawn(async move { broker.topic(TOPIC, true).await });
    agent.run(agent.control.wait_met(1));
    world.clock.advance(Duration::from_secs(24 * 3_600));
    agent.run(agent.broker().sweep()).unwrap();
    agent.control.heal();
    agent.run(flushing).unwrap().unwrap();
    check_segments(&world);
    books.check(&agent, TOPIC);
}

#[test]
fn an_orphan_is_collected_once_its_grace_is_over() {
    let (world, books) = (world(), Books::default());
    let agent = world.open_with_topic(KINDS[0], config());
    agent
        .run(books.produce(agent.broker(), TOPIC, 0, 50, Acks::Durable))
        .unwrap();
    agent.control.ask(Point::Put, "/seg_", Fault::LoseAnswer, 1);
    agent.flush(TOPIC);
    let orphans_now = || world.look(async |metadata, store| orphans(&metadata, &store).await.len());
    assert_eq!(orphans_now(), 1);
    agent.run(agent.broker().sweep()).unwrap();
    assert_eq!(orphans_now(), 1, "it is young");
    world.clock.advance(Duration::from_secs(3_601));
    agent
        .run(agent.broker().alter_topic(
            TOPIC,
            millstream_broker::TopicChange {
                retention_ms: Some(None),
                ..Default::default()
            },
        ))
        .unwrap();
    agent.run(agent.broker().sweep()).unwrap();
    assert_eq!(orphans_now(), 0);
    books.check(&agent, TOPIC);
    check_segments(&world);
}
