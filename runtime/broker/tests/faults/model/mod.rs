//! Anything that can be done to a broker, at random and in any order, against plain vectors of what was acknowledged.
//!
//! A failure prints its seed; `MILLSTREAM_TEST_SEED` set to it makes that case the first one.

mod run;
mod step;

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

/// Steps of all cases together.
const STEPS: usize = 100_000;
const STEPS_PER_CASE_MAX: usize = 800;
/// Cases at once: each waits now and then.
const WORKERS: usize = 3;

/// A failing case is tried again in so many simpler forms.
const SHRINK_ITERATIONS_MAX: u32 = 60;

#[test]
fn whatever_happens_what_was_acknowledged_is_there() {
    let given = std::env::var("MILLSTREAM_TEST_SEED").ok();
    let seed = given.map_or_else(
        || RandomState::new().hash_one(0),
        |seed| seed.parse().expect("MILLSTREAM_TEST_SEED is a number"),
    );
    println!("MILLSTREAM_TEST_SEED={seed}");
    let (next, steps) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while steps.load(Ordering::Relaxed) < STEPS {
                    let case = next.fetch_add(1, Ordering::Relaxed);
                    run_case(seed.wrapping_add(case as u64), &steps);
                }
            });
        }
    });
}

/// Adds the steps it does to `done`.
fn run_case(seed: u64, done: &AtomicUsize) {
    let config = Config {
        cases: 1,
        max_shrink_iters: SHRINK_ITERATIONS_MAX,
        failure_persistence: None,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let outcome = runner.run(&step::steps(STEPS_PER_CASE_MAX), |steps| {
        done.fetch_add(steps.0.len(), Ordering::Relaxed);
        run::run(&steps.0);
        Ok::<(), TestCaseError>(())
    });
    if let Err(error) = outcome {
        panic!("MILLSTREAM_TEST_SEED={seed}: {error}");
    }
}
