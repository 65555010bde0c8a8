//! What `/metrics` shows, held against what `docs/metrics.md` says of it and what the dashboard asks for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use millstream_proto::v1::{self, OnError, PipelineSide};
use millstream_tests::{Agent, Grpc, record, wat, workspace};
use serde_json::Value;

/// What Prometheus itself adds to each series.
const ADDED_LABELS: [&str; 3] = ["instance", "job", "le"];

/// A family of series: its type, and the labels that tell them apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Family {
    kind: String,
    labels: BTreeSet<String>,
}

/// By the name under which a series is found: that of a counter ends with `_total`.
type Families = BTreeMap<String, Family>;

/// What an agent shows that has done something of everything.
async fn scrape() -> Families {
    let agent = Agent::start();
    let grpc = agent.grpc().await;
    grpc.create_topic("t", 1).await.unwrap();
    let counts = wat::Parts {
        imports: r#"(import "millstream:module/host@1.0.0" "count" (func $up (param i32 i32 i64)))"#,
        process: "(call $up (i32.const 3000) (i32.const 4) (i64.const 1)) (i32.const 1024)",
        ..wat::Parts::default()
    };
    grpc.deploy("counts", counts.module()).await.unwrap();
    for side in [PipelineSide::Produce, PipelineSide::Fetch] {
        add_stage(&grpc, side).await;
    }
    grpc.produce("t", 0, vec![record("a"), record("b")]).await.unwrap();
    grpc.partitions("t", true).await.unwrap();
    grpc.read("t", 0, 0).await.unwrap();
    families(&agent.metrics())
}

async fn add_stage(grpc: &Grpc, side: PipelineSide) {
    let stage = v1::Stage {
        module: "counts".to_owned(),
        on_error: OnError::Halt.into(),
        ..v1::Stage::default()
    };
    let request = v1::AddStageRequest {
        topic: "t".to_owned(),
        side: side.into(),
        stage: Some(stage),
        ..v1::AddStageRequest::default()
    };
    grpc.pipelines().add_stage(request).await.unwrap();
}

fn families(text: &str) -> Families {
    let mut families = Families::new();
    for line in text.lines() {
        if let Some(described) = line.strip_prefix("# TYPE ") {
            let (name, kind) = described.split_once(' ').unwrap();
            let name = if kind == "counter" {
                format!("{name}_total")
            } else {
                name.to_owned()
            };
            let family = Family {
                kind: kind.to_owned(),
                labels: BTreeSet::new(),
            };
            assert!(families.insert(name.clone(), family).is_none(), "{name} is there twice");
        } else if !line.starts_with('#') {
            let series = line.rsplit_once(' ').unwrap().0;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let known = if families.contains_key(name) {
                name
            } else {
                family_of(name)
            };
            let family = families.get_mut(known);
            let family = family.unwrap_or_else(|| panic!("{name} has no type"));
            family
                .labels
                .extend(label_names(labels).into_iter().filter(|label| label != "le"));
        }
    }
    families
}

/// The family that a series of a histogram belongs to, or the series itself.
fn family_of(series: &str) -> &str {
    let parts = ["_bucket", "_sum", "_count"];
    parts
        .iter()
        .find_map(|part| series.strip_suffix(part))
        .unwrap_or(series)
}

/// The names in `a="x",b=~"y"`.
fn label_names(labels: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let (mut name, mut in_value) = (String::new(), false);
    for c in labels.chars() {
        match c {
            '"' => in_value = !in_value,
            _ if in_value => {}
            'a'..='z' | '_' => name.push(c),
            _ if name.is_empty() => {}
            _ => drop(names.insert(std::mem::take(&mut name))),
        }
    }
    names
}

/// The rows of the tables of the page: name, type and labels.
fn documented() -> Families {
    let page = fs::read_to_string(workspace().join("docs/metrics.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `millstream_"));
    let rows = rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, name, kind, labels, meaning, _] = cells[..] else {
            panic!("not four cells: {row}");
        };
        assert!(!meaning.is_empty(), "{row}");
        let labels = labels.split(',').map(|label| label.trim().trim_matches('`').to_owned());
        let family = Family {
            kind: kind.to_owned(),
            labels: labels.filter(|label| !label.is_empty()).collect(),
        };
        (name.trim_matches('`').to_owned(), family)
    });
    rows.collect()
}

