//! Times, many of them, as percentiles.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Three significant digits, as HdrHistogram keeps them.
const DIGITS: u8 = 3;
/// What took longer counts as this.
const TIME_MAX: Duration = Duration::from_secs(3_600);

/// Times so far, in nanoseconds.
#[derive(Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies(Histogram::new(DIGITS).expect("three digits are among those that a histogram takes"))
    }
}

/// What is told of times, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Percentiles {
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

impl Latencies {
    pub fn add(&mut self, time: Duration) {
        let nanos = time.min(TIME_MAX).as_nanos() as u64;
        self.0
            .record(nanos.max(1))
            .expect("a histogram that resizes takes times up to the longest");
    }

    pub fn add_all(&mut self, other: &Latencies) {
        // Both grow as they need.
        self.0.add(&other.0).expect("histograms that resize take any other one");
    }

    pub fn percentiles(&self) -> Option<Percentiles> {
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1e6;
        (!self.0.is_empty()).then(|| Percentiles {
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: self.0.max() as f64 / 1e6,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_all_times() {
        let (mut one, mut other) = (Latencies::default(), Latencies::default());
        assert!(one.percentiles().is_none());
        (1..=50).for_each(|ms| one.add(Duration::from_millis(ms)));
        (51..=100).for_each(|ms| other.add(Duration::from_millis(ms)));
        one.add_all(&other);
        let Percentiles {
            p50_ms, p99_ms, max_ms, ..
        } = one.percentiles().unwrap();
        assert!(
            (50.0..50.1).contains(&p50_ms) && (99.0..99.2).contains(&p99_ms),
            "{p50_ms} {p99_ms}"
        );
        assert!((100.0..100.2).contains(&max_ms), "{max_ms}");
    }
}
