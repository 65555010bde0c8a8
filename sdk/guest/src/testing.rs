//! Runs a module natively over records that a test makes, through the same code as in the broker.
//!
//! ```
//! use millstream_guest::prelude::*;
//! use millstream_guest::testing::{Fate, Harness, Sample};
//!
//! /// Shouts.
//! #[map]
//! fn upper(record: &Record, out: &mut Output) -> Decision {
//!     out.set_value(record.value().unwrap_or_default().to_ascii_uppercase());
//!     Decision::Replace
//! }
//!
//! # fn main() {
//! let mut harness = Harness::<upper>::new(&[]).expect("it takes no parameters");
//! assert_eq!(harness.run_one(&Sample::value("abc")), Fate::Became(vec![Sample::value("ABC")]));
//! # }
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;

use millstream_batch::{RecordIter, encode_record};

use crate::host::Level;
use crate::module::{Instance, Module};
use crate::outcome::{Emitted, Outcome, Verdict};
use crate::record::{Batch, Context};

/// A record that a test makes or gets back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// The headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
}

impl Sample {
    /// A record of this value alone, at time 0.
    pub fn value(value: impl AsRef<[u8]>) -> Self {
        Self {
            value: Some(value.as_ref().to_vec()),
            ..Self::default()
        }
    }

    /// A record without a value.
    pub fn tombstone() -> Self {
        Self::default()
    }

    /// The same with a key.
    #[must_use]
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.key = Some(key.as_ref().to_vec());
        self
    }

    /// The same with a header more.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), Some(value.as_ref().to_vec())));
        self
    }

    /// The same at a time.
    #[must_use]
    pub fn at_ms(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = timestamp_ms;
        self
    }

    /// The value as text, with what is not UTF-8 replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.value.as_deref().unwrap_or_default()).into_owned()
    }
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stayed as it was.
    Kept,
    /// It went.
    Dropped,
    /// It was refused, for this reason.
    Rejected(String),
    /// It became other records.
    Became(Vec<Sample>),
}

impl Fate {
    /// The one record that it became.
    ///
    /// # Panics
    /// It became none or several, or is another fate: a test that expects one record fails here.
    #[track_caller]
    pub fn one(self) -> Sample {
        match self {
            Fate::Became(mut samples) if samples.len() == 1 => samples.remove(0),
            other => panic!("expected one changed record, found {other:?}"),
        }
    }
}

/// A module, configured for a test. While it lives, log lines and counters of its thread are recorded.
pub struct Harness<M: Module> {
    instance: Instance<M>,
}

impl<M: Module> Harness<M> {
    /// Configures the module as a stage of topic `test` on produce.
    ///
    /// # Errors
    /// What the module says of its parameters.
    pub fn new(params: &[(&str, &str)]) -> Result<Self, String> {
        Self::with_context(
            Context {
                topic: "test".to_owned(),
                on_fetch: false,
            },
            params,
        )
    }

    /// Configures the module for another context.
    ///
    /// # Errors
    /// What the module says of its parameters.
    pub fn with_context(context: Context, params: &[(&str, &str)]) -> Result<Self, String> {
        let params: Vec<_> = params
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        RECORDED.set(Some(Recorded::default()));
        Ok(Self {
            instance: Instance::configure(context, &params)?,
        })
    }

    /// Runs one record through the module.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn run_one(&mut self, sample: &Sample) -> Fate {
        self.run(std::slice::from_ref(sample)).remove(0)
    }

    /// Runs records through the module as one batch and says what became of each. On fetch their offsets count from 0.
    ///
    /// # Panics
    /// The module fails, or returns what is no batch: the test fails.
    #[track_caller]
    pub fn run(&mut self, samples: &[Sample]) -> Vec<Fate> {
        self.try_run(samples)
            .unwrap_or_else(|error| panic!("the module failed: {error}"))
    }

    /// The same, for a `#[batch]` function that may fail.
    ///
    /// # Errors
    /// What the module says of the batch as a whole.
    pub fn try_run(&mut self, samples: &[Sample]) -> Result<Vec<Fate>, String> {
        let base_timestamp_ms = samples.first().map_or(0, |sample| sample.timestamp_ms);
        let records = encode(samples, base_timestamp_ms);
        let batch = Batch {
            partition: 0,
            first_offset: self.instance.context().on_fetch.then_some(0),
            append_time_ms: base_timestamp_ms,
            base_timestamp_ms,
            count: u32::try_from(samples.len()).expect("a test has few records"),
            records: &records,
        };
        let outcome = self.instance.process(&batch)?;
        Ok(fates(samples, outcome, base_timestamp_ms))
    }

    /// The log lines so far, and forgets them.
    pub fn take_logs(&mut self) -> Vec<(Level, String)> {
        RECORDED.with_borrow_mut(|recorded| {
            recorded
                .as_mut()
                .map(|to| std::mem::take(&mut to.logs))
                .unwrap_or_default()
        })
    }

    /// What a counter stands at.
    pub fn counter(&self, name: &str) -> u64 {
        RECORDED.with_borrow(|recorded| {
            recorded
                .as_ref()
                .and_then(|from| from.counters.get(name))
                .copied()
                .unwrap_or(0)
        })
    }
}

