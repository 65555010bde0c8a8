//! Faults on the way from an acknowledgement to a committed segment.

use std::sync::Arc;

use millstream_batch::Offset;
use millstream_broker::{Acks, TopicConfig};
use millstream_log::SegmentReader;
use millstream_meta::{Lease, NewSegment};

use super::{KINDS, check_after_crash, config, world};
use crate::control::{Fault, Point};
use crate::ledger::{Books, check_segments, orphans};
use crate::sql::Refusal;
use crate::world::{Agent, TOPIC, World};

fn segments_put(agent: &Agent) -> Vec<String> {
    let keys = agent.control.seen(Point::Put).into_iter();
    keys.filter(|key| key.contains("/seg_")).collect()
}

fn committed_end(world: &World, partition: usize) -> u64 {
    world.look(async |metadata, _| {
        let topic = metadata.topic(TOPIC).await.unwrap().unwrap();
        metadata.partition_totals(topic.id).await.unwrap()[partition]
            .committed_end
            .0
    })
}

#[test]
fn a_segment_taken_out_for_upload_is_not_lost_when_the_upload_fails() {
    for kind in KINDS {
        let (world, books) = (world(), Arc::new(Books::default()));
        let agent = world.open_with_topic(kind, config());
        agent.control.ask(Point::Put, "/seg_", Fault::Fail, 2);
        agent
            .run(books.produce(agent.broker(), TOPIC, 0, 50, Acks::Durable))
            .unwrap();
        let broker = agent.broker().clone();
        let flushing = agent.spawn(async move { broker.topic(TOPIC, true).await });
        // Readable while the upload fails, and after it came through.
        agent.run(agent.control.wait_met(1));
        books.check(&agent, TOPIC);
        agent.run(flushing).unwrap().unwrap();
        assert_eq!(committed_end(&world, 0), 50);
        books.check(&agent, TOPIC);

        // Never again: the next agent has it from the log.
        agent.control.ask(Point::Put, "/seg_", Fault::Fail, usize::MAX);
        agent
            .run(books.produce(agent.broker(), TOPIC, 0, 50, Acks::Durable))
            .unwrap();
        let broker = agent.broker().clone();
        agent.spawn(async move { broker.topic(TOPIC, true).await });
        agent.run(agent.control.wait_met(4));
        agent.crash();
        check_after_crash(&world, &books, kind);
    }
}

#[test]
fn a_log_is_not_trimmed_past_data_whose_upload_failed() {
    for kind in KINDS {
        let (world, books) = (world(), Arc::new(Books::default()));
        let small = TopicConfig {
            segment_bytes: 20_000,
            ..config()
        };
        let agent = world.open_with_topic(kind, small);
        agent.control.ask(Point::Put, "t/0/seg_", Fault::Fail, usize::MAX);
        // Partition 0 comes first, and stays behind; partition 1 gets into segments, in many parts of the log.
        agent
            .run(books.produce(agent.broker(), TOPIC, 0, 20, Acks::Durable))
            .unwrap();
        let broker = agent.broker().clone();
        agent.spawn(async move { broker.topic(TOPIC, true).await });
        agent.run(agent.control.wait_met(1));
        for _ in 0..200 {
            agent
                .run(books.produce(agent.broker(), TOPIC, 1, 40, Acks::Durable))
                .unwrap();
        }
        assert!(committed_end(&world, 1) > 4_000, "most of it is in segments");
        agent.run(agent.broker().sweep()).unwrap();
        agent.crash();
        check_after_crash(&world, &books, kind);
    }
}

#[test]
fn a_failed_append_gives_way_to_what_is_appended_after_it() {
    for kind in KINDS {
        for fault in [Fault::Fail, Fault::LoseAnswer] {
            let (world, books) = (world(), Books::default());
            let agent = world.open_with_topic(kind, config());
            let produce = |count| agent.run(books.produce(agent.broker(), TOPIC, 0, count, Acks::Durable));
            produce(5).unwrap();
            // The log has it all the same.
            agent.control.ask(Point::Commit, "", fault, 1);
            produce(7).unwrap_err();
            for count in [3, 2, 8] {
                produce(count).unwrap();
            }
            agent.crash();
            check_after_crash(&world, &books, kind);
        }
    }
}