#[tokio::test]
async fn every_metric_is_documented_and_every_documented_one_exists() {
    let (shown, documented) = (scrape().await, documented());
    for (name, family) in &shown {
        let said = documented.get(name);
        assert_eq!(said, Some(family), "docs/metrics.md about {name}: {shown:#?}");
    }
    let missing: Vec<_> = documented.keys().filter(|name| !shown.contains_key(*name)).collect();
    assert!(missing.is_empty(), "in docs/metrics.md only: {missing:?}");
}

/// Every query of the dashboard.
fn queries(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| queries(value, found)),
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text)
                        if ["expr", "query"].contains(&name.as_str()) && text.contains("millstream_") =>
                    {
                        found.push(text.clone());
                    }
                    other => queries(other, found),
                }
            }
        }
        _ => {}
    }
}

/// Words of a query outside of quotes, each with what follows it.
fn words(query: &str) -> Vec<(&str, &str)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (mut words, mut rest, mut in_value) = (Vec::new(), query, false);
    while let Some(first) = rest.chars().next() {
        let length = if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let (word, behind) = rest.split_at(length);
        in_value ^= first == '"';
        if is_word(first) && !in_value {
            words.push((word, behind));
        }
        rest = behind;
    }
    words
}

/// The labels that a query names: those of `{...}` and those of `by (...)`, of `label_values(..., label)` the last word.
fn labels_of(query: &str) -> BTreeSet<String> {
    let mut labels = BTreeSet::new();
    for (word, behind) in words(query) {
        let behind = behind.trim_start();
        let inside = |open: char, close: char| behind.strip_prefix(open).and_then(|rest| rest.split_once(close));
        if word.starts_with("millstream_")
            && let Some((selectors, _)) = inside('{', '}')
        {
            labels.extend(label_names(selectors));
        }
        if word == "by"
            && let Some((names, _)) = inside('(', ')')
        {
            labels.extend(names.split(',').map(|name| name.trim().to_owned()));
        }
        if word == "label_values"
            && let Some((_, label)) = inside('(', ')').and_then(|(inside, _)| inside.rsplit_once(','))
        {
            labels.insert(label.trim().to_owned());
        }
    }
    labels
}

#[tokio::test]
async fn the_dashboard_asks_for_nothing_that_there_is_not() {
    let dashboard = fs::read_to_string(workspace().join("docs/grafana/millstream.json")).unwrap();
    let (mut found, shown) = (Vec::new(), scrape().await);
    queries(&serde_json::from_str(&dashboard).unwrap(), &mut found);
    assert!(found.len() > 20, "{found:?}");
    for query in found {
        let names = words(&query)
            .into_iter()
            .filter(|(word, _)| word.starts_with("millstream_"));
        let mut known: BTreeSet<String> = ADDED_LABELS.map(str::to_owned).into();
        let mut count = 0;
        for (name, _) in names {
            let histogram = shown.get(family_of(name)).filter(|family| family.kind == "histogram");
            let plain = shown.get(name).filter(|family| family.kind != "histogram");
            let family = histogram
                .or(plain)
                .unwrap_or_else(|| panic!("there is no {name}: {query}"));
            known.extend(family.labels.clone());
            count += 1;
        }
        assert!(count > 0, "{query}");
        let unknown: Vec<_> = labels_of(&query)
            .into_iter()
            .filter(|label| !known.contains(label))
            .collect();
        assert!(unknown.is_empty(), "{unknown:?} are no labels there: {query}");
    }
}

#[test]
fn names_and_labels_of_a_query_are_found() {
    let query = r#"sum by (topic, le) (rate(millstream_x_bucket{result="a,b=c", acks!~"d"}[5m])) / millstream_y"#;
    let names: Vec<_> = words(query).into_iter().map(|(word, _)| word).collect();
    assert!(
        names.contains(&"millstream_x_bucket") && names.contains(&"millstream_y"),
        "{names:?}"
    );
    let labels: Vec<_> = labels_of(r#"sum by (topic, le) (millstream_x{result="a,b", acks!~"d"})"#)
        .into_iter()
        .collect();
    assert_eq!(labels, ["acks", "le", "result", "topic"]);
    let labels: Vec<_> = labels_of("label_values(millstream_topics, instance)")
        .into_iter()
        .collect();
    assert_eq!(labels, ["instance"]);
}
