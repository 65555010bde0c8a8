//! A module that keeps a share of the records: always the same ones, wherever and however often it runs.
//!
//! A record stays where the XXH64 hash of its key, or of its value where it has no key, is among the lowest of all
//! hashes. So what a smaller share keeps a greater one keeps too.

use millstream_guest::prelude::*;
use twox_hash::XxHash64;

/// What a stage may set.
#[derive(Debug, Params)]
pub struct Params {
    /// The share to keep, in percent: 0.1, 25.
    percent: Option<f64>,
    /// Keeps one of so many instead.
    one_in: Option<u64>,
    /// Another seed keeps other records.
    #[param(default = 0)]
    seed: u64,
}

/// The parameters, made ready.
#[derive(Debug)]
pub struct Sample {
    /// Hashes below it stay: of the 2^64 that there are, so many.
    kept: u128,
    seed: u64,
}

const HASHES: u128 = 1 << 64;

impl Prepare for Sample {
    type Params = Params;

    fn prepare(params: Params, _context: &Context) -> Result<Self, String> {
        let kept = match (params.percent, params.one_in) {
            (Some(percent), None) if (0.0..=100.0).contains(&percent) => (percent / 100.0 * HASHES as f64) as u128,
            (Some(percent), None) => return Err(format!("parameter \"percent\": {percent} is not from 0 to 100")),
            (None, Some(0)) => return Err("parameter \"one_in\" is at least 1".to_owned()),
            (None, Some(one_in)) => HASHES / u128::from(one_in),
            _ => return Err("set either \"percent\" or \"one_in\"".to_owned()),
        };
        let seed = params.seed;
        Ok(Self { kept, seed })
    }
}

/// Keeps a share of the records, chosen by the hash of their keys.
#[filter]
pub fn keep(record: &Record, sample: &Sample) -> bool {
    let hashed = record.key().or(record.value()).unwrap_or_default();
    u128::from(XxHash64::oneshot(sample.seed, hashed)) < sample.kept
}
