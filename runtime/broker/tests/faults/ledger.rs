//! What producers were told, held against what readers find and against what the database and the store say.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use millstream_batch::Offset;
use millstream_broker::{Acks, Broker, Kind, Receipt};
use millstream_log::Store;
use millstream_meta::Metadata;

use crate::records::{Contents, Found, batch, read_all, timestamp_of};
use crate::world::{Agent, World};

/// One record that a producer was answered for.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub value: u64,
    pub appended_ms: i64,
    /// Whether it must be there whatever happens: it was acknowledged as durable, or a reader has seen it.
    pub durable: bool,
}

/// One partition as its producers know it.
#[derive(Debug, Default)]
pub struct Ledger {
    /// By offset.
    pub known: BTreeMap<u64, Known>,
    /// Those whose producers got an error: each is there once or not at all.
    unacknowledged: HashSet<u64>,
    pub log_start: u64,
    /// Whether something happened that may have taken what was acknowledged from memory only.
    pub lossy: bool,
}

impl Ledger {
    fn end(&self) -> u64 {
        self.known
            .last_key_value()
            .map_or(self.log_start, |(offset, _)| offset + 1)
    }

    /// A producer sends these now: from here on they may come to be.
    pub fn sending(&mut self, values: Range<u64>) {
        self.unacknowledged.extend(values);
    }

    /// A producer was answered.
    pub fn acknowledged(&mut self, receipt: &Receipt, values: Range<u64>, acks: Acks) {
        let base = receipt.base_offset.0;
        assert_eq!(u64::from(receipt.record_count), values.end - values.start);
        for (offset, value) in (base..).zip(values) {
            self.unacknowledged.remove(&value);
            let known = Known {
                value,
                appended_ms: receipt.append_time_ms,
                durable: acks == Acks::Durable,
            };
            if let Some(before) = self.known.insert(offset, known) {
                let may_be_lost = self.lossy && !before.durable;
                assert!(may_be_lost, "offset {offset} was given to {before:?}, now to {known:?}");
                self.unacknowledged.insert(before.value);
                self.forget_beyond(offset);
            }
        }
        if acks == Acks::Durable {
            let before = self.known.range_mut(..base).rev();
            let memory_only = before.take_while(|(_, known)| !known.durable);
            memory_only.for_each(|(_, known)| known.durable = true);
        }
    }

    /// A producer was told that it failed: what it sent may still come to be.
    pub fn failed(&mut self) {
        self.lossy = true;
    }

    /// The agent died.
    pub fn crashed(&mut self) {
        self.lossy = true;
    }

    fn forget_beyond(&mut self, offset: u64) {
        let beyond = self.known.split_off(&(offset + 1));
        let durable = beyond.iter().find(|(_, known)| known.durable);
        assert!(durable.is_none(), "{durable:?} was lost");
        // The log may have it all the same, for the next agent to find.
        self.unacknowledged.extend(beyond.values().map(|known| known.value));
    }

    /// Holds what readers find against what producers were told, and learns from it; gives what retention has taken.
    pub fn check(&mut self, contents: &Contents) -> Vec<Known> {
        let Contents {
            log_start,
            high_watermark,
            records,
        } = contents;
        assert!(*log_start >= self.log_start, "the log start went back to {log_start}");
        let offsets: Vec<u64> = records.iter().map(|found| found.offset).collect();
        let expected: Vec<u64> = (*log_start..*high_watermark).collect();
        assert_eq!(offsets, expected, "offsets without a gap and none twice");
        for found in records {
            self.check_record(*found);
        }
        self.forget_missing(*high_watermark);
        self.lossy = false;
        self.log_start = *log_start;
        let left = self.known.split_off(log_start);
        std::mem::replace(&mut self.known, left).into_values().collect()
    }

    /// Holds what a reader found somewhere against what producers were told.
    pub fn check_some(&mut self, records: &[Found]) {
        records.iter().for_each(|found| self.check_record(*found));
    }

    /// The log begins at `log_start` now, because somebody asked for it.
    pub fn cut(&mut self, log_start: u64) {
        self.log_start = log_start;
        self.known = self.known.split_off(&log_start);
    }

    /// The end of what must be there whatever happens.
    pub fn durable_end(&self) -> u64 {
        let durable = self.known.iter().rev().find(|(_, known)| known.durable);
        durable.map_or(self.log_start, |(offset, _)| offset + 1)
    }

    fn check_record(&mut self, found: Found) {
        assert_eq!(found.timestamp_ms, timestamp_of(found.value), "{found:?}");
        match self.known.get_mut(&found.offset) {
            Some(known) if known.value == found.value => {
                known.durable = true;
            }
            Some(known) => {
                assert!(self.lossy && !known.durable, "{found:?} instead of {known:?}");
                let before = known.value;
                self.unacknowledged.insert(before);
                self.forget_beyond(found.offset);
                self.appear(found);
            }
            None => self.appear(found),
        }
    }

    /// A record that nobody was answered for.
    fn appear(&mut self, found: Found) {
        let was_sent = self.unacknowledged.remove(&found.value);
        let elsewhere = self.known.iter().find(|(_, known)| known.value == found.value);
        assert!(
            was_sent,
            "{found:?} was never sent, or is there twice: {elsewhere:?}, the log starts at {}",
            self.log_start
        );
        let known = Known {
            value: found.value,
            // When it was appended is not known.
            appended_ms: i64::MIN,
            durable: true,
        };
        self.known.insert(found.offset, known);
    }

