//! Does the steps to a broker and holds each answer against what is known.

use std::time::Duration;

use futures::future::join_all;
use millstream_batch::Offset;
use millstream_broker::{Acks, Clock, Kind, TopicChange, TopicConfig, WalKind};

use super::step::{BatchShape, Step};
use crate::control::Point;
use crate::ledger::{Books, check_segments};
use crate::records::{batch_of, fetch, timestamp_of};
use crate::world::{Agent, TOPIC, World};

/// Does the steps one after the other, in a world of their own.
pub fn run(steps: &[Step]) {
    let mut case = Case::new();
    for step in steps {
        case.step(step);
    }
    case.check();
    case.step(&Step::Crash { next: WalKind::Disk });
    case.step(&Step::Stop { next: WalKind::Object });
}

struct Case {
    world: World,
    agent: Option<Agent>,
    books: Books,
    retention_ms: Option<u64>,
    retention_bytes: Option<u64>,
}

impl Case {
    fn new() -> Case {
        let mut world = World::new();
        // Bounds that are met all the time.
        world.settings.segment_entries_max = 4;
        world.settings.index_cache_bytes = 20_000;
        world.settings.block_cache_bytes = 30_000;
        world.settings.tail_bytes_max = 60_000;
        let agent = world.open_with_topic(WalKind::Disk, config());
        let TopicConfig {
            retention_ms,
            retention_bytes,
            ..
        } = config();
        Case {
            world,
            agent: Some(agent),
            books: Books::default(),
            retention_ms,
            retention_bytes,
        }
    }

