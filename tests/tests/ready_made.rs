//! The ready-made modules in the broker's own engine, each with the example of its README.

use std::fs;
use std::sync::Arc;

use millstream_guest::testing::{Sample, decode, encode};
use millstream_tests::{modules, workspace};
use millstream_wasm::{Engine, Input, Limits, Module, Outcome, Runner, StageContext, Unheard, Verdict};

/// A module does not grow beyond it unnoticed: compiling takes the longer the more there is.
const COMPONENT_BYTES_MAX: usize = 1 << 20;

/// When the records of the examples were made.
const TIMESTAMP_MS: i64 = 1_767_225_600_000;

struct Example {
    module: &'static str,
    params: &'static [(&'static str, &'static str)],
    values: &'static [&'static str],
    /// What a consumer gets.
    expected: &'static [&'static str],
    /// Which records are refused, and why.
    refused: &'static [(u32, &'static str)],
}

const EXAMPLES: [Example; 7] = [
    Example {
        module: "json-filter",
        params: &[(
            "where",
            r#"$.level = "error" and ($.service ~ "^api" or exists $.trace)"#,
        )],
        values: &[
            r#"{"level":"error","service":"api-7","took_ms":31}"#,
            r#"{"level":"info","service":"api-7","took_ms":2}"#,
            r#"{"level":"error","service":"worker"}"#,
            r#"{"level":"error","service":"worker","trace":"9f3"}"#,
        ],
        expected: &[
            r#"{"level":"error","service":"api-7","took_ms":31}"#,
            r#"{"level":"error","service":"worker","trace":"9f3"}"#,
        ],
        refused: &[],
    },
    Example {
        module: "json-map",
        params: &[
            ("select", "$.id,$.items[*].sku"),
            ("rename", "$.id=order"),
            ("set", r#"$.email=$.customer.mail,$.source="shop",$.at=timestamp"#),
        ],
        values: &[r#"{"id": 7, "customer": {"mail": "bob@x.org"}, "items": [{"sku": "a", "cost": 1.50}]}"#],
        expected: &[r#"{"order":7,"items":[{"sku":"a"}],"email":"bob@x.org","source":"shop","at":1767225600000}"#],
        refused: &[],
    },
    Example {
        module: "redact",
        params: &[("fields", "$.customer.email,$.card")],
        values: &[r#"{"id": 7, "customer": {"email": "bob@x.org"}, "card": 4111111111111111}"#],
        expected: &[r#"{"id": 7, "customer": {"email": "***"}, "card": "***"}"#],
        refused: &[],
    },
    Example {
        module: "json-schema",
        params: &[(
            "schema",
            r#"{"type":"object","required":["id","items"],"properties":{"id":{"type":"integer"},"items":{"type":"array","items":{"properties":{"price":{"type":"number","minimum":0}}}}}}"#,
        )],
        values: &[
            r#"{"id":1,"items":[{"price":9.5}]}"#,
            r#"{"id":2,"items":[{"price":1},{"price":-1}]}"#,
        ],
        expected: &[r#"{"id":1,"items":[{"price":9.5}]}"#],
        refused: &[(1, "/items/1/price: must be at least 0 (minimum)")],
    },
    Example {
        module: "csv-to-json",
        params: &[("columns", "time,host,load"), ("types", "infer")],
        values: &[
            "time,host,load",
            r#"2026-01-01T00:00:00Z,"web, eu",0.75"#,
            "2026-01-01T00:00:01Z,db-1,",
        ],
        expected: &[
            r#"{"time":"2026-01-01T00:00:00Z","host":"web, eu","load":0.75}"#,
            r#"{"time":"2026-01-01T00:00:01Z","host":"db-1","load":null}"#,
        ],
        refused: &[],
    },
    Example {
        module: "split",
        params: &[("path", "$.items")],
        values: &[r#"{"order": 7, "items": [{"sku": "a"}, {"sku": "b"}]}"#],
        expected: &[r#"{"sku": "a"}"#, r#"{"sku": "b"}"#],
        refused: &[],
    },
    Example {
        module: "access-log",
        params: &[],
        values: &[
            r#"83.149.9.216 - - [17/May/2015:10:05:03 +0000] "GET /a.png HTTP/1.1" 200 203023 "http://x.org/" "Mozilla/5.0""#,
        ],
        expected: &[
            r#"{"client":"83.149.9.216","time":"2015-05-17T10:05:03Z","method":"GET","path":"/a.png","protocol":"HTTP/1.1","status":200,"bytes":203023,"referrer":"http://x.org/","agent":"Mozilla/5.0"}"#,
        ],
        refused: &[],
    },
];

/// A stage of the module, as the broker would run it on produce.
fn stage(engine: &Engine, module: &str, params: &[(&str, &str)]) -> Runner {
    let component = modules::component(module);
    assert!(
        component.len() <= COMPONENT_BYTES_MAX,
        "{module} has {} bytes",
        component.len()
    );
    let module = Module::compile(engine, &component).unwrap();
    let context = StageContext {
        topic: "t".to_owned(),
        on_fetch: false,
    };
    let params = params.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
    let params: Vec<_> = params.collect();
    Runner::new(engine, module, Limits::default(), context, params, Arc::new(Unheard))
}

fn samples<'v>(values: impl IntoIterator<Item = &'v str>) -> Vec<Sample> {
    values
        .into_iter()
        .map(|value| Sample::value(value).at_ms(TIMESTAMP_MS))
        .collect()
}

/// What the records become, and what the engine says of them.
fn run(stage: &mut Runner, samples: &[Sample]) -> (Vec<Sample>, Outcome) {
    let records = encode(samples, TIMESTAMP_MS);
    let input = Input {
        partition: 0,
        first_offset: None,
        append_time_ms: TIMESTAMP_MS,
        base_timestamp_ms: TIMESTAMP_MS,
        count: samples.len() as u32,
        records: &records,
    };
    let outcome = stage.process(input).unwrap();
    let mut left = Vec::new();
    for piece in &outcome.pieces {
        let came = decode(&records[piece.records.clone()], TIMESTAMP_MS);
        match &piece.verdict {
            Verdict::Unchanged => left.extend(came),
            Verdict::Keep(bitmap) => {
                let kept = |&(index, _): &(usize, Sample)| bitmap[index / 8] >> (index % 8) & 1 == 1;
                left.extend(came.into_iter().enumerate().filter(kept).map(|(_, sample)| sample));
            }
            Verdict::Rewrite { records, .. } => left.extend(decode(records, TIMESTAMP_MS)),
        }
    }
    (left, outcome)
}

fn readme(module: &str) -> String {
    fs::read_to_string(workspace().join("modules").join(module).join("README.md")).unwrap()
}

#[test]
fn the_engine_does_what_each_readme_shows() {
    let engine = Engine::new().unwrap();
    for example in &EXAMPLES {
        let module = example.module;
        let mut stage = stage(&engine, module, example.params);
        let (left, outcome) = run(&mut stage, &samples(example.values.iter().copied()));
        let left: Vec<String> = left.iter().map(Sample::text).collect();
        assert_eq!(left, example.expected, "{module}");
        let refused: Vec<(u32, &str)> = outcome
            .rejects
            .iter()
            .map(|reject| (reject.index, &*reject.reason))
            .collect();
        assert_eq!(refused, example.refused, "{module}");

        let readme = readme(module);
        let reasons = example.refused.iter().map(|(_, reason)| reason);
        let params = example.params.iter().map(|(_, value)| value);
        for shown in example
            .values
            .iter()
            .chain(example.expected)
            .chain(reasons)
            .chain(params)
        {
            assert!(readme.contains(shown), "the README of {module} does not show {shown}");
        }
    }
}

#[test]
fn a_sample_is_the_same_in_the_engine_and_in_its_readme() {
    let engine = Engine::new().unwrap();
    let mut stage = stage(&engine, "sample", &[("percent", "10")]);
    let users: Vec<String> = (1..=40).map(|n| format!("user-{n}")).collect();
    let (left, _) = run(&mut stage, &samples(users.iter().map(String::as_str)));
    let left: Vec<String> = left.iter().map(Sample::text).collect();
    assert!(
        readme("sample").contains(&format!("\n{}\n```", left.join("\n"))),
        "{left:?}"
    );
}

#[test]
fn a_wrong_parameter_is_refused_by_the_engine_with_its_place() {
    let engine = Engine::new().unwrap();
    let wrong = [
        (
            "json-filter",
            ("where", "($.a = 1"),
            "expected and, or, or ) at character 9",
        ),
        ("json-map", ("set", "$.a"), "expected = at character 4"),
        (
            "json-schema",
            ("schema", r#"{"typ":1}"#),
            "#/typ: this module does not know the keyword",
        ),
        ("split", ("path", "$."), "expected a name at character 3"),
        ("sample", ("percent", "101"), "101 is not from 0 to 100"),
    ];
    for (module, param, why) in wrong {
        let error = stage(&engine, module, &[param]).prepare().unwrap_err().to_string();
        assert!(error.contains(why), "{module}: {error}");
    }
}