#[test]
fn an_empty_flush_acknowledges_nothing() {
    for kind in KINDS {
        let (world, books) = (world(), Arc::new(Books::default()));
        let agent = world.open_with_topic(kind, config());
        agent.flush(TOPIC);
        agent.control.ask(Point::Commit, "", Fault::Hold, 1);
        let (broker, book) = (agent.broker().clone(), books.clone());
        let producing = agent.spawn(async move { book.produce(&broker, TOPIC, 0, 5, Acks::Durable).await });
        agent.run(agent.control.wait_met(1));
        let broker = agent.broker().clone();
        let flushing = agent.spawn(async move { broker.topic(TOPIC, true).await });
        // A flush of another partition comes and goes meanwhile.
        agent.run(async {
            books.produce(agent.broker(), "t", 1, 5, Acks::Memory).await.unwrap();
            agent.broker().truncate(TOPIC, 0, Offset(0)).await.unwrap();
        });
        assert!(
            !producing.is_finished() && !flushing.is_finished(),
            "nothing of it is durable"
        );
        assert_eq!(
            agent.run(agent.broker().offsets(TOPIC, 0)).unwrap(),
            (Offset(0), Offset(0))
        );
        agent.control.heal();
        agent.run(producing).unwrap().unwrap();
        agent.run(flushing).unwrap().unwrap();
        assert_eq!(committed_end(&world, 0), 5);
        agent.crash();
        check_after_crash(&world, &books, kind);
    }
}

#[test]
fn a_crash_between_commit_and_trim_makes_no_duplicates() {
    for kind in KINDS {
        let (world, books) = (world(), Books::default());
        let agent = world.open_with_topic(kind, config());
        for _ in 0..100 {
            agent
                .run(books.produce(agent.broker(), TOPIC, 0, 5, Acks::Durable))
                .unwrap();
        }
        agent.flush(TOPIC);
        agent
            .run(books.produce(agent.broker(), TOPIC, 0, 5, Acks::Durable))
            .unwrap();
        agent.crash();
        check_after_crash(&world, &books, kind);
    }
}

/// Commits, in the agent's name, the segment that it is trying to commit.
fn commit_for(world: &World, key: &str) {
    world.look(async |metadata, store| {
        let topic = metadata.topic(TOPIC).await.unwrap().unwrap();
        let listed = store.list_objects("").await.unwrap();
        let stored_bytes = listed.iter().find(|object| object.key == key).unwrap().bytes;
        let reader = SegmentReader::open(&store, key, stored_bytes, None).await.unwrap();
        let identity = reader.identity();
        let (base_offset, end_offset) = (identity.base_offset, reader.footer().end_offset);
        let lease = Lease {
            topic_id: topic.id,
            partition: identity.partition,
            epoch: identity.epoch,
            committed_end: base_offset,
            log_start: Offset(0),
            wal: None,
        };
        let segment = NewSegment {
            key: key.to_owned(),
            base_offset,
            end_offset,
            record_count: end_offset.0 - base_offset.0,
            raw_bytes: stored_bytes,
            stored_bytes,
            min_timestamp_ms: 0,
            max_timestamp_ms: i64::MAX,
            created_at_ms: identity.created_at_ms,
            etag: None,
        };
        metadata.commit_segment(&lease, &segment).await.unwrap();
    });
}

#[test]
fn a_commit_whose_answer_was_lost_is_not_made_twice() {
    for kind in KINDS {
        for crash in [false, true] {
            let (world, books) = (world(), Books::default());
            let agent = world.open_with_topic(kind, config());
            agent
                .run(books.produce(agent.broker(), TOPIC, 0, 50, Acks::Durable))
                .unwrap();
            world.refuse(Refusal::Segment);
            let broker = agent.broker().clone();
            let flushing = agent.spawn(async move { broker.topic(TOPIC, true).await });
            while segments_put(&agent).is_empty() {
                std::thread::yield_now();
            }
            // The commit happens; all that the agent hears is that it failed.
            world.relent();
            if committed_end(&world, 0) == 0 {
                commit_for(&world, &segments_put(&agent)[0]);
            }
            if crash {
                agent.crash();
            } else {
                agent.run(flushing).unwrap().unwrap();
                books.check(&agent, TOPIC);
                agent
                    .run(books.produce(agent.broker(), TOPIC, 0, 5, Acks::Durable))
                    .unwrap();
                agent.flush(TOPIC);
                agent.crash();
            }
            check_segments(&world);
            check_after_crash(&world, &books, kind);
        }
    }
}

#[test]
fn a_retried_create_does_not_take_its_own_object_for_a_rivals() {
    for kind in KINDS {
        let (world, books) = (world(), Books::default());
        let agent = world.open_with_topic(kind, config());
        agent.control.ask(Point::Put, "", Fault::Twice, usize::MAX);
        for _ in 0..5 {
            agent
                .run(books.produce(agent.broker(), TOPIC, 0, 5, Acks::Durable))
                .unwrap();
            agent.flush(TOPIC);
        }
        assert_eq!(agent.broker().failure().borrow().clone(), None);
        books.check(&agent, TOPIC);
        assert_eq!(segments_put(&agent).len(), 5);
        let orphans = world.look(async |metadata, store| orphans(&metadata, &store).await);
        assert!(orphans.is_empty(), "{orphans:?}");
        agent.crash();
        check_after_crash(&world, &books, kind);
    }
}