    fn agent(&self) -> &Agent {
        self.agent.as_ref().expect("there is one between two steps")
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Produce { partition, batch, acks } => self.produce(*partition, std::slice::from_ref(batch), *acks),
            Step::Burst { partition, batches } => self.produce(*partition, batches, Acks::Durable),
            Step::Flush => self.agent().flush(TOPIC),
            Step::Sweep => self.sweep(),
            Step::Advance { seconds } => self.world.clock.advance(Duration::from_secs(*seconds)),
            Step::Truncate { partition, place } => self.truncate(*partition, *place),
            Step::Retain { ms, bytes } => self.retain(*ms, *bytes),
            Step::Resize {
                segment_bytes,
                compression,
            } => self.alter(TopicChange {
                segment_bytes: Some(*segment_bytes),
                compression: Some(*compression),
                ..TopicChange::default()
            }),
            Step::Read {
                partition,
                place,
                bytes_max,
            } => self.read(*partition, *place, *bytes_max),
            Step::ReadEnd { partition } => self.read_end(*partition),
            Step::ReadAt { partition, place } => self.read_at(*partition, *place),
            Step::BreakStore { point, fault } => self.agent().control.ask(*point, "", *fault, 1),
            Step::BreakLog { fault } => {
                self.agent().control.ask(Point::Commit, "", *fault, 1);
                // What was acknowledged from memory may be lost without a word.
                self.books.crashed();
            }
            Step::Recreate => self.recreate(),
            Step::Crash { next } => {
                self.agent.take().expect("there is one between two steps").crash();
                self.books.crashed();
                self.open(*next);
            }
            Step::Stop { next } => {
                self.agent().control.heal();
                self.agent.take().expect("there is one between two steps").stop();
                self.books.crashed();
                self.open(*next);
            }
        }
    }

    fn open(&mut self, kind: WalKind) {
        check_segments(&self.world);
        self.agent = Some(self.world.open(kind));
        self.check();
    }

    fn check(&self) {
        self.agent().control.heal();
        self.books.check(self.agent(), TOPIC);
    }

    fn produce(&self, partition: u32, batches: &[BatchShape], acks: Acks) {
        let send = |shape: &BatchShape| {
            let values = self.books.take_values(shape.records);
            self.books.ledger(partition, |ledger| ledger.sending(values.clone()));
            let encoded = batch_of(values.clone(), shape.padding, shape.compression);
            async {
                (
                    values,
                    self.agent().broker().produce(TOPIC, partition, encoded, acks).await,
                )
            }
        };
        let results = self.agent().run(join_all(batches.iter().map(send)));
        let results = results.iter().map(|(values, result)| (values.clone(), result));
        let errors = results.clone().filter_map(|(_, result)| result.as_ref().err());
        self.books.note(partition, results.clone().collect(), acks);
        for error in errors {
            // It may have stood behind a batch that was acknowledged from memory and failed.
            let broke = self.agent().control.met() > 0;
            assert!(
                error.kind() == Kind::Exhausted || broke,
                "nothing happened, but: {error}"
            );
        }
    }

    fn offsets(&self, partition: u32) -> (u64, u64) {
        let (start, end) = self
            .agent()
            .run(self.agent().broker().offsets(TOPIC, partition))
            .unwrap();
        self.books.ledger(partition, |ledger| {
            assert!(start.0 >= ledger.log_start, "the log start went back");
            assert!(end.0 >= ledger.durable_end(), "the log ends at {end}");
        });
        (start.0, end.0)
    }

    fn sweep(&self) {
        let met = self.agent().control.met();
        let before: Vec<u64> = (0..2).map(|partition| self.offsets(partition).0).collect();
        let swept = self.agent().run(self.agent().broker().sweep());
        assert!(swept.is_ok() || self.agent().control.met() > met, "{swept:?}");
        let now_ms = self.world.clock.now_ms();
        for (partition, before) in (0..).zip(before) {
            let (start, _) = self.offsets(partition);
            let old_before_ms = self.retention_ms.map_or(i64::MIN, |ms| now_ms - ms as i64);
            let young = self.books.ledger(partition, |ledger| {
                let mut taken = ledger.known.range(before..start);
                taken.any(|(_, known)| known.appended_ms >= old_before_ms)
            });
            // How many bytes are left says nothing: merging comes after retention, and makes less of them.
            let by_bytes = self.retention_bytes.is_some();
            assert!(by_bytes || !young, "retention took what was young");
            self.books.ledger(partition, |ledger| ledger.cut(start));
        }
    }

    fn truncate(&self, partition: u32, place: u64) {
        let (start, end) = self.offsets(partition);
        let before = start + (end - start) * place / 1_000;
        let broker = self.agent().broker();
        let cut = self.agent().run(broker.truncate(TOPIC, partition, Offset(before)));
        assert_eq!(cut.unwrap().0, before);
        self.books.ledger(partition, |ledger| ledger.cut(before));
    }

    fn retain(&mut self, ms: Option<u64>, bytes: Option<u64>) {
        self.alter(TopicChange {
            retention_ms: Some(ms),
            retention_bytes: Some(bytes),
            ..TopicChange::default()
        });
        (self.retention_ms, self.retention_bytes) = (ms, bytes);
    }

    fn alter(&self, change: TopicChange) {
        self.agent()
            .run(self.agent().broker().alter_topic(TOPIC, change))
            .unwrap();
    }

    fn read(&self, partition: u32, place: u64, bytes_max: usize) {
        let (start, end) = self.offsets(partition);
        let offset = start + (end - start) * place / 1_000;
        let met = self.agent().control.met();
        match self
            .agent()
            .run(fetch(self.agent().broker(), TOPIC, partition, offset, bytes_max))
        {
            Ok((_, found)) => self.books.ledger(partition, |ledger| ledger.check_some(&found)),
            Err(error) => assert!(self.agent().control.met() > met, "nothing happened, but: {error}"),
        }
    }

    fn read_end(&self, partition: u32) {
        let (_, end) = self.offsets(partition);
        let broker = self.agent().broker();
        let (fetched, found) = self.agent().run(fetch(broker, TOPIC, partition, end, 1_000)).unwrap();
        // What was acknowledged from memory may have come meanwhile.
        self.books.ledger(partition, |ledger| ledger.check_some(&found));
        assert!(fetched.next_offset.0 >= end);
        let beyond = self.agent().run(fetch(broker, TOPIC, partition, end + 100_000, 1_000));
        assert_eq!(beyond.unwrap_err().kind(), Kind::OutOfRange);
    }

    fn read_at(&self, partition: u32, place: u64) {
        let (start, _) = self.offsets(partition);
        let timestamp_ms = timestamp_of(0) + 86_400_000 * place as i64 / 1_000;
        let met = self.agent().control.met();
        let found = self
            .agent()
            .run(self.agent().broker().offset_at(TOPIC, partition, timestamp_ms));
        let found = match found {
            Ok(found) => found.map(|offset| offset.0),
            Err(error) => return assert!(self.agent().control.met() > met, "nothing happened, but: {error}"),
        };
        self.books.ledger(partition, |ledger| {
            let is_late = |value| timestamp_of(value) >= timestamp_ms;
            let mut durable = ledger.known.range(start..).filter(|(_, known)| known.durable);
            let first = durable
                .find(|(_, known)| is_late(known.value))
                .map(|(offset, _)| *offset);
            if let Some(first) = first {
                assert!(
                    found.is_some_and(|found| found <= first),
                    "{found:?} of {timestamp_ms}, but {first}"
                );
            }
            let known = found.and_then(|found| ledger.known.get(&found));
            assert!(
                known.is_none_or(|known| is_late(known.value)),
                "{found:?} is before {timestamp_ms}"
            );
        });
    }

    fn recreate(&mut self) {
        self.agent().run(self.agent().broker().delete_topic(TOPIC)).unwrap();
        self.agent().create_topic(TOPIC, config());
        let TopicConfig {
            retention_ms,
            retention_bytes,
            ..
        } = config();
        (self.retention_ms, self.retention_bytes) = (retention_ms, retention_bytes);
        self.books.forget();
        self.check();
    }
}

fn config() -> TopicConfig {
    TopicConfig {
        segment_bytes: 6_000,
        block_bytes: 1_000,
        retention_ms: Some(3_600_000),
        retention_bytes: None,
        ..TopicConfig::default()
    }
}
