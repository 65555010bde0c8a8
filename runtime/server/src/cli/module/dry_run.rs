//! Runs a module over records on the broker's own engine, without a broker, and says what became of each.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use millstream_batch::{RecordIter, encode_record};
use millstream_client::Record;
use millstream_wasm::{
    Engine, Failed, Input, IsolationBudget, Level, Limits, Module, Observer, Outcome, Runner, StageContext, Unheard,
    Verdict,
};

use super::{fate::Fate, sample::Samples};

/// Encoded records of one call to the host, about; it hands them to the module in pieces of its own.
const CHUNK_BYTES: usize = 1 << 20;
/// Log lines that are kept; more are counted.
const LOG_LINES_MAX: usize = 1_000;
/// CPU time over which a module's speed is measured, by running the records again and again.
const MEASURED: Duration = Duration::from_millis(200);
/// So many records at least are run at once for that, and so often at most.
const MEASURED_RECORDS: usize = 1_000;
const ROUNDS_MAX: u32 = 10_000;

/// How a stage would run the module.
#[derive(Clone, Debug)]
pub struct Stage {
    /// For readers, not before records are stored.
    pub on_fetch: bool,
    /// Its parameters.
    pub params: Vec<(String, String)>,
}

/// What came of it.
#[derive(Debug)]
pub struct DryRun {
    /// One for each record.
    pub fates: Vec<Fate>,
    /// The log lines, in order.
    pub logs: Vec<(Level, String)>,
    /// Lines beyond those.
    pub logs_dropped: u64,
    /// Counters by name.
    pub counters: BTreeMap<String, u64>,
    /// CPU time of a record in nanoseconds; none where records failed or there are none.
    pub ns_per_record: Option<u64>,
    /// Linear memory of the module, in bytes.
    pub memory_peak_bytes: usize,
}

/// Runs a component over records, in the calling thread.
pub fn run(component: &[u8], stage: &Stage, samples: &Samples) -> anyhow::Result<DryRun> {
    let engine = Engine::new()?;
    let module = Module::compile(&engine, component)?;
    let runner = |observer| {
        let context = StageContext {
            topic: samples.topic.clone(),
            on_fetch: stage.on_fetch,
        };
        let (module, params) = (module.clone(), stage.params.clone());
        Runner::new(&engine, module, Limits::default(), context, params, observer)
    };
    let chunks = chunks(samples, stage.on_fetch)?;

    let heard = Arc::new(Heard::default());
    let mut first = runner(heard.clone());
    first.prepare()?;
    let mut fates = Vec::with_capacity(samples.records.len());
    for chunk in &chunks {
        chunk.run(&mut first, &samples.records[chunk.records.clone()], &mut fates)?;
    }
    if stage.on_fetch {
        fates.iter_mut().for_each(refuse_several);
    }
    let failed = fates.iter().any(Fate::is_failure);
    let ns_per_record = match failed || samples.records.is_empty() {
        true => None,
        false => measure(runner(Arc::new(Unheard)), samples, stage.on_fetch)?,
    };
    let said = std::mem::take(&mut *heard.0.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(DryRun {
        fates,
        logs: said.logs,
        logs_dropped: said.logs_dropped,
        counters: said.counters,
        ns_per_record,
        memory_peak_bytes: first.memory_peak_bytes(),
    })
}

/// Readers know a record by its offset, so there is no place for more than one.
fn refuse_several(fate: &mut Fate) {
    if let Fate::Became(records) = fate
        && records.len() > 1
    {
        let error = format!(
            "on fetch a record stays one or goes, and the module makes {} of it",
            records.len()
        );
        *fate = Fate::Failed(error);
    }
}

/// What the module said.
#[derive(Default)]
struct Heard(Mutex<Said>);

#[derive(Default)]
struct Said {
    logs: Vec<(Level, String)>,
    logs_dropped: u64,
    counters: BTreeMap<String, u64>,
}

impl Observer for Heard {
    fn log(&self, level: Level, line: &str) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match said.logs.len() < LOG_LINES_MAX {
            true => said.logs.push((level, line.to_owned())),
            false => said.logs_dropped += 1,
        }
    }

    fn count(&self, name: &str, by: u64) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *said.counters.entry(name.to_owned()).or_default() += by;
    }
}

/// Records as they travel.
struct Chunk {
    /// Which of the samples.
    records: Range<usize>,
    partition: u32,
    first_offset: Option<u64>,
    append_time_ms: i64,
    base_timestamp_ms: i64,
    encoded: Vec<u8>,
}

fn chunks(samples: &Samples, on_fetch: bool) -> anyhow::Result<Vec<Chunk>> {
    let mut chunks: Vec<Chunk> = Vec::new();
    for (index, record) in samples.records.iter().enumerate() {
        let open = chunks.last_mut().filter(|chunk| chunk.encoded.len() < CHUNK_BYTES);
        if let Some(chunk) = open
            && chunk.push(&samples.records, index)
        {
            continue;
        }
        let mut chunk = Chunk {
            records: index..index,
            partition: samples.partition,
            first_offset: on_fetch.then_some(record.offset),
            append_time_ms: record.timestamp_ms,
            base_timestamp_ms: record.timestamp_ms,
            encoded: Vec::new(),
        };
        let fits = chunk.push(&samples.records, index);
        debug_assert!(fits, "a record fits into a chunk that begins with it");
        chunks.push(chunk);
    }
    Ok(chunks)
}

