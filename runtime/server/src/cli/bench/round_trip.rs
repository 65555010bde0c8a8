//! From the producer to a reader that waits: single records at a rate, as a service sends them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::try_join;
use millstream_client::{Connection, Consumer, ConsumerSettings, Delivery, NewRecord, Producer, Start};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::{Bench, consuming::Check, latencies::Latencies, report::Figures, server, settings::Settings};

/// Deliveries that are waited for.
const DELIVERIES_MAX: usize = 100_000;

/// When each record was sent, in nanoseconds since the beginning, by partition and number.
struct Sends {
    begun: Instant,
    at: Vec<Vec<AtomicU64>>,
}

impl Sends {
    fn new(settings: &Settings) -> Sends {
        let of = |partition| (0..settings.share(partition)).map(|_| AtomicU64::new(0)).collect();
        Sends {
            begun: Instant::now(),
            at: (0..settings.partitions).map(of).collect(),
        }
    }

    fn sent(&self, partition: u32, number: u64) {
        let at = self.begun.elapsed().as_nanos() as u64;
        self.at[partition as usize][number as usize].store(at, Ordering::Release);
    }

    /// How long ago.
    fn since(&self, partition: u32, number: u64) -> Duration {
        let sent = self.at[partition as usize][number as usize].load(Ordering::Acquire);
        self.begun.elapsed().saturating_sub(Duration::from_nanos(sent))
    }
}

/// Sends and reads all records.
pub async fn run(bench: &Bench) -> anyhow::Result<Figures> {
    let settings = &bench.settings;
    let sends = Arc::new(Sends::new(settings));
    let (sender, reader) = (bench.connect().await?, bench.connect().await?);
    let mut consumer =
        Consumer::open_topics(&reader, &[&bench.topic], Start::Earliest, ConsumerSettings::default()).await?;
    let before = server::ask(&settings.metrics).await;
    let started = Instant::now();
    let reading = read(&mut consumer, settings, &sends);
    let (acknowledged, received) = try_join(send(sender, &bench.topic, settings, &sends), reading).await?;
    let elapsed = started.elapsed();
    let after = server::ask(&settings.metrics).await;
    let bytes = settings.records * settings.value_bytes as u64;
    Ok(Figures::new("end to end", elapsed, (before, after))
        .records(settings.records, bytes)
        .latencies("to the acknowledgement", &acknowledged)
        .latencies("to the reader", &received))
}

async fn send(connection: Connection, topic: &str, settings: &Settings, sends: &Sends) -> anyhow::Result<Latencies> {
    let producer = Producer::open(&connection, topic, settings.producer()).await?;
    let (underway, answers) = mpsc::channel(DELIVERIES_MAX);
    let sending = async move {
        let rate = settings.rate.unwrap_or(1);
        let mut ticks = interval(Duration::from_secs_f64(1.0 / rate as f64));
        // A sender that was late catches up: what waited counts as waiting.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut room = Vec::new();
        for number in 0..settings.records {
            ticks.tick().await;
            let partition = (number % u64::from(settings.partitions)) as u32;
            let number = number / u64::from(settings.partitions);
            let record = NewRecord {
                partition: Some(partition),
                value: Some(settings.values.get(number, &mut room)),
                ..NewRecord::default()
            };
            sends.sent(partition, number);
            let delivery = producer.send(record).await?;
            underway.send((partition, number, delivery)).await?;
        }
        anyhow::Ok(producer)
    };
    let (producer, latencies) = try_join(sending, wait_for(answers, sends)).await?;
    producer.close().await?;
    Ok(latencies)
}

async fn wait_for(mut answers: mpsc::Receiver<(u32, u64, Delivery)>, sends: &Sends) -> anyhow::Result<Latencies> {
    let mut latencies = Latencies::default();
    while let Some((partition, number, delivery)) = answers.recv().await {
        delivery.await?;
        latencies.add(sends.since(partition, number));
    }
    Ok(latencies)
}

async fn read(consumer: &mut Consumer, settings: &Settings, sends: &Sends) -> anyhow::Result<Latencies> {
    let (mut check, mut latencies) = (Check::new(settings), Latencies::default());
    while check.left() > 0 {
        let fetched = consumer.next_batches().await?;
        let partition = fetched.partition;
        let first = check.next(partition);
        check.batches(partition, fetched.batches)?;
        (first..check.next(partition)).for_each(|number| latencies.add(sends.since(partition, number)));
    }
    Ok(latencies)
}
