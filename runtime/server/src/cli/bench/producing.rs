//! Sending: each producer makes batches for its partitions in turn, and waits only where its buffer is full or it is early.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures::future::try_join_all;
use indicatif::ProgressBar;
use millstream_batch::BatchBuilder;
use millstream_client::{BatchDelivery, Connection, Producer};
use tokio::{sync::mpsc, time::sleep_until};

use super::{Bench, latencies::Latencies, report::Figures, server, settings::Settings};

/// At a rate, batches go out so often.
const TICK: Duration = Duration::from_millis(1);
/// What goes around a record, about: lengths, deltas and the count of headers.
const RECORD_OVERHEAD_BYTES: usize = 10;
/// Room that a batch has beyond that.
const RECORDS_SPARE_BYTES: usize = 16 << 10;
/// Batches of a producer whose answers are waited for. Its buffer is full long before.
const ANSWERS_MAX: usize = 100_000;

/// Sends all records, and waits until all are acknowledged.
pub async fn run(bench: &Bench, topic: &str) -> anyhow::Result<Figures> {
    let settings = &bench.settings;
    let bar = super::report::bar(settings.records, "produced");
    let mut sends = Vec::new();
    for producer in 0..settings.producers {
        let connection = bench.connect().await?;
        sends.push(send(connection, topic, settings, producer, &bar));
    }
    let before = server::ask(&settings.metrics).await;
    let started = Instant::now();
    let sent = try_join_all(sends).await?;
    let elapsed = started.elapsed();
    let after = server::ask(&settings.metrics).await;
    bar.finish_and_clear();
    let mut latencies = Latencies::default();
    sent.iter().for_each(|sent| latencies.add_all(&sent.latencies));
    Ok(Figures::new("produced", elapsed, (before, after))
        .records(
            sent.iter().map(|sent| sent.records).sum(),
            sent.iter().map(|sent| sent.bytes).sum(),
        )
        .latencies("to the acknowledgement of a batch", &latencies))
}

/// What one producer has sent.
#[derive(Default)]
struct Sent {
    records: u64,
    /// Of values.
    bytes: u64,
    latencies: Latencies,
}

/// A batch that is not answered yet.
struct Underway {
    delivery: BatchDelivery,
    since: Instant,
    records: u64,
}

async fn send(
    connection: Connection,
    topic: &str,
    settings: &Settings,
    number: u32,
    bar: &ProgressBar,
) -> anyhow::Result<Sent> {
    let producer = Producer::open(&connection, topic, settings.producer()).await?;
    let (underway, answers) = mpsc::channel(ANSWERS_MAX);
    let sending = async {
        let sent = send_batches(&producer, settings, number, &underway).await;
        drop(underway);
        sent
    };
    let (bytes, answered) = futures::join!(sending, wait_for_answers(answers, bar));
    let answered = answered?;
    Ok(Sent {
        bytes: bytes?,
        ..answered
    })
}

/// Sends this producer's share; gives the bytes of the values.
async fn send_batches(
    producer: &Producer,
    settings: &Settings,
    number: u32,
    underway: &mpsc::Sender<Underway>,
) -> anyhow::Result<u64> {
    let own = (number..settings.partitions).step_by(settings.producers as usize);
    // By partition: the next record, and how many there are.
    let mut left: BTreeMap<u32, (u64, u64)> = own
        .map(|partition| (partition, (0, settings.share(partition))))
        .collect();
    let mut pace = Pace::new(settings);
    let mut batch = Batches::new(settings);
    let mut bytes = 0;
    while !left.is_empty() {
        for (partition, (next, end)) in &mut left {
            let count = pace.wait_for(batch.records_max.min(*end - *next)).await;
            let (encoded, value_bytes) = batch.build(*next, count);
            bytes += value_bytes;
            *next += count;
            let since = Instant::now();
            let delivery = producer.send_batch(*partition, encoded).await?;
            let sent = Underway {
                delivery,
                since,
                records: count,
            };
            underway.send(sent).await?;
        }
        left.retain(|_, (next, end)| next < end);
    }
    producer.dispatch();
    Ok(bytes)
}

/// Answers of one partition come in order, those of several nearly so: waiting for them one by one costs no time.
async fn wait_for_answers(mut answers: mpsc::Receiver<Underway>, bar: &ProgressBar) -> anyhow::Result<Sent> {
    let mut sent = Sent::default();
    while let Some(underway) = answers.recv().await {
        underway.delivery.await?;
        sent.latencies.add(underway.since.elapsed());
        sent.records += underway.records;
        bar.inc(underway.records);
    }
    Ok(sent)
}

/// Makes batches.
struct Batches<'a> {
    settings: &'a Settings,
    records_max: u64,
    room: Vec<u8>,
}

impl<'a> Batches<'a> {
    fn new(settings: &'a Settings) -> Batches<'a> {
        let record_bytes = settings.value_bytes + RECORD_OVERHEAD_BYTES;
        Batches {
            settings,
            records_max: (settings.batch_bytes / record_bytes).max(1) as u64,
            room: Vec::new(),
        }
    }

    fn build(&mut self, first: u64, count: u64) -> (millstream_batch::Batch, u64) {
        let timestamp_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as i64);
        let record_bytes = self.settings.value_bytes + RECORD_OVERHEAD_BYTES;
        let room = count as usize * record_bytes + RECORDS_SPARE_BYTES;
        let (mut builder, mut bytes) = (BatchBuilder::with_capacity(room), 0);
        for number in first..first + count {
            let value = self.settings.values.get(number, &mut self.room);
            bytes += value.len() as u64;
            builder.push(timestamp_ms, None, Some(value), [].into_iter());
        }
        (builder.build(self.settings.compression.into()), bytes)
    }
}

/// Keeps a producer to its share of the rate.
struct Pace {
    started: tokio::time::Instant,
    per_second: Option<f64>,
    sent: u64,
}

impl Pace {
    fn new(settings: &Settings) -> Pace {
        Pace {
            started: tokio::time::Instant::now(),
            per_second: settings.rate.map(|rate| rate as f64 / f64::from(settings.producers)),
            sent: 0,
        }
    }

    /// How many records may go now, of so many; waits until there is one at least.
    async fn wait_for(&mut self, wanted: u64) -> u64 {
        let Some(per_second) = self.per_second else {
            return wanted;
        };
        loop {
            let due = (self.started.elapsed().as_secs_f64() * per_second) as u64;
            let may = due.saturating_sub(self.sent).min(wanted);
            if may > 0 {
                self.sent += may;
                return may;
            }
            sleep_until(tokio::time::Instant::now() + TICK).await;
        }
    }
}
