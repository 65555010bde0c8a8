//! Reads the topic as a member of a group: start it twice, and the two share the partitions. Ctrl-C leaves the group, and the
//! next start goes on where it was.
//!
//! ```console
//! $ cargo run -p millstream-examples --example group -- http://127.0.0.1:7070
//! ```

use std::time::Duration;

use futures::StreamExt;
use millstream_client::{Connection, Consumed, GroupConsumer, GroupConsumerSettings, GroupSettings};
use millstream_examples::{TOPIC, server};

/// How often to commit what was worked on.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let connection = Connection::open(&server()).await?;
    let settings = GroupConsumerSettings {
        group: GroupSettings {
            client_id: format!("example {}", std::process::id()),
            ..GroupSettings::default()
        },
        // What was worked on is committed so often, and before a partition goes to another member: a record may come twice
        // after a crash, and none is left out.
        auto_commit: Some(COMMIT_INTERVAL),
        ..GroupConsumerSettings::default()
    };
    let mut consumer = GroupConsumer::join(&connection, "greeters", &[TOPIC], settings).await?;

    loop {
        tokio::select! {
            consumed = consumer.next() => {
                let Some(consumed) = consumed.transpose()? else { break };
                greet(&consumed);
            }
            signal = tokio::signal::ctrl_c() => {
                signal?;
                break;
            }
        }
    }

    // It commits once more, and others take over at once; dropped without it they wait for the session to end.
    consumer.close().await?;
    Ok(())
}

fn greet(consumed: &Consumed) {
    let value = String::from_utf8_lossy(consumed.record.value.as_deref().unwrap_or_default());
    println!("{}/{} {value}", consumed.partition, consumed.record.offset);
}
