//! Sends a thousand records, and waits until all of them are on stable storage.
//!
//! ```console
//! $ cargo run -p millstream-examples --example produce -- http://127.0.0.1:7070
//! ```

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millstream_client::{Connection, NewRecord, Producer, ProducerSettings};
use millstream_examples::{TOPIC, server};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let connection = Connection::open(&server()).await?;
    // Records that come within five milliseconds of each other travel together.
    let settings = ProducerSettings {
        linger: Duration::from_millis(5),
        ..ProducerSettings::default()
    };
    let producer = Producer::open(&connection, TOPIC, settings).await?;

    for number in 0..1_000 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let (key, value) = (
            format!("guest-{}", number % 7),
            format!("hello for the {number}th time"),
        );
        let record = NewRecord {
            // Records of one key go to one partition, and stay in their order.
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            timestamp_ms: now.as_millis() as i64,
            ..NewRecord::default()
        };
        // Waits where the buffer is full. What comes back tells of this record, once it is stored.
        let delivery = producer.send(record).await?;
        if number == 0 {
            let delivered = delivery.await?;
            println!(
                "the first is in partition {} at offset {:?}",
                delivered.partition, delivered.offset
            );
        }
    }

    // An error here says which records were not acknowledged.
    let totals = producer.close().await?;
    println!(
        "{} records acknowledged in {} batches",
        totals.acknowledged, totals.batches
    );
    Ok(())
}
