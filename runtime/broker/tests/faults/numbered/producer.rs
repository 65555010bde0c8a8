//! An idempotent producer that sends every batch until it is answered, and remembers what it was told.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use millstream_batch::{BatchBuilder, Compression};
use millstream_broker::{Acks, Broker, Receipt, Result};

use super::Shape;
use crate::world::TOPIC;

/// Batches of a producer that a partition remembers.
const REMEMBERED: usize = 5;

/// Shared by the test and what it lets the agent do meanwhile.
#[derive(Clone)]
pub struct Producer {
    pub partition: u32,
    id: i64,
    shape: Shape,
    sent: Arc<Mutex<Vec<Sent>>>,
}

struct Sent {
    values: Range<u64>,
    sequence: i32,
    /// `None` as long as nobody has said what became of it.
    receipt: Option<Receipt>,
}

impl Producer {
    pub fn new(id: i64, partition: u32, shape: Shape) -> Producer {
        Producer {
            partition,
            id,
            shape,
            sent: Arc::default(),
        }
    }

    fn sent(&self) -> MutexGuard<'_, Vec<Sent>> {
        self.sent.lock().expect("a test that panicked is over")
    }

    fn batch(&self, sent: &Sent) -> Bytes {
        let mut builder = BatchBuilder::new();
        for value in sent.values.clone() {
            let text = format!("{value}:any-{}", if self.is_dropped(sent) { "drop" } else { "keep" });
            builder.push(0, None, Some(text.as_bytes()), [].into_iter());
        }
        let batch = builder.build(Compression::None);
        batch.with_producer(self.id, 0, sent.sequence).to_bytes()
    }

    /// Two of three batches are such that a module may drop them, so that some of these follow each other.
    fn is_dropped(&self, sent: &Sent) -> bool {
        !(sent.values.start / 4).is_multiple_of(3)
    }

    /// The values that are stored of a batch, in order.
    fn stored(&self, sent: &Sent) -> Vec<u64> {
        let values = sent.values.clone();
        match self.shape {
            Shape::Plain => values.collect(),
            Shape::DropsAll => Vec::new(),
            Shape::DropsBatches if self.is_dropped(sent) => Vec::new(),
            Shape::DropsBatches => values.collect(),
            Shape::Halves => values.step_by(2).collect(),
            Shape::Doubles => values.flat_map(|value| [value, value]).collect(),
        }
    }

    /// The batch that was not answered yet, or the next one.
    fn next(&self) -> (usize, Bytes) {
        let mut sent = self.sent();
        let open = sent.iter().position(|sent| sent.receipt.is_none());
        let at = open.unwrap_or_else(|| self.number(&mut sent));
        (at, self.batch(&sent[at]))
    }

    /// Makes one batch more.
    fn number(&self, sent: &mut Vec<Sent>) -> usize {
        let count = sent.len() as u64;
        let first = (self.id as u64) * 1_000_000 + count * 4;
        sent.push(Sent {
            values: first..first + 4,
            sequence: count as i32 * 4,
            receipt: None,
        });
        sent.len() - 1
    }

    /// Sends the batch that was not answered yet, or the next one.
    pub async fn send(&self, broker: &Broker) -> Result<()> {
        let (at, batch) = self.next();
        self.send_batch(broker, at, batch).await
    }

    /// Sends the next two without waiting for the first.
    pub async fn send_two(&self, broker: &Broker) -> (Result<()>, Result<()>) {
        let (first, batch) = self.next();
        let (second, behind) = {
            let mut sent = self.sent();
            let second = self.number(&mut sent);
            (second, self.batch(&sent[second]))
        };
        futures::join!(
            self.send_batch(broker, first, batch),
            self.send_batch(broker, second, behind)
        )
    }

    async fn send_batch(&self, broker: &Broker, at: usize, batch: Bytes) -> Result<()> {
        let receipt = broker.produce(TOPIC, self.partition, batch, Acks::Durable).await?;
        let mut sent = self.sent();
        let expected = self.stored(&sent[at]).len() as u32;
        assert_eq!(receipt.record_count, expected, "{receipt:?}");
        sent[at].receipt = Some(receipt);
        Ok(())
    }

    /// Sends the last batches once more: each is answered as it was.
    pub async fn send_again(&self, broker: &Broker) {
        let (count, again) = {
            let sent = self.sent();
            let answered = sent
                .iter()
                .filter_map(|sent| Some((self.batch(sent), sent.receipt.clone()?)));
            let answered: Vec<_> = answered.collect();
            (answered.len(), answered)
        };
        for (batch, original) in again.into_iter().skip(count.saturating_sub(REMEMBERED)) {
            let duplicate = broker
                .produce(TOPIC, self.partition, batch, Acks::Durable)
                .await
                .unwrap();
            let told = |receipt: &Receipt| {
                let Receipt {
                    base_offset,
                    record_count,
                    dropped_count,
                    results,
                    ..
                } = receipt.clone();
                (base_offset, record_count, dropped_count, results)
            };
            assert!(duplicate.duplicate, "{duplicate:?}");
            assert_eq!(told(&duplicate), told(&original));
        }
    }

    /// Holds what a partition holds against what was answered: everything that was kept is there, in order and once, where
    /// the answer said. Gives how many records are this producer's.
    pub fn check(&self, records: &[(u64, u64)]) -> usize {
        let sent = self.sent();
        let own = sent
            .first()
            .map_or(0..0, |first| first.values.start..first.values.start + 1_000_000);
        let found: Vec<u64> = records
            .iter()
            .map(|(_, value)| *value)
            .filter(|value| own.contains(value))
            .collect();
        let answered = sent.iter().filter(|sent| sent.receipt.is_some());
        let expected: Vec<u64> = answered.clone().flat_map(|sent| self.stored(sent)).collect();
        // One that was not answered may be there, or not.
        let open = sent
            .last()
            .filter(|sent| sent.receipt.is_none())
            .map(|sent| self.stored(sent));
        let with_open = open.map(|open| [expected.clone(), open].concat());
        assert!(
            found == expected || Some(&found) == with_open.as_ref(),
            "{found:?} instead of {expected:?}"
        );
        for sent in answered {
            let base = sent.receipt.as_ref().map_or(0, |receipt| receipt.base_offset.0);
            for (offset, value) in (base..).zip(self.stored(sent)) {
                let at = records.iter().find(|(found, _)| *found == offset);
                assert_eq!(at, Some(&(offset, value)));
            }
        }
        found.len()
    }
}
