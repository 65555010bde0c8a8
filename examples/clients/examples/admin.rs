//! Makes the topic of the other two programs, where it is not there yet, and shows what an agent has.
//!
//! ```console
//! $ cargo run -p millstream-examples --example admin -- http://127.0.0.1:7070
//! ```

use millstream_client::{Admin, Code, Connection, v1};
use millstream_examples::{TOPIC, server};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let connection = Connection::open(&server()).await?;
    let admin = Admin::new(&connection);

    let config = v1::TopicConfig {
        retention_ms: Some(3_600_000),
        compression: v1::Compression::Zstd.into(),
        ..v1::TopicConfig::default()
    };
    match admin.create_topic(TOPIC, 3, config).await {
        Ok(topic) => println!("made topic {} with {} partitions", topic.name, topic.partitions),
        // Errors have a gRPC code, a reason for programs and a message for people.
        Err(error) if error.code() == Some(Code::AlreadyExists) => println!("{error}"),
        Err(error) => return Err(error.into()),
    }

    for topic in admin.topics().await? {
        let status = admin.topic_status(&topic.name, false).await?;
        for partition in status.partitions {
            println!(
                "{}/{}: offsets {} to {}",
                topic.name, partition.partition, partition.log_start_offset, partition.high_watermark
            );
        }
    }
    for module in admin.modules().await? {
        println!("module {} version {}: {}", module.name, module.version, module.summary);
    }
    Ok(())
}
