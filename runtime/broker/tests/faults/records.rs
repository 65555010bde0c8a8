//! Records that can be told apart, on their way in and out.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use millstream_batch::{BatchBuilder, Compression, Offset, RecordIter};
use millstream_broker::{Broker, BrokerError, FetchQuery, Fetched, Result};

/// The most that a decompressed batch of these tests takes.
const RECORDS_BYTES_MAX: usize = 1 << 20;

/// A record as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub offset: u64,
    pub value: u64,
    pub timestamp_ms: i64,
}

/// The timestamp of a record: on the first day of 2015, in no order.
pub fn timestamp_of(value: u64) -> i64 {
    1_420_070_400_000 + (value.wrapping_mul(7_919_777) % 86_400_000) as i64
}

/// What a partition holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    pub log_start: u64,
    pub high_watermark: u64,
    pub records: Vec<Found>,
}

/// A batch of one record for each number, each padded to a length of its own.
pub fn batch(values: Range<u64>, padding: usize) -> Bytes {
    batch_of(values, padding, Compression::None)
}

/// As [`batch`], compressed.
pub fn batch_of(values: Range<u64>, padding: usize, compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::new();
    for value in values {
        let padding = (value as usize).wrapping_mul(31) % (padding + 1);
        let text = format!("{value}:{}", "x".repeat(padding));
        builder.push(timestamp_of(value), None, Some(text.as_bytes()), [].into_iter());
    }
    builder.build(compression).to_bytes()
}

/// Fetches once, from any offset, and holds the answer to what a fetch promises.
pub async fn fetch(
    broker: &Broker,
    topic: &str,
    partition: u32,
    offset: u64,
    bytes_max: usize,
) -> Result<(Fetched, Vec<Found>)> {
    let query = FetchQuery {
        topic: topic.to_owned(),
        partition,
        offset: Offset(offset),
        bytes_max,
        bytes_min: 0,
        wait: Duration::ZERO,
        stage: None,
    };
    let (_, end) = broker.offsets(topic, partition).await?;
    let fetched = broker.fetch(query).await?;
    let mut next = offset;
    for (i, batch) in fetched.batches.iter().enumerate() {
        let base = batch.base_offset().0;
        let follows = base == next || (i == 0 && base < next);
        assert!(follows, "a batch at {base} follows {next}");
        next = batch.next_offset().0;
        assert!(next > offset, "a batch up to {next} was sent for offset {offset}");
    }
    assert_eq!(
        fetched.next_offset.0, next,
        "the next offset is the end of what was sent"
    );
    assert!(next <= fetched.high_watermark.0, "{next} is beyond the high watermark");
    assert!(
        !fetched.batches.is_empty() || offset >= end.0,
        "nothing was sent for offset {offset}, though the log ended at {end}"
    );
    let records = fetched
        .batches
        .iter()
        .flat_map(records)
        .filter(|found| found.offset >= offset);
    let records = records.collect();
    Ok((fetched, records))
}

fn records(batch: &millstream_batch::Batch) -> Vec<Found> {
    let plain = batch.decompressed(RECORDS_BYTES_MAX).unwrap();
    RecordIter::new(&plain)
        .map(|record| {
            let record = record.unwrap();
            let text = std::str::from_utf8(record.value.unwrap()).unwrap();
            Found {
                offset: batch.base_offset().0 + record.offset_delta as u64,
                value: text.split(':').next().unwrap().parse().unwrap(),
                timestamp_ms: batch.header().base_timestamp_ms + record.timestamp_delta,
            }
        })
        .collect()
}

/// Reads a partition from its first record to its last, so many bytes at a time.
pub async fn read_all(broker: &Broker, topic: &str, partition: u32, bytes_max: usize) -> Contents {
    let (mut log_start, _) = broker.offsets(topic, partition).await.unwrap();
    let (mut offset, mut records) = (log_start.0, Vec::new());
    loop {
        let (fetched, found) = match fetch(broker, topic, partition, offset, bytes_max).await {
            // Retention, at work beside us, has passed us by.
            Err(BrokerError::OffsetOutOfRange { start, .. }) if start.0 > offset => {
                (log_start, offset) = (start, start.0);
                records.clear();
                continue;
            }
            fetched => fetched.unwrap(),
        };
        records.extend(found);
        let high_watermark = fetched.high_watermark.0;
        offset = fetched.next_offset.0;
        if offset == high_watermark {
            return Contents {
                log_start: log_start.0,
                high_watermark,
                records,
            };
        }
    }
}
