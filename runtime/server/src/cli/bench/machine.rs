//! What the machine itself does: the figures of an agent mean little without.

use std::{
    fs::File,
    io::{Seek as _, SeekFrom, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use millstream_batch::{BatchBuilder, Compression};
use serde::Serialize;

use super::latencies::{Latencies, Percentiles};

/// Larger than the caches of most processors.
const COPY_BYTES: usize = 64 << 20;
const COPIES: usize = 8;
const SYNC_BYTES: usize = 1 << 20;
const SYNCS: usize = 100;
/// A disk may be so slow that fewer syncs have to do.
const SYNC_TIME_MAX: Duration = Duration::from_secs(5);

/// What was measured, before the run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Machine {
    pub copied_bytes_per_second: f64,
    pub lz4_bytes_per_second: f64,
    /// Of 1 MiB each, into the folder for temporary files.
    pub synced_bytes_per_second: f64,
    pub sync: Percentiles,
}

/// Measures it. Takes a second or two of one processor.
pub fn measure() -> anyhow::Result<Machine> {
    let (synced, sync) = syncs(&std::env::temp_dir())?;
    Ok(Machine {
        copied_bytes_per_second: copies(),
        lz4_bytes_per_second: lz4(),
        synced_bytes_per_second: synced,
        sync,
    })
}

fn copies() -> f64 {
    let from = vec![1_u8; COPY_BYTES];
    let mut to = vec![0_u8; COPY_BYTES];
    let started = Instant::now();
    for _ in 0..COPIES {
        to.copy_from_slice(std::hint::black_box(&from));
        std::hint::black_box(&mut to);
    }
    (COPY_BYTES * COPIES) as f64 / started.elapsed().as_secs_f64()
}

fn lz4() -> f64 {
    let values = super::values::Values::synthetic(super::settings::Filling::Text, 100);
    let (mut builder, mut room) = (BatchBuilder::new(), Vec::new());
    for number in 0..100_000 {
        builder.push(0, None, Some(values.get(number, &mut room)), [].into_iter());
    }
    let bytes = builder.records_bytes();
    let started = Instant::now();
    std::hint::black_box(builder.build(Compression::Lz4));
    bytes as f64 / started.elapsed().as_secs_f64()
}

fn syncs(folder: &Path) -> anyhow::Result<(f64, Percentiles)> {
    let mut file: File = tempfile::tempfile_in(folder)?;
    let bytes = vec![7_u8; SYNC_BYTES];
    // Written once before, as the write-ahead log's files are.
    for _ in 0..SYNCS {
        file.write_all(&bytes)?;
    }
    file.sync_all()?;
    file.seek(SeekFrom::Start(0))?;
    let mut latencies = Latencies::default();
    let (started, mut written) = (Instant::now(), 0);
    while written < SYNCS && started.elapsed() < SYNC_TIME_MAX {
        file.write_all(&bytes)?;
        let begun = Instant::now();
        file.sync_data()?;
        latencies.add(begun.elapsed());
        written += 1;
    }
    let speed = (written * SYNC_BYTES) as f64 / started.elapsed().as_secs_f64();
    let sync = latencies.percentiles().expect("one sync at least was timed");
    Ok((speed, sync))
}
