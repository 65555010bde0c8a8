//! What the broker measures of its work: distributions and sums by few, known labels. One request records a handful of numbers,
//! one record none.

use millstream_log::{measure::seconds, segment::ProducerBatch};
use prometheus_client::metrics::{counter::Counter, family::Family, histogram::Histogram};
use tokio::time::Instant;

use crate::{
    error::{BrokerError, Kind, Result},
    partition::{Acks, Read, Receipt, Refusal},
};

/// A label with one of few values.
pub type Label = (&'static str, &'static str);

/// Histograms that differ by `N` labels.
pub type Histograms<const N: usize> = Family<[Label; N], Histogram, fn() -> Histogram>;

/// What is measured since the broker was opened. Clones share it.
#[derive(Clone, Debug)]
pub struct Measures {
    /// From a batch at the door to its answer, by `acks` and `result`.
    pub produce_seconds: Histograms<2>,
    /// Records that were stored, by `acks`.
    pub produce_records: Family<[Label; 1], Counter>,
    /// Bytes of the batches that were acknowledged, as they came, by `acks`.
    pub produce_bytes: Family<[Label; 1], Counter>,
    /// Batches of idempotent producers that came to a partition, by `outcome`: what their numbers said.
    pub producer_batches: Family<[Label; 1], Counter>,
    /// Reading one partition for an answer, without the wait for records, by `result`.
    pub fetch_seconds: Histograms<1>,
    /// Records in answers.
    pub fetch_records: Counter,
    /// Bytes of the batches in answers.
    pub fetch_bytes: Counter,
    /// From the marking of a range of the tail to the commit of its segment.
    pub upload_seconds: Histogram,
    /// Bytes of the segments that were committed, as stored.
    pub upload_bytes: Counter,
}

/// What the numbers of a batch say.
const OUTCOMES: [&str; 6] = ["new", "duplicate", "fenced", "unknown", "out_of_order", "forgotten"];

impl Default for Measures {
    fn default() -> Measures {
        let producer_batches = Family::<[Label; 1], Counter>::default();
        for outcome in OUTCOMES {
            // All of them are there from the beginning.
            drop(producer_batches.get_or_create(&[("outcome", outcome)]));
        }
        Measures {
            producer_batches,
            produce_seconds: Family::new_with_constructor(seconds),
            produce_records: Family::default(),
            produce_bytes: Family::default(),
            fetch_seconds: Family::new_with_constructor(seconds),
            fetch_records: Counter::default(),
            fetch_bytes: Counter::default(),
            upload_seconds: seconds(),
            upload_bytes: Counter::default(),
        }
    }
}

impl Measures {
    /// A batch of so many bytes was answered.
    pub(crate) fn produced(
        &self,
        begun: Instant,
        acks: Option<Acks>,
        bytes: usize,
        result: Result<&Receipt, &BrokerError>,
    ) {
        let acks = ("acks", acks_word(acks));
        let answer = ("result", result_word(result));
        let seconds = self.produce_seconds.get_or_create(&[acks, answer]);
        seconds.observe(begun.elapsed().as_secs_f64());
        if let Ok(receipt) = result {
            let records = self.produce_records.get_or_create(&[acks]);
            records.inc_by(receipt.record_count.into());
            self.produce_bytes.get_or_create(&[acks]).inc_by(bytes as u64);
        }
    }

    /// The numbers of an idempotent producer's batch were looked at.
    pub(crate) fn numbered(&self, checked: &Result<Option<ProducerBatch>, Refusal>) {
        let outcome = match checked {
            Ok(None) => "new",
            Ok(Some(_)) => "duplicate",
            Err(Refusal::Fenced { .. }) => "fenced",
            Err(Refusal::Unknown) => "unknown",
            Err(Refusal::OutOfOrder { .. }) => "out_of_order",
            Err(Refusal::Forgotten) => "forgotten",
        };
        self.producer_batches.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// One partition was read for an answer.
    pub(crate) fn fetched(&self, begun: Instant, result: &Result<Read>) {
        let seconds = self
            .fetch_seconds
            .get_or_create(&[("result", result_word(result.as_ref()))]);
        seconds.observe(begun.elapsed().as_secs_f64());
        if let Ok(fetched) = result {
            let records: u64 = fetched
                .batches
                .iter()
                .map(|batch| u64::from(batch.record_count()))
                .sum();
            let bytes: u64 = fetched.batches.iter().map(|batch| batch.encoded_len() as u64).sum();
            self.fetch_records.inc_by(records);
            self.fetch_bytes.inc_by(bytes);
        }
    }

    /// A segment was committed.
    pub(crate) fn uploaded(&self, begun: Instant, stored_bytes: u64) {
        self.upload_seconds.observe(begun.elapsed().as_secs_f64());
        self.upload_bytes.inc_by(stored_bytes);
    }
}

/// As the request says it; the topic's default has its own word.
fn acks_word(acks: Option<Acks>) -> &'static str {
    match acks {
        Some(Acks::Durable) => "durable",
        Some(Acks::Memory) => "memory",
        None => "default",
    }
}

fn result_word<T>(result: Result<T, &BrokerError>) -> &'static str {
    match result.map_err(BrokerError::kind) {
        Ok(_) => "ok",
        Err(Kind::Invalid) => "invalid",
        Err(Kind::OutOfRange) => "out_of_range",
        Err(Kind::NotFound) => "not_found",
        Err(Kind::Exists) => "exists",
        Err(Kind::Conflict) => "conflict",
        Err(Kind::Fenced) => "fenced",
        Err(Kind::Unavailable) => "unavailable",
        Err(Kind::Precondition) => "precondition",
        Err(Kind::Exhausted) => "exhausted",
        Err(Kind::Corrupt) => "corrupt",
        Err(Kind::Module) => "module",
        Err(Kind::Internal) => "internal",
    }
}
