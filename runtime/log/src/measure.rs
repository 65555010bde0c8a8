//! Distributions of what is measured: seconds and bytes. Recording one takes a lock for a few instructions, so it is done for
//! each group, object or request, and never for each record.

use prometheus_client::metrics::histogram::Histogram;

/// Upper bounds, in seconds: from what a quiet disk takes to what nobody waits for.
const SECONDS: [f64; 18] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// Upper bounds, in bytes: from one small record to the largest group.
const BYTES: [f64; 10] = [
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// A distribution of durations in seconds.
pub fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

/// A distribution of sizes in bytes.
pub fn bytes() -> Histogram {
    Histogram::new(BYTES)
}

/// What a write-ahead log measures. Clones share it.
#[derive(Clone, Debug)]
pub struct WalMeasures {
    /// Bytes of each group as written.
    pub group_bytes: Histogram,
    /// How long each group took to become durable: a sync of the disk's file, or the put of an object with its retries.
    pub sync_seconds: Histogram,
}

impl Default for WalMeasures {
    fn default() -> WalMeasures {
        WalMeasures {
            group_bytes: bytes(),
            sync_seconds: seconds(),
        }
    }
}
