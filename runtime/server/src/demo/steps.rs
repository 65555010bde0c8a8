//! The steps of the demonstration, each through the gRPC client: modules, topics and pipelines, records in, records out.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::Bytes;
use indicatif::{BinaryBytes, HumanCount, ProgressBar};
use millstream_client::{
    Admin, ClientError, Connection, Consumer, ConsumerSettings, NewRecord, ProduceError, Producer, ProducerSettings,
    Record, Start, TopicStatus, Totals,
};
use tokio::task;

use super::{
    check::Plan,
    report::{Narrator, Row},
    topics::{DemoTopic, MODULES, TOPICS},
};

/// How often the bar moves.
const BAR_RECORDS: u64 = 1_000;
/// Encoded bytes of one answer.
const FETCH_BYTES: u32 = 4 << 20;

/// A component and the name that it is deployed under.
pub type NamedComponent = (&'static str, Bytes);

/// Reads the components of the modules from a folder.
pub async fn read_modules(dir: &Path) -> anyhow::Result<Vec<NamedComponent>> {
    let mut modules = Vec::new();
    for name in MODULES {
        let path = dir.join(format!("{name}.wasm"));
        let component = tokio::fs::read(&path).await.with_context(|| {
            let path = path.display();
            format!("cannot read {path}, which `millstream module build modules/{name} -o {path}` makes")
        })?;
        modules.push((name, component.into()));
    }
    Ok(modules)
}

/// Goes through an agent.
pub struct Steps {
    connection: Connection,
    admin: Admin,
    narrator: Narrator,
    scale: u64,
}

impl Steps {
    /// Steps at a scale in percent.
    pub fn new(connection: Connection, narrator: Narrator, scale: u64) -> Steps {
        Steps {
            admin: Admin::new(&connection),
            connection,
            narrator,
            scale,
        }
    }

    /// Does all of them, and moves the bar along with the records that are sent. A row for each topic.
    pub async fn run(&self, modules: Vec<NamedComponent>, bar: &ProgressBar) -> anyhow::Result<Vec<Row>> {
        for (name, component) in modules {
            self.deploy(name, component).await?;
        }
        for topic in &TOPICS {
            self.create(topic).await?;
        }
        self.narrator.say("Producing")?;
        let mut produced = Vec::new();
        for topic in &TOPICS {
            produced.push(self.produce(topic, bar).await?);
        }
        bar.finish_and_clear();
        self.narrator.say("Reading back and checking")?;
        let mut rows = Vec::new();
        for (topic, (totals, elapsed)) in TOPICS.iter().zip(produced) {
            rows.push(self.verify(topic, totals, elapsed).await?);
        }
        Ok(rows)
    }

    async fn deploy(&self, name: &str, component: Bytes) -> anyhow::Result<()> {
        let (module, _) = self.admin.deploy_module(name, component).await?;
        self.say(&format!(
            "module {:<13} version {}, {}: {}",
            module.name,
            module.version,
            BinaryBytes(module.size_bytes),
            module.summary
        ))
    }

    async fn create(&self, topic: &DemoTopic) -> anyhow::Result<()> {
        let DemoTopic {
            name,
            stage,
            partitions,
            ..
        } = topic;
        self.admin.create_topic(name, *partitions, topic.config()).await?;
        self.admin.add_stage(name, stage.side, stage.request()).await?;
        let params: Vec<_> = stage
            .params
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        self.say(&format!(
            "topic  {name:<13} {partitions} partitions, kept {} h; {} on {}: {}",
            topic.retention_hours,
            stage.module,
            stage.side_name(),
            params.join(" ")
        ))
    }

    /// Sends a topic's records and waits until all are acknowledged.
    async fn produce(&self, topic: &DemoTopic, bar: &ProgressBar) -> anyhow::Result<(Totals, Duration)> {
        let records = topic.records_at(self.scale);
        bar.set_message(topic.name);
        let started = Instant::now();
        let totals = self
            .send(topic, records, bar)
            .await
            .with_context(|| format!("producing to {}", topic.name))?;
        let elapsed = started.elapsed();
        let line = format!(
            "{:<13} {} records in {} requests, {:.1} s",
            topic.name,
            HumanCount(records),
            HumanCount(totals.batches),
            elapsed.as_secs_f64()
        );
        bar.suspend(|| self.say(&line))?;
        Ok((totals, elapsed))
    }

    async fn send(&self, topic: &DemoTopic, records: u64, bar: &ProgressBar) -> anyhow::Result<Totals> {
        let settings = ProducerSettings {
            stop_at_failure: true,
            ..ProducerSettings::default()
        };
        let producer = Producer::open(&self.connection, topic.name, settings).await?;
        for seq in 0..records {
            let sample = topic.shape.sample(seq);
            let record = NewRecord {
                timestamp_ms: sample.timestamp_ms,
                key: sample.key.as_deref().map(str::as_bytes),
                value: Some(sample.value.as_bytes()),
                ..NewRecord::default()
            };
            if producer.send(record).await.is_err() {
                break; // The end says why.
            }
            if (seq + 1) % BAR_RECORDS == 0 {
                bar.inc(BAR_RECORDS);
            }
        }
        producer.close().await.map_err(refused)
    }

    /// Reads everything back from segments and compares it.
    async fn verify(&self, topic: &'static DemoTopic, totals: Totals, produce: Duration) -> anyhow::Result<Row> {
        let status = self.admin.topic_status(topic.name, true).await?;
        let records = topic.records_at(self.scale);

        let started = Instant::now();
        let read = self.read(&status).await?;
        let fetch = started.elapsed();

        let checked = task::spawn_blocking(move || {
            let plan = Plan::new(topic, records);
            plan.check_totals(&totals)?;
            plan.check_status(&status)?;
            plan.check_records(&read)?;
            Ok::<_, anyhow::Error>(Row::new(&plan.counts, &status, produce, fetch))
        });
        let row = checked.await??;
        self.say(&format!("{:<13} {}", topic.name, row.summary()))?;
        Ok(row)
    }

    /// All records of all partitions, which are read beside each other.
    async fn read(&self, status: &TopicStatus) -> anyhow::Result<Vec<Vec<Record>>> {
        let readers: Vec<_> = (0..status.topic.partitions)
            .map(|partition| {
                let (connection, topic) = (self.connection.clone(), status.topic.name.clone());
                task::spawn(async move { read_partition(&connection, &topic, partition).await })
            })
            .collect();
        let mut read = Vec::new();
        for reader in readers {
            read.push(reader.await??);
        }
        Ok(read)
    }

    /// Prints a line of a step.
    fn say(&self, line: &str) -> anyhow::Result<()> {
        self.narrator.say(&format!("  {line}"))
    }
}

async fn read_partition(connection: &Connection, topic: &str, partition: u32) -> Result<Vec<Record>, ClientError> {
    let settings = ConsumerSettings {
        max_bytes: FETCH_BYTES,
        ..ConsumerSettings::default()
    };
    let mut consumer = Consumer::open(connection, topic, partition, Start::Earliest, settings).await?;
    let mut records = Vec::new();
    let mut position = consumer.position(topic, partition).unwrap_or_default();
    while position.lag() > 0 {
        records.append(&mut consumer.next_chunk().await?.records);
        position = consumer.position(topic, partition).unwrap_or_default();
    }
    Ok(records)
}

/// A refusal with the first of the records that it refused.
fn refused(error: ProduceError) -> anyhow::Error {
    let reject = error.rejects.first();
    let reject = reject.map_or(String::new(), |reject| {
        format!("; record {}: {}", reject.index, reject.reason)
    });
    anyhow::anyhow!("{}{reject}", error.summary())
}
