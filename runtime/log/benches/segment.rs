//! What a segment costs beside its codec: writing one against `lz4_flex` alone on the same blocks, reading one against
//! decompression alone; and records in and out of one whose blocks shrink to almost nothing, where the codec is no excuse.

mod common;

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use common::{Figures, json_batches, least_times, ratio, repeated_batch, timed, write_segment};
use millstream_batch::{Batch, RecordIter};
use millstream_log::Store;
use millstream_log::segment::SegmentReader;
use tokio::runtime::Runtime;

const KEY: &str = "bench/0/seg.bin";
const ROUNDS: u32 = 60;

/// A segment in memory.
struct Stored {
    runtime: Runtime,
    store: Store,
    reader: SegmentReader,
}

impl Stored {
    fn new(batches: &[Batch]) -> Stored {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.expect("a runtime starts");
        let (parts, stored_bytes) = write_segment(batches);
        let store = Store::memory();
        runtime.block_on(store.put_new(KEY, parts)).expect("the store is empty");
        let reader = runtime.block_on(SegmentReader::open(&store, KEY, stored_bytes, None));
        Stored {
            runtime,
            store,
            reader: reader.expect("the segment is whole"),
        }
    }

    fn block(&self, block: usize) -> Bytes {
        let read = self.reader.read_block(&self.store, block);
        self.runtime.block_on(read).expect("the segment is whole")
    }

    fn blocks(&self) -> Vec<Bytes> {
        (0..self.reader.block_count()).map(|block| self.block(block)).collect()
    }
}

fn against_the_codec(figures: &mut Figures) {
    let batches = json_batches(160, 500);
    let stored = Stored::new(&batches);
    let raw = stored.blocks();
    let compressed: Vec<Vec<u8>> = raw.iter().map(|block| lz4_flex::block::compress(block)).collect();

    let write = || drop(black_box(write_segment(&batches)));
    let compress = || {
        raw.iter()
            .for_each(|block| drop(black_box(lz4_flex::block::compress(block))))
    };
    let (written, compressed_in) = least_times(ROUNDS, write, compress);
    figures.at_most(
        "segment write, JSON, lz4 / lz4_flex alone",
        1.3,
        ratio(written, compressed_in),
        "x",
    );

    let read = || (0..raw.len()).for_each(|block| drop(black_box(stored.block(block))));
    let decompress = || {
        for (block, raw) in compressed.iter().zip(&raw) {
            drop(black_box(lz4_flex::block::decompress(block, raw.len())));
        }
    };
    let (read_in, decompressed_in) = least_times(ROUNDS, read, decompress);
    figures.at_most(
        "segment read, whole / lz4_flex alone",
        1.3,
        ratio(read_in, decompressed_in),
        "x",
    );
}

/// Ten thousand records of 1 KiB of one repeated byte, as StreamHouse's own benchmark has them.
fn repeated_byte(figures: &mut Figures) {
    const RECORDS: usize = 10_000;
    const RECORDS_PER_BATCH: usize = 250;
    let value = [b'x'; 1_024];
    let bases = || (0..RECORDS).step_by(RECORDS_PER_BATCH).map(|base| base as u64);
    let encode = || -> Vec<Batch> {
        bases()
            .map(|base| repeated_batch(base, RECORDS_PER_BATCH, &value))
            .collect()
    };
    let batches = encode();
    let stored = Stored::new(&batches);
    let read = || {
        let mut value_bytes = 0;
        for block in 0..stored.reader.block_count() {
            let mut raw = stored.block(block);
            while !raw.is_empty() {
                let batch = Batch::split_first(&mut raw).expect("the batch is whole");
                for record in RecordIter::new(batch.records()) {
                    let record = record.expect("it was written");
                    value_bytes += record.value.map_or(0, <[u8]>::len);
                }
            }
        }
        assert_eq!(value_bytes, RECORDS * value.len());
    };
    let least = |work: &dyn Fn()| (0..ROUNDS).map(|_| timed(work)).min().unwrap_or_default();
    let millions = |time: Duration| RECORDS as f64 / time.as_secs_f64() / 1e6;
    let records_in = least(&|| drop(black_box(write_segment(&encode()))));
    let batches_in = least(&|| drop(black_box(write_segment(&batches))));
    let records_out = least(&read);
    figures.at_least(
        "1 KiB of one byte, lz4: records in, encoding included",
        4.5,
        millions(records_in),
        "M/s",
    );
    figures.at_least(
        "1 KiB of one byte, lz4: encoded batches in",
        6.0,
        millions(batches_in),
        "M/s",
    );
    figures.at_least("1 KiB of one byte, lz4: records out", 8.0, millions(records_out), "M/s");
}

fn main() {
    let mut figures = Figures::default();
    against_the_codec(&mut figures);
    repeated_byte(&mut figures);
    figures.print();
}
