//! Random choices that can be made again.

use std::hash::{BuildHasher as _, RandomState};

/// The variable that names a seed.
const SEED_VARIABLE: &str = "MILLSTREAM_TEST_SEED";

/// A splitmix64 generator. Its seed is printed, so that a failure can be repeated.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// A generator seeded by `MILLSTREAM_TEST_SEED`, or at random where that is not set.
    ///
    /// # Panics
    /// Where the seed is no number.
    pub fn seeded() -> Random {
        let seed = match std::env::var(SEED_VARIABLE) {
            Ok(seed) => seed.parse().expect("MILLSTREAM_TEST_SEED is a number"),
            // The standard library asks the operating system for these.
            Err(_) => RandomState::new().hash_one(()),
        };
        println!("{SEED_VARIABLE}={seed}");
        Random(seed)
    }

    /// A generator that makes the same choices in every run.
    pub fn from_seed(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        // https://prng.di.unimi.it/splitmix64.c
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Another generator, which follows from this one.
    pub fn fork(&mut self) -> Random {
        Random(self.number())
    }

    /// A number of the range.
    pub fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        range.start + self.number() % (range.end - range.start)
    }
}