impl Chunk {
    /// Adds a record, unless its time or offset is too far from the first one's.
    fn push(&mut self, records: &[Record], index: usize) -> bool {
        let record = &records[index];
        let first_offset = records[self.records.start].offset;
        let Some(timestamp_delta) = record.timestamp_ms.checked_sub(self.base_timestamp_ms) else {
            return false;
        };
        let Ok(offset_delta) = i32::try_from(record.offset - first_offset) else {
            return false;
        };
        let headers = record
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref()));
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        encode_record(&mut self.encoded, timestamp_delta, offset_delta, key, value, headers);
        self.append_time_ms = self.append_time_ms.max(record.timestamp_ms);
        self.records.end = index + 1;
        true
    }

    fn input(&self) -> Input<'_> {
        Input {
            partition: self.partition,
            first_offset: self.first_offset,
            append_time_ms: self.append_time_ms,
            base_timestamp_ms: self.base_timestamp_ms,
            count: self.records.len() as u32, // Far fewer than the bytes of a chunk and one record.
            records: &self.encoded,
        }
    }

    fn run(&self, runner: &mut Runner, records: &[Record], fates: &mut Vec<Fate>) -> anyhow::Result<()> {
        let (outcome, failed) = match runner.process(self.input()) {
            Ok(outcome) => (outcome, Vec::new()),
            Err(first) if first.is_module_fault() => {
                let budget = IsolationBudget::of(runner.limits());
                let isolated = runner.isolate(self.input(), first, budget);
                (isolated.outcome, isolated.failed)
            }
            Err(error) => return Err(error.into()),
        };
        let mut own = self.fates(records, outcome)?;
        for Failed {
            records,
            error,
            isolated,
        } in failed
        {
            let fate = match isolated {
                true => Fate::Failed(error.to_string()),
                false => Fate::Undecided(error.to_string()),
            };
            own[records.start as usize..records.end as usize].fill(fate);
        }
        fates.append(&mut own);
        Ok(())
    }

    fn fates(&self, records: &[Record], outcome: Outcome) -> anyhow::Result<Vec<Fate>> {
        let mut fates = Vec::with_capacity(records.len());
        for piece in outcome.pieces {
            let records = &records[fates.len()..][..piece.count as usize];
            match piece.verdict {
                Verdict::Unchanged => fates.extend(records.iter().map(|_| Fate::Kept)),
                Verdict::Keep(bitmap) => {
                    fates.extend(
                        (0..records.len()).map(|index| match bitmap[index / 8] >> (index % 8) & 1 {
                            1 => Fate::Kept,
                            _ => Fate::Dropped,
                        }),
                    )
                }
                Verdict::Rewrite {
                    counts,
                    records: emitted,
                } => {
                    let mut emitted = RecordIter::new(&emitted);
                    for (record, count) in records.iter().zip(counts) {
                        let became = self.became(record, emitted.by_ref().take(count as usize))?;
                        fates.push(Fate::of(record, became));
                    }
                }
            }
        }
        for reject in outcome.rejects {
            fates[reject.index as usize] = Fate::Rejected(reject.reason.to_string());
        }
        Ok(fates)
    }

    fn became<'a>(
        &self,
        record: &Record,
        emitted: impl Iterator<Item = Result<millstream_batch::RecordView<'a>, millstream_batch::RecordError>>,
    ) -> anyhow::Result<Vec<Record>> {
        let copy = |part: &[u8]| Bytes::copy_from_slice(part);
        emitted
            .map(|view| {
                let view = view.context("the host let a damaged record through")?;
                Ok(Record {
                    offset: record.offset,
                    timestamp_ms: self.base_timestamp_ms.saturating_add(view.timestamp_delta),
                    key: view.key.map(copy),
                    value: view.value.map(copy),
                    headers: view
                        .headers()
                        .map(|(name, value)| (name.to_owned(), value.map(copy)))
                        .collect(),
                })
            })
            .collect()
    }
}

/// CPU time of a record, once everything is warm. Few records are repeated, so that they share the cost of a call as they
/// would in a broker under load.
fn measure(mut runner: Runner, samples: &Samples, on_fetch: bool) -> anyhow::Result<Option<u64>> {
    let repeated = Samples {
        topic: samples.topic.clone(),
        partition: samples.partition,
        records: repeated(&samples.records),
    };
    let chunks = chunks(&repeated, on_fetch)?;
    let mut round = || -> Option<Duration> {
        let before = runner.cpu_used();
        for chunk in &chunks {
            runner.process(chunk.input()).ok()?;
        }
        Some(runner.cpu_used() - before)
    };
    if round().is_none() {
        return Ok(None);
    }
    let (mut used, mut rounds) = (Duration::ZERO, 0);
    while used < MEASURED && rounds < ROUNDS_MAX {
        let Some(time) = round() else { return Ok(None) };
        used += time;
        rounds += 1;
    }
    let processed = u128::from(rounds) * repeated.records.len() as u128;
    Ok(u64::try_from(used.as_nanos() / processed).ok())
}

fn repeated(records: &[Record]) -> Vec<Record> {
    let times = MEASURED_RECORDS.div_ceil(records.len());
    let copies = records.iter().cycle().take(records.len() * times);
    let copies = copies.zip(0..).map(|(record, offset)| Record {
        offset,
        ..record.clone()
    });
    copies.collect()
}