    fn forget_missing(&mut self, high_watermark: u64) {
        let missing = self.known.split_off(&high_watermark);
        let lost = missing.iter().find(|(_, known)| known.durable || !self.lossy);
        assert!(
            lost.is_none(),
            "acknowledged {lost:?} is lost: the log ends at {high_watermark}"
        );
        self.unacknowledged.extend(missing.values().map(|known| known.value));
    }
}

/// The values of a batch, and what its producer was told.
pub type Produced<'a> = (Range<u64>, &'a millstream_broker::Result<Receipt>);

/// The ledgers of one topic's partitions, shared by all producers.
#[derive(Debug, Default)]
pub struct Books {
    ledgers: Mutex<BTreeMap<u32, Ledger>>,
    next_value: AtomicU64,
}

impl Books {
    /// Works on one partition's ledger.
    pub fn ledger<T>(&self, partition: u32, work: impl FnOnce(&mut Ledger) -> T) -> T {
        let mut ledgers = self.ledgers.lock().expect("a test that panicked is over");
        work(ledgers.entry(partition).or_default())
    }

    /// Numbers that no record had yet.
    pub fn take_values(&self, count: u64) -> Range<u64> {
        let first = self.next_value.fetch_add(count, Ordering::Relaxed);
        first..first + count
    }

    /// Produces records that can be told apart and notes what came of it.
    pub async fn produce(
        &self,
        broker: &Broker,
        topic: &str,
        partition: u32,
        count: u64,
        acks: Acks,
    ) -> millstream_broker::Result<Receipt> {
        let values = self.take_values(count);
        self.send(broker, topic, partition, values.clone(), batch(values, 40), acks)
            .await
    }

    /// Produces a batch of these values and notes what came of it.
    async fn send(
        &self,
        broker: &Broker,
        topic: &str,
        partition: u32,
        values: Range<u64>,
        batch: bytes::Bytes,
        acks: Acks,
    ) -> millstream_broker::Result<Receipt> {
        self.ledger(partition, |ledger| ledger.sending(values.clone()));
        let result = broker.produce(topic, partition, batch, acks).await;
        self.note(partition, vec![(values, &result)], acks);
        result
    }

    /// Notes what came of batches that were sent together, in whatever order they were answered.
    pub fn note(&self, partition: u32, results: Vec<Produced<'_>>, acks: Acks) {
        self.ledger(partition, |ledger| {
            let mut receipts = Vec::new();
            for (values, result) in results {
                match result {
                    Ok(receipt) => receipts.push((receipt, values)),
                    // There was no room for it, so it was not even tried.
                    Err(error) if error.kind() == Kind::Exhausted => {}
                    Err(_) => ledger.failed(),
                }
            }
            receipts.sort_by_key(|(receipt, _)| receipt.base_offset);
            for (receipt, values) in receipts {
                ledger.acknowledged(receipt, values, acks);
            }
        });
    }

    /// The agent died.
    pub fn crashed(&self) {
        (0..2).for_each(|partition| self.ledger(partition, Ledger::crashed));
    }

    /// What was acknowledged from memory is seen by readers a little later, if nothing broke.
    async fn wait_for_memory(&self, broker: &Broker, topic: &str, partition: u32) {
        loop {
            let (_, end) = broker.offsets(topic, partition).await.unwrap();
            let all = self.ledger(partition, |ledger| ledger.lossy || ledger.end() <= end.0);
            if all {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// The topic was deleted: what was in it is gone.
    pub fn forget(&self) {
        self.ledgers.lock().expect("a test that panicked is over").clear();
    }

    /// Reads everything back and holds it against what producers were told.
    pub fn check(&self, agent: &Agent, topic: &str) {
        for partition in 0..2 {
            agent.run(self.wait_for_memory(agent.broker(), topic, partition));
            let contents = agent.run(read_all(agent.broker(), topic, partition, 700));
            self.ledger(partition, |ledger| ledger.check(&contents));
        }
    }
}

/// Holds the database against the store: segments end to end from the log start to the committed end, an object behind
/// each, none of them to be deleted.
pub fn check_segments(world: &World) {
    world.look(async |metadata, store| {
        let objects = store.list_objects("").await.unwrap();
        let objects: HashMap<String, u64> = objects.into_iter().map(|found| (found.key, found.bytes)).collect();
        let doomed = metadata.pending_deletions(i64::MAX, u32::MAX).await.unwrap();
        let doomed: HashSet<String> = doomed.into_iter().collect();
        for topic in metadata.topics().await.unwrap() {
            for totals in metadata.partition_totals(topic.id).await.unwrap() {
                let rows = metadata
                    .segments(topic.id, totals.partition, Offset(0), u32::MAX)
                    .await
                    .unwrap();
                let place = format!("{}/{}", topic.name, totals.partition);
                let mut end = rows.first().map_or(totals.committed_end, |row| row.base_offset);
                assert!(end <= totals.log_start, "{place}: nothing holds {}", totals.log_start);
                for row in rows {
                    assert_eq!(row.base_offset, end, "{place}: a hole");
                    end = row.end_offset;
                    assert_eq!(objects.get(&row.key), Some(&row.stored_bytes), "{place}: {}", row.key);
                    assert!(!doomed.contains(&row.key), "{place}: {} is to be deleted", row.key);
                }
                assert_eq!(end, totals.committed_end, "{place}");
            }
        }
    });
}

/// The keys of the objects of segments that no row names.
pub async fn orphans(metadata: &Metadata, store: &Store) -> Vec<String> {
    let keys = store.list("").await.unwrap();
    let segments: Vec<String> = keys.into_iter().filter(|key| key.contains("/seg_")).collect();
    let named = metadata.named_keys(&segments).await.unwrap();
    segments.into_iter().filter(|key| !named.contains(key)).collect()
}
