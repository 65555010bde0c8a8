//! Reading: all partitions over one connection, each record held against what was sent.

use std::time::Instant;

use bytes::Bytes;
use millstream_batch::{Batch, RecordIter};
use millstream_client::{Consumer, ConsumerSettings, Start};

use super::{Bench, report::Figures, server, settings::Settings};

/// Bound on one batch without its compression.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;
/// Bytes of an answer, and of what may be on its way.
const ANSWER_BYTES: u32 = 4 << 20;
const PREFETCH_BYTES: u32 = 16 << 20;

/// Reads a topic from the first record on until it has everything that was sent.
pub async fn run(bench: &Bench, topic: &str, what: &'static str) -> anyhow::Result<Figures> {
    let settings = &bench.settings;
    let connection = bench.connect().await?;
    let reading = ConsumerSettings {
        max_bytes: ANSWER_BYTES,
        prefetch_bytes: PREFETCH_BYTES,
        ..ConsumerSettings::default()
    };
    let bar = super::report::bar(settings.records, what);
    let mut consumer = Consumer::open_topics(&connection, &[topic], Start::Earliest, reading).await?;
    let before = server::ask(&settings.metrics).await;
    let started = Instant::now();
    let mut check = Check::new(settings);
    while check.left() > 0 {
        let fetched = consumer.next_batches().await?;
        let count = check.batches(fetched.partition, fetched.batches)?;
        bar.inc(count);
    }
    let elapsed = started.elapsed();
    let after = server::ask(&settings.metrics).await;
    bar.finish_and_clear();
    Ok(Figures::new(what, elapsed, (before, after)).records(settings.records, check.bytes))
}

/// Which record each partition has to give next.
pub struct Check<'a> {
    settings: &'a Settings,
    next: Vec<u64>,
    read: u64,
    /// Of values.
    pub bytes: u64,
}

impl<'a> Check<'a> {
    pub fn new(settings: &'a Settings) -> Check<'a> {
        Check {
            settings,
            next: vec![0; settings.partitions as usize],
            read: 0,
            bytes: 0,
        }
    }

    /// Records that are still to come.
    pub fn left(&self) -> u64 {
        self.settings.records - self.read
    }

    /// The number of the record that a partition has to give next.
    pub fn next(&self, partition: u32) -> u64 {
        self.next[partition as usize]
    }

    /// Holds what came against what was sent: how many, which, in which order, every byte.
    pub fn batches(&mut self, partition: u32, mut encoded: Bytes) -> anyhow::Result<u64> {
        let before = self.read;
        while !encoded.is_empty() {
            let batch = Batch::split_first(&mut encoded)?;
            let records = batch.decompressed(DECOMPRESSED_BYTES_MAX)?;
            for record in RecordIter::new(&records) {
                let record = record?;
                let offset = batch.base_offset().0 + u64::from(record.offset_delta.unsigned_abs());
                self.record(partition, offset, record.value)?;
            }
        }
        Ok(self.read - before)
    }

    fn record(&mut self, partition: u32, offset: u64, value: Option<&[u8]>) -> anyhow::Result<()> {
        let expected = &mut self.next[partition as usize];
        let number = *expected;
        if number >= self.settings.share(partition) {
            anyhow::bail!("partition {partition} has a record at offset {offset} that nobody has sent");
        }
        if offset != number || !self.settings.values.is(number, value) {
            anyhow::bail!("partition {partition}: offset {offset} does not hold record {number} as it was sent");
        }
        *expected += 1;
        self.read += 1;
        self.bytes += value.map_or(0, <[u8]>::len) as u64;
        Ok(())
    }
}
