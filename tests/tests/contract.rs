//! The contract's conformance suite, `sdk/wit/conformance`, on modules in Rust and in C.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use millstream_batch::{RecordIter, encode_record};
use millstream_tests::{c, modules, skip, workspace};
use millstream_wasm::{
    Engine, Input, Level, Limits, Module, ModuleError, Observer, Outcome, Runner, StageContext, Verdict,
};
use serde_json::Value;

/// A golden file: one batch, and the outcome that each mode has for it.
struct Golden {
    name: String,
    context: StageContext,
    batch: Value,
    records: Vec<u8>,
    expected: Vec<Record>,
    outcomes: BTreeMap<String, Value>,
}

/// A record as it is compared: its timestamp delta, key, value and headers. Offset deltas that come back mean nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    timestamp_delta: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

/// What became of one record of the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Rejected(String),
    Became(Vec<Record>),
}

#[test]
fn the_golden_batches_are_the_bytes_of_their_records() {
    for golden in golden() {
        let mut encoded = Vec::new();
        let records = golden.expected.iter().zip(golden.described());
        for (record, described) in records {
            let offset_delta = described["offset_delta"].as_i64().unwrap() as i32;
            let headers = record
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_deref()));
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            encode_record(&mut encoded, record.timestamp_delta, offset_delta, key, value, headers);
        }
        assert_eq!(encoded, golden.records, "{}", golden.name);
    }
}

#[test]
fn a_module_in_rust_keeps_the_contract() {
    keeps_the_contract(&modules::file_of("examples/modules/conformance"));
}

#[test]
fn a_module_in_c_keeps_the_contract() {
    let source = workspace().join("examples/c/conformance/conformance.c");
    match c::core_module(&source, "conformance-c") {
        Ok(core_module) => keeps_the_contract(&modules::from_core(&core_module, "conformance-c")),
        Err(reason) => skip("a_module_in_c_keeps_the_contract", &reason),
    }
}

fn keeps_the_contract(component: &Path) {
    let engine = Engine::new().unwrap();
    let module = Module::compile(&engine, &fs::read(component).unwrap()).unwrap();
    describes_itself(&module);
    for golden in golden() {
        for (mode, expected) in &golden.outcomes {
            let (outcome, heard) = golden.run(&engine, &module, mode).unwrap();
            let place = format!("{}, mode {mode}", golden.name);
            match (outcome, expected) {
                (Ok(outcome), _) if expected.get("verdict").is_some() => {
                    assert_eq!(golden.found(outcome), golden.wanted(expected), "{place}");
                    assert_eq!(heard, Heard::wanted(expected), "{place}");
                }
                (Err(ModuleError::Failed { message }), _) => assert_eq!(expected["error"], message, "{place}"),
                (Err(ModuleError::Trap { .. }), _) => assert_eq!(expected["trap"], true, "{place}"),
                (other, _) => panic!("{place}: {other:?}"),
            }
        }
        let refused = golden.run(&engine, &module, "nonsense").unwrap_err();
        assert!(matches!(refused, ModuleError::Refused { .. }), "{refused}");
    }
}

fn describes_itself(module: &Module) {
    let info = module.info();
    assert_eq!((info.name.as_str(), info.outputs.len()), ("conformance", 0));
    let [mode] = info.params.as_slice() else {
        panic!("it has one parameter: {info:?}");
    };
    assert_eq!(
        (mode.name.as_str(), mode.required, &mode.default),
        ("mode", true, &None)
    );
    let mut modes: Vec<&str> = mode.kind.split('|').collect();
    modes.sort_unstable();
    let known: Vec<_> = golden()[0].outcomes.keys().cloned().collect();
    assert_eq!(modes, known);
    assert_eq!(module.imports(), ["millstream:module/host@1.0.0"]);
    assert_eq!(module.exports(), ["millstream:module/transform@1.0.0"]);
}

