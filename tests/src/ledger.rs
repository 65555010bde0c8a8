//! What producers were told, held against what readers find.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::watch;
use tonic::{Code, Status};

use crate::{Grpc, Random, record};

/// Records of one batch at most.
const RECORDS_MAX: u64 = 20;
/// What a record carries beside its name.
const FILL_BYTES: usize = 500;

/// A partition of a topic whose pipeline keeps every `step`th record of a batch, beginning with the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The topic.
    pub topic: &'static str,
    /// Its partition.
    pub partition: u32,
    /// 1 where there is no pipeline.
    pub step: usize,
}

/// One producer of numbered records, and everything that was acknowledged to it. It never sends a record twice.
#[derive(Debug)]
pub struct Producer {
    name: usize,
    place: Place,
    next: u64,
    random: Random,
    acked: Vec<Acked>,
    refused: u64,
}

/// An acknowledged batch: the numbers of the records that were stored, from `base_offset` on.
#[derive(Debug)]
struct Acked {
    base_offset: u64,
    stored: Vec<u64>,
}

impl Producer {
    /// A producer of that name, which no other has.
    pub fn new(name: usize, place: Place, random: Random) -> Producer {
        Producer {
            name,
            place,
            next: 0,
            random,
            acked: Vec::new(),
            refused: 0,
        }
    }

    /// Where it writes to.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Batches that were acknowledged.
    pub fn acked_batches(&self) -> usize {
        self.acked.len()
    }

    /// Records of them that were stored.
    pub fn acked_records(&self) -> usize {
        self.acked.iter().map(|acked| acked.stored.len()).sum()
    }

    /// Batches that were refused for want of room.
    pub fn refused_batches(&self) -> u64 {
        self.refused
    }

    /// Produces until the agent is gone; `acks` counts what is acknowledged.
    ///
    /// # Panics
    /// Where an agent that was not killed refuses a batch for any reason but want of room.
    pub async fn run(mut self, grpc: Grpc, acks: Arc<watch::Sender<u64>>, killed: Arc<AtomicBool>) -> Producer {
        loop {
            match self.produce(&grpc).await {
                Ok(acked) => {
                    self.acked.push(acked);
                    acks.send_modify(|acks| *acks += 1);
                }
                Err(status) if status.code() == Code::ResourceExhausted => {
                    self.refused += 1;
                    tokio::task::yield_now().await;
                }
                Err(status) => {
                    assert!(killed.load(Ordering::Acquire), "a living agent refused: {status}");
                    return self;
                }
            }
        }
    }

    async fn produce(&mut self, grpc: &Grpc) -> Result<Acked, Status> {
        let numbers: Vec<u64> = (self.next..)
            .take(self.random.within(1..RECORDS_MAX) as usize)
            .collect();
        self.next += numbers.len() as u64;
        let fill = "x".repeat(FILL_BYTES);
        let value = |number: &u64| record(format!("{} {number} {fill}", self.name));
        let records = numbers.iter().map(value).collect();
        let answer = grpc.produce(self.place.topic, self.place.partition, records).await?;

        let stored: Vec<u64> = numbers.iter().copied().step_by(self.place.step).collect();
        assert_eq!(answer.record_count as usize, stored.len());
        assert_eq!(answer.dropped_count as usize, numbers.len() - stored.len());
        Ok(Acked {
            base_offset: answer.base_offset,
            stored,
        })
    }
}

/// What was read of a partition, in the order of its offsets: who wrote it, and its number.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    records: Vec<(usize, u64)>,
    last_of: HashMap<usize, u64>,
}

impl Seen {
    /// Reads what is new. Each producer's numbers grow, so none is there twice and none out of order.
    ///
    /// # Panics
    /// Where there is a hole, or a record out of order.
    pub async fn read_on(&mut self, grpc: &Grpc, place: Place) {
        let Place { topic, partition, .. } = place;
        let from = self.records.len() as u64;
        for record in grpc.read(topic, partition, from).await.unwrap() {
            assert_eq!(record.offset, self.records.len() as u64, "{topic}/{partition}: a hole");
            let value = str::from_utf8(record.value.as_deref().unwrap()).unwrap();
            let mut words = value.split(' ');
            let by: usize = words.next().unwrap().parse().unwrap();
            let number: u64 = words.next().unwrap().parse().unwrap();
            let last = self.last_of.insert(by, number);
            assert!(
                last.is_none_or(|last| last < number),
                "{topic}/{partition}: {number} of {by} at {} behind {last:?}",
                record.offset
            );
            self.records.push((by, number));
        }
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Every batch that was acknowledged to the producer is where it was told.
    ///
    /// # Panics
    /// Where one is not.
    pub fn assert_holds(&self, producer: &Producer) {
        for acked in &producer.acked {
            let start = acked.base_offset as usize;
            let found = self.records.get(start..start + acked.stored.len());
            let found = found.unwrap_or_else(|| panic!("acknowledged records at {start} are lost"));
            let expected: Vec<_> = acked.stored.iter().map(|number| (producer.name, *number)).collect();
            assert_eq!(found, expected, "{:?} at {start}", producer.place);
        }
    }
}
