//! A record that is in the log, but not known to be, while a checkpoint of the producers comes due.

use bytes::Bytes;
use millstream_batch::{BatchBuilder, Compression, Offset};
use millstream_broker::{Acks, OnError, Receipt, Side, TopicChange, TopicConfig, WalKind};

use super::KINDS;
use crate::control::{Fault, Point};
use crate::modules::{bind, deploy, drops_where_it_says};
use crate::records::{batch, read_all};
use crate::world::{Agent, TOPIC, World};

/// What fills the log until it begins another part.
const FILLER: &str = "filler";
/// Of these each record takes most of so many bytes, and all together more than three files of the log.
const FILLER_VALUES: std::ops::Range<u64> = 600..612;
const FILLER_BYTES: usize = 20 << 10;
const FILE_BYTES: u64 = 64 << 10;
/// Statements that the database is given after one more would have been.
const STATEMENTS: usize = 20;
/// The value of the record.
const VALUE: u64 = 5;

/// The batch of which no record is kept.
fn loose_batch() -> Bytes {
    let mut builder = BatchBuilder::new();
    builder.push(0, None, Some(b"1:drop"), [].into_iter());
    builder.build(Compression::None).with_producer(7, 0, 0).to_bytes()
}

fn produce_loose(agent: &Agent) -> Receipt {
    let produced = agent.broker().produce(TOPIC, 0, loose_batch(), Acks::Durable);
    agent.run(produced).unwrap()
}

/// Neither topic gets a segment by itself.
fn config() -> TopicConfig {
    TopicConfig {
        segment_age_ms: 24 * 3_600_000,
        retention_ms: None,
        ..TopicConfig::default()
    }
}

/// Writes to the log until it is in a later part than it was.
fn begin_another_part(agent: &Agent) {
    let stored = || agent.broker().stats().wal.bytes_stored;
    let enough = stored() + 2 * FILE_BYTES;
    for value in FILLER_VALUES {
        let batch = batch(value..value + 1, FILLER_BYTES);
        let produced = agent.broker().produce(FILLER, 0, batch, Acks::Memory);
        // Nobody is told yet of what is in the log: answers leave in order, and one is held.
        agent.run(produced).unwrap();
    }
    agent.run(async {
        while stored() < enough {
            tokio::task::yield_now().await;
        }
    });
}

/// The batch and the record end at the same offset: what the log needs for the one it needs for the other.
#[test]
fn a_record_on_its_way_into_the_log_while_a_checkpoint_is_due_is_kept() {
    for kind in KINDS {
        println!("{kind:?}");
        keeps_the_record(kind);
    }
}

fn keeps_the_record(kind: WalKind) {
    let world = World::new();
    let agent = world.open_with_topic(kind, config());
    agent.create_topic(FILLER, config());
    agent.run(async {
        deploy(agent.broker(), "m", drops_where_it_says("drop")).await;
        bind(agent.broker(), TOPIC, Side::Produce, "m", OnError::Reject)
            .await
            .unwrap();
    });
    let original = produce_loose(&agent);
    assert_eq!((original.record_count, original.dropped_count), (0, 1));

    // The log has the record, and its answer waits.
    agent.control.ask(Point::Commit, "/0", Fault::HoldAnswer, 1);
    let broker = agent.broker().clone();
    let producing = agent.spawn(async move {
        let record = batch(VALUE..VALUE + 1, 0);
        broker.produce(TOPIC, 0, record, Acks::Durable).await
    });
    agent.run(agent.control.wait_met(1));
    begin_another_part(&agent);

    // A checkpoint is due from now on, and of the record there is no segment.
    agent
        .control
        .ask(Point::Put, &format!("{TOPIC}/0/seg_"), Fault::Fail, usize::MAX);
    let at_once = TopicChange {
        segment_age_ms: Some(1),
        ..TopicChange::default()
    };
    agent.run(agent.broker().alter_topic(TOPIC, at_once)).unwrap();
    for n in 0..STATEMENTS {
        // One that was made would be in the database before these.
        agent.create_topic(&format!("other-{n}"), config());
    }
    agent.control.open_gate();
    let produced = agent.run(producing).unwrap().unwrap();
    assert_eq!((produced.base_offset, produced.record_count), (Offset(0), 1));
    // Nothing but the record keeps the parts of the log.
    agent.flush(FILLER);
    agent.run(agent.broker().sweep()).unwrap();
    agent.crash();

    let agent = world.open(kind);
    let found = agent.run(read_all(agent.broker(), TOPIC, 0, 10_000)).records;
    let found: Vec<_> = found.iter().map(|found| (found.offset, found.value)).collect();
    assert_eq!(found, [(0, VALUE)], "it was acknowledged");
    let again = produce_loose(&agent);
    assert!(again.duplicate, "{again:?}");
    assert_eq!((again.record_count, again.dropped_count), (0, 1));
    agent.crash();
}