fn golden() -> Vec<Golden> {
    let folder = workspace().join("sdk/wit/conformance");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files
        .filter(|file| file.extension().is_some_and(|end| end == "json"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "there are golden batches");
    files.iter().map(|file| Golden::read(file)).collect()
}

impl Golden {
    fn read(file: &Path) -> Golden {
        let json: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        let batch = json["batch"].clone();
        let base = batch["base_timestamp"].as_i64().unwrap();
        let expected = json["records"]
            .as_array()
            .unwrap()
            .iter()
            .map(|record| Record::described(record, base));
        let outcomes = json["outcomes"].as_object().unwrap().clone();
        Golden {
            name: file.file_stem().unwrap().to_string_lossy().into_owned(),
            context: StageContext {
                topic: json["context"]["topic"].as_str().unwrap().to_owned(),
                on_fetch: json["context"]["on_fetch"].as_bool().unwrap(),
            },
            records: hex(&batch["records_hex"]).unwrap(),
            expected: expected.collect(),
            outcomes: outcomes.into_iter().collect(),
            batch,
        }
    }

    fn described(&self) -> Vec<Value> {
        let file = workspace().join(format!("sdk/wit/conformance/{}.json", self.name));
        let json: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        json["records"].as_array().unwrap().clone()
    }

    /// Runs the module; the outer error is that of `configure`.
    #[allow(clippy::type_complexity)] // A name for it would be longer than it is used.
    fn run(
        &self,
        engine: &Engine,
        module: &Module,
        mode: &str,
    ) -> Result<(Result<Outcome, ModuleError>, Heard), ModuleError> {
        let listener = Arc::new(Listener::default());
        let params = vec![("mode".to_owned(), mode.to_owned())];
        let (limits, context) = (Limits::default(), self.context.clone());
        let mut runner = Runner::new(engine, module.clone(), limits, context, params, listener.clone());
        runner.prepare()?;
        let outcome = runner.process(Input {
            partition: self.batch["partition"].as_u64().unwrap() as u32,
            first_offset: self.batch["first_offset"].as_u64(),
            append_time_ms: self.batch["append_time"].as_i64().unwrap(),
            base_timestamp_ms: self.batch["base_timestamp"].as_i64().unwrap(),
            count: self.batch["count"].as_u64().unwrap() as u32,
            records: &self.records,
        });
        let heard = listener.0.lock().unwrap().clone();
        Ok((outcome, heard))
    }

    /// What a golden outcome means for each record.
    fn wanted(&self, outcome: &Value) -> Vec<Fate> {
        let verdict = match &outcome["verdict"] {
            Value::String(word) if word == "unchanged" => Verdict::Unchanged,
            verdict if verdict.get("keep_hex").is_some() => Verdict::Keep(hex(&verdict["keep_hex"]).unwrap()),
            verdict => Verdict::Rewrite {
                counts: numbers(&verdict["rewrite"]["counts"]),
                records: hex(&verdict["rewrite"]["records_hex"]).unwrap(),
            },
        };
        let mut fates = fates(&self.expected, verdict);
        for reject in outcome["rejects"].as_array().unwrap() {
            let reason = reject["reason"].as_str().unwrap().to_owned();
            fates[reject["index"].as_u64().unwrap() as usize] = Fate::Rejected(reason);
        }
        fates
    }

    /// What a module's outcome means for each record.
    fn found(&self, outcome: Outcome) -> Vec<Fate> {
        let mut found = Vec::new();
        for piece in outcome.pieces {
            let records = &self.expected[found.len()..][..piece.count as usize];
            found.extend(fates(records, piece.verdict));
        }
        for reject in outcome.rejects {
            found[reject.index as usize] = Fate::Rejected(reject.reason.to_string());
        }
        found
    }
}

fn fates(records: &[Record], verdict: Verdict) -> Vec<Fate> {
    let became = |records: &[Record]| Fate::Became(records.to_vec());
    match verdict {
        Verdict::Unchanged => records
            .iter()
            .map(|record| became(std::slice::from_ref(record)))
            .collect(),
        Verdict::Keep(bitmap) => {
            assert_eq!(bitmap.len(), records.len().div_ceil(8));
            let bit = |index: usize| bitmap[index / 8] >> (index % 8) & 1;
            let kept = records.iter().enumerate().map(|(index, record)| match bit(index) {
                1 => became(std::slice::from_ref(record)),
                _ => became(&[]),
            });
            kept.collect()
        }
        Verdict::Rewrite { counts, records: bytes } => {
            let decoded: Vec<_> = RecordIter::new(&bytes)
                .map(|view| Record::decoded(&view.unwrap()))
                .collect();
            let mut rest = decoded.as_slice();
            assert_eq!(counts.len(), records.len());
            let fates = counts.iter().map(|&count| {
                let (own, others) = rest.split_at(count as usize);
                rest = others;
                became(own)
            });
            let fates = fates.collect();
            assert!(rest.is_empty(), "there are more records than the counts say");
            fates
        }
    }
}

impl Record {
    fn described(json: &Value, base_timestamp: i64) -> Record {
        let headers = json["headers"].as_array().unwrap().iter();
        Record {
            timestamp_delta: json["timestamp"].as_i64().unwrap() - base_timestamp,
            key: hex(&json["key_hex"]),
            value: hex(&json["value_hex"]),
            headers: headers
                .map(|header| (header["key"].as_str().unwrap().to_owned(), hex(&header["value_hex"])))
                .collect(),
        }
    }

    fn decoded(view: &millstream_batch::RecordView<'_>) -> Record {
        let owned = |part: &[u8]| part.to_vec();
        Record {
            timestamp_delta: view.timestamp_delta,
            key: view.key.map(owned),
            value: view.value.map(owned),
            headers: view
                .headers()
                .map(|(name, value)| (name.to_owned(), value.map(owned)))
                .collect(),
        }
    }
}

/// What a module said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Heard {
    logs: Vec<(u64, String)>,
    counters: BTreeMap<String, u64>,
}

impl Heard {
    fn wanted(outcome: &Value) -> Heard {
        let logs = outcome["logs"].as_array().into_iter().flatten();
        let counters = outcome["counters"].as_object().into_iter().flatten();
        Heard {
            logs: logs
                .map(|log| (log["level"].as_u64().unwrap(), log["text"].as_str().unwrap().to_owned()))
                .collect(),
            counters: counters
                .map(|(name, by)| (name.clone(), by.as_u64().unwrap()))
                .collect(),
        }
    }
}

#[derive(Default)]
struct Listener(Mutex<Heard>);

impl Observer for Listener {
    fn log(&self, level: Level, line: &str) {
        self.0.lock().unwrap().logs.push((level as u64, line.to_owned()));
    }

    fn count(&self, name: &str, by: u64) {
        *self.0.lock().unwrap().counters.entry(name.to_owned()).or_default() += by;
    }
}

fn numbers(json: &Value) -> Vec<u32> {
    let numbers = json.as_array().unwrap().iter();
    numbers.map(|number| number.as_u64().unwrap() as u32).collect()
}

/// The bytes of a text of hexadecimal digits; none for null.
fn hex(json: &Value) -> Option<Vec<u8>> {
    let digits = json.as_str()?.as_bytes().chunks_exact(2);
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    Some(digits.map(byte).collect())
}
