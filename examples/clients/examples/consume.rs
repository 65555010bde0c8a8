//! Prints what is in the topic from its beginning, then whatever comes, until Ctrl-C.
//!
//! ```console
//! $ cargo run -p millstream-examples --example consume -- http://127.0.0.1:7070
//! ```

use futures::StreamExt;
use millstream_client::{Connection, Consumer, ConsumerSettings, Start};
use millstream_examples::{TOPIC, server};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let connection = Connection::open(&server()).await?;
    let mut consumer =
        Consumer::open_topics(&connection, &[TOPIC], Start::Earliest, ConsumerSettings::default()).await?;

    loop {
        tokio::select! {
            consumed = consumer.next() => {
                let Some(consumed) = consumed.transpose()? else { break };
                let value = String::from_utf8_lossy(consumed.record.value.as_deref().unwrap_or_default()).into_owned();
                let position = consumer.position(&consumed.topic, consumed.partition);
                let lag = position.map_or(0, |position| position.lag());
                println!("{}/{} {value} (lag {lag})", consumed.partition, consumed.record.offset);
            }
            signal = tokio::signal::ctrl_c() => {
                signal?;
                break;
            }
        }
    }
    Ok(())
}
