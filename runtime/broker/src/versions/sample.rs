//! Recent input of a topic, for trial calls: a copy of a batch as a producer sent it, taken once a second at most.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use millstream_batch::{Batch, Compression, Limits, RecordIter};
use tokio::time::Instant;

/// Bytes of records that a trial call gets.
const SAMPLE_BYTES_MAX: usize = 64 << 10;
/// Between two copies.
const SAMPLE_PAUSE: Duration = Duration::from_secs(1);
/// What a stored batch may become when it is decompressed for a trial call.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// Recent input of a topic.
pub(crate) struct Sample {
    since: Instant,
    /// Milliseconds after `since` at which the next copy is due.
    due_ms: AtomicU64,
    batch: Mutex<Option<Batch>>,
}

impl Default for Sample {
    fn default() -> Sample {
        Sample {
            since: Instant::now(),
            due_ms: AtomicU64::new(0),
            batch: Mutex::default(),
        }
    }
}

impl Sample {
    /// Takes a copy of the beginning of a batch, where one is due. The copy holds nothing of the request's memory.
    pub(crate) fn offer(&self, batch: &Batch) {
        let now_ms = self.since.elapsed().as_millis() as u64;
        let due_ms = self.due_ms.load(Ordering::Relaxed);
        let next_ms = now_ms + SAMPLE_PAUSE.as_millis() as u64;
        let is_ours = now_ms >= due_ms
            && self
                .due_ms
                .compare_exchange(due_ms, next_ms, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if is_ours && let Some(copy) = copied(batch) {
            *self.batch.lock().unwrap_or_else(PoisonError::into_inner) = Some(copy);
        }
    }

    pub(crate) fn newest(&self) -> Option<Batch> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A copy of the beginning of a batch. What is compressed and long has none: to decompress it would hold up its partition.
fn copied(batch: &Batch) -> Option<Batch> {
    if batch.compression() == Compression::None {
        return first_records(batch, batch.records());
    }
    if batch.encoded_len() > SAMPLE_BYTES_MAX {
        return None;
    }
    Batch::validate(batch.to_bytes(), &Limits::default()).ok()
}

/// The beginning of a batch, uncompressed; `None` for one that cannot be read.
pub(crate) fn beginning_of(batch: &Batch) -> Option<Batch> {
    let records = batch.decompressed(DECOMPRESSED_BYTES_MAX).ok()?;
    first_records(batch, &records)
}

fn first_records(batch: &Batch, records: &Bytes) -> Option<Batch> {
    let (mut bytes, mut count, mut last_delta) = (0, 0, 0);
    for record in RecordIter::new(records) {
        let record = record.ok()?;
        let end = bytes + record.encoded().len();
        if end > SAMPLE_BYTES_MAX && count > 0 {
            break;
        }
        (bytes, count, last_delta) = (end, count + 1, record.offset_delta);
    }
    let header = batch.header();
    let records = Bytes::copy_from_slice(&records[..bytes]);
    let mut first = Batch::from_records(
        header.base_timestamp_ms,
        header.max_timestamp_ms,
        count,
        u32::try_from(last_delta).ok()?,
        records,
    );
    first.stamp(batch.base_offset(), millstream_batch::Epoch(0));
    (count > 0).then_some(first)
}

#[cfg(test)]
mod tests {
    use millstream_batch::BatchBuilder;

    use super::*;

    fn batch(records: usize, compression: Compression) -> Batch {
        let mut builder = BatchBuilder::new();
        for n in 0..records {
            let value = format!("{n:0>100}");
            builder.push(n as i64, None, Some(value.as_bytes()), [].into_iter());
        }
        builder.build(compression)
    }

    #[test]
    fn long_batches_are_cut_and_short_ones_are_whole() {
        for compression in [Compression::None, Compression::Lz4] {
            let whole = beginning_of(&batch(10, compression)).unwrap();
            assert_eq!(whole.record_count(), 10);
            let cut = beginning_of(&batch(10_000, compression)).unwrap();
            assert!(cut.records().len() <= SAMPLE_BYTES_MAX && cut.record_count() > 500);
            assert_eq!(
                RecordIter::new(cut.records()).count(),
                cut.record_count() as usize,
                "whole records"
            );
        }
    }

    #[test]
    fn a_record_above_the_bound_is_taken_alone() {
        let mut builder = BatchBuilder::new();
        let value = vec![b'x'; 2 * SAMPLE_BYTES_MAX];
        (0..3).for_each(|n| builder.push(n, None, Some(&value), [].into_iter()));
        let cut = beginning_of(&builder.build(Compression::None)).unwrap();
        assert_eq!(cut.record_count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_is_taken_once_a_second() {
        let sample = Sample::default();
        assert!(sample.newest().is_none());
        let count = |sample: &Sample| sample.newest().unwrap().record_count();
        sample.offer(&batch(1, Compression::None));
        sample.offer(&batch(2, Compression::None));
        assert_eq!(count(&sample), 1);
        tokio::time::advance(SAMPLE_PAUSE).await;
        sample.offer(&batch(3, Compression::Lz4));
        assert_eq!(count(&sample), 3);
    }
}