impl<M: Module> Drop for Harness<M> {
    fn drop(&mut self) {
        RECORDED.set(None);
    }
}

/// What a harness records of its thread.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    pub(crate) logs: Vec<(Level, String)>,
    pub(crate) counters: BTreeMap<String, u64>,
}

thread_local! {
    static RECORDED: RefCell<Option<Recorded>> = const { RefCell::new(None) };
}

/// Adds to what the harness of this thread records; false when there is none.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn record(add: impl FnOnce(&mut Recorded)) -> bool {
    RECORDED.with_borrow_mut(|recorded| recorded.as_mut().map(add).is_some())
}

/// Encodes records as they travel in a batch of that base timestamp.
pub fn encode(samples: &[Sample], base_timestamp_ms: i64) -> Vec<u8> {
    let mut records = Vec::new();
    for (offset_delta, sample) in (0..).zip(samples) {
        let headers = sample
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref()));
        let timestamp_delta = sample.timestamp_ms - base_timestamp_ms;
        let (key, value) = (sample.key.as_deref(), sample.value.as_deref());
        encode_record(&mut records, timestamp_delta, offset_delta, key, value, headers);
    }
    records
}

/// Decodes records as they travel in a batch of that base timestamp.
///
/// # Panics
/// They are malformed: the test fails.
pub fn decode(records: &[u8], base_timestamp_ms: i64) -> Vec<Sample> {
    let decoded = RecordIter::new(records)
        .map(|view| view.expect("records are well formed"))
        .map(|view| Sample {
            key: view.key.map(<[u8]>::to_vec),
            value: view.value.map(<[u8]>::to_vec),
            headers: view
                .headers()
                .map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)))
                .collect(),
            timestamp_ms: base_timestamp_ms + view.timestamp_delta,
        });
    decoded.collect()
}

fn fates(samples: &[Sample], outcome: Outcome, base_timestamp_ms: i64) -> Vec<Fate> {
    let mut fates: Vec<Fate> = match outcome.verdict {
        Verdict::Unchanged => vec![Fate::Kept; samples.len()],
        Verdict::Keep(bitmap) => (0..samples.len())
            .map(|index| {
                if bitmap[index / 8] >> (index % 8) & 1 == 1 {
                    Fate::Kept
                } else {
                    Fate::Dropped
                }
            })
            .collect(),
        Verdict::Rewrite(emitted) => rewritten(samples, &emitted, base_timestamp_ms),
    };
    for reject in outcome.rejects {
        fates[reject.index as usize] = Fate::Rejected(reject.reason);
    }
    fates
}

fn rewritten(samples: &[Sample], emitted: &Emitted, base_timestamp_ms: i64) -> Vec<Fate> {
    assert_eq!(emitted.counts.len(), samples.len(), "a count for every record");
    let mut records = decode(&emitted.records, base_timestamp_ms).into_iter();
    let fates = samples.iter().zip(&emitted.counts).map(|(sample, &count)| {
        let became: Vec<Sample> = records.by_ref().take(count as usize).collect();
        assert_eq!(became.len(), count as usize, "as many records as the counts say");
        match became.as_slice() {
            [] => Fate::Dropped,
            [same] if same == sample => Fate::Kept,
            _ => Fate::Became(became),
        }
    });
    let fates = fates.collect();
    assert_eq!(records.next(), None, "no more records than the counts say");
    fates
}
