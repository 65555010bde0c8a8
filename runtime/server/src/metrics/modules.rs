//! Figures of modules: by topic, side, module, version and stage. The stage is its id in the pipeline: two stages of one module
//! are told apart, and a series goes on when its stage is moved.

use std::fmt;

use millstream_broker::{Broker, StageFigures};
use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

/// Name, what it is, and how it is taken.
type StageFigure = (&'static str, &'static str, fn(&StageFigures) -> u64);

/// What only goes up. The format adds `_total` to their names.
const COUNTERS: [StageFigure; 11] = [
    ("module_batches", "Batches given to a module", |stage| stage.batches),
    (
        "module_failed_batches",
        "Batches of which more than half failed by the module's fault",
        |stage| stage.failed_batches,
    ),
    ("module_records_in", "Records given to a module", |stage| {
        stage.records_in
    }),
    ("module_records_out", "Records that came of them", |stage| {
        stage.records_out
    }),
    ("module_rejected", "Records that a module refused", |stage| {
        stage.rejected
    }),
    ("module_failed", "Records that a module failed on", |stage| stage.failed),
    (
        "module_skipped",
        "Records left out because a module refused them or failed on them",
        |stage| stage.skipped,
    ),
    ("module_dead_lettered", "Records sent to a dead-letter topic", |stage| {
        stage.dead_lettered
    }),
    (
        "module_passed",
        "Records that went on as they came, because of a failure or an open breaker",
        |stage| stage.passed,
    ),
    (
        "module_shadow_differences",
        "Records that came out differently of a version that ran beside the one in force",
        |stage| stage.shadow_differences,
    ),
    (
        "module_log_lines_dropped",
        "Log lines of a module that were too many",
        |stage| stage.log_lines_dropped,
    ),
];

type Labels = [(&'static str, String); 5];

fn labels(stage: &StageFigures) -> Labels {
    [
        ("topic", stage.topic.clone()),
        ("side", stage.side.to_string()),
        ("module", stage.module.clone()),
        ("version", stage.version.to_string()),
        ("stage", stage.stage.to_string()),
    ]
}

/// All of them.
pub(super) fn encode(broker: &Broker, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let stages: Vec<_> = broker
        .stage_figures()
        .into_iter()
        .map(|stage| (labels(&stage), stage))
        .collect();
    for (name, help, value) in COUNTERS {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, stage) in &stages {
            ConstCounter::new(value(stage)).encode(family.encode_family(labels)?)?;
        }
    }
    let (name, help) = ("module_cpu_seconds", "CPU time of a module");
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, stage) in &stages {
        ConstCounter::new(stage.cpu.as_secs_f64()).encode(family.encode_family(labels)?)?;
    }
    let (name, help) = ("module_seconds", "How long a batch took in a module");
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (labels, stage) in &stages {
        stage.seconds.encode(family.encode_family(labels)?)?;
    }
    let (name, help) = ("module_breakers_open", "Partitions on which a module is left alone");
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, stage) in &stages {
        ConstGauge::new(stage.breakers.len() as u64).encode(family.encode_family(labels)?)?;
    }
    let (name, help) = ("module_counter", "What modules count themselves");
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, stage) in &stages {
        for (counter, count) in &stage.counters {
            let mut labels = labels.to_vec();
            labels.push(("name", counter.clone()));
            ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
        }
    }
    encode_memory(broker, encoder)
}

/// What all instances hold together.
fn encode_memory(broker: &Broker, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let memory = broker.guest_memory();
    let gauges = [
        ("module_memory_bytes", "Memory of all module instances", memory.bytes),
        (
            "module_memory_bytes_max",
            "Bound on module_memory_bytes; at it idle instances are given up",
            memory.bytes_max,
        ),
        ("module_instances", "Module instances", memory.instances),
        (
            "module_instances_max",
            "Bound on module_instances",
            memory.instances_max,
        ),
    ];
    for (name, help, value) in gauges {
        let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value as u64).encode(metric)?;
    }
    let help = "Idle module instances that were given up for others";
    let metric = encoder.encode_descriptor("module_instances_evicted", help, None, MetricType::Counter)?;
    ConstCounter::new(memory.evicted).encode(metric)
}
